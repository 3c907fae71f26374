#include <algorithm>

#include "ggml.h"
#include "kernels/kernels.h"

namespace csm {

int64_t gemm_packed_size(int64_t in, int64_t out) {
    if (out < kGemmNarrow) return in * out;
    return (out + kGemmPanel - 1) / kGemmPanel * kGemmPanel * in;
}

bool gemm_packs(ggml_type type) {
    return type == GGML_TYPE_F32 || type == GGML_TYPE_F16 || type == GGML_TYPE_BF16;
}

namespace {

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

}  // namespace csm
