// The pre-norm transformer of all four stacks: backbone and depth decoder (RMSNorm, SwiGLU, grouped-query
// attention) and the two codec transformers (LayerNorm with bias, GELU, layer scale, sliding window). One
// description, one graph builder.
//
// Keys and values always go through a cache, written with ggml_set_rows at rows that are inputs of the graph
// and read as a strided view, so that a graph can be replayed at another position without being rebuilt.
#pragma once

#include <string>
#include <vector>

#include "files/weights.h"
#include "nn/attention.h"
#include "nn/linear.h"
#include "runtime/graph.h"

namespace csm {

struct TransformerConfig {
    int layers = 0;
    int width = 0;
    int heads = 0;
    int kv_heads = 0;
    int head_dim = 0;
    int ffn = 0;
    float norm_eps = 1e-5f;
    float rope_base = 10000.0f;
    bool codec = false;  // LayerNorm + GELU + layer scale in place of RMSNorm + SwiGLU

    int kv_width() const { return kv_heads * head_dim; }

    // Checks what the graphs rely on; throws FormatError. `where` names the file and `name` the stack in the
    // message.
    void validate(const std::string& where, const std::string& name) const;
};

struct TransformerLayer {
    ggml_tensor* attn_norm = nullptr;       // {width}
    ggml_tensor* attn_norm_bias = nullptr;  // codec only
    Matrix qkv;                             // {width, (heads + 2 kv_heads) head_dim}: q, k, v stacked
    Matrix attn_output;                     // {heads head_dim, width}
    ggml_tensor* attn_scale = nullptr;      // codec only
    ggml_tensor* ffn_norm = nullptr;
    ggml_tensor* ffn_norm_bias = nullptr;  // codec only
    Matrix ffn_up;                         // {width, 2 ffn}: gate, up stacked; codec: {width, ffn}
    Matrix ffn_down;                       // {ffn, width}
    ggml_tensor* ffn_scale = nullptr;      // codec only
};

struct TransformerWeights {
    std::vector<TransformerLayer> layers;
    ggml_tensor* rope_factors = nullptr;  // {head_dim / 2} or null

    // Requests the tensors PREFIX.blk.N.* of docs/GGUF.md.
    static TransformerWeights request(Weights& weights, const std::string& prefix,
                                      const TransformerConfig& config);
};

// Norm with weight (and bias for the codec), in the form that products with `consumer` take; config must
// outlive the graph.
ggml_tensor* build_norm(Graph& graph, const TransformerConfig& config, ggml_tensor* x, ggml_tensor* weight,
                        ggml_tensor* bias, const Matrix& consumer);

// All layers over x {width, batch * queries}; the result has the same shape and no final norm. The cache
// writes are added to the graph at once, the result only when the caller adds something that needs it.
ggml_tensor* build_transformer(Graph& graph, const TransformerConfig& config,
                               const TransformerWeights& weights, const AttentionPass& pass, ggml_tensor* x);

// Upper bound of the nodes build_transformer creates, for sizing graphs.
inline size_t transformer_nodes(const TransformerConfig& config) {
    return static_cast<size_t>(config.layers) * 32;
}

}  // namespace csm
