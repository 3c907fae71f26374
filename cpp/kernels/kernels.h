// The inner loops of our own graph nodes on the CPU: products with floating-point and packed matrices,
// attention over a cache, and the activations around them. They are written once, compiled for each
// instruction set (files isa_*.cpp), and chosen when the program runs.
//
// ggml computes an F32 product as one dot product per element; the codec consists of little else, and the
// register tiles here do it several times as fast. Weights are packed once: into panels of kGemmPanel
// outputs, in each of which the weights of one input lie side by side. F16 and BF16 weights are widened as
// they are loaded, so that nothing is rounded besides the sums; ggml rounds the other factor to their type.
//
// Every number is computed in an order that depends neither on how many rows or queries are computed at once
// nor on the number of threads.
#pragma once

#include <cstdint>
#include <vector>

#include "ggml.h"
#include "kernels/packed_matrix.h"

namespace csm {

// Whether this build has the kernels; they are written with the vector types of GCC and Clang.
#if defined(__GNUC__)
constexpr bool kHaveKernels = true;
#else
constexpr bool kHaveKernels = false;
#endif

enum class Activation { none, elu, gelu };

constexpr int64_t kGemmPanel = 32;
// Fewer outputs than this are not worth a panel: they are computed as dot products.
constexpr int64_t kGemmNarrow = 8;

// Whether weights of the type can be packed: F32, F16 and BF16.
bool gemm_packs(ggml_type type);
// Numbers that a packed matrix {in, out} takes.
int64_t gemm_packed_size(int64_t in, int64_t out);
// Packs weights of such a type, `out` rows of `in`.
void gemm_pack(ggml_type type, const void* weights, int64_t in, int64_t out, void* packed);

// Where input k of an output stands in a packed matrix: at offset + k * step.
struct GemmEntry {
    int64_t offset, step;
};
inline GemmEntry gemm_entry(int64_t in, int64_t out, int64_t output) {
    if (out < kGemmNarrow) return {output * in, 1};
    return {output / kGemmPanel * kGemmPanel * in + output % kGemmPanel, kGemmPanel};
}

struct Gemm {
    const float* x;  // rows of `in` inputs, x_step floats from row to row; rows may overlap
    int64_t x_step;
    int64_t rows;
    int64_t in, out;
    ggml_type type;         // of the weights
    const void* weights;    // packed
    const float* bias;      // {out}, or null
    const float* residual;  // added to the result: {out, rows}, or null
    float* y;               // {out, rows}
    Activation activation;  // applied last
};

// Attention of the query heads that share one head of keys and values, for one query.
struct Attention {
    const float* q;    // {head_dim, heads}
    int64_t head_dim;  // a multiple of kAttentionDim
    int64_t heads;
    const void* k;  // row i of keys at k + i * kv_step bytes: {head_dim}; values likewise
    const void* v;
    int64_t kv_step;
    bool f16;             // the type of keys and values, else F32
    const int32_t* rows;  // the visible rows, n of them
    int64_t n;
    float scale;    // of the scores
    float* scores;  // room for n * heads
    float* out;     // {head_dim, heads}
};
constexpr int64_t kAttentionDim = 16;

// How far ahead packed weights are prefetched: the processor's own prefetch does not keep up (31 against 37
// GB/s with one activation, 13 against 20 with eight).
constexpr size_t kPrefetchBytes = 4096;

// The kernels for one instruction set.
struct Kernels {
    const char* name;
    // A product with a floating-point matrix is made of so many units of work, which may be computed in any
    // order.
    int64_t (*units)(const Gemm& job);
    void (*gemm)(const Gemm& job, int64_t first_unit, int64_t last_unit);
    // y[i] = elu(x[i]) = x[i] > 0 ? x[i] : exp(x[i]) - 1
    void (*elu)(const float* x, int64_t n, float* y);
    void (*attend)(const Attention& job);

    // The rest gives the same bits on every instruction set.
    void (*multiply)(const PackedProduct& job);
    // Quantizes blocks first_block .. last_block of a token, of which values[0] is the first number, to its
    // place among the activations. Blocks whose numbers are not all finite give products that are not.
    void (*quantize)(const float* values, int64_t first_block, int64_t last_block,
                     const ActivationTiles& tiles, int64_t token, void* activations);
    // out[i] = values[i] * weight[i] / sqrt(mean(values^2) + eps); n is a multiple of 16.
    void (*rms_norm)(const float* values, const float* weight, int64_t n, float eps, float* out);
    // gate[i] = gate[i] / (1 + exp(-gate[i])) * up[i]; n is a multiple of 16.
    void (*swiglu)(float* gate, const float* up, int64_t n);

    // Rounds of nothing but multiply-adds, of F32 and of bytes with so many bits; return how many they did.
    int64_t (*float_peak)(int64_t rounds);
    int64_t (*integer_peak)(int bits, int64_t rounds);
};

// Names a lower instruction set than the best; for tests, and to find out what a fault depends on.
constexpr const char* kInstructionSetVariable = "CSM_GGML_ISA";

// Those that this processor can run, the fastest first and the portable one last; none if kHaveKernels is
// false.
const std::vector<Kernels>& usable_kernels();

// The kernels in use: the first of these, or those that the environment names. Throws ArgumentError if it
// names others. The choice is made once; kHaveKernels must be true.
const Kernels& kernels();

}  // namespace csm
