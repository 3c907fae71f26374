// The packed kernels of every instruction set that this processor has: against arithmetic on the dequantized
// weights, against themselves in other batches, and against the portable ones bit for bit.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <random>
#include <vector>

#include "check.h"
#include "kernels/kernels.h"

using namespace csm;

namespace {

constexpr ggml_type kTypes[] = {GGML_TYPE_Q4_0, GGML_TYPE_IQ4_NL, GGML_TYPE_Q8_0,
                                GGML_TYPE_Q4_K, GGML_TYPE_Q5_K,   GGML_TYPE_Q6_K};

// Columns that a format is packed in.
int64_t chunk(ggml_type type) {
    return packed_layout(type).blocks * PackedMatrix::kBlockColumns;
}

struct Case {
    PackedMatrix matrix;
    std::vector<float> weights;  // dequantized, rows x columns
    std::vector<uint8_t> packed;
    int64_t tokens;
    std::vector<float> values;  // tokens x columns
};

// A case with the weights that rows in ggml's layout have.
Case case_of(ggml_type type, int64_t columns, int64_t rows, const std::vector<uint8_t>& quantized) {
    Case c{{type, columns, rows}, {}, {}, 0, {}};
    c.weights.resize(static_cast<size_t>(columns * rows));
    ggml_get_type_traits(type)->to_float(quantized.data(), c.weights.data(), columns * rows);
    c.packed.resize(c.matrix.bytes());
    c.matrix.pack(quantized.data(), c.packed.data());
    return c;
}

Case make_case(ggml_type type, int64_t columns, int64_t rows, int64_t tokens) {
    std::mt19937 random(7);
    std::normal_distribution<float> normal;
    std::vector<float> original(static_cast<size_t>(columns * rows));
    for (float& w : original) w = normal(random);
    std::vector<uint8_t> quantized(ggml_row_size(type, columns) * static_cast<size_t>(rows));
    ggml_quantize_chunk(type, original.data(), quantized.data(), 0, rows, columns, nullptr);
    Case c = case_of(type, columns, rows, quantized);
    c.tokens = tokens;
    c.values.resize(static_cast<size_t>(columns * tokens));
    for (float& v : c.values) v = normal(random);
    return c;
}

// Activations for the first `tokens` tokens of a case.
std::vector<uint8_t> quantized(const Kernels& kernels, const Case& c, int64_t tokens) {
    const ActivationTiles tiles{c.matrix.columns, tokens, c.matrix.layout().form};
    std::vector<uint8_t> out(tiles.bytes());
    for (int64_t t = 0; t < tokens; ++t)
        kernels.quantize(&c.values[static_cast<size_t>(t * tiles.columns)], 0, tiles.columns / 32, tiles, t,
                         out.data());
    return out;
}

std::vector<float> product(const Kernels& kernels, const Case& c, const std::vector<uint8_t>& activations,
                           int64_t tokens, int64_t step = 1) {
    const int64_t rows = c.matrix.rows;
    std::vector<float> out(static_cast<size_t>(rows * tokens), std::numeric_limits<float>::quiet_NaN());
    const ActivationTiles tiles{c.matrix.columns, tokens, c.matrix.layout().form};
    for (int64_t group = 0; group < c.matrix.groups(); group += step) {
        const int64_t last = std::min(group + step, c.matrix.groups());
        kernels.multiply({c.matrix, c.packed.data(), group, last, tiles, activations.data(), 0, tiles.count(),
                          &out[static_cast<size_t>(group * 16)], rows});
    }
    return out;
}

bool same_bits(const std::vector<float>& a, const std::vector<float>& b) {
    return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0;
}

}  // namespace

TEST(tiles_hold_every_token_once) {
    for (int64_t tokens = 1; tokens < 200; ++tokens) {
        const ActivationTiles tiles{64, tokens, {}};
        int64_t next = 0;
        for (int64_t tile = 0; tile < tiles.count(); ++tile) {
            CHECK_EQ(tiles.first(tile), next);
            next = tiles.first(tile + 1);
            CHECK(next > tiles.first(tile) && next - tiles.first(tile) <= kActivationTile);
            for (int64_t token = tiles.first(tile); token < next; ++token)
                CHECK_EQ(tiles.tile_of(token), tile);
        }
        CHECK_EQ(next, tokens);
    }
}

TEST(packed_products_match_the_dequantized_weights) {
    for (const ggml_type type : kTypes) {
        for (const int64_t columns : {chunk(type), 3 * chunk(type), int64_t{2048}}) {
            const int64_t rows = 48, tokens = 11;
            const Case c = make_case(type, columns, rows, tokens);
            for (const Kernels& kernels : usable_kernels()) {
                const auto out = product(kernels, c, quantized(kernels, c, tokens), tokens);
                double error = 0.0, total = 0.0;
                for (int64_t t = 0; t < tokens; ++t) {
                    for (int64_t r = 0; r < rows; ++r) {
                        double sum = 0.0;
                        for (int64_t i = 0; i < columns; ++i) {
                            sum += static_cast<double>(c.weights[static_cast<size_t>(r * columns + i)]) *
                                   c.values[static_cast<size_t>(t * columns + i)];
                        }
                        error += std::pow(sum - out[static_cast<size_t>(t * rows + r)], 2.0);
                        total += sum * sum;
                    }
                }
                // 8-bit activations: steps of max / 127 with uniform rounding are 0.6 % of a normal value
                CHECK(std::sqrt(error / total) < 0.01);
            }
        }
    }
}

// Every way to cut the product into tiles of rows and activations.
TEST(packed_products_do_not_depend_on_the_batch) {
    for (const ggml_type type : kTypes) {
        const int64_t rows = 80, columns = 512, tokens = 19;
        const Case c = make_case(type, columns, rows, tokens);
        for (const Kernels& kernels : usable_kernels()) {
            std::vector<float> alone;
            Case one = c;
            for (int64_t t = 0; t < tokens; ++t) {
                one.values.assign(c.values.begin() + t * columns, c.values.begin() + (t + 1) * columns);
                const auto out = product(kernels, one, quantized(kernels, one, 1), 1);
                alone.insert(alone.end(), out.begin(), out.end());
            }
            for (int64_t count = 1; count <= tokens; ++count) {
                const std::vector<float> expected(alone.begin(), alone.begin() + count * rows);
                for (const int64_t step : {1, 2, 5})
                    CHECK(
                        same_bits(product(kernels, c, quantized(kernels, c, count), count, step), expected));
            }
        }
    }
}

TEST(all_instruction_sets_give_the_same_bits) {
    const Kernels& portable = usable_kernels().back();
    for (const ggml_type type : kTypes) {
        for (const int64_t tokens : {1, 2, 3, 4, 5, 6, 7, 8, 21}) {
            Case c = make_case(type, 5 * chunk(type), 48, tokens);
            // blocks of zeros, and the widest range of sizes within one
            std::fill_n(c.values.begin(), 32, 0.0f);
            c.values[40] = 1e30f;
            c.values[70] = 1e-30f;
            const auto activations = quantized(portable, c, tokens);
            const auto expected = product(portable, c, activations, tokens);
            for (const Kernels& kernels : usable_kernels()) {
                CHECK(quantized(kernels, c, tokens) == activations);
                CHECK(same_bits(product(kernels, c, activations, tokens), expected));
            }
        }
    }
    std::mt19937 random(3);
    std::normal_distribution<float> normal;
    std::vector<float> values(2048), weight(2048);
    for (float& v : values) v = 5.0f * normal(random);
    for (float& v : weight) v = normal(random);
    std::vector<float> normed(2048), gated = values;
    portable.rms_norm(values.data(), weight.data(), 2048, 1e-5f, normed.data());
    portable.swiglu(gated.data(), weight.data(), 2048);
    for (const Kernels& kernels : usable_kernels()) {
        std::vector<float> out(2048);
        kernels.rms_norm(values.data(), weight.data(), 2048, 1e-5f, out.data());
        CHECK(same_bits(out, normed));
        out = values;
        kernels.swiglu(out.data(), weight.data(), 2048);
        CHECK(same_bits(out, gated));
    }
}

// The largest sums that can be: 16-bit parts must not overflow, nor bytes saturate.
TEST(sums_of_extreme_quants_are_exact) {
    const int64_t rows = 16, tokens = 8;
    for (const ggml_type type : kTypes) {
        const int64_t columns = chunk(type);
        // scales of 16 bits lie at the beginning of a block, but for Q6_K's
        std::vector<size_t> scales = {type == GGML_TYPE_Q6_K ? size_t{208} : 0};
        if (type == GGML_TYPE_Q4_K || type == GGML_TYPE_Q5_K) scales.push_back(2);
        for (const int fill : {0x00, 0xff, 0x7f, 0x80, 0x81, 0x55}) {
            std::vector<uint8_t> matrix(ggml_row_size(type, columns) * static_cast<size_t>(rows),
                                        static_cast<uint8_t>(fill));
            const uint16_t one = ggml_fp32_to_fp16(1.0f);
            for (size_t at = 0; at < matrix.size(); at += ggml_type_size(type))
                for (const size_t scale : scales) std::memcpy(&matrix[at + scale], &one, 2);
            Case c = case_of(type, columns, rows, matrix);
            for (const float sign : {1.0f, -1.0f}) {
                c.values.assign(static_cast<size_t>(columns * tokens), 127.0f * sign);
                double expected = 0.0, size = 0.0;
                for (int64_t i = 0; i < columns; ++i) {
                    const double product = 127.0 * sign * c.weights[static_cast<size_t>(i)];
                    expected += product;
                    size += std::fabs(product);
                }
                for (const Kernels& kernels : usable_kernels())
                    for (const float got : product(kernels, c, quantized(kernels, c, tokens), tokens))
                        CHECK_NEAR(got, expected, 1e-6 * size);
            }
        }
    }
}

TEST(activations_of_zeros_and_of_extremes) {
    std::vector<float> values(64, 0.0f);
    values[40] = 3e38f;
    const ActivationTiles tiles{64, 1, {8, false}};
    const size_t block = tiles.form.block_bytes();
    for (const Kernels& kernels : usable_kernels()) {
        std::vector<uint8_t> out(tiles.bytes());
        kernels.quantize(values.data(), 0, 2, tiles, 0, out.data());
        float scales[2];
        std::memcpy(&scales[0], out.data(), 4);
        std::memcpy(&scales[1], out.data() + block, 4);
        CHECK_EQ(scales[0], 0.0f);
        CHECK_NEAR(scales[1] * 127.0f / 3e38f, 1.0f, 1e-6f);
        CHECK_EQ(static_cast<int>(static_cast<int8_t>(out[block + 8 + 8])), 127);
    }
}

TEST(what_is_no_number_stays_visible) {
    for (const ggml_type type : kTypes) {
        for (const float bad :
             {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity()}) {
            Case c = make_case(type, chunk(type), 16, 2);
            c.values[static_cast<size_t>(chunk(type)) + 6] = bad;  // of the second token
            for (const Kernels& kernels : usable_kernels()) {
                const auto out = product(kernels, c, quantized(kernels, c, 2), 2);
                for (size_t i = 0; i < out.size(); ++i) CHECK_EQ(std::isfinite(out[i]), i < 16);
            }
        }
    }
}

TEST(swiglu_and_rms_norm_match_their_formulas) {
    std::vector<float> gate, up, weight;
    for (int i = -64; i < 64; ++i) {
        gate.push_back(static_cast<float>(i) * 1.7f);
        up.push_back(static_cast<float>(i % 7) + 0.5f);
        weight.push_back(1.0f + static_cast<float>(i) / 100.0f);
    }
    for (const Kernels& kernels : usable_kernels()) {
        std::vector<float> out = gate;
        kernels.swiglu(out.data(), up.data(), 128);
        for (size_t i = 0; i < out.size(); ++i) {
            const double g = gate[i], expected = g / (1.0 + std::exp(-g)) * up[i];
            CHECK_NEAR(out[i], expected, 2e-6 * std::fabs(expected) + 1e-30);
        }
        double squares = 0.0;
        for (const float g : gate) squares += static_cast<double>(g) * g;
        kernels.rms_norm(gate.data(), weight.data(), 128, 1e-5f, out.data());
        for (size_t i = 0; i < out.size(); ++i) {
            const double expected = gate[i] / std::sqrt(squares / 128 + 1e-5) * weight[i];
            CHECK_NEAR(out[i], expected, 1e-6 * std::fabs(expected) + 1e-9);
        }
    }
}

TEST(only_divisible_shapes_are_packed) {
    CHECK(!PackedMatrix::supported(GGML_TYPE_Q4_0, 96, 16));
    CHECK(!PackedMatrix::supported(GGML_TYPE_Q4_0, 64, 24));
    CHECK(PackedMatrix::supported(GGML_TYPE_Q4_K, 256, 16));
    CHECK(!PackedMatrix::supported(GGML_TYPE_Q4_K, 320, 16));
    CHECK(!PackedMatrix::supported(GGML_TYPE_IQ2_XS, 256, 16));
    CHECK(!PackedMatrix::supported(GGML_TYPE_F32, 64, 16));
}
