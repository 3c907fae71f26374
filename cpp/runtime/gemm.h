// Matrix products in F32 on the CPU. ggml computes an F32 product as one dot product per element; the codec
// consists of little else, and the register tiles here do it several times as fast.
//
// Weights are packed once: into panels of kGemmPanel outputs, in each of which the weights of one input lie
// side by side. Every element is summed up in an order that depends on the matrix alone, so that a result
// depends neither on how many rows are computed at once nor on the number of threads.
#pragma once

#include <cstdint>
#include <vector>

namespace csm {

constexpr int64_t kGemmPanel = 32;
// Fewer outputs than this are not worth a panel: they are computed as dot products.
constexpr int64_t kGemmNarrow = 8;

// Whether this build has the kernels; they are written with the vector types of GCC and Clang.
#if defined(__GNUC__)
constexpr bool kHaveGemm = true;
#else
constexpr bool kHaveGemm = false;
#endif

// Floats that a packed matrix {in, out} takes.
int64_t gemm_packed_size(int64_t in, int64_t out);
// Packs weights, `out` rows of `in`.
void gemm_pack(const float* weights, int64_t in, int64_t out, float* packed);

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
    const float* weights;   // packed
    const float* bias;      // {out}, or null
    const float* residual;  // added to the result: {out, rows}, or null
    float* y;               // {out, rows}
    bool elu;               // applied last
};

// The kernels for one instruction set.
struct GemmKernels {
    const char* name;
    // A product is made of so many units of work, which may be computed in any order.
    int64_t (*units)(const Gemm& job);
    void (*gemm)(const Gemm& job, int64_t first_unit, int64_t last_unit);
    // y[i] = elu(x[i]) = x[i] > 0 ? x[i] : exp(x[i]) - 1
    void (*elu)(const float* x, int64_t n, float* y);
};

// Those that this processor can run, the fastest first; none if kHaveGemm is false.
const std::vector<GemmKernels>& gemm_kernels();

}  // namespace csm
