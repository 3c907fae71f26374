// The tensors of the two language models.
#pragma once

#include "csm/config.h"

namespace csm {

struct CsmWeights {
    ggml_tensor* text_embd = nullptr;   // {D, text_vocab}
    ggml_tensor* audio_embd = nullptr;  // {D, codebooks * audio_page}
    int64_t audio_page = 0;             // its rows from codebook to codebook: audio_vocab, and what pads them
    TransformerWeights backbone;
    ggml_tensor* backbone_norm = nullptr;  // {D}
    Matrix projection;                     // {D, d}
    TransformerWeights depth;
    ggml_tensor* depth_norm = nullptr;  // {d}
    // heads[c] predicts codebook c: {D, codes} for c = 0, else {d, codes}. Only rows of codes that the codec
    // knows are loaded: the special codes above them can then not be drawn.
    std::vector<Matrix> heads;

    static CsmWeights request(Weights& weights, const CsmConfig& config);
    static size_t max_tensors(const CsmConfig& config) {
        return 16 + 16 * static_cast<size_t>(config.backbone.layers + config.depth.layers) +
               static_cast<size_t>(config.codebooks);
    }
};

}  // namespace csm
