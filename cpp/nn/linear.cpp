#include "nn/linear.h"

#include <algorithm>
#include <vector>

#include "kernels/kernels.h"
#include "kernels/packed_matrix.h"

namespace csm {

namespace {

template <typename T>
T* row(const ggml_tensor* t, int64_t i) {
    return reinterpret_cast<T*>(static_cast<char*>(t->data) + static_cast<size_t>(i) * t->nb[1]);
}

ggml_tensor* quantized_tensor(ggml_context* ctx, int64_t width, int64_t tokens,
                              std::vector<ggml_tensor*> args, ggml_custom_op_t op, void* userdata) {
    return ggml_custom_4d(ctx, GGML_TYPE_I8, static_cast<int64_t>(activation_bytes(width)), tokens, 1, 1,
                          args.data(), static_cast<int>(args.size()), op, GGML_N_TASKS_MAX, userdata);
}

// What a node has to know besides its tensors.
struct Node {
    ThreadTeam* team;
    const PackedMatrix* matrix = nullptr;
    const float* eps = nullptr;
    Activation activation = Activation::none;
};

ActivationTiles tiles_of(const ggml_tensor* quantized, int64_t columns) {
    return {columns, quantized->ne[1]};
}

void run_quantize(ggml_tensor* dst, int ith, int nth, void* userdata) {
    const ggml_tensor* x = dst->src[0];
    const ActivationTiles tiles = tiles_of(dst, x->ne[0]);
    const Kernels& loops = kernels();
    divide(*static_cast<Node*>(userdata)->team, x->ne[1], ith, nth, [&](int64_t first, int64_t last) {
        for (int64_t token = first; token < last; ++token)
            loops.quantize(row<float>(x, token), 0, tiles.columns / PackedMatrix::kBlockColumns, tiles, token,
                           dst->data);
    });
}

void run_norm_quantize(ggml_tensor* dst, int ith, int nth, void* userdata) {
    const ggml_tensor *x = dst->src[0], *weight = dst->src[1];
    const auto& node = *static_cast<const Node*>(userdata);
    const int64_t width = x->ne[0];
    const ActivationTiles tiles = tiles_of(dst, width);
    const Kernels& loops = kernels();
    divide(*node.team, x->ne[1], ith, nth, [&](int64_t first, int64_t last) {
        thread_local std::vector<float> normed;
        normed.resize(static_cast<size_t>(width));
        for (int64_t token = first; token < last; ++token) {
            loops.rms_norm(row<float>(x, token), static_cast<const float*>(weight->data), width, *node.eps,
                           normed.data());
            loops.quantize(normed.data(), 0, width / PackedMatrix::kBlockColumns, tiles, token, dst->data);
        }
    });
}

// Activations of so many tiles stay in a core's cache while rows pass by.
constexpr int64_t kTileBlock = 16;

void run_linear(ggml_tensor* dst, int ith, int nth, void* userdata) {
    const auto& node = *static_cast<const Node*>(userdata);
    const PackedMatrix& w = *node.matrix;
    const ggml_tensor *x = dst->src[0], *weight = dst->src[1], *residual = dst->src[2];
    const Kernels& loops = kernels();
    PackedProduct job;
    job.matrix = w;
    job.packed = weight->data;
    job.tiles = tiles_of(x, w.columns);
    job.activations = x->data;
    job.out_stride = static_cast<int64_t>(dst->nb[1] / sizeof(float));
    divide(*node.team, w.groups(), ith, nth, [&](int64_t first, int64_t last) {
        const int64_t offset = first * PackedMatrix::kGroupRows,
                      rows = (last - first) * PackedMatrix::kGroupRows, n_tiles = job.tiles.count();
        PackedProduct part = job;
        part.first_group = first;
        part.last_group = last;
        for (int64_t tile = 0; tile < n_tiles; tile += kTileBlock) {
            part.first_tile = tile;
            part.last_tile = std::min(tile + kTileBlock, n_tiles);
            const int64_t first_token = job.tiles.first(tile), last_token = job.tiles.first(part.last_tile);
            part.out = row<float>(dst, first_token) + offset;
            loops.multiply(part);
            if (residual == nullptr) continue;
            for (int64_t token = first_token; token < last_token; ++token) {
                float* out = row<float>(dst, token) + offset;
                const float* add = row<float>(residual, token) + offset;
                for (int64_t r = 0; r < rows; ++r) out[r] += add[r];
            }
        }
    });
}

// Two groups of gate rows and the two of up rows that belong to them make one block of quantized results.
void run_swiglu(ggml_tensor* dst, int ith, int nth, void* userdata) {
    const auto& node = *static_cast<const Node*>(userdata);
    const PackedMatrix& w = *node.matrix;
    const ggml_tensor *x = dst->src[0], *weight = dst->src[1];
    constexpr int64_t kBlock = PackedMatrix::kBlockColumns, kGroups = kBlock / PackedMatrix::kGroupRows;
    const int64_t width = w.rows / 2, up_groups = width / PackedMatrix::kGroupRows;
    const ActivationTiles in = tiles_of(x, w.columns), out = tiles_of(dst, width);
    const Kernels& loops = kernels();
    divide(*node.team, width / kBlock, ith, nth, [&](int64_t first, int64_t last) {
        thread_local std::vector<float> hidden;
        const int64_t n_tiles = in.count();
        hidden.resize(static_cast<size_t>(2 * kBlock * std::min(kTileBlock * kActivationTile, in.tokens)));
        PackedProduct part;
        part.matrix = w;
        part.packed = weight->data;
        part.tiles = in;
        part.activations = x->data;
        part.out_stride = 2 * kBlock;
        for (int64_t tile = 0; tile < n_tiles; tile += kTileBlock) {
            part.first_tile = tile;
            part.last_tile = std::min(tile + kTileBlock, n_tiles);
            const int64_t first_token = in.first(tile), last_token = in.first(part.last_tile);
            for (int64_t block = first; block < last; ++block) {
                const auto multiply = [&](int64_t group, float* to) {
                    part.first_group = group;
                    part.last_group = group + kGroups;
                    part.out = to;
                    loops.multiply(part);
                };
                multiply(block * kGroups, hidden.data());
                multiply(block * kGroups + up_groups, hidden.data() + kBlock);
                for (int64_t token = first_token; token < last_token; ++token) {
                    float* gate = &hidden[static_cast<size_t>((token - first_token) * 2 * kBlock)];
                    loops.swiglu(gate, gate + kBlock, kBlock);
                    loops.quantize(gate, block, block + 1, out, token, dst->data);
                }
            }
        }
    });
}

void run_panels(ggml_tensor* dst, int ith, int nth, void* userdata) {
    const auto& node = *static_cast<const Node*>(userdata);
    const ggml_tensor* x = dst->src[0];
    const auto data = [](const ggml_tensor* t) { return t ? static_cast<const float*>(t->data) : nullptr; };
    Gemm job;
    job.x = data(x);
    job.x_step = static_cast<int64_t>(x->nb[1] / sizeof(float));
    job.rows = dst->ne[1];
    job.in = x->ne[0];
    job.out = dst->ne[0];
    job.type = dst->src[1]->type;
    job.weights = dst->src[1]->data;
    job.residual = data(dst->src[2]);
    job.bias = data(dst->src[3]);
    job.y = static_cast<float*>(dst->data);
    job.activation = node.activation;
    const Kernels& loops = kernels();
    divide(*node.team, loops.units(job), ith, nth,
           [&](int64_t first, int64_t last) { loops.gemm(job, first, last); });
}

bool is_quantized(const ggml_tensor* x) {
    return x->type == GGML_TYPE_I8;
}

}  // namespace

ggml_tensor* build_linear(Graph& graph, const Matrix& w, ggml_tensor* x, const Epilogue& epilogue) {
    ggml_context* ctx = graph.ctx();
    ggml_tensor* args[] = {x, w.tensor, epilogue.residual, epilogue.bias};
    if (w.panels) {
        return ggml_custom_4d(
            ctx, GGML_TYPE_F32, w.rows, x->ne[1], 1, 1, args, 4, run_panels, GGML_N_TASKS_MAX,
            graph.keep<Node>(Node{&graph.device().team(), nullptr, nullptr, epilogue.activation}));
    }
    ggml_tensor* y = nullptr;
    if (w.packed != nullptr) {
        if (!is_quantized(x))
            args[0] = quantized_tensor(ctx, w.columns, x->ne[1], {x}, run_quantize,
                                       graph.keep<Node>(Node{&graph.device().team()}));
        y = ggml_custom_4d(ctx, GGML_TYPE_F32, w.rows, x->ne[1], 1, 1, args, epilogue.residual ? 3 : 2,
                           run_linear, GGML_N_TASKS_MAX,
                           graph.keep<Node>(Node{&graph.device().team(), w.packed}));
    } else {
        y = ggml_mul_mat(ctx, w.tensor, x);
        if (epilogue.residual != nullptr) y = ggml_add(ctx, epilogue.residual, y);
    }
    if (epilogue.bias != nullptr) y = ggml_add(ctx, y, epilogue.bias);
    if (epilogue.activation == Activation::elu) return ggml_elu(ctx, y);
    return epilogue.activation == Activation::gelu ? ggml_gelu_erf(ctx, y) : y;
}

ggml_tensor* build_rms_norm(Graph& graph, ggml_tensor* x, ggml_tensor* weight, const float& eps,
                            const Matrix& consumer) {
    ggml_context* ctx = graph.ctx();
    if (consumer.packed == nullptr) return ggml_mul(ctx, ggml_rms_norm(ctx, x, eps), weight);
    return quantized_tensor(ctx, x->ne[0], x->ne[1], {x, weight}, run_norm_quantize,
                            graph.keep<Node>(Node{&graph.device().team(), nullptr, &eps}));
}

ggml_tensor* build_swiglu(Graph& graph, const Matrix& gate_up, ggml_tensor* x, const Matrix& consumer) {
    if (gate_up.packed == nullptr || consumer.packed == nullptr)
        return ggml_swiglu(graph.ctx(), build_linear(graph, gate_up, x));
    return quantized_tensor(graph.ctx(), gate_up.packed->rows / 2, x->ne[1], {x, gate_up.tensor}, run_swiglu,
                            graph.keep<Node>(Node{&graph.device().team(), gate_up.packed}));
}

}  // namespace csm
