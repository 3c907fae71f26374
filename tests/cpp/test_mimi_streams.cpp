// Several streams in one decoder: a stream sounds as if it were alone, whoever is decoded with it.

#include <algorithm>
#include <thread>

#include "check.h"
#include "engine/engine.h"
#include "kernels/kernels.h"
#include "mimi/decoder.h"
#include "runtime/error.h"
#include "tiny_model.h"

namespace {

constexpr int kFrameSize = TinyModel::kFrameSize;
constexpr int kFrames = 23;  // more latents than the transformer's window

std::vector<int32_t> codes_of(int stream, int q) {
    std::vector<int32_t> codes;
    for (uint32_t i = 0; i < static_cast<uint32_t>(kFrames * q); ++i)
        codes.push_back(
            static_cast<int32_t>(csm::uniform(31, i, static_cast<uint32_t>(stream)) * TinyModel::kCodes));
    return codes;
}

// Whole numbers from 0 to n - 1.
class Dice {
 public:
    int operator()(int n) { return static_cast<int>(csm::uniform(77, count_++, 0) * static_cast<float>(n)); }

 private:
    uint32_t count_ = 0;
};

// Our own kernels compute every number in the same order whatever the batch; ggml's products do not promise
// that.
void check_same(const std::vector<float>& got, const std::vector<float>& expected) {
    CHECK_EQ(got.size(), expected.size());
    for (size_t i = 0; i < got.size(); ++i)
        CHECK_NEAR(got[i], expected[i], csm::kHaveKernels ? 0.0 : 1e-5 * std::fabs(expected[i]) + 1e-6);
}

// Streams of a decoder, each on its way through codes of its own.
class Choir {
 public:
    Choir(csm::MimiDecoder& decoder, int q) : decoder_(decoder), q_(q) {
        for (int i = 0; i < decoder.streams(); ++i) {
            codes_.push_back(codes_of(i, q));
            samples_.emplace_back();
        }
    }

    int position(int stream) const {
        return static_cast<int>(samples_[static_cast<size_t>(stream)].size()) / kFrameSize;
    }
    bool done(int stream) const { return position(stream) == kFrames; }
    const std::vector<float>& samples(int stream) const { return samples_[static_cast<size_t>(stream)]; }

    void decode(const std::vector<int32_t>& streams, int frames) {
        std::vector<int32_t> codes;
        for (const int stream : streams) {
            const auto first = codes_[static_cast<size_t>(stream)].begin() + position(stream) * q_;
            codes.insert(codes.end(), first, first + frames * q_);
        }
        const auto each = static_cast<size_t>(frames * kFrameSize);
        std::vector<float> out(streams.size() * each);
        decoder_.decode(streams, codes.data(), frames, q_, out.data());
        for (size_t i = 0; i < streams.size(); ++i) {
            const auto first = out.begin() + static_cast<std::ptrdiff_t>(i * each);
            auto& samples = samples_[static_cast<size_t>(streams[i])];
            samples.insert(samples.end(), first, first + static_cast<std::ptrdiff_t>(each));
        }
    }
    void reset(int stream) {
        decoder_.reset(stream);
        samples_[static_cast<size_t>(stream)].clear();
    }

 private:
    csm::MimiDecoder& decoder_;
    int q_;
    std::vector<std::vector<int32_t>> codes_;
    std::vector<std::vector<float>> samples_;
};

std::vector<float> decode_alone(const csm::Model& model, int stream, int q) {
    csm::MimiDecoder decoder(model.codec_device(), model.codec());
    std::vector<float> samples(kFrames * kFrameSize);
    decoder.decode(codes_of(stream, q).data(), kFrames, q, samples.data());
    return samples;
}

}  // namespace

TEST(a_stream_sounds_as_if_it_were_alone) {
    for (const int threads : {1, 2}) {
        const auto model = TinyModel().load(threads);
        // 21 are more than one graph decodes
        for (const int streams : threads == 1 ? std::vector<int>{2, 21} : std::vector<int>{7}) {
            const int q = threads == 1 ? TinyModel::kCodebooks : 2;
            csm::MimiDecoder decoder(model->codec_device(), model->codec(), streams);
            CHECK_EQ(decoder.streams(), streams);
            Choir choir(decoder, q);
            Dice dice;
            const auto left = [&] {
                std::vector<int32_t> open;
                for (int i = 0; i < streams; ++i)
                    if (!choir.done(i)) open.push_back(i);
                return open;
            };
            for (auto open = left(); !open.empty(); open = left()) {
                // any of them, in any order, by as many frames as all of them have left
                for (size_t i = open.size(); i > 1; --i)
                    std::swap(open[i - 1], open[static_cast<size_t>(dice(static_cast<int>(i)))]);
                open.resize(static_cast<size_t>(1 + dice(static_cast<int>(open.size()))));
                int frames = 1 + dice(5);
                for (const int stream : open) frames = std::min(frames, kFrames - choir.position(stream));
                choir.decode(open, frames);
            }
            for (int i = 0; i < streams; ++i) check_same(choir.samples(i), decode_alone(*model, i, q));
        }
    }
}

TEST(a_reset_concerns_one_stream) {
    const auto model = TinyModel().load(2);
    const int q = TinyModel::kCodebooks;
    csm::MimiDecoder decoder(model->codec_device(), model->codec(), 3);
    Choir choir(decoder, q);
    choir.decode({0, 1, 2}, 9);
    choir.reset(1);
    choir.decode({2, 1}, 8);
    choir.decode({1, 0}, 14);
    choir.decode({2}, 6);
    choir.decode({1}, 1);
    for (int i = 0; i < 3; ++i) check_same(choir.samples(i), decode_alone(*model, i, q));
    decoder.reset();
    Choir again(decoder, q);
    again.decode({2, 0, 1}, kFrames);
    for (int i = 0; i < 3; ++i) check_same(again.samples(i), decode_alone(*model, i, q));
}

TEST(a_refused_call_leaves_all_streams_as_they_were) {
    const auto model = TinyModel().load();
    const int q = TinyModel::kCodebooks;
    csm::MimiDecoder decoder(model->codec_device(), model->codec(), 3);
    Choir choir(decoder, q);
    choir.decode({0, 2}, 9);
    std::vector<int32_t> codes(static_cast<size_t>(2 * q));
    std::vector<float> samples(2 * kFrameSize);
    const auto refused = [&](const std::vector<int32_t>& streams, int width, const char* message) {
        CHECK_THROWS(decoder.decode(streams, codes.data(), 1, width, samples.data()), csm::ArgumentError,
                     message);
    };
    refused({0, 3}, q, "no stream 3");
    refused({-1}, q, "no stream -1");
    refused({2, 2}, q, "stream 2 stands twice");
    refused({0, 2}, q + 1, "5 codes per frame");
    codes.back() = TinyModel::kCodes;
    refused({0, 2}, q, "stream 2, frame 0, codebook 3 is 32");
    CHECK_THROWS(decoder.reset(3), csm::ArgumentError, "no stream 3");
    CHECK_THROWS(csm::MimiDecoder(model->codec_device(), model->codec(), 0), csm::ArgumentError,
                 "streams is 0");
    decoder.decode({}, nullptr, 1, q, nullptr);
    choir.decode({2, 0}, kFrames - 9);
    choir.decode({1}, kFrames);
    for (int i = 0; i < 3; ++i) check_same(choir.samples(i), decode_alone(*model, i, q));
}

TEST(the_codec_works_beside_an_engine) {
    const auto model = TinyModel().load(2);
    CHECK(&model->codec_device()->mutex() != &model->device()->mutex());
    CHECK(&model->codec_device()->team() != &model->device()->team());
    const int q = TinyModel::kCodebooks, steps = 60;
    const auto speak = [&] {
        csm::Engine engine(model, 1, 0, "auto");
        const int slot = engine.open({5, 0, {0.9f, 1.0f, 20}, {0.8f, 0.95f, 0}});
        const std::vector<int32_t> text{1, 2, 3}, audio(3 * TinyModel::kCodebooks);
        engine.append(slot, {text.data(), audio.data(), 3}, nullptr);
        std::vector<int32_t> codes(steps * TinyModel::kCodebooks);
        for (int i = 0; i < steps; ++i)
            engine.step(&slot, 1, nullptr, &codes[static_cast<size_t>(i * q)], nullptr);
        return codes;
    };
    const auto spoken_alone = speak();
    std::vector<float> heard_alone[2] = {decode_alone(*model, 0, q), decode_alone(*model, 1, q)};

    std::vector<int32_t> spoken;
    std::thread speaker([&] { spoken = speak(); });
    csm::MimiDecoder decoder(model->codec_device(), model->codec(), 2);
    std::vector<std::vector<float>> heard;
    for (int round = 0; round < 4; ++round) {
        decoder.reset();
        Choir choir(decoder, q);
        for (int frame = 0; frame < kFrames; ++frame) choir.decode({0, 1}, 1);
        for (const int i : {0, 1}) heard.push_back(choir.samples(i));
    }
    speaker.join();
    CHECK(spoken == spoken_alone);
    for (size_t i = 0; i < heard.size(); ++i) check_same(heard[i], heard_alone[i % 2]);
}
