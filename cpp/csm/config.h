// Hyper-parameters of the two language models; docs/GGUF.md names the keys.
#pragma once

#include "files/gguf_file.h"
#include "nn/sampler.h"
#include "nn/transformer.h"

namespace csm {

struct CsmConfig {
    int codebooks = 0;
    int audio_vocab = 0;  // rows per codebook in heads and embeddings, special codes included
    int text_vocab = 0;
    int context = 0;  // rows
    int bos = 0;
    int eos = 0;
    TransformerConfig backbone;
    TransformerConfig depth;
    SamplerSettings sampling;        // defaults for codebook 0
    SamplerSettings depth_sampling;  // defaults for the others

    // Codes that may be drawn: what the codec has entries for. Set when the codec's configuration is known.
    int codes = 0;

    static CsmConfig read(const GgufFile& file);
};

// Factors that llama3 RoPE scaling divides the angles by, {head_dim / 2} of them, with csm-1b's parameters:
// factor 32, low and high frequency factors 1 and 4, original context 8192 (torchtune's Llama 3.2 defaults).
std::vector<float> llama3_rope_factors(int head_dim, float rope_base);

}  // namespace csm
