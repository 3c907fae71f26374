// ggml's row-dot functions as our nodes use them.
#include <cmath>
#include <random>
#include <string>
#include <vector>

#include "check.h"
#include "ggml-backend.h"
#include "runtime/device.h"
#include "runtime/row_dot.h"

namespace {

// Types that a file may hold and ggml can make without a calibration.
std::vector<ggml_type> quantized_types() {
    std::vector<ggml_type> types;
    for (int i = 0; i < GGML_TYPE_COUNT; ++i) {
        const auto type = static_cast<ggml_type>(i);
        if (!ggml_is_quantized(type) || ggml_quantize_requires_imatrix(type)) continue;
        const std::string name = ggml_type_name(type);
        if (name != "q8_1" && name != "q8_K") types.push_back(type);  // of activations only
    }
    return types;
}

}  // namespace

TEST(every_quantized_type_has_a_dot_product) {
    csm::load_backends(CSM_TEST_BACKEND_DIR);
    csm::Device::open("cpu", 1);
    std::mt19937 random(5);
    std::normal_distribution<float> normal;
    constexpr int64_t kColumns = 512;
    CHECK(quantized_types().size() > 10);
    for (const ggml_type type : quantized_types()) {
        const csm::RowDot* dot = csm::row_dot(type);
        if (dot == nullptr) check::fail(__FILE__, __LINE__, "no dot product for ", ggml_type_name(type));
        // ggml needs many seconds to prepare for making these
        const std::string name = ggml_type_name(type);
        if (name.rfind("iq", 0) == 0 && name.rfind("iq4", 0) != 0) continue;
        std::vector<float> values(kColumns), weights(kColumns);
        for (float& v : values) v = normal(random);
        for (float& v : weights) v = normal(random);
        std::vector<uint8_t> row(ggml_row_size(type, kColumns)),
            activations(ggml_row_size(dot->activations, kColumns));
        ggml_quantize_chunk(type, weights.data(), row.data(), 0, 1, kColumns, nullptr);
        ggml_get_type_traits(type)->to_float(row.data(), weights.data(), kColumns);
        // in two parts, as blocks are quantized where they are made
        const int64_t half = kColumns / 2;
        dot->quantize(values.data(), activations.data(), half);
        dot->quantize(values.data() + half, activations.data() + activations.size() / 2, half);
        float got = 0.0f;
        dot->dot(kColumns, &got, 0, row.data(), 0, activations.data(), 0, 1);
        double expected = 0.0, size = 0.0;
        for (size_t i = 0; i < values.size(); ++i) {
            expected += static_cast<double>(values[i]) * weights[i];
            size += std::pow(static_cast<double>(values[i]) * weights[i], 2.0);
        }
        // activations of 8 bits: 0.6 % of a normal value, so of the sum's size
        CHECK_NEAR(got, expected, 0.05 * std::sqrt(size) + 1e-3);
    }
}

TEST(types_that_are_not_quantized_have_none) {
    for (const ggml_type type : {GGML_TYPE_F32, GGML_TYPE_F16, GGML_TYPE_BF16, GGML_TYPE_I32})
        CHECK(csm::row_dot(type) == nullptr);
}
