#include "nn/sampler.h"

namespace csm {

ggml_tensor* Sampler::composed(ggml_tensor* logits, int codebook) const {
    ggml_context* ctx = graph_.ctx();
    const size_t plane = codebook == 0 ? 0 : 1;
    const int64_t codes = logits->ne[0], batch = logits->ne[1];
    // one number per sequence, {1, batch}
    const auto setting = [&](SettingsRow row) {
        ggml_tensor* t = inputs_.settings;
        return ggml_view_2d(ctx, t, 1, batch, t->nb[1],
                            t->nb[0] * static_cast<size_t>(row) + t->nb[2] * plane);
    };
    const auto of_codebook = [&](ggml_tensor* t) {
        return ggml_view_2d(ctx, t, 1, batch, t->nb[1], t->nb[0] * static_cast<size_t>(codebook));
    };
    const auto at_rank = [&](ggml_tensor* t, int64_t rank) {
        return ggml_view_2d(ctx, t, 1, batch, t->nb[1], t->nb[0] * static_cast<size_t>(rank));
    };
    const auto gather = [&](ggml_tensor* from, ggml_tensor* ranks) {
        return ggml_get_rows(ctx, ggml_reshape_3d(ctx, from, 1, codes, batch), ranks);
    };

    // unnormalised softmax mass by rank, of the first k ranks
    ggml_tensor* order = ggml_argsort(ctx, logits, GGML_SORT_ORDER_DESC);
    ggml_tensor* sorted = ggml_reshape_2d(ctx, gather(logits, order), codes, batch);
    ggml_tensor* below_top = ggml_sub(ctx, sorted, at_rank(sorted, 0));
    ggml_tensor* mass = ggml_exp(ctx, ggml_mul(ctx, below_top, setting(kInverseTemperature)));
    mass = ggml_mul(ctx, mass, in_top_k_[plane]);
    ggml_tensor* cumulated = ggml_cumsum(ctx, mass);

    // of those the ranks before which less than the share p has been cumulated
    ggml_tensor* limit = ggml_mul(ctx, at_rank(cumulated, codes - 1), setting(kTopP));
    ggml_tensor* before = ggml_sub(ctx, cumulated, mass);
    ggml_tensor* past_limit = ggml_add(ctx, ggml_neg(ctx, before), limit);
    ggml_tensor* left = ggml_mul(ctx, ggml_step(ctx, past_limit), in_top_k_[plane]);
    ggml_tensor* total = ggml_sum_rows(ctx, ggml_mul(ctx, mass, left));

    // the rank drawn is the number of ranks whose cumulated mass u does not pass, and never past the last one
    ggml_tensor* target = ggml_mul(ctx, total, of_codebook(inputs_.uniforms));
    ggml_tensor* passed = ggml_sum_rows(ctx, ggml_step(ctx, ggml_sub(ctx, cumulated, target)));
    ggml_tensor* rank = ggml_scale_bias(ctx, passed, -1.0f, static_cast<float>(codes));
    ggml_tensor* last = ggml_scale_bias(ctx, ggml_sum_rows(ctx, left), 1.0f, -1.0f);
    rank = ggml_sub(ctx, rank, ggml_relu(ctx, ggml_sub(ctx, rank, last)));
    // without numbers to compare, a rank must still exist
    rank = ggml_clamp(ctx, rank, 0.0f, static_cast<float>(codes - 1));
    ggml_tensor* drawn = gather(order, ggml_cast(ctx, rank, GGML_TYPE_I32));

    // codes are exact as floats
    drawn = ggml_reshape_2d(ctx, ggml_cast(ctx, drawn, GGML_TYPE_F32), 1, batch);
    ggml_tensor* change = ggml_sub(ctx, of_codebook(forced_), drawn);
    ggml_tensor* code = ggml_add(ctx, drawn, ggml_mul(ctx, change, of_codebook(is_forced_)));
    return ggml_reshape_1d(ctx, ggml_cast(ctx, code, GGML_TYPE_I32), batch);
}

}  // namespace csm
