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
#include <vector>

#include "runtime/graph.h"

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

// Settings of one sequence as a graph holds them, as floats (integers are exact below 2^24).
enum SettingsRow {
    kTemperature,
    kTopP,
    kTopK,
    kInverseTemperature,  // 1 where the largest logit is taken
    kRanks,               // how many candidates are left after top-k
    kSettingsWidth
};
void pack_settings(const SamplerSettings& settings, int codes, float* out);

// Graph inputs of all samplers of a frame; each has one column per sequence of the batch.
struct SamplerInputs {
    ggml_tensor* settings = nullptr;  // F32 {kSettingsWidth, batch, 2}: plane 0 for codebook 0, 1 for others
    ggml_tensor* uniforms = nullptr;  // F32 {codebooks, batch}
    ggml_tensor* forced = nullptr;    // I32 {codebooks, batch}: a code >= 0 replaces the drawn one
    ggml_tensor* ranks =
        nullptr;  // F32 {codes, batch}: 0, -1, -2, ...; where it is null, nodes of our own draw

    // Describes the inputs in a pool; its owner allocates, and then calls upload_constants() once.
    SamplerInputs(TensorPool& pool, const Device& device, int codes, int codebooks, int batch);
    static constexpr size_t kTensors = 4;
    void upload_constants() const;
};

// The samplers of one graph. On the CPU each is one node of our own; elsewhere a composition of ggml's
// operators, so that the device need not stop for the host between codebooks.
class Sampler {
 public:
    // Also composes what all codebooks share, where there is no node of our own.
    Sampler(Graph& graph, const SamplerInputs& inputs);

    // logits {codes, batch} -> I32 {batch}
    ggml_tensor* draw(ggml_tensor* logits, int codebook) const;

    // Upper bounds of the nodes for one codebook and for what all share, views included.
    static constexpr size_t kNodes = 48, kSharedNodes = 16;

 private:
    ggml_tensor* composed(ggml_tensor* logits, int codebook) const;

    Graph& graph_;
    const SamplerInputs& inputs_;
    // of the composition, which computes in F32: a number u within rounding of a border between two codes may
    // draw the other one, and if logits are not numbers, any code may be drawn
    ggml_tensor* in_top_k_[2] = {};  // F32 {codes, batch}: 1 for the ranks that top-k leaves, of each plane
    ggml_tensor* forced_ = nullptr;  // F32 {codebooks, batch}
    ggml_tensor* is_forced_ = nullptr;  // F32 {codebooks, batch}: 0 or 1
};

}  // namespace csm
