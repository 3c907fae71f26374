// A codec transformer as streams run it: latents come in pieces, attention sees the last `window` of them.
//
// Keys and values of each stream live in a ring of slots, position p in slot p mod capacity. The ring holds
// the window and the largest piece besides, so that every query of a piece sees its whole window, although
// the piece is written before it is read. Streams may stand at different positions.
#pragma once

#include "mimi/config.h"
#include "nn/transformer.h"

namespace csm {

class LatentTransformer {
 public:
    // Describes state and inputs in the pool; the pool's owner allocates. A run takes at most max_latents, of
    // all its streams together.
    LatentTransformer(TensorPool& pool, const MimiConfig& config, int max_latents, int streams = 1);
    static size_t tensors(const MimiConfig& config) { return KvCache::tensors(config.transformer) + 4; }

    // Nodes for a piece x {hidden, n, streams}; the result has the same shape.
    ggml_tensor* build(Graph& graph, const TransformerWeights& weights, ggml_tensor* x) const;

    // Sets the inputs for the next n latents of each of these streams; to be called before each run of a
    // graph.
    void advance(const std::vector<int32_t>& streams, int n);
    // Starts another stream in the place of this one.
    void reset(int stream);

 private:
    TransformerConfig config_;
    int window_;
    int capacity_;
    std::vector<int64_t> position_;  // by stream
    KvCache cache_;
    ggml_tensor* slots_;      // I32 {max_latents}: the streams of the run
    ggml_tensor* rows_;       // I64 {max_latents}
    ggml_tensor* positions_;  // I32 {max_latents}
    ggml_tensor* mask_;       // F16 {capacity, max_latents}
};

}  // namespace csm
