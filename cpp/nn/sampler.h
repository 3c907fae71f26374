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

#include "runtime/transfers.h"

namespace csm {

struct SamplerSettings {
    float temperature = 0.9f;
    float top_p = 1.0f;
    int32_t top_k = 50;
};

// Working memory of a draw, kept from call to call.
struct SamplerScratch {
    std::vector<uint64_t> order;
    std::vector<double> mass;
};

// Draws one code from n logits. A logit that is not a number is never drawn unless all are.
int32_t sample_code(const float* logits, int n, const SamplerSettings& settings, float u,
                    SamplerScratch& scratch);

// Settings of one sequence as a graph holds them, as floats (integers are exact below 2^24).
enum SettingsRow {
    // for the node of our own
    kTemperature,
    kTopP,
    kTopK,
    // for the composition
    kInverseTemperature,  // 1 where the largest logit is taken
    kKept,                // how many candidates are left after top-k, in steps of rank_step()
    kLimit,               // just below top_p; above every mass where top_p is off
    kPart,                // 1 where top_p is on, else 0
    kWhole,               // 1 where top_p is off, else 0
    kSettingsWidth
};
// stride: floats from row to row.
void pack_settings(const SamplerSettings& settings, int codes, float* out, size_t stride);

// Ranks are compared as multiples of this power of two: all together are less than one half.
float rank_step(int64_t codes);

// Graph inputs of all samplers of a frame; a column has one element per sequence of the batch, at least.
struct SamplerInputs {
    ggml_tensor* settings = nullptr;  // F32 {batch, 2 * kSettingsWidth}: of codebook 0, then of the others
    ggml_tensor* uniforms = nullptr;  // F32 {batch, codebooks}
    ggml_tensor* forced = nullptr;    // I32 {batch, codebooks}: a code >= 0 replaces the drawn one
    // F32 {codes, batch}: 0, -1, -2, ... times rank_step(); where it is null, nodes of our own draw
    ggml_tensor* ranks = nullptr;

    // Describes the inputs in a block, and what is constant in its pool; the owner allocates, and then calls
    // upload_constants() once.
    SamplerInputs(InputBlock& block, TensorPool& pool, const Device& device, int codes, int codebooks,
                  int batch);
    static constexpr size_t kTensors = 4;
    void upload_constants() const;
};

// What a composed sampler can leave out, if no sequence of the batch needs it. Draws are the same with or
// without.
struct SamplerNeeds {
    bool top_p = true;
    bool forced = true;
    bool operator==(const SamplerNeeds& o) const { return top_p == o.top_p && forced == o.forced; }
};

// The samplers of one graph. On the CPU each is one node of our own; elsewhere a composition of ggml's
// operators, so that the device need not stop for the host between codebooks.
class Sampler {
 public:
    // Also composes what all codebooks share, where there is no node of our own.
    Sampler(Graph& graph, const SamplerInputs& inputs, int batch, const SamplerNeeds& needs = {});

    // logits {codes, batch} -> I32 {batch}
    ggml_tensor* draw(ggml_tensor* logits, int codebook) const;

    // Upper bounds of the nodes for one codebook and for what all share, views included.
    static constexpr size_t kNodes = 80, kSharedNodes = 40;

 private:
    // See composed_sampler.cpp. The composition computes in F32: a number u within rounding of a border
    // between two codes may draw the other one.
    struct Shared {
        ggml_tensor* hidden = nullptr;   // F32 {codes, batch}: what is added to logits by rank, for top-k
        ggml_tensor* last = nullptr;     // F32 {codes, batch}: 1 from the last rank on that top-k leaves
        ggml_tensor* borders = nullptr;  // F32 {codes, batch, codebooks}: the mass to pass, by rank
    };
    void compose_shared();
    ggml_tensor* composed(ggml_tensor* logits, int codebook) const;
    ggml_tensor* above_border(ggml_tensor* mass, ggml_tensor* cumulated, int codebook) const;
    ggml_tensor* replaced(ggml_tensor* code, int codebook) const;
    ggml_tensor* setting(SettingsRow row, int plane) const;
    ggml_tensor* of_codebook(ggml_tensor* inputs, int codebook) const;

    Graph& graph_;
    const SamplerInputs& inputs_;
    int batch_;
    SamplerNeeds needs_;
    Shared shared_[2];                  // for codebook 0, for the others
    ggml_tensor* forced_ = nullptr;     // F32 {batch, codebooks}
    ggml_tensor* is_forced_ = nullptr;  // F32 {batch, codebooks}: 0 or 1
};

}  // namespace csm
