// A codec transformer as streams run it: latents come in pieces, attention sees the last `window` of them.
//
// Keys and values of each stream live in a ring of slots, position p in slot p mod capacity. The ring holds
// the window and the largest piece besides, so that every query of a piece sees its whole window, although
// the piece is written before it is read. Streams may stand at different positions.
#pragma once

#include <algorithm>

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
    // Gives back the memory of a stream that begins; see TensorPool.
    void give_back(const TensorPool& pool, int stream) const { cache_.give_back(pool, stream, 0); }

    // How many latents of a stream were run, and how many of them it still sees.
    int64_t position(int stream) const { return position_[static_cast<size_t>(stream)]; }
    int64_t seen(int64_t position) const { return std::min<int64_t>(position, window_ - 1); }
    // Keys and values of what a stream at some position still sees, as bytes, bytes(position) of them.
    // write() starts another stream at the position; it throws ArgumentError, naming `what`, if any number is
    // not finite, and the stream is then one that begins.
    size_t bytes(int64_t position) const { return cache_.bytes(seen(position)); }
    void read(int stream, uint8_t* out) const;
    void write(int stream, int64_t position, const uint8_t* data, const std::string& what);

 private:
    // Calls f(first slot of the ring, latents) for the one or two pieces that hold what is still seen.
    template <typename F>
    void pieces(int64_t position, const F& f) const {
        const int64_t count = seen(position), first = (position - count) % capacity_,
                      before_end = std::min(count, capacity_ - first);
        f(first, before_end);
        f(0, count - before_end);
    }

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
