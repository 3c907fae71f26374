// Matrices laid out for 512-bit integer dot products, and the kernels that multiply them with quantized
// activations.
//
// ggml's own repacked Q4_0 product keeps nibbles signed and spends five instructions on each dot product to
// take signs apart; on Zen 4 that, not memory, was the limit (27 of 50 GB/s). Here nibbles stay unsigned, as
// the VNNI instruction wants them, and the constant offset (8 for Q4_0, 128 for Q8_0) is taken off through
// the activations' block sums. The numbers are those of ggml's formats, bit for bit: only their order in
// memory is other.
//
// Every output is accumulated block by block in one order, whatever the number of activations and threads: a
// product in a batch equals the product alone bit for bit.
//
// Layout: rows in groups of 16, columns in blocks of 32. For each group and each pair of blocks: 2 x 16 F16
// scales (64 bytes), then the quants of both blocks (Q4_0: 256 bytes each, Q8_0: 512), as 64-byte lines that
// hold 4 consecutive columns of 16 rows.
#pragma once

#include <cstddef>
#include <cstdint>

#include "ggml.h"

namespace csm {

struct PackedMatrix {
    ggml_type type;  // GGML_TYPE_Q4_0 or GGML_TYPE_Q8_0
    int64_t columns;
    int64_t rows;

    static constexpr int64_t kGroupRows = 16;
    static constexpr int64_t kBlockColumns = 32;

    // Whether this processor has the instructions and the shape divides.
    static bool supported(ggml_type type, int64_t columns, int64_t rows);

    int64_t groups() const { return rows / kGroupRows; }
    size_t group_bytes() const;
    size_t bytes() const { return group_bytes() * static_cast<size_t>(groups()); }

    // Rearranges rows in ggml's layout; rows in file order, all of them.
    void pack(const void* ggml_rows, void* out) const;

    // Products of `n_groups` groups of rows from `group` on with `count` activations (see below) that lie
    // activation_bytes(columns) apart: out[t * out_stride + r] for t < count, r < 16 * n_groups.
    void multiply(const void* packed, int64_t group, int64_t n_groups, const void* activations, int64_t count,
                  float* out, int64_t out_stride) const;
};

// Activations: columns int8 quants, then per block of 32 an F32 scale, then per block -8 times the sum of its
// quants (int32).
constexpr size_t activation_bytes(int64_t columns) {
    const auto n = static_cast<size_t>(columns);
    return (n + n / 32 * 8 + 63) / 64 * 64;
}

// Quantizes values[0 .. columns), a multiple of 32, to block-wise 8 bits. `first` and `last` bound the
// columns that are written.
void quantize_activations(const float* values, int64_t columns, int64_t first, int64_t last, void* out);

// out[i] = values[i] * weight[i] / sqrt(mean(values^2) + eps); n is a multiple of 16.
void rms_norm(const float* values, const float* weight, int64_t n, float eps, float* out);

// gate[i] = gate[i] / (1 + exp(-gate[i])) * up[i]; n is a multiple of 16.
void swiglu(float* gate, const float* up, int64_t n);

}  // namespace csm
