// Plain vectors of GCC and Clang, for what every processor of the architecture has.
#include "kernels/instruction_sets.h"
#include "kernels/target.h"

namespace csm {

#if defined(__GNUC__)

namespace portable {
namespace {
#define CSM_LANES 4
#define CSM_VECTORS 2
#if defined(CSM_ARM)
#define CSM_ROWS 12  // 32 registers
#define CSM_HEADS 4
#define CSM_FMA(a, b, c) vfmaq_f32(c, a, b)
#define CSM_LOAD_F16(p) vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16(p)))
#define CSM_LOOKUP(table, bytes) \
    reinterpret_cast<Ints>(vqtbl1q_u8(vld1q_u8(table), reinterpret_cast<uint8x16_t>(bytes)))
#else
#define CSM_ROWS 6
#define CSM_HEADS 2
#endif
#include "kernels/vectors.h"
// which the loops need
#include "kernels/float_loops.h"
#include "kernels/packed_formats.h"
// which packed_loops.h needs
#include "kernels/packed_loops.h"
#include "kernels/row_loops.h"
}  // namespace
}  // namespace portable

std::optional<Kernels> find_portable() {
    return Kernels{"portable",       portable::units,      portable::run,         portable::elu_array,
                   portable::attend, portable::multiply,   portable::quantize,    portable::rms_norm,
                   portable::swiglu, portable::float_peak, portable::integer_peak};
}

#else

std::optional<Kernels> find_portable() {
    return std::nullopt;
}

#endif

}  // namespace csm
