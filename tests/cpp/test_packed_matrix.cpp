// The packed kernels against arithmetic on the dequantized weights, and against themselves in other batches.
#include <cmath>
#include <random>
#include <vector>

#include "check.h"
#include "kernels/packed_matrix.h"

using namespace csm;

namespace {

struct Case {
    PackedMatrix matrix;
    std::vector<float> weights;  // dequantized, rows x columns
    std::vector<uint8_t> packed;
    std::vector<float> values;  // tokens x columns
    std::vector<uint8_t> activations;
};

Case make_case(ggml_type type, int64_t columns, int64_t rows, int64_t tokens) {
    std::mt19937 random(7);
    std::normal_distribution<float> normal;
    Case c{{type, columns, rows}, {}, {}, {}, {}};
    const auto n = static_cast<size_t>(columns * rows);
    std::vector<float> original(n);
    for (float& w : original) w = normal(random);
    std::vector<uint8_t> quantized(ggml_row_size(type, columns) * static_cast<size_t>(rows));
    ggml_quantize_chunk(type, original.data(), quantized.data(), 0, rows, columns, nullptr);
    c.weights.resize(n);
    ggml_get_type_traits(type)->to_float(quantized.data(), c.weights.data(), columns * rows);
    c.packed.resize(c.matrix.bytes());
    c.matrix.pack(quantized.data(), c.packed.data());
    c.values.resize(static_cast<size_t>(columns * tokens));
    for (float& v : c.values) v = normal(random);
    c.activations.resize(activation_bytes(columns) * static_cast<size_t>(tokens));
    for (int64_t t = 0; t < tokens; ++t) {
        quantize_activations(&c.values[static_cast<size_t>(t * columns)], columns, 0, columns,
                             &c.activations[activation_bytes(columns) * static_cast<size_t>(t)]);
    }
    return c;
}

bool available() {
    return PackedMatrix::supported(GGML_TYPE_Q4_0, 64, 16);
}

}  // namespace

TEST(packed_products_match_the_dequantized_weights) {
    if (!available()) return;
    for (const ggml_type type : {GGML_TYPE_Q4_0, GGML_TYPE_Q8_0}) {
        for (const int64_t columns : {64, 192, 2048}) {
            const int64_t rows = 48, tokens = 11;
            const Case c = make_case(type, columns, rows, tokens);
            std::vector<float> out(static_cast<size_t>(rows * tokens));
            c.matrix.multiply(c.packed.data(), 0, c.matrix.groups(), c.activations.data(), tokens, out.data(),
                              rows);
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

// Every way to cut the product into tiles of rows and activations.
TEST(packed_products_do_not_depend_on_the_batch) {
    if (!available()) return;
    for (const ggml_type type : {GGML_TYPE_Q4_0, GGML_TYPE_Q8_0}) {
        const int64_t rows = 80, groups = 5, tokens = 13;
        const Case c = make_case(type, 256, rows, tokens);
        std::vector<float> alone(static_cast<size_t>(rows * tokens));
        for (int64_t t = 0; t < tokens; ++t) {
            for (int64_t g = 0; g < groups; ++g) {
                c.matrix.multiply(c.packed.data(), g, 1,
                                  &c.activations[activation_bytes(256) * static_cast<size_t>(t)], 1,
                                  &alone[static_cast<size_t>(t * rows + g * 16)], rows);
            }
        }
        for (int64_t count = 1; count <= tokens; ++count) {
            std::vector<float> together(static_cast<size_t>(rows * count));
            c.matrix.multiply(c.packed.data(), 0, groups, c.activations.data(), count, together.data(), rows);
            for (size_t i = 0; i < together.size(); ++i) CHECK_EQ(together[i], alone[i]);
        }
    }
}

TEST(activations_of_zeros_and_of_extremes) {
    if (!available()) return;
    std::vector<float> values(64, 0.0f);
    values[40] = 3e38f;
    std::vector<uint8_t> out(activation_bytes(64));
    quantize_activations(values.data(), 64, 0, 64, out.data());
    const auto* scales = reinterpret_cast<const float*>(out.data() + 64);
    CHECK_EQ(scales[0], 0.0f);
    CHECK_NEAR(scales[1] * 127.0f / 3e38f, 1.0f, 1e-6f);
    CHECK_EQ(static_cast<int>(static_cast<int8_t>(out[40])), 127);
}

TEST(swiglu_and_rms_norm_match_their_formulas) {
    if (!available()) return;
    std::vector<float> gate, up, weight;
    for (int i = -64; i < 64; ++i) {
        gate.push_back(static_cast<float>(i) * 1.7f);
        up.push_back(static_cast<float>(i % 7) + 0.5f);
        weight.push_back(1.0f + static_cast<float>(i) / 100.0f);
    }
    std::vector<float> out = gate;
    swiglu(out.data(), up.data(), 128);
    for (size_t i = 0; i < out.size(); ++i) {
        const double g = gate[i], expected = g / (1.0 + std::exp(-g)) * up[i];
        CHECK_NEAR(out[i], expected, 2e-6 * std::fabs(expected) + 1e-30);
    }
    double squares = 0.0;
    for (const float g : gate) squares += static_cast<double>(g) * g;
    rms_norm(gate.data(), weight.data(), 128, 1e-5f, out.data());
    for (size_t i = 0; i < out.size(); ++i) {
        const double expected = gate[i] / std::sqrt(squares / 128 + 1e-5) * weight[i];
        CHECK_NEAR(out[i], expected, 1e-6 * std::fabs(expected) + 1e-9);
    }
}

TEST(only_divisible_shapes_are_packed) {
    CHECK(!PackedMatrix::supported(GGML_TYPE_Q4_0, 96, 16));
    CHECK(!PackedMatrix::supported(GGML_TYPE_Q4_0, 64, 24));
    CHECK(!PackedMatrix::supported(GGML_TYPE_Q4_K, 256, 16));
    CHECK(!PackedMatrix::supported(GGML_TYPE_F32, 64, 16));
}
