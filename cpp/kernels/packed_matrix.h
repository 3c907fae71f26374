// Matrices laid out for integer dot products, and the activations that they are multiplied with.
//
// ggml's own repacked Q4_0 product keeps nibbles signed and spends five instructions on each dot product to
// take signs apart; on Zen 4 that, not memory, was the limit (27 of 50 GB/s). Here nibbles stay unsigned, as
// x86's instructions want them, and the constant offset (8 for Q4_0, 128 for Q8_0) is taken off through the
// activations' block sums. The numbers are those of ggml's formats, bit for bit: only their order in memory
// is other.
//
// Every output is accumulated block by block in one order, whatever the number of activations and threads and
// the instruction set: a product in a batch equals the product alone bit for bit, on every machine.
//
// Layout of weights: rows in groups of 16, columns in blocks of 32. For each group and each pair of blocks: 2
// x 16 F16 scales (64 bytes), then the quants of both blocks (Q4_0: 256 bytes each, Q8_0: 512), as 64-byte
// lines that hold 4 consecutive columns of 16 rows.
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

    // Whether this build has kernels, and type and shape suit them.
    static bool supported(ggml_type type, int64_t columns, int64_t rows);

    int64_t groups() const { return rows / kGroupRows; }
    size_t group_bytes() const;
    size_t bytes() const { return group_bytes() * static_cast<size_t>(groups()); }

    // Rearranges rows in ggml's layout; rows in file order, all of them.
    void pack(const void* ggml_rows, void* out) const;
};

constexpr size_t kPairScaleBytes = 64;  // scales of a pair of blocks
constexpr size_t kQ4BlockBytes = 256, kQ8BlockBytes = 512;

// Of one activation: 32 quants of 8 bits, an F32 scale, and -8 times the sum of the quants.
constexpr size_t kActivationBlockBytes = 40;
constexpr size_t activation_bytes(int64_t columns) {
    return static_cast<size_t>(columns) / 32 * kActivationBlockBytes;
}

// The activations that pass by a group of rows together.
constexpr int64_t kActivationTile = 8;

// How the quantized activations of a batch lie in memory: in tiles of up to kActivationTile tokens, as equal
// as can be, one after the other. In a tile of n tokens, for each block of 32 columns: n scales, n offsets,
// and for every four columns n quads of quants. So a product reads them, too, from one end to the other.
struct ActivationTiles {
    int64_t columns, tokens;

    int64_t count() const { return (tokens + kActivationTile - 1) / kActivationTile; }
    // The first token of a tile; `tokens` for that after the last.
    int64_t first(int64_t tile) const { return tokens * tile / count(); }
    int64_t tile_of(int64_t token) const { return ((token + 1) * count() - 1) / tokens; }
    size_t offset(int64_t tile) const { return static_cast<size_t>(first(tile)) * activation_bytes(columns); }
    size_t bytes() const { return static_cast<size_t>(tokens) * activation_bytes(columns); }
};

// Groups of rows of a matrix with tiles of activations.
struct PackedProduct {
    PackedMatrix matrix;
    const void* packed;  // all groups
    int64_t first_group, last_group;
    ActivationTiles tiles;
    const void* activations;  // all tiles
    int64_t first_tile, last_tile;
    float* out;  // out[t * out_stride + r], where t and r count from the first token and row of the product
    int64_t out_stride;
};

}  // namespace csm
