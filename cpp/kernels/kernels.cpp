#include "kernels/kernels.h"

#include <algorithm>

#include "ggml.h"

#if defined(__x86_64__) || defined(__i386__)
#include <immintrin.h>
#endif

namespace csm {

int64_t gemm_packed_size(int64_t in, int64_t out) {
    if (out < kGemmNarrow) return in * out;
    return (out + kGemmPanel - 1) / kGemmPanel * kGemmPanel * in;
}

bool gemm_packs(ggml_type type) {
    return type == GGML_TYPE_F32 || type == GGML_TYPE_F16 || type == GGML_TYPE_BF16;
}

namespace {

struct Bf16 {
    uint16_t bits;
};

template <typename Weight>
void pack(const Weight* weights, int64_t in, int64_t out, Weight* packed) {
    if (out < kGemmNarrow) {
        std::copy(weights, weights + in * out, packed);
        return;
    }
    for (int64_t first = 0; first < out; first += kGemmPanel) {
        for (int64_t k = 0; k < in; ++k) {
            for (int64_t o = first; o < first + kGemmPanel; ++o)
                *packed++ = o < out ? weights[o * in + k] : Weight{};
        }
    }
}

}  // namespace

void gemm_pack(ggml_type type, const void* weights, int64_t in, int64_t out, void* packed) {
    if (type == GGML_TYPE_F32) {
        pack(static_cast<const float*>(weights), in, out, static_cast<float*>(packed));
    } else {
        pack(static_cast<const uint16_t*>(weights), in, out, static_cast<uint16_t*>(packed));
    }
}

#if defined(__GNUC__)

namespace {

#if defined(__x86_64__) || defined(__i386__)

#define CSM_DO_PRAGMA(text) _Pragma(#text)
#if defined(__clang__)
#define CSM_TARGET(features) \
    CSM_DO_PRAGMA(clang attribute push(__attribute__((target(features))), apply_to = function))
#define CSM_TARGET_END CSM_DO_PRAGMA(clang attribute pop)
#else
#define CSM_TARGET(features) CSM_DO_PRAGMA(GCC push_options) CSM_DO_PRAGMA(GCC target(features))
#define CSM_TARGET_END CSM_DO_PRAGMA(GCC pop_options)
#endif

CSM_TARGET("avx512f,avx512vl,avx512dq,avx512bw,avx2,fma,f16c")
namespace avx512 {
#define CSM_LANES 16
#define CSM_VECTORS 2
#define CSM_ROWS 12
#define CSM_LOAD_F16(p) _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)))
#define CSM_LOAD_BF16(p) \
    _mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p))), 16)
#include "kernels/kernel_loops.h"
}  // namespace avx512
CSM_TARGET_END

CSM_TARGET("avx2,fma,f16c")
namespace avx2 {
#define CSM_LANES 8
#define CSM_VECTORS 2
#define CSM_ROWS 6
#define CSM_LOAD_F16(p) _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)))
#define CSM_LOAD_BF16(p) \
    _mm256_slli_epi32(_mm256_cvtepu16_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p))), 16)
#include "kernels/kernel_loops.h"
}  // namespace avx2
CSM_TARGET_END

#endif

namespace baseline {
#define CSM_LANES 4
#define CSM_VECTORS 2
#if defined(__aarch64__)
#define CSM_ROWS 12  // 32 registers
#else
#define CSM_ROWS 6
#endif
#include "kernels/kernel_loops.h"
}  // namespace baseline

std::vector<Kernels> find_kernels() {
    std::vector<Kernels> usable;
#if defined(__x86_64__) || defined(__i386__)
    __builtin_cpu_init();
    const bool has_avx2 =
        __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("f16c");
    if (has_avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl") &&
        __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512bw"))
        usable.push_back({"avx512", avx512::units, avx512::run, avx512::elu_array, avx512::attend});
    if (has_avx2) usable.push_back({"avx2", avx2::units, avx2::run, avx2::elu_array, avx2::attend});
#endif
    usable.push_back({"baseline", baseline::units, baseline::run, baseline::elu_array, baseline::attend});
    return usable;
}

}  // namespace

#endif

const std::vector<Kernels>& usable_kernels() {
#if defined(__GNUC__)
    static const std::vector<Kernels> kernels = find_kernels();
#else
    static const std::vector<Kernels> kernels;
#endif
    return kernels;
}

}  // namespace csm
