#include "mimi/latent_transformer.h"

#include <cmath>

namespace csm {

LatentTransformer::LatentTransformer(TensorPool& pool, const MimiConfig& config, int max_latents)
    : config_(config.transformer),
      window_(config.window),
      capacity_(config.window - 1 + max_latents),
      cache_(pool, config.transformer, capacity_, 1, GGML_TYPE_F32),
      rows_(ggml_new_tensor_1d(pool.ctx(), GGML_TYPE_I64, max_latents)),
      positions_(ggml_new_tensor_1d(pool.ctx(), GGML_TYPE_I32, max_latents)),
      mask_(ggml_new_tensor_2d(pool.ctx(), GGML_TYPE_F16, capacity_, max_latents)) {}

ggml_tensor* LatentTransformer::build(Graph& graph, const TransformerWeights& weights, ggml_tensor* x) const {
    ggml_context* ctx = graph.ctx();
    const int64_t n = x->ne[1];
    AttentionPass pass;
    pass.cache = &cache_;
    pass.queries = static_cast<int>(n);
    pass.keys = capacity_;
    pass.rows = ggml_view_1d(ctx, rows_, n, 0);
    pass.positions = ggml_view_1d(ctx, positions_, n, 0);
    pass.mask = ggml_view_2d(ctx, mask_, capacity_, n, mask_->nb[1], 0);
    return build_transformer(graph, config_, weights, pass, x);
}

void LatentTransformer::advance(int n) {
    const auto count = static_cast<size_t>(n), capacity = static_cast<size_t>(capacity_);
    std::vector<int64_t> rows(count);
    std::vector<int32_t> positions(count);
    std::vector<ggml_fp16_t> mask(count * capacity, ggml_fp32_to_fp16(-INFINITY));
    const ggml_fp16_t visible = ggml_fp32_to_fp16(0.0f);
    for (int64_t i = 0; i < n; ++i) {
        const int64_t query = position_ + i;
        rows[static_cast<size_t>(i)] = query % capacity_;
        positions[static_cast<size_t>(i)] = static_cast<int32_t>(query);
        for (int64_t key = std::max<int64_t>(0, query - window_ + 1); key <= query; ++key) {
            mask[static_cast<size_t>(i) * capacity + static_cast<size_t>(key % capacity_)] = visible;
        }
    }
    upload(rows_, rows.data(), count * sizeof(int64_t));
    upload(positions_, positions.data(), count * sizeof(int32_t));
    upload(mask_, mask.data(), mask.size() * sizeof(ggml_fp16_t));
    position_ += n;
}

void LatentTransformer::reset() {
    position_ = 0;
    // what is masked may still be multiplied by zero, which only finite numbers survive
    for (const auto* tensors : {&cache_.k, &cache_.v}) {
        for (ggml_tensor* tensor : *tensors) ggml_backend_tensor_memset(tensor, 0, 0, ggml_nbytes(tensor));
    }
}

}  // namespace csm
