// The tensors of the codec.
#pragma once

#include "mimi/config.h"
#include "mimi/seanet.h"
#include "nn/rvq.h"

namespace csm {

struct MimiWeights {
    Rvq semantic, acoustic;
    DepthwiseUpsample upsample;  // latents of frames to latents of the decoder
    TransformerWeights decoder_transformer;
    Seanet decoder;

    bool has_encoder = false;
    Seanet encoder;
    TransformerWeights encoder_transformer;
    Conv downsample;

    // Describes all tensors; Weights::load() reads them.
    static MimiWeights request(Weights& weights, const MimiConfig& config, bool encoder);
    // Whether the files hold the encoder's tensors.
    static bool encoder_present(const Weights& weights) {
        return weights.has("mimi.encoder.layers.0.conv.weight");
    }
    static size_t max_tensors(const MimiConfig& config);
};

// A loaded codec: what decoders and encoders, one per stream, share. Immutable; streams keep its address.
struct MimiModel {
    MimiConfig config;
    MimiWeights weights;
};

}  // namespace csm
