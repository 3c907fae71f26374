// SEANet, the convolutional ends of the codec: samples to latents and back, {1, samples, streams} <->
// {hidden, latents, streams}.
#pragma once

#include "mimi/config.h"
#include "nn/conv.h"

namespace csm {

struct Seanet {
    struct Stage {
        Conv resample;
        std::vector<ResidualBlock> residual;  // at the finer resolution: before the resampling in the
                                              // encoder, after it in the decoder
    };
    Conv first;
    std::vector<Stage> stages;
    Conv last;

    // Requests mimi.encoder.layers.* or mimi.decoder.layers.*, which are numbered as the modules of
    // transformers, activations included.
    static Seanet request_encoder(Weights& weights, const MimiConfig& config);
    static Seanet request_decoder(Weights& weights, const MimiConfig& config);

    size_t convolutions() const;
    void add_states(ConvStates& states) const;
};

// samples {1, n, streams} -> latents {hidden, ceil(n / latent_size), streams}
ggml_tensor* build_seanet_encoder(Graph& graph, const Seanet& net, const ConvStates& states,
                                  ggml_tensor* samples);

// latents {hidden, n, streams} -> samples F32 {n * latent_size, streams}, which are written and added to the
// graph.
void build_seanet_decoder(Graph& graph, const Seanet& net, const ConvStates& states, ggml_tensor* latents,
                          ggml_tensor* samples);

}  // namespace csm
