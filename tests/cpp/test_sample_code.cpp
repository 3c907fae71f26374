// The definition of a draw in nn/sampler.h, case by case. Its distribution is tested against the reference
// from Python.

#include <cmath>
#include <limits>
#include <vector>

#include "check.h"
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
