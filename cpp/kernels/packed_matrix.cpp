#include "kernels/packed_matrix.h"

#include <cstring>

#include "kernels/kernels.h"

namespace csm {

namespace {

size_t block_bytes(ggml_type type) {
    return type == GGML_TYPE_Q4_0 ? kQ4BlockBytes : kQ8BlockBytes;
}

}  // namespace

bool PackedMatrix::supported(ggml_type type, int64_t columns, int64_t rows) {
    return kHaveKernels && (type == GGML_TYPE_Q4_0 || type == GGML_TYPE_Q8_0) &&
           columns % (2 * kBlockColumns) == 0 && rows % kGroupRows == 0;
}

size_t PackedMatrix::group_bytes() const {
    return static_cast<size_t>(columns / (2 * kBlockColumns)) * (kPairScaleBytes + 2 * block_bytes(type));
}

void PackedMatrix::pack(const void* ggml_rows, void* out) const {
    const size_t row_bytes = ggml_row_size(type, columns), source_block = ggml_type_size(type);
    auto* to = static_cast<uint8_t*>(out);
    for (int64_t group = 0; group < groups(); ++group) {
        const auto* rows_of_group =
            static_cast<const uint8_t*>(ggml_rows) + row_bytes * static_cast<size_t>(group * kGroupRows);
        for (int64_t pair = 0; pair < columns / (2 * kBlockColumns); ++pair) {
            uint8_t* quants = to + kPairScaleBytes;
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
                    for (size_t i = 0; i < kQ8BlockBytes; ++i) quants[half * kQ8BlockBytes + i] ^= 0x80;
                }
            }
            to += kPairScaleBytes + 2 * block_bytes(type);
        }
    }
}

}  // namespace csm
