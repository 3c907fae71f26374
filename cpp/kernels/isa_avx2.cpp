// AVX2: Intel since Haswell, AMD since Zen.
#include "kernels/instruction_sets.h"
#include "kernels/target.h"
#include "runtime/processor.h"

namespace csm {

#if defined(CSM_X86)

CSM_TARGET("avx2,fma,f16c")
namespace avx2 {
namespace {
#define CSM_LANES 8
#define CSM_VECTORS 2
#define CSM_ROWS 6
#define CSM_HEADS 2
#define CSM_FMA(a, b, c) _mm256_fmadd_ps(a, b, c)
#define CSM_LOAD_F16(p) _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)))
#define CSM_LOAD_BF16(p) \
    _mm256_slli_epi32(_mm256_cvtepu16_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p))), 16)
#define CSM_PAIRS(sums, bytes, quad)         \
    reinterpret_cast<Ints>(_mm256_add_epi16( \
        reinterpret_cast<__m256i>(sums),     \
        _mm256_maddubs_epi16(reinterpret_cast<__m256i>(bytes), reinterpret_cast<__m256i>(quad))))
#define CSM_PAIR_SUMS(sums) \
    reinterpret_cast<Ints>(_mm256_madd_epi16(reinterpret_cast<__m256i>(sums), _mm256_set1_epi16(1)))
#define CSM_LOOKUP(table, bytes)                                                              \
    reinterpret_cast<Ints>(_mm256_shuffle_epi8(                                               \
        _mm256_broadcastsi128_si256(_mm_load_si128(reinterpret_cast<const __m128i*>(table))), \
        reinterpret_cast<__m256i>(bytes)))
#include "kernels/vectors.h"
// which the loops need
#include "kernels/float_loops.h"
#include "kernels/packed_formats.h"
// which packed_loops.h needs
#include "kernels/packed_loops.h"
#include "kernels/row_loops.h"
}  // namespace
}  // namespace avx2
CSM_TARGET_END

std::optional<Kernels> find_avx2() {
    if (!processor_has("avx2") || !processor_has("fma") || !processor_has("f16c")) return std::nullopt;
    return Kernels{"avx2",       avx2::units,      avx2::run,         avx2::elu_array,
                   avx2::attend, avx2::multiply,   avx2::quantize,    avx2::rms_norm,
                   avx2::swiglu, avx2::float_peak, avx2::integer_peak};
}

#else

std::optional<Kernels> find_avx2() {
    return std::nullopt;
}

#endif

}  // namespace csm
