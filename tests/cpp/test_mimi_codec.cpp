// What the codec promises of time: nothing that comes later changes what was, and lengths are exact.

#include <algorithm>
#include <cmath>

#include "check.h"
#include "mimi/decoder.h"
#include "mimi/encoder.h"
#include "runtime/error.h"
#include "tiny_model.h"

namespace {

constexpr int kFrameSize = TinyModel::kFrameSize;
constexpr auto kQ = static_cast<size_t>(TinyModel::kCodebooks);

std::vector<float> noise(size_t n) {
    std::vector<float> samples(n);
    for (size_t i = 0; i < n; ++i) samples[i] = csm::uniform(11, static_cast<uint32_t>(i), 0) - 0.5f;
    return samples;
}

std::vector<int32_t> some_codes(size_t frames) {
    std::vector<int32_t> codes(frames * kQ);
    for (size_t i = 0; i < codes.size(); ++i)
        codes[i] = static_cast<int32_t>(csm::uniform(12, static_cast<uint32_t>(i), 0) * TinyModel::kCodes);
    return codes;
}

}  // namespace

TEST(a_frame_does_not_change_samples_before_it) {
    const auto model = TinyModel().load(2);
    csm::MimiDecoder decoder(model->device(), model->codec());
    const size_t frames = 24;
    const auto codes = some_codes(frames);
    std::vector<float> samples(frames * kFrameSize), others(samples.size());
    decoder.decode(codes.data(), frames, TinyModel::kCodebooks, samples.data());
    for (const size_t frame : {size_t{0}, size_t{5}, frames - 1}) {
        auto changed = codes;
        for (size_t q = 0; q < kQ; ++q) {
            auto& code = changed[frame * kQ + q];
            code = (code + 7) % TinyModel::kCodes;
        }
        decoder.reset();
        decoder.decode(changed.data(), frames, TinyModel::kCodebooks, others.data());
        const size_t first = frame * kFrameSize;
        CHECK(std::equal(samples.begin(), samples.begin() + static_cast<int64_t>(first), others.begin()));
        CHECK(!std::equal(samples.begin() + static_cast<int64_t>(first),
                          samples.begin() + static_cast<int64_t>(first + kFrameSize),
                          others.begin() + static_cast<int64_t>(first)));
    }
}

TEST(samples_do_not_change_frames_before_them) {
    const auto model = TinyModel().load(2);
    csm::MimiEncoder encoder(model->device(), model->codec());
    const size_t frames = 20, kept = 11, hidden = static_cast<size_t>(model->codec()->config.hidden);
    auto samples = noise(frames * kFrameSize);
    std::vector<int32_t> codes(frames * kQ), others(codes.size());
    std::vector<float> latents(frames * hidden), other_latents(latents.size());
    const auto n = static_cast<int64_t>(samples.size());
    encoder.encode(samples.data(), n, true, codes.data(), latents.data());
    for (size_t i = kept * kFrameSize; i < samples.size(); ++i) samples[i] = -samples[i];
    encoder.encode(samples.data(), n, true, others.data(), other_latents.data());
    CHECK(std::equal(codes.begin(), codes.begin() + kept * kQ, others.begin()));
    CHECK(std::equal(latents.begin(), latents.begin() + static_cast<int64_t>(kept * hidden),
                     other_latents.begin()));
    CHECK(latents != other_latents);
}

TEST(every_length_gives_its_frames) {
    const auto model = TinyModel().load();
    csm::MimiEncoder encoder(model->device(), model->codec());
    const auto samples = noise(4 * kFrameSize);
    const int32_t untouched = -1;
    for (int64_t n = 0; n <= static_cast<int64_t>(samples.size()); ++n) {
        const auto frames = static_cast<size_t>((n + kFrameSize - 1) / kFrameSize);
        CHECK_EQ(encoder.frames(n), static_cast<int64_t>(frames));
        std::vector<int32_t> codes(frames * kQ + 1, untouched);
        encoder.encode(samples.data(), n, true, codes.data());
        CHECK(std::all_of(codes.begin(), codes.end() - 1, [](int32_t code) { return code >= 0; }));
        CHECK_EQ(codes.back(), untouched);
    }
}

TEST(the_end_of_a_stream_starts_another) {
    const auto model = TinyModel().load();
    csm::MimiEncoder encoder(model->device(), model->codec());
    const auto samples = noise(3 * kFrameSize - 1);
    const auto n = static_cast<int64_t>(samples.size());
    std::vector<int32_t> first(3 * kQ), second(3 * kQ);
    encoder.encode(samples.data(), n, true, first.data());
    encoder.encode(samples.data(), n, true, second.data());
    CHECK(first == second);
    CHECK_THROWS(encoder.encode(samples.data(), n, false, second.data()), csm::ArgumentError, "35 samples");
}

TEST(damaged_hyper_parameters_are_refused) {
    csm::MimiConfig().validate("mimi.gguf");
    const auto refused = [](auto change, const char* message) {
        csm::MimiConfig config;
        change(config);
        CHECK_THROWS(config.validate("mimi.gguf"), csm::FormatError, message);
    };
    refused([](auto& c) { c.ratios.clear(); }, "0 upsampling ratios");
    refused([](auto& c) { c.ratios = {8, 0}; }, "ratio is 0");
    refused([](auto& c) { c.ratios = {64, 64, 64}; }, "a frame has more than");
    refused([](auto& c) { c.num_filters = 1 << 14; }, "16384 filters");
    refused([](auto& c) { c.compress = 65; }, "by 65");
    refused([](auto& c) { c.residual_layers = 8, c.dilation_growth = 64; }, "dilation");
    refused([](auto& c) { c.semantic_codebooks = 32; }, "at least one acoustic");
    refused([](auto& c) { c.transformer.kv_heads = 3; }, "8 query heads");
    CHECK_EQ(csm::MimiConfig().frame_size(), 1920);
}
