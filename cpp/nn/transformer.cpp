#include "nn/transformer.h"

#include <utility>

#include "runtime/error.h"

namespace csm {

namespace {

// Far above any speech model; keeps products of sizes from a hostile file inside 64 bits.
constexpr int kMaxAttentionWidth = 1 << 16;

}  // namespace

void TransformerConfig::validate(const std::string& where, const std::string& name) const {
    const auto fail = [&](const std::string& why) { return FormatError(cat(where, ": ", name, ": ", why)); };
    const std::pair<const char*, int> sizes[] = {{"layers", layers},     {"width", width},
                                                 {"heads", heads},       {"key/value heads", kv_heads},
                                                 {"head_dim", head_dim}, {"feed-forward width", ffn}};
    for (const auto& [what, size] : sizes) {
        if (size < 1) throw fail(cat(what, ": ", size, ", expected at least 1"));
    }
    if (heads % kv_heads != 0)
        throw fail(cat(heads, " query heads do not share ", kv_heads, " key/value heads evenly"));
    if (head_dim % 2 != 0) throw fail(cat("head_dim is ", head_dim, ", expected an even number"));
    if (int64_t{heads} * head_dim > kMaxAttentionWidth)
        throw fail(cat(heads, " heads of ", head_dim, " are too wide"));
    if (!(norm_eps >= 0.0f && norm_eps < 1.0f)) throw fail(cat("norm epsilon is ", norm_eps));
    if (!(rope_base > 1.0f && rope_base < 1e12f)) throw fail(cat("rope frequency base is ", rope_base));
}

TransformerWeights TransformerWeights::request(Weights& weights, const std::string& prefix,
                                               const TransformerConfig& c) {
    TransformerWeights out;
    const int q_rows = c.heads * c.head_dim;
    for (int i = 0; i < c.layers; ++i) {
        const std::string blk = cat(prefix, ".blk.", i, ".");
        TransformerLayer layer;
        layer.attn_norm = weights.vector(blk + "attn_norm.weight", c.width);
        layer.qkv = weights.matrix({{blk + "attn_q.weight", q_rows, q_rows},
                                    {blk + "attn_k.weight", c.kv_width(), c.kv_width()},
                                    {blk + "attn_v.weight", c.kv_width(), c.kv_width()}},
                                   c.width, c.codec);
        layer.attn_output = weights.matrix(blk + "attn_output.weight", q_rows, c.width, c.codec);
        layer.ffn_norm = weights.vector(blk + "ffn_norm.weight", c.width);
        if (c.codec) {
            layer.attn_norm_bias = weights.vector(blk + "attn_norm.bias", c.width);
            layer.attn_scale = weights.vector(blk + "attn_scale.weight", c.width);
            layer.ffn_norm_bias = weights.vector(blk + "ffn_norm.bias", c.width);
            layer.ffn_up = weights.matrix(blk + "ffn_up.weight", c.width, c.ffn, c.codec);
            layer.ffn_scale = weights.vector(blk + "ffn_scale.weight", c.width);
        } else {
            layer.ffn_up = weights.matrix(
                {{blk + "ffn_gate.weight", c.ffn, c.ffn}, {blk + "ffn_up.weight", c.ffn, c.ffn}}, c.width);
        }
        layer.ffn_down = weights.matrix(blk + "ffn_down.weight", c.ffn, c.width, c.codec);
        out.layers.push_back(layer);
    }
    return out;
}

ggml_tensor* build_norm(Graph& graph, const TransformerConfig& config, ggml_tensor* x, ggml_tensor* weight,
                        ggml_tensor* bias, const Matrix& consumer) {
    if (!config.codec) return build_rms_norm(graph, x, weight, config.norm_eps, consumer);
    ggml_context* ctx = graph.ctx();
    return ggml_add(ctx, ggml_mul(ctx, ggml_norm(ctx, x, config.norm_eps), weight), bias);
}

namespace {

// Heads mixed by attention, {heads * head_dim, tokens}; x is normalised.
ggml_tensor* build_heads(Graph& graph, const TransformerConfig& c, const TransformerLayer& layer,
                         ggml_tensor* rope_factors, const AttentionPass& pass, int index, ggml_tensor* x) {
    ggml_context* ctx = graph.ctx();
    const int tokens = pass.batch * pass.queries;
    const size_t head = sizeof(float) * static_cast<size_t>(c.head_dim);
    ggml_tensor* qkv = build_linear(graph, layer.qkv, x);

    // q and k turn together: their heads lie side by side
    ggml_tensor* qk = ggml_view_3d(ctx, qkv, c.head_dim, c.heads + c.kv_heads, tokens, head, qkv->nb[1], 0);
    qk = ggml_rope_ext(ctx, qk, pass.positions, rope_factors, c.head_dim, GGML_ROPE_TYPE_NORMAL, 0,
                       c.rope_base, 1.0f, 0.0f, 1.0f, 0.0f, 0.0f);
    ggml_tensor* k =
        ggml_view_2d(ctx, qk, c.kv_width(), tokens, qk->nb[2], head * static_cast<size_t>(c.heads));
    ggml_tensor* v = ggml_view_2d(ctx, qkv, c.kv_width(), tokens, qkv->nb[1],
                                  head * static_cast<size_t>(c.heads + c.kv_heads));
    const auto i = static_cast<size_t>(index);
    graph.set_rows(pass.cache->k[i], graph.bindable(k), pass.rows);
    graph.set_rows(pass.cache->v[i], graph.bindable(v), pass.rows);

    return build_attention(graph, c, pass, index, qk);
}

// x + w y, the layer-scaled product of the codec included.
ggml_tensor* add_product(Graph& graph, ggml_tensor* x, const Matrix& w, ggml_tensor* y, ggml_tensor* scale) {
    if (scale == nullptr) {
        Epilogue epilogue;
        epilogue.residual = x;
        return build_linear(graph, w, y, epilogue);
    }
    return ggml_add(graph.ctx(), x, ggml_mul(graph.ctx(), build_linear(graph, w, y), scale));
}

}  // namespace

ggml_tensor* build_transformer(Graph& graph, const TransformerConfig& c, const TransformerWeights& weights,
                               const AttentionPass& pass, ggml_tensor* x) {
    for (int i = 0; i < c.layers; ++i) {
        const TransformerLayer& layer = weights.layers[static_cast<size_t>(i)];
        ggml_tensor* normed = build_norm(graph, c, x, layer.attn_norm, layer.attn_norm_bias, layer.qkv);
        ggml_tensor* mixed = build_heads(graph, c, layer, weights.rope_factors, pass, i, normed);
        x = add_product(graph, x, layer.attn_output, mixed, layer.attn_scale);
        normed = build_norm(graph, c, x, layer.ffn_norm, layer.ffn_norm_bias, layer.ffn_up);
        ggml_tensor* hidden = nullptr;
        if (c.codec) {
            Epilogue epilogue;
            epilogue.activation = Activation::gelu;
            hidden = build_linear(graph, layer.ffn_up, normed, epilogue);
        } else {
            hidden = build_swiglu(graph, layer.ffn_up, normed, layer.ffn_down);
        }
        x = add_product(graph, x, layer.ffn_down, hidden, layer.ffn_scale);
    }
    return x;
}

}  // namespace csm
