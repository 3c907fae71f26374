#include "kernels/packed_matrix.h"

#include <algorithm>
#include <array>
#include <cstring>

#include "kernels/kernels.h"

namespace csm {

namespace {

constexpr size_t kRows = PackedMatrix::kGroupRows, kLine = 4 * kRows;

// The quants of a block of ggml that one block of 32 columns consists of, as bytes.
using Quants = std::array<uint8_t, 32>;

// Writes a row of a group to the lines of a block.
class LinesOfRow {
 public:
    LinesOfRow(uint8_t* lines, size_t row) : at_(lines + row * 4) {}

    // Byte j of four columns at 4 i is byte j of line i.
    void bytes(const Quants& q) const {
        for (size_t c = 0; c < 32; ++c) at(c / 4, c % 4) = q[c];
    }
    // The lowest 4 bits of columns c and c + 16 share a byte.
    void nibbles(const Quants& q) const {
        for (size_t c = 0; c < 16; ++c)
            at(c / 4, c % 4) = static_cast<uint8_t>((q[c] & 15) | (q[c + 16] & 15) << 4);
    }
    // Bit 4 of column 4 i + j is bit i of byte j of the line after the nibbles'.
    void fifth_bits(const Quants& q) const {
        for (size_t j = 0; j < 4; ++j) {
            unsigned bits = 0;
            for (size_t i = 0; i < 8; ++i) bits |= (q[4 * i + j] >> 4 & 1u) << i;
            at(4, j) = static_cast<uint8_t>(bits);
        }
    }
    // Bits 4 and 5 of column 4 i + j are two bits of byte j of the two lines after the nibbles'.
    void fifth_and_sixth_bits(const Quants& q) const {
        for (size_t line = 0; line < 2; ++line) {
            for (size_t j = 0; j < 4; ++j) {
                unsigned bits = 0;
                for (size_t i = 0; i < 4; ++i) bits |= (q[4 * (2 * i + line) + j] >> 4 & 3u) << (2 * i);
                at(4 + line, j) = static_cast<uint8_t>(bits);
            }
        }
    }

 private:
    uint8_t& at(size_t line, size_t byte) const { return at_[line * kLine + byte]; }

    uint8_t* at_;
};

// Of blocks of 32: a scale of 16 bits, then the quants.
void pack_blocks(ggml_type type, const uint8_t* from, size_t row, uint8_t* chunk) {
    const PackedLayout layout = packed_layout(type);
    for (size_t b = 0; b < 2; ++b, from += ggml_type_size(type)) {
        std::memcpy(chunk + (b * kRows + row) * 2, from, 2);
        const LinesOfRow to(chunk + layout.header + b * layout.block, row);
        Quants q;
        for (size_t c = 0; c < 32; ++c) {
            if (type == GGML_TYPE_Q8_0) {
                q[c] = from[2 + c] ^ 0x80;  // signed to offset binary
            } else {
                q[c] = static_cast<uint8_t>(c < 16 ? from[2 + c] & 15 : from[2 + c - 16] >> 4);
            }
        }
        if (type == GGML_TYPE_Q8_0) {
            to.bytes(q);
        } else {
            to.nibbles(q);
        }
    }
}

// Q4_K: d and dmin, 12 bytes with 6 bits for each scale and minimum, 128 bytes of nibbles; Q5_K has 32 bytes
// with the fifth bits before these.
void pack_with_minima(ggml_type type, const uint8_t* from, size_t row, uint8_t* chunk) {
    const PackedLayout layout = packed_layout(type);
    const bool has_fifth = type == GGML_TYPE_Q5_K;
    const uint8_t *fifth = from + 16, *nibbles = from + (has_fifth ? 48 : 16);
    std::memcpy(chunk + row * 2, from, 2);
    std::memcpy(chunk + (kRows + row) * 2, from + 2, 2);
    for (size_t word = 0; word < 3; ++word)
        std::memcpy(chunk + (1 + word) * kLine + row * 4, from + 4 + word * 4, 4);
    for (size_t b = 0; b < 8; ++b) {
        Quants q;
        for (size_t c = 0; c < 32; ++c) {
            const unsigned byte = nibbles[b / 2 * 32 + c], low = b % 2 ? byte >> 4 : byte & 15;
            q[c] = static_cast<uint8_t>(low | (has_fifth ? (fifth[c] >> b & 1u) << 4 : 0));
        }
        const LinesOfRow to(chunk + layout.header + b * layout.block, row);
        to.nibbles(q);
        if (has_fifth) to.fifth_bits(q);
    }
}

// Q6_K: 128 bytes with the lowest 4 bits, 64 with the others, 16 scales, d. Half of the header's first line
// stays empty.
void pack_q6(const uint8_t* from, size_t row, uint8_t* chunk) {
    constexpr PackedLayout layout = packed_layout(GGML_TYPE_Q6_K);
    std::memcpy(chunk + row * 2, from + 208, 2);
    for (size_t word = 0; word < 4; ++word)
        std::memcpy(chunk + (1 + word) * kLine + row * 4, from + 192 + word * 4, 4);
    for (size_t b = 0; b < 8; ++b) {
        const size_t part = b % 4;
        const uint8_t *low = from + b / 4 * 64 + part % 2 * 32, *high = from + 128 + b / 4 * 32;
        Quants q;
        for (size_t c = 0; c < 32; ++c) {
            q[c] = static_cast<uint8_t>((part < 2 ? low[c] & 15 : low[c] >> 4) | (high[c] >> (2 * part) & 3)
                                                                                     << 4);
        }
        const LinesOfRow to(chunk + layout.header + b * layout.block, row);
        to.nibbles(q);
        to.fifth_and_sixth_bits(q);
    }
}

}  // namespace

bool PackedMatrix::supported(ggml_type type, int64_t columns, int64_t rows) {
    const int64_t blocks = packed_layout(type).blocks;
    return kHaveKernels && blocks > 0 && columns % (blocks * kBlockColumns) == 0 && rows % kGroupRows == 0;
}

size_t PackedMatrix::group_bytes() const {
    return static_cast<size_t>(columns / (layout().blocks * kBlockColumns)) * layout().chunk_bytes();
}

void PackedMatrix::pack(const void* ggml_rows, void* out) const {
    const int64_t chunk_columns = layout().blocks * kBlockColumns;
    const size_t row_bytes = ggml_row_size(type, columns), source_chunk = ggml_row_size(type, chunk_columns);
    const auto* from = static_cast<const uint8_t*>(ggml_rows);
    auto* to = static_cast<uint8_t*>(out);
    for (int64_t group = 0; group < groups(); ++group, from += row_bytes * kRows) {
        for (size_t chunk = 0; chunk < static_cast<size_t>(columns / chunk_columns); ++chunk) {
            if (type == GGML_TYPE_Q6_K) std::fill_n(to, kLine, uint8_t{0});
            for (size_t r = 0; r < kRows; ++r) {
                const uint8_t* source = from + r * row_bytes + chunk * source_chunk;
                if (type == GGML_TYPE_Q6_K) {
                    pack_q6(source, r, to);
                } else if (type == GGML_TYPE_Q4_K || type == GGML_TYPE_Q5_K) {
                    pack_with_minima(type, source, r, to);
                } else {
                    pack_blocks(type, source, r, to);
                }
            }
            to += layout().chunk_bytes();
        }
    }
}

}  // namespace csm
