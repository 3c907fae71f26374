// Codes to samples, as streams: whatever the sizes of the pieces, and whichever other streams are decoded
// with it, the samples of a stream are those of decoding all of it at once and alone.
//
// Single frames of several streams together cost little more than half of what they cost one by one: most of
// that is the time it takes to read the weights.
//
// One thread at a time may use a decoder; any number of decoders may share a model.
#pragma once

#include <array>
#include <memory>
#include <vector>

#include "mimi/latent_transformer.h"
#include "mimi/weights.h"
#include "runtime/graph.h"
#include "runtime/graph_cache.h"

namespace csm {

class MimiDecoder {
 public:
    static constexpr int kMaxStreams = 1024;

    // The memory of a stream is taken when it is first used. Throws ArgumentError for streams out of range.
    MimiDecoder(std::shared_ptr<Device> device, std::shared_ptr<const MimiModel> model, int streams = 1);

    // The next frames of some streams, each of which stands where it stands; the others stay as they are.
    // codes: streams x frames x q, of the first q codebooks, 1 <= q <= codebooks. samples: streams x (frames
    // * frame_size). Throws ArgumentError for codes, q or streams out of range and for a stream that is named
    // twice; all streams are then as before.
    void decode(const std::vector<int32_t>& streams, const int32_t* codes, int64_t frames, int q,
                float* samples);
    // The next frames of stream 0.
    void decode(const int32_t* codes, int64_t frames, int q, float* samples) {
        decode({0}, codes, frames, q, samples);
    }
    // Starts another stream in the place of this one, or of every one.
    void reset(int stream);
    void reset();
    // Gives back what an idle decoder does not need: graphs kept for reuse, and the memory of streams that
    // have not begun.
    void trim();
    // All that the future of a stream depends on, to go on with it later in the place of any stream. load()
    // throws ArgumentError for data that is damaged or of another codec; the stream is then as before.
    std::vector<uint8_t> save(int stream) const;
    void load(int stream, const uint8_t* data, size_t bytes);

    int streams() const { return static_cast<int>(used_.size()); }
    int frame_size() const { return model_->config.frame_size(); }
    // Of the last graph; zeros if none ran yet.
    const GraphSize& graph_size() const { return graph_size_; }

 private:
    std::unique_ptr<Graph> build(int streams, int frames, int q);
    void check(const std::vector<int32_t>& streams, const int32_t* codes, int64_t frames, int q) const;
    void check_stream(int stream) const;
    void run(const std::vector<int32_t>& streams, const int32_t* codes, int64_t stride, int frames, int q);

    std::shared_ptr<Device> device_;
    std::shared_ptr<const MimiModel> model_;
    std::vector<bool> used_;     // by stream: whether it was decoded since it began
    std::vector<bool> touched_;  // by stream: whether its memory is in use
    TensorPool pool_;
    ConvStates states_;
    LatentTransformer transformer_;
    ggml_tensor* codes_;    // I32 {max frames, codebooks}, in each column stream by stream
    ggml_tensor* samples_;  // F32 {frame_size or more, max frames}: a stream has as many columns as frames
    GraphCache<std::array<int, 3>, Graph> graphs_;  // by streams, frames and codebooks
    GraphSize graph_size_;
};

}  // namespace csm
