// Codes to samples, as a stream: whatever the sizes of the pieces, the samples are those of decoding
// everything at once.
//
// One thread at a time may use a decoder; any number of decoders may share a model.
#pragma once

#include <map>
#include <memory>

#include "mimi/latent_transformer.h"
#include "mimi/weights.h"
#include "runtime/graph.h"

namespace csm {

class MimiDecoder {
 public:
    MimiDecoder(std::shared_ptr<Device> device, std::shared_ptr<const MimiModel> model);

    // The next frames of the stream. codes: frames x q, frame by frame, of the first q codebooks, 1 <= q <=
    // codebooks. samples: frames * frame_size. Throws ArgumentError for codes or q out of range; the stream
    // is then as before.
    void decode(const int32_t* codes, int64_t frames, int q, float* samples);
    // Starts another stream.
    void reset();

    int frame_size() const { return model_->config.frame_size(); }

 private:
    struct Step {
        std::unique_ptr<Graph> graph;
        ggml_tensor* samples;
    };
    Step& step(int frames, int q);
    void run(const int32_t* codes, int frames, int q, float* samples);

    std::shared_ptr<Device> device_;
    std::shared_ptr<const MimiModel> model_;
    TensorPool pool_;
    ConvStates states_;
    LatentTransformer transformer_;
    ggml_tensor* codes_;         // I32 {max frames * codebooks}, codebook by codebook
    std::map<int, Step> steps_;  // by frames
    int q_ = 0;                  // codebooks that the steps use
};

}  // namespace csm
