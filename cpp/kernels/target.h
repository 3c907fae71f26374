// What the file of an instruction set needs: functions between CSM_TARGET(features) and CSM_TARGET_END may
// use the features' instructions. Only these functions do: compiled with flags for the whole file, an inline
// function of a standard header could come out with instructions that other processors lack, and be the copy
// that the linker keeps for all.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>

#include "ggml.h"
#include "kernels/kernels.h"

#if defined(__GNUC__) && (defined(__x86_64__) || defined(__i386__))
#define CSM_X86 1
#include <immintrin.h>
#endif
#if defined(__GNUC__) && defined(__aarch64__)
#define CSM_ARM 1
#include <arm_neon.h>
#endif

#define CSM_DO_PRAGMA(text) _Pragma(#text)
#if defined(__clang__)
#define CSM_TARGET(features) \
    CSM_DO_PRAGMA(clang attribute push(__attribute__((target(features))), apply_to = function))
#define CSM_TARGET_END CSM_DO_PRAGMA(clang attribute pop)
#elif defined(__GNUC__)
#define CSM_TARGET(features) CSM_DO_PRAGMA(GCC push_options) CSM_DO_PRAGMA(GCC target(features))
#define CSM_TARGET_END CSM_DO_PRAGMA(GCC pop_options)
// GCC's own intrinsics leave the operand of masked-out lanes undefined, and its warnings find that here.
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#pragma GCC diagnostic ignored "-Wuninitialized"
#endif

namespace csm {

struct Bf16 {
    uint16_t bits;
};

}  // namespace csm
