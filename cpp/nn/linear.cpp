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

// How the products with a quantized matrix want its activations: in tiles for packed ones, else in rows of a
// type of ggml.
struct Form {
    int64_t columns = 0;
    const RowDot* dots = nullptr;
    ActivationForm packed = {};

    Form() = default;
    explicit Form(const Matrix& consumer) : columns(consumer.columns), dots(consumer.dots) {
        if (consumer.packed != nullptr) packed = consumer.packed->layout().form;
    }

    static bool exists(const Matrix& consumer) {
        return consumer.packed != nullptr || consumer.dots != nullptr;
    }

    // Columns that are quantized together.
    int64_t block() const { return dots ? ggml_blck_size(dots->activations) : PackedMatrix::kBlockColumns; }
    int64_t blocks() const { return columns / block(); }
    ActivationTiles tiles(int64_t tokens) const { return {columns, tokens, packed}; }
    size_t token_bytes() const {
        return dots ? ggml_row_size(dots->activations, columns) : tiles(1).token_bytes();
    }

    // Quantizes blocks of a token, the first of which is at values.
    void quantize(const float* values, int64_t first_block, int64_t last_block, const ggml_tensor* dst,
                  int64_t token) const {
        if (dots == nullptr) {
            kernels().quantize(values, first_block, last_block, tiles(dst->ne[1]), token, dst->data);
        } else {
            const auto offset = static_cast<size_t>(first_block) * ggml_type_size(dots->activations);
            dots->quantize(values, row<char>(dst, token) + offset, (last_block - first_block) * block());
        }
    }
};

// What a node has to know besides its tensors.
struct Node {
    ThreadTeam* team;
    Matrix matrix = {};
    Form form = {};  // of the results
    const float* eps = nullptr;
    Activation activation = Activation::none;
};

ggml_tensor* quantized_tensor(Graph& graph, const Node& node, int64_t tokens, std::vector<ggml_tensor*> args,
                              ggml_custom_op_t op) {
    return ggml_custom_4d(graph.ctx(), GGML_TYPE_I8, static_cast<int64_t>(node.form.token_bytes()), tokens, 1,
                          1, args.data(), static_cast<int>(args.size()), op, GGML_N_TASKS_MAX,
                          graph.keep<Node>(node));
}

void run_quantize(ggml_tensor* dst, int ith, int nth, void* userdata) {
    const ggml_tensor* x = dst->src[0];
    const auto& node = *static_cast<const Node*>(userdata);
    divide(*node.team, x->ne[1], ith, nth, [&](int64_t first, int64_t last) {
        for (int64_t token = first; token < last; ++token)
            node.form.quantize(row<float>(x, token), 0, node.form.blocks(), dst, token);
    });
}

void run_norm_quantize(ggml_tensor* dst, int ith, int nth, void* userdata) {
    const ggml_tensor *x = dst->src[0], *weight = dst->src[1];
    const auto& node = *static_cast<const Node*>(userdata);
    const int64_t width = x->ne[0];
    divide(*node.team, x->ne[1], ith, nth, [&](int64_t first, int64_t last) {
        thread_local std::vector<float> normed;
        normed.resize(static_cast<size_t>(width));
        for (int64_t token = first; token < last; ++token) {
            kernels().rms_norm(row<float>(x, token), static_cast<const float*>(weight->data), width,
                               *node.eps, normed.data());
            node.form.quantize(normed.data(), 0, node.form.blocks(), dst, token);
        }
    });
}

// x {2 * width, tokens}: gates, then what they let through.
void run_gate_quantize(ggml_tensor* dst, int ith, int nth, void* userdata) {
    const ggml_tensor* x = dst->src[0];
    const auto& node = *static_cast<const Node*>(userdata);
    const int64_t size = node.form.block(), blocks = node.form.blocks();
    divide(*node.team, blocks * x->ne[1], ith, nth, [&](int64_t first, int64_t last) {
        thread_local std::vector<float> hidden;
        for (int64_t unit = first; unit < last; ++unit) {
            const int64_t token = unit / blocks, block = unit % blocks;
            const float* gate = row<float>(x, token) + block * size;
            hidden.assign(gate, gate + size);
            kernels().swiglu(hidden.data(), gate + node.form.columns, size);
            node.form.quantize(hidden.data(), block, block + 1, dst, token);
        }
    });
}

// Rows of a matrix in ggml's layout, so many at a time, pass by so many tokens that stay in a core's cache.
constexpr int64_t kDotRows = 8, kDotTokens = 64;

void run_dots(ggml_tensor* dst, int ith, int nth, void* userdata) {
    const auto& node = *static_cast<const Node*>(userdata);
    const Matrix& w = node.matrix;
    const ggml_tensor *x = dst->src[0], *weight = dst->src[1], *residual = dst->src[2];
    const int64_t tokens = dst->ne[1];
    divide(*node.team, (w.rows + kDotRows - 1) / kDotRows, ith, nth, [&](int64_t first, int64_t last) {
        const int64_t last_row = std::min(last * kDotRows, w.rows);
        for (int64_t first_token = 0; first_token < tokens; first_token += kDotTokens) {
            const int64_t last_token = std::min(first_token + kDotTokens, tokens);
            for (int64_t r = first * kDotRows; r < last_row; ++r) {
                for (int64_t token = first_token; token < last_token; ++token) {
                    float product = 0.0f;
                    w.dots->dot(static_cast<int>(w.columns), &product, 0, row<void>(weight, r), 0,
                                row<void>(x, token), 0, 1);
                    row<float>(dst, token)[r] = residual ? row<float>(residual, token)[r] + product : product;
                }
            }
        }
    });
}

// Activations of so many tiles stay in a core's cache while rows pass by.
constexpr int64_t kTileBlock = 16;

void run_linear(ggml_tensor* dst, int ith, int nth, void* userdata) {
    const auto& node = *static_cast<const Node*>(userdata);
    const PackedMatrix& w = *node.matrix.packed;
    const ggml_tensor *x = dst->src[0], *weight = dst->src[1], *residual = dst->src[2];
    const Kernels& loops = kernels();
    PackedProduct job;
    job.matrix = w;
    job.packed = weight->data;
    job.tiles = {w.columns, x->ne[1], w.layout().form};
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

// The groups of gate rows and those of up rows that belong to them make one block of quantized results.
void run_swiglu(ggml_tensor* dst, int ith, int nth, void* userdata) {
    const auto& node = *static_cast<const Node*>(userdata);
    const PackedMatrix& w = *node.matrix.packed;
    const ggml_tensor *x = dst->src[0], *weight = dst->src[1];
    const int64_t size = node.form.block(), groups = size / PackedMatrix::kGroupRows,
                  up_groups = w.rows / 2 / PackedMatrix::kGroupRows;
    const Kernels& loops = kernels();
    divide(*node.team, node.form.blocks(), ith, nth, [&](int64_t first, int64_t last) {
        thread_local std::vector<float> hidden;
        const ActivationTiles in{w.columns, x->ne[1], w.layout().form};
        hidden.resize(static_cast<size_t>(2 * size * std::min(kTileBlock * kActivationTile, in.tokens)));
        PackedProduct part;
        part.matrix = w;
        part.packed = weight->data;
        part.tiles = in;
        part.activations = x->data;
        part.out_stride = 2 * size;
        for (int64_t tile = 0; tile < in.count(); tile += kTileBlock) {
            part.first_tile = tile;
            part.last_tile = std::min(tile + kTileBlock, in.count());
            const int64_t first_token = in.first(tile), last_token = in.first(part.last_tile);
            for (int64_t block = first; block < last; ++block) {
                const auto multiply = [&](int64_t group, float* to) {
                    part.first_group = group;
                    part.last_group = group + groups;
                    part.out = to;
                    loops.multiply(part);
                };
                multiply(block * groups, hidden.data());
                multiply(block * groups + up_groups, hidden.data() + size);
                for (int64_t token = first_token; token < last_token; ++token) {
                    float* gate = &hidden[static_cast<size_t>((token - first_token) * 2 * size)];
                    loops.swiglu(gate, gate + size, size);
                    node.form.quantize(gate, block, block + 1, dst, token);
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
    Node node{&graph.device().team()};
    if (w.panels) {
        node.activation = epilogue.activation;
        return ggml_custom_4d(ctx, GGML_TYPE_F32, w.rows, x->ne[1], 1, 1, args, 4, run_panels,
                              GGML_N_TASKS_MAX, graph.keep<Node>(node));
    }
    ggml_tensor* y = nullptr;
    if (Form::exists(w)) {
        if (!is_quantized(x)) {
            Node quantize = node;
            quantize.form = Form(w);
            args[0] = quantized_tensor(graph, quantize, x->ne[1], {x}, run_quantize);
        }
        node.matrix = w;
        y = ggml_custom_4d(ctx, GGML_TYPE_F32, w.rows, x->ne[1], 1, 1, args, epilogue.residual ? 3 : 2,
                           w.packed ? run_linear : run_dots, GGML_N_TASKS_MAX, graph.keep<Node>(node));
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
    if (!Form::exists(consumer)) return ggml_mul(ctx, ggml_rms_norm(ctx, x, eps), weight);
    Node node{&graph.device().team()};
    node.form = Form(consumer);
    node.eps = &eps;
    return quantized_tensor(graph, node, x->ne[1], {x, weight}, run_norm_quantize);
}

ggml_tensor* build_swiglu(Graph& graph, const Matrix& gate_up, ggml_tensor* x, const Matrix& consumer) {
    if (!Form::exists(consumer)) return ggml_swiglu(graph.ctx(), build_linear(graph, gate_up, x));
    Node node{&graph.device().team()};
    node.form = Form(consumer);
    if (gate_up.packed == nullptr)
        return quantized_tensor(graph, node, x->ne[1], {build_linear(graph, gate_up, x)}, run_gate_quantize);
    node.matrix = gate_up;
    return quantized_tensor(graph, node, x->ne[1], {x, gate_up.tensor}, run_swiglu);
}

}  // namespace csm
