// The inner loops of our own nodes, for every instruction set that this processor has, against plain loops in
// double precision.

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

#include "check.h"
#include "ggml.h"
#include "kernels/kernels.h"
#include "kernels/peak.h"
#include "nn/philox.h"

namespace {

std::vector<float> random(size_t n, uint32_t series) {
    std::vector<float> values(n);
    for (size_t i = 0; i < n; ++i)
        values[i] = 2.0f * csm::uniform(5, static_cast<uint32_t>(i), series) - 1.0f;
    return values;
}

// Numbers of a type, as it stores them, and what they are as F32.
std::vector<uint8_t> stored(ggml_type type, std::vector<float>& values) {
    const auto n = static_cast<int64_t>(values.size());
    std::vector<uint8_t> bytes(values.size() * ggml_type_size(type));
    if (type == GGML_TYPE_F16) {
        auto* halves = reinterpret_cast<ggml_fp16_t*>(bytes.data());
        ggml_fp32_to_fp16_row(values.data(), halves, n);
        ggml_fp16_to_fp32_row(halves, values.data(), n);
    } else if (type == GGML_TYPE_BF16) {
        auto* brains = reinterpret_cast<ggml_bf16_t*>(bytes.data());
        ggml_fp32_to_bf16_row(values.data(), brains, n);
        ggml_bf16_to_fp32_row(brains, values.data(), n);
    } else {
        std::memcpy(bytes.data(), values.data(), bytes.size());
    }
    return bytes;
}

constexpr ggml_type kTypes[] = {GGML_TYPE_F32, GGML_TYPE_F16, GGML_TYPE_BF16};

struct Product {
    ggml_type type;
    int64_t in, out, rows, x_step;
    std::vector<float> x, weights, bias, residual;
    std::vector<uint8_t> packed;

    Product(ggml_type type, int64_t in, int64_t out, int64_t rows, int64_t x_step)
        : type(type),
          in(in),
          out(out),
          rows(rows),
          x_step(x_step),
          x(random(static_cast<size_t>((rows - 1) * x_step + in), 0)),
          weights(random(static_cast<size_t>(in * out), 1)),
          bias(random(static_cast<size_t>(out), 2)),
          residual(random(static_cast<size_t>(out * rows), 3)),
          packed(static_cast<size_t>(csm::gemm_packed_size(in, out)) * ggml_type_size(type)) {
        csm::gemm_pack(type, stored(type, weights).data(), in, out, packed.data());
    }

    std::vector<float> run(const csm::Kernels& kernels, int threads, bool extras) const {
        std::vector<float> y(static_cast<size_t>(out * rows), std::numeric_limits<float>::quiet_NaN());
        const csm::Gemm job{x.data(),
                            x_step,
                            rows,
                            in,
                            out,
                            type,
                            packed.data(),
                            extras ? bias.data() : nullptr,
                            extras ? residual.data() : nullptr,
                            y.data(),
                            extras ? csm::Activation::elu : csm::Activation::none};
        const int64_t n = kernels.units(job);
        for (int i = 0; i < threads; ++i) kernels.gemm(job, n * i / threads, n * (i + 1) / threads);
        return y;
    }

    double expected(int64_t row, int64_t o, bool extras) const {
        double sum = 0.0;
        for (int64_t k = 0; k < in; ++k)
            sum += static_cast<double>(x[static_cast<size_t>(row * x_step + k)]) *
                   weights[static_cast<size_t>(o * in + k)];
        if (!extras) return sum;
        sum += bias[static_cast<size_t>(o)];
        sum += residual[static_cast<size_t>(row * out + o)];
        return sum > 0.0 ? sum : std::expm1(sum);
    }
};

}  // namespace

TEST(products_equal_plain_loops) {
    // sizes below, at and above the tiles of all instruction sets; rows that overlap, touch and lie apart
    for (const int64_t out : {1, 3, 7, 8, 17, 32, 33, 70}) {
        for (const int64_t in : {1, 5, 36, 129}) {
            for (const int64_t rows : {1, 2, 11, 12, 13, 40}) {
                for (const int64_t x_step : {int64_t{1}, in, in + 3}) {
                    const auto type = static_cast<size_t>(in + out + rows + x_step) % 3;
                    const Product product(kTypes[type], in, out, rows, x_step);
                    for (const auto& kernels : csm::usable_kernels()) {
                        for (const bool extras : {false, true}) {
                            const auto y = product.run(kernels, 2, extras);
                            // a sum of n numbers below 1 is off by less than n roundings of n / 2^24
                            const double tolerance = 1e-7 * static_cast<double>(in + 4);
                            for (int64_t row = 0; row < rows; ++row)
                                for (int64_t o = 0; o < out; ++o)
                                    CHECK_NEAR(y[static_cast<size_t>(row * out + o)],
                                               product.expected(row, o, extras), tolerance);
                        }
                    }
                }
            }
        }
    }
}

TEST(products_do_not_depend_on_threads_or_rows) {
    // weights above the size at which panels come first, and below
    const Product large(GGML_TYPE_F32, 160, 600, 50, 64), small(GGML_TYPE_F32, 64, 70, 50, 64);
    const Product half(GGML_TYPE_F16, 320, 600, 50, 64), brain(GGML_TYPE_BF16, 320, 600, 50, 64);
    for (const Product* product : {&large, &small, &half, &brain}) {
        for (const auto& kernels : csm::usable_kernels()) {
            const auto whole = product->run(kernels, 1, true);
            for (const int threads : {2, 3, 7}) CHECK(product->run(kernels, threads, true) == whole);
            Product one = *product;
            one.rows = 1;
            const auto first = one.run(kernels, 1, true);
            CHECK(std::equal(first.begin(), first.end(), whole.begin()));
        }
    }
}

TEST(elu_is_exact_to_rounding) {
    std::vector<float> x;
    for (float size = 1e-30f; size < 200.0f; size *= 1.01f) {
        x.push_back(size);
        x.push_back(-size);
    }
    x.insert(x.end(), {0.0f, -0.0f, -std::numeric_limits<float>::infinity(), 1e30f, -1e30f});
    for (const auto& kernels : csm::usable_kernels()) {
        std::vector<float> y(x.size());
        kernels.elu(x.data(), static_cast<int64_t>(x.size()), y.data());
        for (size_t i = 0; i < x.size(); ++i) {
            const double expected = x[i] > 0.0f ? x[i] : std::expm1(static_cast<double>(x[i]));
            CHECK_NEAR(y[i], expected, 2.4e-7 * std::fabs(expected));
        }
        float nan = std::numeric_limits<float>::quiet_NaN();
        kernels.elu(&nan, 1, &nan);
        CHECK(std::isnan(nan));
    }
}

TEST(gelu_is_exact_to_rounding) {
    // x as a product with the matrix 1, which is where the activation is applied
    std::vector<float> x;
    for (float size = 1e-6f; size < 50.0f; size *= 1.01f) {
        x.push_back(size);
        x.push_back(-size);
    }
    const auto n = static_cast<int64_t>(x.size());
    const float one = 1.0f;
    for (const auto& kernels : csm::usable_kernels()) {
        std::vector<float> y(x.size());
        const csm::Gemm job{
            x.data(), 1, n, 1, 1, GGML_TYPE_F32, &one, nullptr, nullptr, y.data(), csm::Activation::gelu};
        kernels.gemm(job, 0, kernels.units(job));
        for (size_t i = 0; i < x.size(); ++i) {
            const double value = x[i], expected = 0.5 * value * std::erfc(-value / std::sqrt(2.0));
            CHECK_NEAR(y[i], expected, 3e-7 * std::fabs(value));
        }
    }
}

TEST(attention_equals_plain_loops) {
    constexpr int64_t kHeads = 3, kWidth = 200, kRows = 90;
    const auto keys = random(kWidth * kRows, 1), values = random(kWidth * kRows, 2);
    std::vector<ggml_fp16_t> keys16(keys.size()), values16(values.size());
    ggml_fp32_to_fp16_row(keys.data(), keys16.data(), kWidth * kRows);
    ggml_fp32_to_fp16_row(values.data(), values16.data(), kWidth * kRows);
    for (const int64_t dim : {16, 64, 80, 192}) {
        const auto q = random(static_cast<size_t>(dim * kHeads), 3);
        for (const int64_t n : {1, 3, 4, 21, 64}) {
            std::vector<int32_t> rows;
            for (int64_t i = 0; i < n; ++i) rows.push_back(static_cast<int32_t>((i * 37 + 5) % kRows));
            for (const bool f16 : {false, true}) {
                const auto number = [&](const std::vector<float>& full, const std::vector<ggml_fp16_t>& half,
                                        int32_t row, int64_t d) {
                    const auto i = static_cast<size_t>(row * kWidth + d);
                    return static_cast<double>(f16 ? ggml_fp16_to_fp32(half[i]) : full[i]);
                };
                for (const auto& kernels : csm::usable_kernels()) {
                    std::vector<float> scores(static_cast<size_t>(n * kHeads)), out(q.size());
                    csm::Attention job;
                    job.q = q.data();
                    job.head_dim = dim;
                    job.heads = kHeads;
                    job.k = f16 ? static_cast<const void*>(keys16.data()) : keys.data();
                    job.v = f16 ? static_cast<const void*>(values16.data()) : values.data();
                    job.kv_step = kWidth * static_cast<int64_t>(f16 ? sizeof(ggml_fp16_t) : sizeof(float));
                    job.f16 = f16;
                    job.rows = rows.data();
                    job.n = n;
                    job.scale = 0.7f;
                    job.scores = scores.data();
                    job.out = out.data();
                    kernels.attend(job);
                    for (int64_t h = 0; h < kHeads; ++h) {
                        std::vector<double> weights;
                        double total = 0.0;
                        for (const int32_t row : rows) {
                            double score = 0.0;
                            for (int64_t d = 0; d < dim; ++d)
                                score += q[static_cast<size_t>(h * dim + d)] * number(keys, keys16, row, d);
                            weights.push_back(std::exp(static_cast<double>(job.scale) * score));
                            total += weights.back();
                        }
                        for (int64_t d = 0; d < dim; ++d) {
                            double expected = 0.0;
                            for (size_t i = 0; i < rows.size(); ++i)
                                expected += weights[i] / total * number(values, values16, rows[i], d);
                            CHECK_NEAR(out[static_cast<size_t>(h * dim + d)], expected, 1e-5);
                        }
                    }
                }
            }
        }
    }
}

// Loose bounds: a loop that a compiler could empty would be far above them.
TEST(peaks_are_those_of_a_processor) {
    for (const auto& kernels : csm::usable_kernels()) {
        for (const ggml_type type : {GGML_TYPE_F32, GGML_TYPE_Q4_0, GGML_TYPE_Q5_K, GGML_TYPE_Q6_K,
                                     GGML_TYPE_Q8_0, GGML_TYPE_Q2_K}) {
            const double peak = csm::peak_multiply_adds(kernels, type, 1, 1);
            CHECK(peak > 1e5);
            // two instructions a cycle of 64 products each, at 10 GHz
            CHECK(peak < 1.3e12);
        }
    }
}
