// A codec transformer as a stream runs it: latents come in pieces, attention sees the last `window` of them.
//
// Keys and values live in a ring of slots, position p in slot p mod capacity. The ring holds the window and
// the largest piece besides, so that every query of a piece sees its whole window, although the piece is
// written before it is read.
#pragma once

#include "mimi/config.h"
#include "nn/transformer.h"

namespace csm {

class LatentTransformer {
 public:
    // Describes state and inputs in the pool; the pool's owner allocates.
    LatentTransformer(TensorPool& pool, const MimiConfig& config, int max_latents);
    static size_t tensors(const MimiConfig& config) { return KvCache::tensors(config.transformer) + 3; }

    // Nodes for a piece x {hidden, n}, n <= max_latents; the result has the same shape.
    ggml_tensor* build(Graph& graph, const TransformerWeights& weights, ggml_tensor* x) const;

    // Sets the inputs for the next n latents; to be called before each run of a graph.
    void advance(int n);
    // Starts another stream.
    void reset();

 private:
    TransformerConfig config_;
    int window_;
    int capacity_;
    int64_t position_ = 0;
    KvCache cache_;
    ggml_tensor* rows_;       // I64 {max_latents}
    ggml_tensor* positions_;  // I32 {max_latents}
    ggml_tensor* mask_;       // F16 {capacity, max_latents}
};

}  // namespace csm
