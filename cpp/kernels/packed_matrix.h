// Matrices laid out for integer dot products, and the activations that they are multiplied with.
//
// ggml's own repacked Q4_0 product keeps nibbles signed and spends five instructions on each dot product to
// take signs apart; on Zen 4 that, not memory, was the limit (27 of 50 GB/s). Here quants stay unsigned, as
// x86's instructions want them. Constant offsets (8 for Q4_0, 32 for Q6_K, 128 for Q8_0 and IQ4_NL) and the
// minima of Q4_K and Q5_K are taken off through the sums of the activations' blocks. The numbers are those of
// ggml's formats, bit for bit: only their order in memory is other.
//
// Every output is accumulated block by block in one order, whatever the number of activations and threads and
// the instruction set: a product in a batch equals the product alone bit for bit, on every machine.
#pragma once

#include <cstddef>
#include <cstdint>

#include "ggml.h"

namespace csm {

// What products with a format want to know of 32 activations besides their quants and scale.
struct ActivationForm {
    // If not 0: the integer -offset * sum of the quants, of each half of the block where that has scales of
    // its own. If 0: their scale times the sum, negative, as F32.
    int32_t offset;
    bool halves;

    constexpr size_t block_bytes() const { return halves ? 44 : 40; }
    bool operator==(const ActivationForm& other) const {
        return offset == other.offset && halves == other.halves;
    }
};

// Integers that go with activations, and sums that begin with them, start from the bits of 1.5 * 2^23: sums
// below 2^22 are then the lowest bits of a float, which is the number when 1.5 * 2^23 is taken away.
constexpr int32_t kSumStart = 0x4b400000;
constexpr float kSumStartNumber = 12582912.0f;

// How weights lie in memory: rows in groups of 16, columns in chunks of some blocks of 32. For each group and
// chunk there is a header with the scales, in the file's bits, and then the quants of each block in lines of
// 64 bytes, which hold 4 bytes of each of the 16 rows. What a header and a line hold is told where they are
// read (packed_formats.h).
struct PackedLayout {
    int64_t blocks;        // of a chunk; none if the format is not packed
    size_t header, block;  // bytes
    ActivationForm form;

    constexpr size_t chunk_bytes() const { return header + static_cast<size_t>(blocks) * block; }
};

constexpr PackedLayout packed_layout(ggml_type type) {
    switch (type) {
        case GGML_TYPE_Q4_0:
            return {2, 64, 256, {8, false}};
        case GGML_TYPE_IQ4_NL:
            return {2, 64, 256, {128, false}};
        case GGML_TYPE_Q8_0:
            return {2, 64, 512, {128, false}};
        case GGML_TYPE_Q4_K:
            return {8, 256, 256, {0, false}};
        case GGML_TYPE_Q5_K:
            return {8, 256, 320, {0, false}};
        case GGML_TYPE_Q6_K:
            return {8, 320, 384, {32, true}};
        default:
            return {0, 0, 0, {0, false}};
    }
}

// Bits of the bytes that make products with a packed format.
constexpr int product_bits(ggml_type type) {
    switch (type) {
        case GGML_TYPE_Q4_0:
        case GGML_TYPE_Q4_K:
            return 4;
        case GGML_TYPE_Q5_K:
            return 5;
        case GGML_TYPE_Q6_K:
            return 6;
        default:
            return 8;
    }
}

struct PackedMatrix {
    ggml_type type;
    int64_t columns;
    int64_t rows;

    static constexpr int64_t kGroupRows = 16;
    static constexpr int64_t kBlockColumns = 32;

    // Whether this build has kernels, and type and shape suit them.
    static bool supported(ggml_type type, int64_t columns, int64_t rows);

    PackedLayout layout() const { return packed_layout(type); }
    int64_t groups() const { return rows / kGroupRows; }
    size_t group_bytes() const;
    size_t bytes() const { return group_bytes() * static_cast<size_t>(groups()); }

    // Rearranges rows in ggml's layout; rows in file order, all of them.
    void pack(const void* ggml_rows, void* out) const;
};

// The activations that pass by a group of rows together.
constexpr int64_t kActivationTile = 8;

// How the quantized activations of a batch lie in memory: in tiles of up to kActivationTile tokens, as equal
// as can be, one after the other. In a tile of n tokens, for each block of 32 columns: n scales, n (or twice
// n) numbers of the form, and for every four columns n quads of quants. So a product reads them, too, from
// one end to the other.
struct ActivationTiles {
    int64_t columns, tokens;
    ActivationForm form;

    int64_t count() const { return (tokens + kActivationTile - 1) / kActivationTile; }
    // The first token of a tile; `tokens` for that after the last.
    int64_t first(int64_t tile) const { return tokens * tile / count(); }
    int64_t tile_of(int64_t token) const { return ((token + 1) * count() - 1) / tokens; }
    size_t token_bytes() const {
        return static_cast<size_t>(columns / PackedMatrix::kBlockColumns) * form.block_bytes();
    }
    size_t offset(int64_t tile) const { return static_cast<size_t>(first(tile)) * token_bytes(); }
    size_t bytes() const { return static_cast<size_t>(tokens) * token_bytes(); }
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
