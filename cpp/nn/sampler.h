// Drawing a code from logits, inside the graph.
//
// The definition (for logits l over the codes the codec knows, temperature T, top_k k, top_p p, uniform
// number u):
//   T = 0:  the code with the largest logit, the lowest on ties.
//   else:   order the codes by l descending, lower codes first on ties; keep the first k (0 = all); of those
//           keep the shortest prefix whose softmax mass of l / T reaches p (1 = all); draw the first code at
//           which the cumulated softmax mass of what is left passes u.
// Everything depends on one row of logits and its own settings only.
#pragma once

#include <cstdint>
#include <deque>
#include <vector>

#include "ggml.h"

namespace csm {

struct SamplerSettings {
    float temperature = 0.9f;
    float top_p = 1.0f;
    int32_t top_k = 50;
};

// Working memory of a draw, kept from call to call.
struct SamplerScratch {
    std::vector<float> logits;
    std::vector<int32_t> order;
    std::vector<double> mass;
};

// Draws one code from n logits. A logit that is not a number is never drawn unless all are.
int32_t sample_code(const float* logits, int n, const SamplerSettings& settings, float u,
                    SamplerScratch& scratch);

// One settings row per sequence as the graph holds it: temperature, top_p, top_k as floats (exact below
// 2^24).
constexpr int kSettingsWidth = 3;
void pack_settings(const SamplerSettings& settings, float* out);

// Graph inputs of all sampler nodes; each has one column per sequence of the batch.
struct SamplerInputs {
    ggml_tensor* settings;  // F32 {kSettingsWidth, batch, 2}: plane 0 for codebook 0, plane 1 for the others
    ggml_tensor* uniforms;  // F32 {codebooks, batch}
    ggml_tensor* forced;    // I32 {codebooks, batch}: a code >= 0 replaces the drawn one
};

// What a sampler node has to know besides its inputs; must outlive the graph.
struct SamplerNode {
    int codebook;
};

// logits {codes, batch} -> I32 {batch}. The node runs on the CPU; on other devices the scheduler copies the
// logits over.
ggml_tensor* build_sampler(ggml_context* ctx, ggml_tensor* logits, const SamplerInputs& inputs,
                           SamplerNode* node);

}  // namespace csm
