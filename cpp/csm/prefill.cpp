#include "csm/prefill.h"

#include <cmath>

namespace csm {

void prefill(const std::shared_ptr<Device>& device, const CsmConfig& c, const CsmWeights& w,
             const KvCache& cache, int slot, int first, int keys, const Rows& rows, float* logits) {
    // text rows and audio rows are embedded apart and then brought into the order of the prompt
    std::vector<int32_t> text_ids, audio_rows, order(static_cast<size_t>(rows.count)), positions;
    std::vector<int64_t> cache_rows;
    int n_audio = 0;
    for (int i = 0; i < rows.count; ++i) {
        if (rows.text[i] >= 0) text_ids.push_back(rows.text[i]);
    }
    int text_seen = 0;
    for (int i = 0; i < rows.count; ++i) {
        if (rows.text[i] >= 0) {
            order[static_cast<size_t>(i)] = text_seen++;
        } else {
            order[static_cast<size_t>(i)] = static_cast<int32_t>(text_ids.size()) + n_audio++;
            for (int codebook = 0; codebook < c.codebooks; ++codebook) {
                audio_rows.push_back(codebook * c.audio_vocab +
                                     rows.audio[int64_t{i} * c.codebooks + codebook]);
            }
        }
        positions.push_back(first + i);
        cache_rows.push_back(int64_t{slot} * cache.capacity + first + i);
    }
    const bool causal = attends_itself(*device, c.backbone, cache.k.front()->type);
    std::vector<ggml_fp16_t> mask(causal ? 0 : static_cast<size_t>(keys) * static_cast<size_t>(rows.count),
                                  ggml_fp32_to_fp16(-INFINITY));
    for (int i = 0; !causal && i < rows.count; ++i) {
        for (int key = 0; key <= first + i; ++key)
            mask[static_cast<size_t>(i) * static_cast<size_t>(keys) + static_cast<size_t>(key)] = 0;
    }

    TensorPool pool(device, 8);
    const auto input = [&](ggml_type type, size_t n) {
        return n ? ggml_new_tensor_1d(pool.ctx(), type, static_cast<int64_t>(n)) : nullptr;
    };
    ggml_tensor* text_in = input(GGML_TYPE_I32, text_ids.size());
    ggml_tensor* audio_in = input(GGML_TYPE_I32, audio_rows.size());
    ggml_tensor* order_in = input(GGML_TYPE_I32, order.size());
    ggml_tensor* positions_in = input(GGML_TYPE_I32, positions.size());
    ggml_tensor* cache_rows_in = input(GGML_TYPE_I64, cache_rows.size());
    ggml_tensor* mask_in = causal ? nullptr : ggml_new_tensor_2d(pool.ctx(), GGML_TYPE_F16, keys, rows.count);
    pool.allocate();

    Graph graph(device, 64 + transformer_nodes(c.backbone));
    ggml_context* ctx = graph.ctx();
    ggml_tensor* text = text_in ? ggml_get_rows(ctx, w.text_embd, text_in) : nullptr;
    ggml_tensor* x = text;
    if (audio_in) {
        ggml_tensor* audio = ggml_get_rows(ctx, w.audio_embd, audio_in);
        audio = ggml_reshape_3d(ctx, audio, c.backbone.width, c.codebooks, n_audio);
        audio = ggml_sum_rows(ctx, ggml_cont(ctx, ggml_permute(ctx, audio, 1, 0, 2, 3)));
        audio = ggml_reshape_2d(ctx, audio, c.backbone.width, n_audio);
        x = text ? ggml_get_rows(ctx, ggml_concat(ctx, text, audio, 1), order_in) : audio;
    }
    AttentionPass pass;
    pass.cache = &cache;
    pass.first_slot = slot;
    pass.queries = rows.count;
    pass.keys = keys;
    pass.rows = cache_rows_in;
    pass.positions = positions_in;
    pass.mask = mask_in;
    pass.causal = causal;
    x = build_transformer(graph, c.backbone, w.backbone, pass, x);
    ggml_tensor* out = nullptr;
    if (logits) {
        out = build_linear(graph, w.heads[0],
                           build_norm(graph, c.backbone, x, w.backbone_norm, nullptr, w.heads[0]));
        graph.add_output(out);
    }
    graph.allocate();

    if (text_in) upload(text_in, text_ids.data(), ggml_nbytes(text_in));
    if (audio_in) upload(audio_in, audio_rows.data(), ggml_nbytes(audio_in));
    upload(order_in, order.data(), ggml_nbytes(order_in));
    upload(positions_in, positions.data(), ggml_nbytes(positions_in));
    upload(cache_rows_in, cache_rows.data(), ggml_nbytes(cache_rows_in));
    if (mask_in) upload(mask_in, mask.data(), ggml_nbytes(mask_in));
    graph.compute();
    if (logits) download(out, logits, ggml_nbytes(out));
}

}  // namespace csm
