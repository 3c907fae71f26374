#include "csm/weights.h"

#include <algorithm>

#include "runtime/error.h"

namespace csm {

namespace {

ggml_tensor* rope_factors(Weights& weights, const std::string& name, const TransformerConfig& c) {
    if (weights.has(name)) return weights.vector(name, c.head_dim / 2);
    // the llama-csm files carry none and mean csm-1b's
    return weights.computed({c.head_dim / 2},
                            [factors = llama3_rope_factors(c.head_dim, c.rope_base)](float* out) {
                                std::copy(factors.begin(), factors.end(), out);
                            });
}

}  // namespace

CsmWeights CsmWeights::request(Weights& weights, const CsmConfig& c) {
    CsmWeights w;
    w.text_embd = weights.table("text_embd.weight", c.backbone.width, c.text_vocab);
    w.audio_embd = weights.table("audio_embd.weight", c.backbone.width, c.audio_vocab, c.codebooks);
    w.audio_page = w.audio_embd->ne[1] / c.codebooks;
    w.backbone = TransformerWeights::request(weights, "backbone", c.backbone);
    w.backbone.rope_factors = rope_factors(weights, "backbone.rope_freqs.weight", c.backbone);
    w.backbone_norm = weights.vector("backbone.output_norm.weight", c.backbone.width);
    w.projection = weights.matrix("depth.projection.weight", c.backbone.width, c.depth.width);
    w.depth = TransformerWeights::request(weights, "depth", c.depth);
    w.depth.rope_factors = rope_factors(weights, "depth.rope_freqs.weight", c.depth);
    w.depth_norm = weights.vector("depth.output_norm.weight", c.depth.width);
    w.heads.push_back(weights.matrix({{"codebook0_head.weight", c.codes, c.audio_vocab}}, c.backbone.width));
    for (int page = 0; page + 1 < c.codebooks; ++page) {
        w.heads.push_back(weights.matrix_page("depth.heads.weight", page, c.codebooks - 1, c.depth.width,
                                              c.codes, c.audio_vocab));
    }
    return w;
}

}  // namespace csm
