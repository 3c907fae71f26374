// ARM with integer dot products: most 64-bit cores since Armv8.2, all of Apple's since the M1.
#include "kernels/instruction_sets.h"
#include "kernels/target.h"

#if defined(CSM_ARM) && defined(__linux__)
#include <asm/hwcap.h>
#include <sys/auxv.h>
#elif defined(CSM_ARM) && defined(__APPLE__)
#include <sys/sysctl.h>
#endif

namespace csm {

#if defined(CSM_ARM) && (defined(__linux__) || defined(__APPLE__))

#if defined(__clang__)
CSM_TARGET("dotprod")
#else
CSM_TARGET("arch=armv8.2-a+dotprod")
#endif
namespace dotprod {
namespace {
#define CSM_LANES 4
#define CSM_FMA(a, b, c) vfmaq_f32(c, a, b)
#define CSM_LOAD_F16(p) vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16(p)))
#define CSM_SIGNED_BYTES
#define CSM_DOT(sums, bytes, quad)                                                                          \
    reinterpret_cast<Ints>(vdotq_s32(reinterpret_cast<int32x4_t>(sums), reinterpret_cast<int8x16_t>(bytes), \
                                     reinterpret_cast<int8x16_t>(quad)))
#define CSM_LOOKUP(table, bytes) \
    reinterpret_cast<Ints>(vqtbl1q_u8(vld1q_u8(table), reinterpret_cast<uint8x16_t>(bytes)))
#include "kernels/vectors.h"
// which the loops need
#include "kernels/packed_formats.h"
#include "kernels/packed_loops.h"
}  // namespace
}  // namespace dotprod
CSM_TARGET_END

namespace {

bool has_dotprod() {
#if defined(__linux__)
    return (getauxval(AT_HWCAP) & HWCAP_ASIMDDP) != 0;
#else
    int value = 0;
    size_t size = sizeof value;
    return sysctlbyname("hw.optional.arm.FEAT_DotProd", &value, &size, nullptr, 0) == 0 && value != 0;
#endif
}

}  // namespace

std::optional<Kernels> find_dotprod() {
    std::optional<Kernels> kernels = find_portable();
    if (!kernels || !has_dotprod()) return std::nullopt;
    kernels->name = "dotprod";
    kernels->multiply = dotprod::multiply;
    kernels->integer_peak = dotprod::integer_peak;
    return kernels;
}

#else

std::optional<Kernels> find_dotprod() {
    return std::nullopt;
}

#endif

}  // namespace csm
