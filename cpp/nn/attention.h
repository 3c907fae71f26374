// The key/value cache, and attention over it.
//
// On the CPU attention is a node of our own: ggml's takes a thread per head or query, meets at a barrier, and
// for a single query splits the keys over the threads, which makes the result depend on their number.
#pragma once

#include <algorithm>
#include <string>
#include <vector>

#include "runtime/graph.h"

namespace csm {

struct TransformerConfig;

// Keys and values of all layers: per layer a matrix {kv_width, slots * capacity}; row slot * capacity + i.
struct KvCache {
    std::vector<ggml_tensor*> k, v;
    int capacity = 0;
    int slots = 0;

    KvCache() = default;
    // Describes the tensors in the pool; the pool's owner allocates.
    KvCache(TensorPool& pool, const TransformerConfig& config, int capacity, int slots, ggml_type type);
    static size_t tensors(const TransformerConfig& config);

    // Attention reads this many rows more than needed at most where it has to say how many: graphs are built
    // per bucket. Capacities are whole buckets.
    static constexpr int kBucket = 256;
    static int round_up(int rows) { return (rows + kBucket - 1) / kBucket * kBucket; }
    int bucket(int rows) const { return std::min(round_up(rows), capacity); }

    // Gives back the memory of the slot's rows from `first` on; see TensorPool.
    void give_back(const TensorPool& pool, int slot, int64_t first) const;

    // Keys and values of rows first .. first + count - 1 of a slot as bytes, bytes(count) of them: for each
    // layer the keys, then the values. write() throws ArgumentError, naming `what`, if any of them is no
    // finite number; nothing is written then.
    size_t bytes(int64_t count) const;
    void read(int slot, int64_t first, int64_t count, uint8_t* out) const;
    void write(int slot, int64_t first, int64_t count, const uint8_t* data, const std::string& what) const;
};

// What attention reads and writes in one pass. Tokens are ordered by sequence, then by query: token = b *
// queries + q.
struct AttentionPass {
    const KvCache* cache = nullptr;
    int first_slot = 0;                // sequence b uses slot first_slot + b
    ggml_tensor* slots = nullptr;      // or, if not null, slot slots[b]: I32 {batch}
    int batch = 1;                     // sequences
    int queries = 1;                   // tokens per sequence
    int keys = 0;                      // cache rows that are read, from row 0 of the slot on
    ggml_tensor* rows = nullptr;       // I64 {batch * queries}: cache rows to write
    ggml_tensor* positions = nullptr;  // I32 {batch * queries}: rotary positions
    // F16 {keys, queries, 1, batch or 1}: 0 where a key is visible, else -inf; null = all keys are visible
    ggml_tensor* mask = nullptr;
    // In place of keys and mask, where attention is a node of our own: a token sees the rows of its slot up
    // to its own position. Only those are read, so that one graph serves all positions.
    bool causal = false;
};

// Whether attention over a cache of this type is a node of our own. It then takes any slots as they are;
// elsewhere a pass over slots that do not follow each other copies them.
bool attends_itself(const Device& device, const TransformerConfig& config, ggml_type type);

// q {head_dim, heads or more, tokens} -> {heads * head_dim, tokens}, over keys and values of a layer of the
// pass's cache.
ggml_tensor* build_attention(Graph& graph, const TransformerConfig& config, const AttentionPass& pass,
                             int layer, ggml_tensor* q);

}  // namespace csm
