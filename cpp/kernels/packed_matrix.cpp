#include "kernels/packed_matrix.h"

#include <cmath>
#include <cstring>

#if defined(__x86_64__) && (defined(__GNUC__) || defined(__clang__))
#define CSM_HAVE_VNNI 1
#if defined(__GNUC__) && !defined(__clang__)
// GCC's own intrinsics leave the operand of masked-out lanes undefined, and its warnings find that here.
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#pragma GCC diagnostic ignored "-Wuninitialized"
#endif
#include <immintrin.h>
#define CSM_VNNI __attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c")))
#endif

namespace csm {

namespace {

constexpr size_t kScaleBytes = 64;  // of a pair of blocks
constexpr size_t kQ4LineBytes = 256, kQ8LineBytes = 512;

size_t block_bytes(ggml_type type) {
    return type == GGML_TYPE_Q4_0 ? kQ4LineBytes : kQ8LineBytes;
}

bool processor_supported() {
#if defined(CSM_HAVE_VNNI)
    static const bool yes = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                            __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") &&
                            __builtin_cpu_supports("avx512vnni") && __builtin_cpu_supports("fma");
    return yes;
#else
    return false;
#endif
}

}  // namespace

bool PackedMatrix::supported(ggml_type type, int64_t columns, int64_t rows) {
    return processor_supported() && (type == GGML_TYPE_Q4_0 || type == GGML_TYPE_Q8_0) &&
           columns % (2 * kBlockColumns) == 0 && rows % kGroupRows == 0;
}

size_t PackedMatrix::group_bytes() const {
    return static_cast<size_t>(columns / (2 * kBlockColumns)) * (kScaleBytes + 2 * block_bytes(type));
}

void PackedMatrix::pack(const void* ggml_rows, void* out) const {
    const size_t row_bytes = ggml_row_size(type, columns), source_block = ggml_type_size(type);
    auto* to = static_cast<uint8_t*>(out);
    for (int64_t group = 0; group < groups(); ++group) {
        const auto* rows_of_group =
            static_cast<const uint8_t*>(ggml_rows) + row_bytes * static_cast<size_t>(group * kGroupRows);
        for (int64_t pair = 0; pair < columns / (2 * kBlockColumns); ++pair) {
            uint8_t* quants = to + kScaleBytes;
            for (size_t half = 0; half < 2; ++half) {
                for (size_t r = 0; r < kGroupRows; ++r) {
                    const uint8_t* block =
                        rows_of_group + r * row_bytes + (static_cast<size_t>(pair) * 2 + half) * source_block;
                    std::memcpy(to + (half * kGroupRows + r) * 2, block, 2);
                    // four bytes of a row side by side: Q4_0 bytes hold column j and j + 16
                    for (size_t line = 0; line < block_bytes(type) / 64; ++line) {
                        std::memcpy(quants + half * block_bytes(type) + line * 64 + r * 4,
                                    block + 2 + line * 4, 4);
                    }
                }
                if (type == GGML_TYPE_Q8_0) {  // signed to offset binary
                    for (size_t i = 0; i < kQ8LineBytes; ++i) quants[half * kQ8LineBytes + i] ^= 0x80;
                }
            }
            to += kScaleBytes + 2 * block_bytes(type);
        }
    }
}

#if defined(CSM_HAVE_VNNI)

namespace {

// How far ahead weights are prefetched. The processor's own prefetch keeps up with one to four activations,
// and is only disturbed (44 against 53 GB/s); with more the loads are too far apart for it (13 against 20
// GB/s at eight).
constexpr size_t kPrefetchBytes = 4096;
constexpr int kOwnPrefetch = 4;

struct Activation {
    const int8_t* quants;
    const float* scales;
    const int32_t* offsets;
    Activation(const void* base, int64_t columns)
        : quants(static_cast<const int8_t*>(base)),
          scales(reinterpret_cast<const float*>(quants + columns)),
          offsets(reinterpret_cast<const int32_t*>(scales + columns / 32)) {}
};

// Four consecutive quants in every lane.
CSM_VNNI inline __m512i broadcast4(const int8_t* quants) {
    int32_t four;
    std::memcpy(&four, quants, sizeof four);
    return _mm512_set1_epi32(four);
}

template <int T, bool Q8>
CSM_VNNI void multiply_tile(const uint8_t* w, int64_t columns, const uint8_t* activations, size_t stride,
                            float* out, int64_t out_stride) {
    const __m512i low_nibbles = _mm512_set1_epi8(0x0f);
    __m512 sums[T];
    for (int t = 0; t < T; ++t) sums[t] = _mm512_setzero_ps();
    constexpr size_t kBlock = Q8 ? kQ8LineBytes : kQ4LineBytes;
    for (int64_t pair = 0; pair < columns / 64; ++pair) {
        if (T > kOwnPrefetch) {
            for (size_t at = 0; at < kScaleBytes + 2 * kBlock; at += 64) {
                _mm_prefetch(reinterpret_cast<const char*>(w + kPrefetchBytes + at), _MM_HINT_T0);
            }
        }
        for (int64_t half = 0; half < 2; ++half) {
            const int64_t block = pair * 2 + half;
            const __m512 scale =
                _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(w + half * 32)));
            const uint8_t* lines = w + kScaleBytes + static_cast<size_t>(half) * kBlock;
            __m512i acc[T];
            for (int t = 0; t < T; ++t) {
                const Activation a(activations + static_cast<size_t>(t) * stride, columns);
                acc[t] = _mm512_set1_epi32(a.offsets[block]);
                if (Q8) acc[t] = _mm512_slli_epi32(acc[t], 4);  // -128 = -8 * 16
            }
            for (int line = 0; line < static_cast<int>(kBlock / 64); ++line) {
                const __m512i bytes = _mm512_loadu_si512(lines + line * 64);
                if (Q8) {
                    for (int t = 0; t < T; ++t) {
                        const Activation a(activations + static_cast<size_t>(t) * stride, columns);
                        acc[t] =
                            _mm512_dpbusd_epi32(acc[t], bytes, broadcast4(a.quants + block * 32 + line * 4));
                    }
                } else {
                    const __m512i low = _mm512_and_si512(bytes, low_nibbles);
                    const __m512i high = _mm512_and_si512(_mm512_srli_epi16(bytes, 4), low_nibbles);
                    for (int t = 0; t < T; ++t) {
                        const Activation a(activations + static_cast<size_t>(t) * stride, columns);
                        acc[t] =
                            _mm512_dpbusd_epi32(acc[t], low, broadcast4(a.quants + block * 32 + line * 4));
                        acc[t] = _mm512_dpbusd_epi32(acc[t], high,
                                                     broadcast4(a.quants + block * 32 + 16 + line * 4));
                    }
                }
            }
            for (int t = 0; t < T; ++t) {
                const Activation a(activations + static_cast<size_t>(t) * stride, columns);
                sums[t] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(acc[t]),
                                          _mm512_mul_ps(scale, _mm512_set1_ps(a.scales[block])), sums[t]);
            }
        }
        w += kScaleBytes + 2 * kBlock;
    }
    for (int t = 0; t < T; ++t) _mm512_storeu_ps(out + t * out_stride, sums[t]);
}

template <bool Q8>
void multiply_tiles(const uint8_t* w, int64_t columns, const uint8_t* x, int64_t count, float* out,
                    int64_t out_stride) {
    const size_t stride = activation_bytes(columns);
    constexpr int kTile = 8;
    for (; count >= kTile; count -= kTile, x += kTile * stride, out += kTile * out_stride) {
        multiply_tile<kTile, Q8>(w, columns, x, stride, out, out_stride);
    }
    switch (count) {
        case 7:
            return multiply_tile<7, Q8>(w, columns, x, stride, out, out_stride);
        case 6:
            return multiply_tile<6, Q8>(w, columns, x, stride, out, out_stride);
        case 5:
            return multiply_tile<5, Q8>(w, columns, x, stride, out, out_stride);
        case 4:
            return multiply_tile<4, Q8>(w, columns, x, stride, out, out_stride);
        case 3:
            return multiply_tile<3, Q8>(w, columns, x, stride, out, out_stride);
        case 2:
            return multiply_tile<2, Q8>(w, columns, x, stride, out, out_stride);
        case 1:
            return multiply_tile<1, Q8>(w, columns, x, stride, out, out_stride);
        default:
            return;
    }
}

CSM_VNNI void quantize_vnni(const float* values, int64_t columns, int64_t first, int64_t last, void* out) {
    auto* quants = static_cast<int8_t*>(out);
    auto* scales = reinterpret_cast<float*>(quants + columns);
    auto* offsets = reinterpret_cast<int32_t*>(scales + columns / 32);
    for (int64_t block = first / 32; block < last / 32; ++block) {
        const __m512 a = _mm512_loadu_ps(values + block * 32), b = _mm512_loadu_ps(values + block * 32 + 16);
        const float largest = _mm512_reduce_max_ps(_mm512_max_ps(_mm512_abs_ps(a), _mm512_abs_ps(b)));
        const __m512 inverse = _mm512_set1_ps(largest > 0.0f ? 127.0f / largest : 0.0f);
        const __m512i qa = _mm512_cvtps_epi32(_mm512_mul_ps(a, inverse)),
                      qb = _mm512_cvtps_epi32(_mm512_mul_ps(b, inverse));
        _mm_storeu_si128(reinterpret_cast<__m128i*>(quants + block * 32), _mm512_cvtsepi32_epi8(qa));
        _mm_storeu_si128(reinterpret_cast<__m128i*>(quants + block * 32 + 16), _mm512_cvtsepi32_epi8(qb));
        scales[block] = largest / 127.0f;
        offsets[block] = -8 * _mm512_reduce_add_epi32(_mm512_add_epi32(qa, qb));
    }
}

// e^x by 2^n * e^r, |r| <= ln(2) / 2, with a polynomial of degree 6 (Taylor; error below 2 ulp on that
// interval).
CSM_VNNI inline __m512 exp_vnni(__m512 x) {
    x = _mm512_min_ps(_mm512_max_ps(x, _mm512_set1_ps(-87.0f)), _mm512_set1_ps(88.0f));
    const __m512 n = _mm512_roundscale_ps(_mm512_mul_ps(x, _mm512_set1_ps(1.44269504f)),
                                          _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    __m512 r = _mm512_fnmadd_ps(n, _mm512_set1_ps(0.693359375f), x);
    r = _mm512_fnmadd_ps(n, _mm512_set1_ps(-2.12194440e-4f), r);
    constexpr float kTaylor[] = {1.0f / 120, 1.0f / 24, 1.0f / 6, 0.5f, 1.0f, 1.0f};
    __m512 p = _mm512_set1_ps(1.0f / 720);
    for (const float c : kTaylor) p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(c));
    return _mm512_scalef_ps(p, n);
}

CSM_VNNI void swiglu_vnni(float* gate, const float* up, int64_t n) {
    const __m512 one = _mm512_set1_ps(1.0f);
    for (int64_t i = 0; i < n; i += 16) {
        const __m512 g = _mm512_loadu_ps(gate + i);
        const __m512 silu =
            _mm512_div_ps(g, _mm512_add_ps(one, exp_vnni(_mm512_sub_ps(_mm512_setzero_ps(), g))));
        _mm512_storeu_ps(gate + i, _mm512_mul_ps(silu, _mm512_loadu_ps(up + i)));
    }
}

CSM_VNNI void rms_norm_vnni(const float* values, const float* weight, int64_t n, float eps, float* out) {
    __m512 squares = _mm512_setzero_ps();
    for (int64_t i = 0; i < n; i += 16) {
        const __m512 v = _mm512_loadu_ps(values + i);
        squares = _mm512_fmadd_ps(v, v, squares);
    }
    const __m512 scale =
        _mm512_set1_ps(1.0f / std::sqrt(_mm512_reduce_add_ps(squares) / static_cast<float>(n) + eps));
    for (int64_t i = 0; i < n; i += 16) {
        _mm512_storeu_ps(out + i, _mm512_mul_ps(_mm512_mul_ps(_mm512_loadu_ps(values + i), scale),
                                                _mm512_loadu_ps(weight + i)));
    }
}

}  // namespace

void PackedMatrix::multiply(const void* packed, int64_t group, int64_t n_groups, const void* activations,
                            int64_t count, float* out, int64_t out_stride) const {
    const auto* w = static_cast<const uint8_t*>(packed) + group_bytes() * static_cast<size_t>(group);
    const auto* x = static_cast<const uint8_t*>(activations);
    for (int64_t g = 0; g < n_groups; ++g) {
        if (type == GGML_TYPE_Q8_0) {
            multiply_tiles<true>(w, columns, x, count, out, out_stride);
        } else {
            multiply_tiles<false>(w, columns, x, count, out, out_stride);
        }
        w += group_bytes();
        out += kGroupRows;
    }
}

void quantize_activations(const float* values, int64_t columns, int64_t first, int64_t last, void* out) {
    quantize_vnni(values, columns, first, last, out);
}
void rms_norm(const float* values, const float* weight, int64_t n, float eps, float* out) {
    rms_norm_vnni(values, weight, n, eps, out);
}
void swiglu(float* gate, const float* up, int64_t n) {
    swiglu_vnni(gate, up, n);
}

#else

// supported() is false: nothing is packed here, and the graphs never reach these.
void PackedMatrix::multiply(const void*, int64_t, int64_t, const void*, int64_t, float*, int64_t) const {
    GGML_ABORT("no packed kernels on this processor");
}
void quantize_activations(const float*, int64_t, int64_t, int64_t, void*) {
    GGML_ABORT("no packed kernels on this processor");
}
void rms_norm(const float*, const float*, int64_t, float, float*) {
    GGML_ABORT("no packed kernels on this processor");
}
void swiglu(float*, const float*, int64_t) {
    GGML_ABORT("no packed kernels on this processor");
}

#endif

}  // namespace csm
