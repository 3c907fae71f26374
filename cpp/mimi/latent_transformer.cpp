#include "mimi/latent_transformer.h"

#include <cmath>

#include "runtime/transfers.h"

namespace csm {

LatentTransformer::LatentTransformer(TensorPool& pool, const MimiConfig& config, int max_latents, int streams)
    : config_(config.transformer),
      window_(config.window),
      capacity_(config.window - 1 + max_latents),
      position_(static_cast<size_t>(streams)),
      cache_(pool, config.transformer, capacity_, streams, GGML_TYPE_F32),
      slots_(ggml_new_tensor_1d(pool.ctx(), GGML_TYPE_I32, max_latents)),
      rows_(ggml_new_tensor_1d(pool.ctx(), GGML_TYPE_I64, max_latents)),
      positions_(ggml_new_tensor_1d(pool.ctx(), GGML_TYPE_I32, max_latents)),
      mask_(ggml_new_tensor_2d(pool.ctx(), GGML_TYPE_F16, capacity_, max_latents)) {}

ggml_tensor* LatentTransformer::build(Graph& graph, const TransformerWeights& weights, ggml_tensor* x) const {
    ggml_context* ctx = graph.ctx();
    const int64_t n = x->ne[1], streams = x->ne[2];
    const size_t mask_of_stream = mask_->nb[1] * static_cast<size_t>(n);
    AttentionPass pass;
    pass.cache = &cache_;
    // the only stream needs no choice
    if (cache_.slots > 1) pass.slots = ggml_view_1d(ctx, slots_, streams, 0);
    pass.batch = static_cast<int>(streams);
    pass.queries = static_cast<int>(n);
    pass.keys = capacity_;
    pass.rows = ggml_view_1d(ctx, rows_, n * streams, 0);
    pass.positions = ggml_view_1d(ctx, positions_, n * streams, 0);
    pass.mask =
        ggml_view_4d(ctx, mask_, capacity_, n, 1, streams, mask_->nb[1], mask_of_stream, mask_of_stream, 0);
    ggml_tensor* tokens = ggml_reshape_2d(ctx, x, x->ne[0], n * streams);
    return ggml_reshape_3d(ctx, build_transformer(graph, config_, weights, pass, tokens), x->ne[0], n,
                           streams);
}

void LatentTransformer::advance(const std::vector<int32_t>& streams, int n) {
    const size_t count = streams.size() * static_cast<size_t>(n), capacity = static_cast<size_t>(capacity_);
    std::vector<int64_t> rows;
    std::vector<int32_t> positions;
    std::vector<ggml_fp16_t> mask(count * capacity, ggml_fp32_to_fp16(-INFINITY));
    const ggml_fp16_t visible = ggml_fp32_to_fp16(0.0f);
    for (const int32_t stream : streams) {
        int64_t& position = position_[static_cast<size_t>(stream)];
        for (const int64_t end = position + n; position < end; ++position) {
            ggml_fp16_t* seen = &mask[rows.size() * capacity];
            for (int64_t key = std::max<int64_t>(0, position - window_ + 1); key <= position; ++key)
                seen[key % capacity_] = visible;
            rows.push_back(int64_t{stream} * capacity_ + position % capacity_);
            positions.push_back(static_cast<int32_t>(position));
        }
    }
    upload(slots_, streams.data(), streams.size() * sizeof(int32_t));
    upload(rows_, rows.data(), count * sizeof(int64_t));
    upload(positions_, positions.data(), count * sizeof(int32_t));
    upload(mask_, mask.data(), mask.size() * sizeof(ggml_fp16_t));
}

void LatentTransformer::reset(int stream) {
    int64_t& position = position_[static_cast<size_t>(stream)];
    // what is masked may still be multiplied by zero, which only finite numbers survive; rows that were never
    // written are zero
    const auto rows = static_cast<size_t>(std::min<int64_t>(position, capacity_));
    const size_t first = static_cast<size_t>(stream) * static_cast<size_t>(capacity_);
    position = 0;
    if (rows == 0) return;
    for (const auto* tensors : {&cache_.k, &cache_.v}) {
        for (ggml_tensor* tensor : *tensors) clear(tensor, tensor->nb[1] * first, tensor->nb[1] * rows);
    }
}

void LatentTransformer::read(int stream, uint8_t* out) const {
    pieces(position(stream), [&](int64_t first, int64_t count) {
        cache_.read(stream, first, count, out);
        out += cache_.bytes(count);
    });
}

void LatentTransformer::write(int stream, int64_t position, const uint8_t* data, const std::string& what) {
    reset(stream);
    pieces(position, [&](int64_t first, int64_t count) {
        cache_.write(stream, first, count, data, what);
        data += cache_.bytes(count);
    });
    position_[static_cast<size_t>(stream)] = position;
}

}  // namespace csm
