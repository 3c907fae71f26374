// Samples to codes, as a stream of whole frames; only its end may be a part of one.
//
// One thread at a time may use an encoder; any number of encoders may share a model.
#pragma once

#include <memory>

#include "mimi/latent_transformer.h"
#include "mimi/weights.h"
#include "runtime/graph.h"
#include "runtime/graph_cache.h"

namespace csm {

class MimiEncoder {
 public:
    // Throws ArgumentError if the model was loaded without the encoder's tensors.
    MimiEncoder(std::shared_ptr<Device> device, std::shared_ptr<const MimiModel> model);

    // The next n samples of the stream. codes: frames(n) x codebooks, frame by frame. latents, unless null:
    // frames(n) x hidden, what the codes were chosen for. final: the stream ends with them, which only then
    // may fill their last frame in part: each convolution then pads its own input, as in transformers. After
    // that another stream starts.
    void encode(const float* samples, int64_t n, bool final, int32_t* codes, float* latents = nullptr);
    // Starts another stream.
    void reset();

    int frame_size() const { return model_->config.frame_size(); }
    // Of the last graph; zeros if none ran yet.
    const GraphSize& graph_size() const { return graph_size_; }
    int64_t frames(int64_t n) const { return (n + frame_size() - 1) / frame_size(); }

 private:
    std::unique_ptr<Graph> build(int64_t n);
    void run(Graph& graph, const float* samples, int64_t n, int32_t* codes, float* latents);

    std::shared_ptr<Device> device_;
    std::shared_ptr<const MimiModel> model_;
    TensorPool pool_;
    ConvStates states_;
    LatentTransformer transformer_;
    ggml_tensor* samples_;               // F32 {1, max samples}
    ggml_tensor* start_;                 // F32 {1}: 1 in the first run of a stream, else 0
    ggml_tensor* codes_;                 // I32 {max frames, codebooks}
    ggml_tensor* latents_;               // F32 {hidden, max frames}
    GraphCache<int64_t, Graph> graphs_;  // by samples
    bool started_ = false;
    GraphSize graph_size_;
};

}  // namespace csm
