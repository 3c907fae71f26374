#include "nn/linear.h"

#include <algorithm>
#include <vector>

#include "runtime/packed_matrix.h"
#include "runtime/work_share.h"

namespace csm {

namespace {

struct Range {
    int64_t first, last;
};

// Thread ith's part of n units.
Range share(int64_t n, int ith, int nth) {
    return {n * ith / nth, n * (ith + 1) / nth};
}

template <typename T>
T* row(const ggml_tensor* t, int64_t i) {
    return reinterpret_cast<T*>(static_cast<char*>(t->data) + static_cast<size_t>(i) * t->nb[1]);
}

ggml_tensor* quantized_tensor(ggml_context* ctx, int64_t width, int64_t tokens,
                              std::vector<ggml_tensor*> args, ggml_custom_op_t op, const void* userdata) {
    return ggml_custom_4d(ctx, GGML_TYPE_I8, static_cast<int64_t>(activation_bytes(width)), tokens, 1, 1,
                          args.data(), static_cast<int>(args.size()), op, GGML_N_TASKS_MAX,
                          const_cast<void*>(userdata));
}

void run_quantize(ggml_tensor* dst, int ith, int nth, void*) {
    const ggml_tensor* x = dst->src[0];
    // one token is shared out by blocks, many by tokens
    const int64_t blocks = x->ne[0] / 32, tokens = x->ne[1];
    const Range mine = share(blocks * tokens, ith, nth);
    for (int64_t at = mine.first; at < mine.last;) {
        const int64_t token = at / blocks, first = at % blocks,
                      last = std::min(blocks, first + mine.last - at);
        quantize_activations(row<float>(x, token), x->ne[0], first * 32, last * 32, row<void>(dst, token));
        at += last - first;
    }
}

void run_norm_quantize(ggml_tensor* dst, int ith, int nth, void* userdata) {
    const ggml_tensor *x = dst->src[0], *weight = dst->src[1];
    const float eps = *static_cast<const float*>(userdata);
    const int64_t width = x->ne[0];
    thread_local std::vector<float> normed;
    normed.resize(static_cast<size_t>(width));
    for (int64_t token = ith; token < x->ne[1]; token += nth) {
        rms_norm(row<float>(x, token), static_cast<const float*>(weight->data), width, eps, normed.data());
        quantize_activations(normed.data(), width, 0, width, row<void>(dst, token));
    }
}

// What a node that multiplies has to know besides its tensors.
struct Product {
    const PackedMatrix* w;
    WorkShare share;
    Product(const PackedMatrix* matrix, int threads) : w(matrix), share(threads) {}
};

// Activations of so many tokens stay in a core's cache while rows pass by.
constexpr int64_t kTokenBlock = 128;

void run_linear(ggml_tensor* dst, int ith, int nth, void* userdata) {
    auto& product = *static_cast<Product*>(userdata);
    const PackedMatrix& w = *product.w;
    const ggml_tensor *x = dst->src[0], *weight = dst->src[1], *residual = dst->src[2];
    const int64_t tokens = dst->ne[1], stride = static_cast<int64_t>(dst->nb[1] / sizeof(float));
    product.share.run(w.groups(), ith, nth, [&](int64_t first, int64_t last) {
        const int64_t offset = first * PackedMatrix::kGroupRows,
                      rows = (last - first) * PackedMatrix::kGroupRows;
        for (int64_t token = 0; token < tokens; token += kTokenBlock) {
            const int64_t count = std::min(kTokenBlock, tokens - token);
            float* out = row<float>(dst, token) + offset;
            w.multiply(weight->data, first, last - first, row<void>(x, token), count, out, stride);
            if (residual == nullptr) continue;
            for (int64_t t = 0; t < count; ++t) {
                const float* add = row<float>(residual, token + t) + offset;
                for (int64_t r = 0; r < rows; ++r) out[t * stride + r] += add[r];
            }
        }
    });
}

// Two groups of gate rows and the two of up rows that belong to them make one block of quantized results.
void run_swiglu(ggml_tensor* dst, int ith, int nth, void* userdata) {
    auto& product = *static_cast<Product*>(userdata);
    const PackedMatrix& w = *product.w;
    const ggml_tensor *x = dst->src[0], *weight = dst->src[1];
    constexpr int64_t kBlock = PackedMatrix::kBlockColumns, kGroups = kBlock / PackedMatrix::kGroupRows;
    const int64_t width = w.rows / 2, tokens = dst->ne[1];
    thread_local std::vector<float> hidden;
    hidden.resize(static_cast<size_t>(2 * kBlock * std::min(kTokenBlock, tokens)));
    product.share.run(width / kBlock, ith, nth, [&](int64_t first, int64_t last) {
        for (int64_t token = 0; token < tokens; token += kTokenBlock) {
            const int64_t count = std::min(kTokenBlock, tokens - token);
            for (int64_t block = first; block < last; ++block) {
                w.multiply(weight->data, block * kGroups, kGroups, row<void>(x, token), count, hidden.data(),
                           2 * kBlock);
                w.multiply(weight->data, block * kGroups + width / PackedMatrix::kGroupRows, kGroups,
                           row<void>(x, token), count, &hidden[kBlock], 2 * kBlock);
                for (int64_t t = 0; t < count; ++t) {
                    float* gate = &hidden[static_cast<size_t>(t * 2 * kBlock)];
                    swiglu(gate, gate + kBlock, kBlock);
                    quantize_activations(gate - block * kBlock, width, block * kBlock, (block + 1) * kBlock,
                                         row<void>(dst, token + t));
                }
            }
        }
    });
}

bool is_quantized(const ggml_tensor* x) {
    return x->type == GGML_TYPE_I8;
}

}  // namespace

ggml_tensor* build_linear(Graph& graph, const Matrix& w, ggml_tensor* x, ggml_tensor* residual) {
    ggml_context* ctx = graph.ctx();
    if (w.packed == nullptr) {
        ggml_tensor* y = ggml_mul_mat(ctx, w.tensor, x);
        return residual ? ggml_add(ctx, residual, y) : y;
    }
    if (!is_quantized(x)) x = quantized_tensor(ctx, w.packed->columns, x->ne[1], {x}, run_quantize, nullptr);
    ggml_tensor* args[] = {x, w.tensor, residual};
    return ggml_custom_4d(ctx, GGML_TYPE_F32, w.packed->rows, x->ne[1], 1, 1, args, residual ? 3 : 2,
                          run_linear, GGML_N_TASKS_MAX,
                          graph.keep<Product>(w.packed, graph.device().threads()));
}

ggml_tensor* build_rms_norm(Graph& graph, ggml_tensor* x, ggml_tensor* weight, const float& eps,
                            const Matrix& consumer) {
    ggml_context* ctx = graph.ctx();
    if (consumer.packed == nullptr) return ggml_mul(ctx, ggml_rms_norm(ctx, x, eps), weight);
    return quantized_tensor(ctx, x->ne[0], x->ne[1], {x, weight}, run_norm_quantize, &eps);
}

ggml_tensor* build_swiglu(Graph& graph, const Matrix& gate_up, ggml_tensor* x, const Matrix& consumer) {
    if (gate_up.packed == nullptr || consumer.packed == nullptr)
        return ggml_swiglu(graph.ctx(), build_linear(graph, gate_up, x));
    return quantized_tensor(graph.ctx(), gate_up.packed->rows / 2, x->ne[1], {x, gate_up.tensor}, run_swiglu,
                            graph.keep<Product>(gate_up.packed, graph.device().threads()));
}

}  // namespace csm
