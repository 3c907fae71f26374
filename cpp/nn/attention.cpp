#include "nn/attention.h"

#include <algorithm>
#include <cmath>

#include "kernels/kernels.h"
#include "nn/transformer.h"
#include "runtime/saved_state.h"
#include "runtime/transfers.h"

namespace csm {

KvCache::KvCache(TensorPool& pool, const TransformerConfig& config, int capacity, int slots, ggml_type type)
    : capacity(capacity), slots(slots) {
    for (int i = 0; i < config.layers; ++i) {
        k.push_back(ggml_new_tensor_2d(pool.ctx(), type, config.kv_width(), int64_t{capacity} * slots));
        v.push_back(ggml_new_tensor_2d(pool.ctx(), type, config.kv_width(), int64_t{capacity} * slots));
    }
}

size_t KvCache::tensors(const TransformerConfig& config) {
    return 2 * static_cast<size_t>(config.layers);
}

void KvCache::give_back(const TensorPool& pool, int slot, int64_t first) const {
    const size_t row = k.front()->nb[1];
    for (const auto* tensors : {&k, &v}) {
        for (const ggml_tensor* t : *tensors)
            pool.give_back(t, row * static_cast<size_t>(int64_t{capacity} * slot + first),
                           row * static_cast<size_t>(capacity - first));
    }
}

size_t KvCache::bytes(int64_t count) const {
    return 2 * k.size() * k.front()->nb[1] * static_cast<size_t>(count);
}

void KvCache::read(int slot, int64_t first, int64_t count, uint8_t* out) const {
    if (count == 0) return;
    const size_t row = k.front()->nb[1], part = row * static_cast<size_t>(count);
    const size_t offset = row * static_cast<size_t>(int64_t{capacity} * slot + first);
    for (size_t i = 0; i < k.size(); ++i) {
        for (const ggml_tensor* t : {k[i], v[i]}) {
            download(t, out, offset, part);
            out += part;
        }
    }
}

void KvCache::write(int slot, int64_t first, int64_t count, const uint8_t* data,
                    const std::string& what) const {
    if (count == 0) return;
    check_finite(what, k.front()->type, data, bytes(count));
    const size_t row = k.front()->nb[1], part = row * static_cast<size_t>(count);
    const size_t offset = row * static_cast<size_t>(int64_t{capacity} * slot + first);
    for (size_t i = 0; i < k.size(); ++i) {
        for (ggml_tensor* t : {k[i], v[i]}) {
            upload(t, data, offset, part);
            data += part;
        }
    }
}

namespace {

struct Node {
    ThreadTeam* team;
    int64_t heads, kv_heads, head_dim;
    int64_t first_row, rows_per_sequence;  // of the cache, and of each slot from there on
    int64_t queries, keys;
    bool causal;
    float scale;
};

template <typename T>
T* at(const ggml_tensor* t, int64_t i0, int64_t i1 = 0, int64_t i2 = 0, int64_t i3 = 0) {
    const auto offset = i0 * static_cast<int64_t>(t->nb[0]) + i1 * static_cast<int64_t>(t->nb[1]) +
                        i2 * static_cast<int64_t>(t->nb[2]) + i3 * static_cast<int64_t>(t->nb[3]);
    return reinterpret_cast<T*>(static_cast<char*>(t->data) + offset);
}

void run_attention(ggml_tensor* dst, int ith, int nth, void* userdata) {
    const auto& node = *static_cast<const Node*>(userdata);
    const ggml_tensor *q = dst->src[0], *k = dst->src[1], *v = dst->src[2], *slots = dst->src[4],
                      *mask = node.causal ? nullptr : dst->src[3],
                      *positions = node.causal ? dst->src[3] : nullptr;
    const int64_t group = node.heads / node.kv_heads, tokens = dst->ne[1], units = tokens * node.kv_heads;
    const auto keys_of = [&](int64_t token) {
        return positions ? int64_t{*at<const int32_t>(positions, token)} + 1 : node.keys;
    };
    const ggml_fp16_t visible = ggml_fp32_to_fp16(0.0f);
    const auto work = [&](int64_t first, int64_t last) {
        thread_local std::vector<int32_t> rows;
        thread_local std::vector<float> scores;
        for (int64_t unit = first, listed = -1; unit < last; ++unit) {
            const int64_t token = unit / node.kv_heads, head = unit % node.kv_heads;
            if (token != listed) {
                const int64_t sequence = token / node.queries, query = token % node.queries;
                const auto* hidden =
                    mask ? at<const ggml_fp16_t>(mask, 0, query, 0, mask->ne[3] > 1 ? sequence : 0) : nullptr;
                const int64_t slot = slots ? *at<const int32_t>(slots, sequence) : sequence;
                rows.clear();
                for (int64_t i = 0, keys = keys_of(token); i < keys; ++i) {
                    if (hidden == nullptr || hidden[i] == visible)
                        rows.push_back(static_cast<int32_t>(slot * node.rows_per_sequence + i));
                }
                scores.resize(std::max(scores.size(), rows.size() * static_cast<size_t>(group)));
                listed = token;
            }
            Attention job;
            job.q = at<const float>(q, 0, head * group, token);
            job.head_dim = node.head_dim;
            job.heads = group;
            job.k = at<const void>(k, head * node.head_dim, node.first_row);
            job.v = at<const void>(v, head * node.head_dim, node.first_row);
            job.kv_step = static_cast<int64_t>(k->nb[1]);
            job.f16 = k->type == GGML_TYPE_F16;
            job.rows = rows.data();
            job.n = static_cast<int64_t>(rows.size());
            job.scale = node.scale;
            job.scores = scores.data();
            job.out = at<float>(dst, head * group * node.head_dim, token);
            kernels().attend(job);
        }
    };
    // too little to be worth another thread's attention
    constexpr int64_t kSmall = 1 << 16;
    int64_t keys = 0;
    for (int64_t token = 0; token < tokens; ++token) keys += keys_of(token);
    if (nth == 1 && keys * node.heads * node.head_dim < kSmall) {
        node.team->run_here(0, units, work);
    } else {
        divide(*node.team, units, ith, nth, work);
    }
}

// Rows of the pass's slots as {head_dim, keys, kv_heads, batch}.
ggml_tensor* cache_view(ggml_context* ctx, const TransformerConfig& c, const AttentionPass& pass,
                        ggml_tensor* cache) {
    const size_t row = cache->nb[1];
    return ggml_view_4d(
        ctx, cache, c.head_dim, pass.keys, c.kv_heads, pass.batch, row,
        ggml_row_size(cache->type, c.head_dim), row * static_cast<size_t>(pass.cache->capacity),
        row * static_cast<size_t>(pass.cache->capacity) * static_cast<size_t>(pass.first_slot));
}

// As ggml computes it.
ggml_tensor* build_flash_attention(Graph& graph, const TransformerConfig& c, const AttentionPass& pass,
                                   ggml_tensor* k, ggml_tensor* v, ggml_tensor* qk) {
    ggml_context* ctx = graph.ctx();
    const int tokens = pass.batch * pass.queries;
    const size_t head = sizeof(float) * static_cast<size_t>(c.head_dim);
    const auto rows_of_slots = [&](ggml_tensor* cache) {
        if (pass.slots == nullptr) return cache_view(ctx, c, pass, cache);
        ggml_tensor* by_slot =
            ggml_reshape_2d(ctx, cache, cache->ne[0] * pass.cache->capacity, pass.cache->slots);
        ggml_tensor* taken = ggml_get_rows(ctx, by_slot, pass.slots);
        return cache_view(
            ctx, c, pass,
            ggml_reshape_2d(ctx, taken, cache->ne[0], int64_t{pass.cache->capacity} * pass.batch));
    };
    ggml_tensor* keys = rows_of_slots(k);
    ggml_tensor* values = rows_of_slots(v);
    ggml_tensor* q;
    if (tokens == 1 && c.kv_heads > 1 && graph.device().runs_own_nodes()) {
        // A single query would make ggml's CPU backend split the keys over the threads, which rounds
        // differently from a batch. With the kv heads in the outermost dimension it computes each head as it
        // does in a batch. Of other backends that dimension takes the fast kernels away.
        const int group = c.heads / c.kv_heads;
        q = ggml_view_4d(ctx, qk, c.head_dim, 1, group, c.kv_heads, qk->nb[2], head,
                         head * static_cast<size_t>(group), 0);
        keys = ggml_permute(ctx, keys, 0, 1, 3, 2);
        values = ggml_permute(ctx, values, 0, 1, 3, 2);
    } else {
        q = ggml_view_4d(ctx, qk, c.head_dim, pass.queries, c.heads, pass.batch, qk->nb[2], head,
                         qk->nb[2] * static_cast<size_t>(pass.queries), 0);
    }
    const float scale = 1.0f / std::sqrt(static_cast<float>(c.head_dim));
    ggml_tensor* mixed = ggml_flash_attn_ext(ctx, q, keys, values, pass.mask, scale, 0.0f, 0.0f);
    ggml_flash_attn_ext_set_prec(mixed, GGML_PREC_F32);
    return ggml_reshape_2d(ctx, mixed, c.heads * c.head_dim, tokens);
}

}  // namespace

bool attends_itself(const Device& device, const TransformerConfig& c, ggml_type type) {
    return kHaveKernels && device.runs_own_nodes() && c.head_dim % kAttentionDim == 0 &&
           (type == GGML_TYPE_F32 || type == GGML_TYPE_F16);
}

ggml_tensor* build_attention(Graph& graph, const TransformerConfig& c, const AttentionPass& pass, int layer,
                             ggml_tensor* q) {
    ggml_tensor *k = graph.current(pass.cache->k[static_cast<size_t>(layer)]),
                *v = graph.current(pass.cache->v[static_cast<size_t>(layer)]);
    if (!attends_itself(graph.device(), c, k->type)) return build_flash_attention(graph, c, pass, k, v, q);
    Node node;
    node.team = &graph.device().team();
    node.heads = c.heads;
    node.kv_heads = c.kv_heads;
    node.head_dim = c.head_dim;
    node.first_row = int64_t{pass.first_slot} * pass.cache->capacity;
    node.rows_per_sequence = pass.cache->capacity;
    node.queries = pass.queries;
    node.keys = pass.keys;
    node.causal = pass.causal;
    node.scale = 1.0f / std::sqrt(static_cast<float>(c.head_dim));
    ggml_tensor* args[] = {q, k, v, pass.causal ? pass.positions : pass.mask, pass.slots};
    return ggml_custom_4d(graph.ctx(), GGML_TYPE_F32, int64_t{c.heads} * c.head_dim,
                          int64_t{pass.batch} * pass.queries, 1, 1, args, 5, run_attention, GGML_N_TASKS_MAX,
                          graph.keep<Node>(node));
}

}  // namespace csm
