// AVX-512 with integer dot products: Intel since Ice Lake, AMD since Zen 4.
#include "kernels/instruction_sets.h"
#include "kernels/target.h"
#include "runtime/processor.h"

namespace csm {

#if defined(CSM_X86)

CSM_TARGET("avx512f,avx512vl,avx512dq,avx512bw,avx512vnni,avx2,fma,f16c")
namespace avx512vnni {
namespace {
#define CSM_LANES 16
#define CSM_FMA(a, b, c) _mm512_fmadd_ps(a, b, c)
#define CSM_LOAD_F16(p) _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)))
#define CSM_DOT(sums, bytes, quad)              \
    reinterpret_cast<Ints>(_mm512_dpbusd_epi32( \
        reinterpret_cast<__m512i>(sums), reinterpret_cast<__m512i>(bytes), reinterpret_cast<__m512i>(quad)))
#define CSM_LOOKUP(table, bytes)                                                                             \
    reinterpret_cast<Ints>(                                                                                  \
        _mm512_shuffle_epi8(_mm512_broadcast_i32x4(_mm_load_si128(reinterpret_cast<const __m128i*>(table))), \
                            reinterpret_cast<__m512i>(bytes)))
#include "kernels/vectors.h"
// which the loops need
#include "kernels/packed_formats.h"
#include "kernels/packed_loops.h"
}  // namespace
}  // namespace avx512vnni
CSM_TARGET_END

std::optional<Kernels> find_avx512vnni() {
    std::optional<Kernels> kernels = find_avx512();
    if (!kernels || !processor_has("avx512vnni")) return std::nullopt;
    kernels->name = "avx512vnni";
    kernels->multiply = avx512vnni::multiply;
    kernels->integer_peak = avx512vnni::integer_peak;
    return kernels;
}

#else

std::optional<Kernels> find_avx512vnni() {
    return std::nullopt;
}

#endif

}  // namespace csm
