// AVX-512 without integer dot products (Skylake-X), and what every AVX-512 set shares.
#include "kernels/instruction_sets.h"
#include "kernels/target.h"
#include "runtime/processor.h"

namespace csm {

#if defined(CSM_X86)

CSM_TARGET("avx512f,avx512vl,avx512dq,avx512bw,avx2,fma,f16c")
namespace avx512 {
namespace {
#define CSM_LANES 16
#define CSM_VECTORS 2
#define CSM_ROWS 12
#define CSM_HEADS 4
#define CSM_FMA(a, b, c) _mm512_fmadd_ps(a, b, c)
#define CSM_LOAD_F16(p) _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)))
#define CSM_LOAD_BF16(p) \
    _mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p))), 16)
#define CSM_PAIRS(sums, bytes, quad)         \
    reinterpret_cast<Ints>(_mm512_add_epi16( \
        reinterpret_cast<__m512i>(sums),     \
        _mm512_maddubs_epi16(reinterpret_cast<__m512i>(bytes), reinterpret_cast<__m512i>(quad))))
#define CSM_PAIR_SUMS(sums) \
    reinterpret_cast<Ints>(_mm512_madd_epi16(reinterpret_cast<__m512i>(sums), _mm512_set1_epi16(1)))
#define CSM_LOOKUP(table, bytes)                                                                             \
    reinterpret_cast<Ints>(                                                                                  \
        _mm512_shuffle_epi8(_mm512_broadcast_i32x4(_mm_load_si128(reinterpret_cast<const __m128i*>(table))), \
                            reinterpret_cast<__m512i>(bytes)))
#include "kernels/vectors.h"
// which the loops need
#include "kernels/float_loops.h"
#include "kernels/packed_formats.h"
// which packed_loops.h needs
#include "kernels/packed_loops.h"
#include "kernels/row_loops.h"
}  // namespace
}  // namespace avx512
CSM_TARGET_END

std::optional<Kernels> find_avx512() {
    if (!processor_has("avx2") || !processor_has("fma") || !processor_has("f16c") ||
        !processor_has("avx512f") || !processor_has("avx512vl") || !processor_has("avx512dq") ||
        !processor_has("avx512bw"))
        return std::nullopt;
    return Kernels{"avx512",       avx512::units,      avx512::run,         avx512::elu_array,
                   avx512::attend, avx512::multiply,   avx512::quantize,    avx512::rms_norm,
                   avx512::swiglu, avx512::float_peak, avx512::integer_peak};
}

#else

std::optional<Kernels> find_avx512() {
    return std::nullopt;
}

#endif

}  // namespace csm
