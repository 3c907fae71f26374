// ARM with products of integer matrices of 2 x 8: servers since Graviton 3, Apple since the M2, most phones
// since Armv9.
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
CSM_TARGET("dotprod,i8mm")
#else
CSM_TARGET("arch=armv8.2-a+dotprod+i8mm")
#endif
namespace i8mm {
namespace {
#define CSM_LANES 4
#define CSM_FMA(a, b, c) vfmaq_f32(c, a, b)
#define CSM_LOAD_F16(p) vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16(p)))
#define CSM_DOT(sums, bytes, quad)                                          \
    reinterpret_cast<Ints>(vusdotq_s32(reinterpret_cast<int32x4_t>(sums),   \
                                       reinterpret_cast<uint8x16_t>(bytes), \
                                       reinterpret_cast<int8x16_t>(quad)))
#define CSM_DOT_2X2(sums, bytes, quads)                                      \
    reinterpret_cast<Ints>(vusmmlaq_s32(reinterpret_cast<int32x4_t>(sums),   \
                                        reinterpret_cast<uint8x16_t>(bytes), \
                                        reinterpret_cast<int8x16_t>(quads)))
#define CSM_LOOKUP(table, bytes) \
    reinterpret_cast<Ints>(vqtbl1q_u8(vld1q_u8(table), reinterpret_cast<uint8x16_t>(bytes)))
#include "kernels/vectors.h"
// which the loops need
#include "kernels/packed_formats.h"
#include "kernels/packed_loops.h"
}  // namespace
}  // namespace i8mm
CSM_TARGET_END

namespace {

bool has_i8mm() {
#if defined(__linux__)
    return (getauxval(AT_HWCAP2) & HWCAP2_I8MM) != 0;
#else
    int value = 0;
    size_t size = sizeof value;
    return sysctlbyname("hw.optional.arm.FEAT_I8MM", &value, &size, nullptr, 0) == 0 && value != 0;
#endif
}

}  // namespace

std::optional<Kernels> find_i8mm() {
    std::optional<Kernels> kernels = find_dotprod();
    if (!kernels || !has_i8mm()) return std::nullopt;
    kernels->name = "i8mm";
    kernels->multiply = i8mm::multiply;
    kernels->integer_peak = i8mm::integer_peak;
    return kernels;
}

#else

std::optional<Kernels> find_i8mm() {
    return std::nullopt;
}

#endif

}  // namespace csm
