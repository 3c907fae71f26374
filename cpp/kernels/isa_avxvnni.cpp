// AVX2 with integer dot products of 256 bits: Intel since the 12th generation, AMD since Zen 5.
#include "kernels/instruction_sets.h"
#include "kernels/target.h"
#include "runtime/processor.h"

namespace csm {

// The compilers that have the instruction bring this header.
#if defined(CSM_X86) && __has_include(<avxvnniintrin.h>)

CSM_TARGET("avxvnni,avx2,fma,f16c")
namespace avxvnni {
namespace {
#define CSM_LANES 8
#define CSM_FMA(a, b, c) _mm256_fmadd_ps(a, b, c)
#define CSM_LOAD_F16(p) _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)))
#define CSM_DOT(sums, bytes, quad)                  \
    reinterpret_cast<Ints>(_mm256_dpbusd_avx_epi32( \
        reinterpret_cast<__m256i>(sums), reinterpret_cast<__m256i>(bytes), reinterpret_cast<__m256i>(quad)))
#define CSM_LOOKUP(table, bytes)                                                              \
    reinterpret_cast<Ints>(_mm256_shuffle_epi8(                                               \
        _mm256_broadcastsi128_si256(_mm_load_si128(reinterpret_cast<const __m128i*>(table))), \
        reinterpret_cast<__m256i>(bytes)))
#include "kernels/vectors.h"
// which the loops need
#include "kernels/packed_formats.h"
#include "kernels/packed_loops.h"
}  // namespace
}  // namespace avxvnni
CSM_TARGET_END

std::optional<Kernels> find_avxvnni() {
    std::optional<Kernels> kernels = find_avx2();
    if (!kernels || !processor_has("avxvnni")) return std::nullopt;
    kernels->name = "avxvnni";
    kernels->multiply = avxvnni::multiply;
    kernels->integer_peak = avxvnni::integer_peak;
    return kernels;
}

#else

std::optional<Kernels> find_avxvnni() {
    return std::nullopt;
}

#endif

}  // namespace csm
