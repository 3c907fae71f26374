// The definition of a draw in nn/sampler.h, case by case. Its distribution is tested against the reference
// from Python.

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <random>
#include <vector>

#include "check.h"
#include "nn/philox.h"
#include "nn/sampler.h"

namespace {

int draw(const std::vector<float>& logits, float temperature, int top_k, float top_p, float u) {
    csm::SamplerScratch scratch;
    const csm::SamplerSettings settings{temperature, top_p, top_k};
    return csm::sample_code(logits.data(), static_cast<int>(logits.size()), settings, u, scratch);
}

// The logit of a probability.
float l(double p) {
    return static_cast<float>(std::log(p));
}

constexpr float kBelowOne = 1.0f - 0x1.0p-24f;
constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
constexpr float kInf = std::numeric_limits<float>::infinity();

}  // namespace

TEST(zero_temperature_takes_the_largest_and_the_lower_on_ties) {
    CHECK_EQ(draw({1, 3, 2}, 0, 0, 1, 0.99f), 1);
    CHECK_EQ(draw({1, 3, 3, 2}, 0, 0, 1, 0.99f), 1);
    CHECK_EQ(draw({-kInf, -kInf}, 0, 0, 1, 0.99f), 0);
}

TEST(draws_from_the_largest_down) {
    const std::vector<float> logits{l(0.2), l(0.5), l(0.3)};
    CHECK_EQ(draw(logits, 1, 0, 1, 0.0f), 1);
    CHECK_EQ(draw(logits, 1, 0, 1, 0.49f), 1);
    CHECK_EQ(draw(logits, 1, 0, 1, 0.51f), 2);
    CHECK_EQ(draw(logits, 1, 0, 1, 0.79f), 2);
    CHECK_EQ(draw(logits, 1, 0, 1, 0.81f), 0);
    CHECK_EQ(draw(logits, 1, 0, 1, kBelowOne), 0);
}

TEST(equal_logits_come_in_order_of_their_codes) {
    const std::vector<float> logits(4, 7.0f);
    for (int code = 0; code < 4; ++code)
        CHECK_EQ(draw(logits, 1, 0, 1, 0.25f * static_cast<float>(code)), code);
    // Of equal ones at the border of top-k the lower codes stay.
    CHECK_EQ(draw(logits, 1, 2, 1, kBelowOne), 1);
}

TEST(temperature_flattens_and_sharpens) {
    const std::vector<float> logits{l(0.8), l(0.2)};
    // 0.8 and 0.2 to the power of 1/2: 2/3 and 1/3; to the power of 2: 16/17 and 1/17.
    CHECK_EQ(draw(logits, 2, 0, 1, 0.66f), 0);
    CHECK_EQ(draw(logits, 2, 0, 1, 0.67f), 1);
    CHECK_EQ(draw(logits, 0.5f, 0, 1, 0.94f), 0);
    CHECK_EQ(draw(logits, 0.5f, 0, 1, 0.95f), 1);
}

TEST(top_k_keeps_the_k_largest) {
    const std::vector<float> logits{l(0.1), l(0.4), l(0.2), l(0.3)};
    CHECK_EQ(draw(logits, 1, 1, 1, kBelowOne), 1);
    CHECK_EQ(draw(logits, 1, 2, 1, kBelowOne), 3);
    CHECK_EQ(draw(logits, 1, 2, 1, 0.57f), 1);  // 4/7 = 0.571
    CHECK_EQ(draw(logits, 1, 2, 1, 0.58f), 3);
    CHECK_EQ(draw(logits, 1, 99, 1, kBelowOne), 0);
}

TEST(top_p_keeps_the_shortest_prefix_that_reaches_p) {
    const std::vector<float> logits{l(0.5), l(0.3), l(0.15), l(0.05)};
    CHECK_EQ(draw(logits, 1, 0, 0.4f, kBelowOne), 0);
    CHECK_EQ(draw(logits, 1, 0, 0.7f, kBelowOne), 1);
    CHECK_EQ(draw(logits, 1, 0, 0.9f, kBelowOne), 2);
    CHECK_EQ(draw(logits, 1, 0, 1e-6f, kBelowOne), 0);
    // After top-k: of 5/8 and 3/8 the first reaches 0.6.
    CHECK_EQ(draw(logits, 1, 2, 0.6f, kBelowOne), 0);
}

TEST(what_is_not_a_number_is_never_drawn) {
    CHECK_EQ(draw({kNan, 0, kNan}, 1, 0, 1, kBelowOne), 1);
    CHECK_EQ(draw({-kInf, 0, -kInf}, 1, 0, 1, kBelowOne), 1);
    CHECK_EQ(draw({0, kNan}, 0, 0, 1, 0), 0);
    CHECK_EQ(draw({kNan, 0, 1}, 0, 0, 1, 0), 2);
}

TEST(what_is_kept_is_what_a_plain_sort_keeps) {
    std::mt19937 random(1);
    for (const int codes : {5, 64, 2051}) {
        std::vector<float> logits(static_cast<size_t>(codes));
        for (int row = 0; row < 40; ++row) {
            for (float& logit : logits) {
                // Coarse numbers, of which many are equal, among them both zeros and none at all.
                const auto drawn = static_cast<int>(random() % 41) - 20;
                logit = drawn == 19   ? kNan
                        : drawn == 20 ? -kInf
                        : drawn == 0  ? -0.0f
                                      : static_cast<float>(drawn / 2);
            }
            std::vector<int> order(logits.size());
            std::iota(order.begin(), order.end(), 0);
            const auto number = [&](int code) {
                const float logit = logits[static_cast<size_t>(code)];
                return std::isnan(logit) ? -kInf : logit;
            };
            std::stable_sort(order.begin(), order.end(), [&](int a, int b) { return number(a) > number(b); });
            for (const int k : {2, 3, 4, 50, codes - 1, codes, 0}) {
                if (k > codes) continue;
                const auto kept = static_cast<size_t>(k == 0 ? codes : k);
                const float u = static_cast<float>(random() >> 8) * 0x1.0p-24f;
                std::vector<double> mass;
                for (size_t i = 0; i < kept; ++i)
                    mass.push_back((i == 0 ? 0.0 : mass.back()) +
                                   std::exp(number(order[i]) - number(order[0])));
                size_t place = 0;
                while (mass[place] <= static_cast<double>(u) * mass.back()) ++place;
                CHECK_EQ(draw(logits, 1, k, 1, u), order[place]);
            }
        }
    }
}

namespace {

// The sampler as a device without our own nodes runs it.
class Composed {
 public:
    Composed(int codes, int batch)
        : codes_(codes),
          batch_(batch),
          device_(csm::Device::open("cpu", 2)),
          pool_(device_, 2 + csm::InputBlock::kTensors + csm::SamplerInputs::kTensors),
          block_(pool_, *device_),
          logits_(ggml_new_tensor_2d(pool_.ctx(), GGML_TYPE_F32, codes, batch)),
          inputs_(block_, pool_, *device_, codes, kCodebooks, batch),
          graph_(device_, csm::Sampler::kNodes + csm::Sampler::kSharedNodes) {
        inputs_.ranks = ggml_new_tensor_2d(pool_.ctx(), GGML_TYPE_F32, codes, batch);
        block_.close();
        pool_.allocate();
        inputs_.upload_constants();
        drawn_ = csm::Sampler(graph_, inputs_, batch).draw(logits_, kCodebook);
        graph_.add_output(drawn_);
        graph_.allocate();
    }

    std::vector<int32_t> draw(const std::vector<float>& logits,
                              const std::vector<csm::SamplerSettings>& settings, const std::vector<float>& u,
                              const std::vector<int32_t>& forced) {
        const auto n = static_cast<size_t>(batch_), width = static_cast<size_t>(csm::kSettingsWidth);
        std::vector<float> packed(2 * n * width, 0.5f), uniforms(n * kCodebooks, 0.5f);
        std::vector<int32_t> all_forced(n * kCodebooks, 3), drawn(n);
        for (size_t b = 0; b < n; ++b) {
            csm::pack_settings(settings[b], codes_, &packed[n * width + b], n);
            uniforms[n * kCodebook + b] = u[b];
            all_forced[n * kCodebook + b] = forced[b];
        }
        csm::upload(logits_, logits.data(), logits.size() * sizeof(float));
        block_.write(inputs_.settings, packed);
        block_.write(inputs_.uniforms, uniforms);
        block_.write(inputs_.forced, all_forced);
        block_.send();
        graph_.compute();
        csm::download(drawn_, drawn.data(), n * sizeof(int32_t));
        return drawn;
    }

 private:
    static constexpr int kCodebook = 2, kCodebooks = 4;
    int codes_, batch_;
    std::shared_ptr<csm::Device> device_;
    csm::TensorPool pool_;
    csm::InputBlock block_;
    ggml_tensor* logits_;
    csm::SamplerInputs inputs_;
    csm::Graph graph_;
    ggml_tensor* drawn_ = nullptr;
};

}  // namespace

TEST(composed_of_operators_it_draws_the_same) {
    constexpr int kCodes = 300, kBatch = 5, kRounds = 300;
    Composed composed(kCodes, kBatch);
    uint32_t draws = 0;
    const auto random = [&draws] { return csm::uniform(5, draws++, 1); };
    int different = 0;
    for (int round = 0; round < kRounds; ++round) {
        std::vector<float> logits, u;
        std::vector<csm::SamplerSettings> settings;
        std::vector<int32_t> forced;
        for (int b = 0; b < kBatch; ++b) {
            const float spread = 1.0f + 20.0f * random();
            for (int i = 0; i < kCodes; ++i) logits.push_back(spread * (random() - 0.5f));
            const float kind = random();
            settings.push_back({kind < 0.2f ? 0.0f : 0.1f + 1.5f * random(), kind > 0.6f ? random() : 1.0f,
                                static_cast<int32_t>(random() * 60.0f)});
            if (settings.back().top_p <= 0.0f) settings.back().top_p = 0.5f;
            u.push_back(round == 0 ? 0.0f : round == 1 ? kBelowOne : random());
            forced.push_back(random() < 0.1f ? static_cast<int32_t>(random() * kCodes) : -1);
        }
        const std::vector<int32_t> got = composed.draw(logits, settings, u, forced);
        for (size_t b = 0; b < kBatch; ++b) {
            if (forced[b] >= 0) {
                CHECK_EQ(got[b], forced[b]);
                continue;
            }
            const std::vector<float> row(logits.begin() + static_cast<int>(b) * kCodes,
                                         logits.begin() + static_cast<int>(b + 1) * kCodes);
            const auto expected = [&](float shift, float p) {
                const float top_p = settings[b].top_p;
                return draw(row, settings[b].temperature, settings[b].top_k,
                            top_p < 1.0f ? std::clamp(top_p + p, 1e-6f, 1.0f) : 1.0f,
                            std::clamp(u[b] + shift, 0.0f, kBelowOne));
            };
            if (got[b] == expected(0, 0)) continue;
            // only at a border between two codes, or at the border of top-p
            ++different;
            bool border = false;
            for (const float shift : {-2e-5f, 0.0f, 2e-5f}) {
                for (const float p : {-1e-5f, 0.0f, 1e-5f}) border |= got[b] == expected(shift, p);
            }
            CHECK(border);
        }
    }
    CHECK(different <= kRounds * kBatch / 100);
}

TEST(composed_of_operators_equal_logits_come_in_order_too) {
    constexpr int kBatch = 3;
    Composed composed(4, kBatch);
    const csm::SamplerSettings any{1.0f, 1.0f, 0}, greedy{0.0f, 1.0f, 0}, two{1.0f, 1.0f, 2};
    const std::vector<float> logits{7, 7, 7, 7, 1, 3, 3, 2, 7, 7, 7, 7};
    const auto drawn = composed.draw(logits, {any, greedy, two}, {0.6f, 0.99f, kBelowOne}, {-1, -1, -1});
    CHECK_EQ(drawn[0], 2);
    CHECK_EQ(drawn[1], 1);
    CHECK_EQ(drawn[2], 1);
}

TEST(composed_of_operators_a_code_exists_whatever_the_logits) {
    Composed composed(4, 3);
    const csm::SamplerSettings any{0.9f, 0.9f, 3};
    const std::vector<float> logits{kNan, kNan, kNan, kNan, -kInf, -kInf, -kInf, -kInf, kInf, kInf, 0, 0};
    for (const int32_t code : composed.draw(logits, {any, any, any}, {0.1f, 0.5f, 0.9f}, {-1, -1, -1}))
        CHECK(code >= 0 && code < 4);
}
