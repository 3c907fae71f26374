// The codec as a stream: however a stream is cut, it is the stream.

#include <algorithm>
#include <cmath>

#include "check.h"
#include "mimi/decoder.h"
#include "mimi/encoder.h"
#include "runtime/error.h"
#include "tiny_model.h"

namespace {

constexpr int kFrames = 37;  // more latents than the transformers' window
constexpr int kFrameSize = TinyModel::kFrameSize;

std::vector<int32_t> some_codes(int q) {
    std::vector<int32_t> codes;
    for (uint32_t i = 0; i < static_cast<uint32_t>(kFrames * q); ++i)
        codes.push_back(static_cast<int32_t>(csm::uniform(8, i, 0) * TinyModel::kCodes));
    return codes;
}

std::vector<float> some_samples(size_t n) {
    std::vector<float> samples;
    for (size_t i = 0; i < n; ++i)
        samples.push_back(0.5f * std::sin(0.3f * static_cast<float>(i)) +
                          0.1f * csm::uniform(9, static_cast<uint32_t>(i), 0));
    return samples;
}

// Decodes frame by frame in pieces of the given sizes, repeated.
std::vector<float> decode(csm::MimiDecoder& decoder, const std::vector<int32_t>& codes, int q,
                          const std::vector<int>& pieces) {
    std::vector<float> samples(codes.size() / static_cast<size_t>(q) * kFrameSize);
    int done = 0;
    for (size_t i = 0; done < kFrames; ++i) {
        const int n = std::min(pieces[i % pieces.size()], kFrames - done);
        decoder.decode(&codes[static_cast<size_t>(done * q)], n, q,
                       &samples[static_cast<size_t>(done * kFrameSize)]);
        done += n;
    }
    return samples;
}

void check_close(const std::vector<float>& got, const std::vector<float>& expected) {
    CHECK_EQ(got.size(), expected.size());
    float scale = 0.0f;
    for (const float x : expected) scale = std::max(scale, std::fabs(x));
    CHECK(scale > 0.0f);
    // The promise is 1e-5 of full scale.
    for (size_t i = 0; i < got.size(); ++i) CHECK_NEAR(got[i], expected[i], 1e-5 * scale);
}

}  // namespace

TEST(decoding_in_pieces_is_decoding_at_once) {
    const auto model = TinyModel().load(2);
    csm::MimiDecoder decoder(model->device(), model->codec());
    CHECK_EQ(decoder.frame_size(), kFrameSize);
    for (const int q : {1, 2, TinyModel::kCodebooks}) {
        const auto codes = some_codes(q);
        decoder.reset();
        const auto whole = decode(decoder, codes, q, {kFrames});
        for (const std::vector<int>& pieces :
             {std::vector<int>{1}, std::vector<int>{2, 5}, std::vector<int>{25, 1}}) {
            decoder.reset();
            check_close(decode(decoder, codes, q, pieces), whole);
        }
    }
}

TEST(a_refused_piece_leaves_the_stream_as_it_was) {
    const auto model = TinyModel().load();
    csm::MimiDecoder decoder(model->device(), model->codec());
    const int q = TinyModel::kCodebooks;
    auto codes = some_codes(q);
    const auto whole = decode(decoder, codes, q, {kFrames});
    decoder.reset();
    std::vector<float> samples(whole.size());
    decoder.decode(codes.data(), 10, q, samples.data());
    auto wrong = codes;
    wrong[static_cast<size_t>(12 * q)] = TinyModel::kCodes;
    CHECK_THROWS(decoder.decode(&wrong[static_cast<size_t>(10 * q)], kFrames - 10, q, samples.data()),
                 csm::ArgumentError, "32");
    CHECK_THROWS(decoder.decode(codes.data(), 1, q + 1, samples.data()), csm::ArgumentError, "5");
    CHECK_THROWS(decoder.decode(codes.data(), 1, 0, samples.data()), csm::ArgumentError, "0");
    decoder.decode(&codes[static_cast<size_t>(10 * q)], kFrames - 10, q,
                   &samples[static_cast<size_t>(10 * kFrameSize)]);
    check_close(samples, whole);
}

TEST(encoding_in_pieces_is_encoding_at_once) {
    const auto model = TinyModel().load(2);
    csm::MimiEncoder encoder(model->device(), model->codec());
    // The last frame is only partly filled.
    const auto samples = some_samples(static_cast<size_t>(kFrames * kFrameSize - 5));
    const auto n = static_cast<int64_t>(samples.size());
    const auto q = static_cast<size_t>(TinyModel::kCodebooks);
    CHECK_EQ(encoder.frames(n), kFrames);
    std::vector<int32_t> whole(kFrames * q), pieces(kFrames * q);
    encoder.encode(samples.data(), n, true, whole.data());
    int frame = 0;
    for (const int size : {1, 3, 20, 12}) {
        encoder.encode(&samples[static_cast<size_t>(frame * kFrameSize)], size * kFrameSize, false,
                       &pieces[static_cast<size_t>(frame) * q]);
        frame += size;
    }
    encoder.encode(&samples[static_cast<size_t>(frame * kFrameSize)], n - frame * kFrameSize, true,
                   &pieces[static_cast<size_t>(frame) * q]);
    CHECK(pieces == whole);
    for (const int32_t code : whole) CHECK(code >= 0 && code < TinyModel::kCodes);
}
