// The sampler of ggml's operators. On a device every node is a launch, and a frame has 32 samplers: what does
// not depend on logits is computed once a frame.
//
// Logits are sorted, and scaled by the temperature; a softmax over the ranks that top-k leaves, and its
// cumulated sum. The rank drawn is the first whose cumulated mass is above the border, which is u, and zero
// from the last rank on, so that rounding can leave no draw without a rank. The first of several ones is
// found as the largest of ones and zeros less a fraction that grows with the rank: ggml_argmax does not say
// which of equal numbers it takes. Numbers that are none end as zeros there, so that a rank is always one
// that there is.
//
// Sorting: ggml's CUDA backend keeps the lower of two codes with equal logits first, as the definition asks;
// the sorts of Vulkan, Metal and ggml's CPU backend may not. Such a pair then changes places, with the same
// chance for either.
#include "nn/sampler.h"
#include "nn/sort.h"

namespace csm {

ggml_tensor* Sampler::setting(SettingsRow row, int plane) const {
    return of_codebook(inputs_.settings, plane * kSettingsWidth + row);
}

// One number per sequence, {1, batch}.
ggml_tensor* Sampler::of_codebook(ggml_tensor* t, int codebook) const {
    return ggml_view_2d(graph_.ctx(), t, 1, batch_, t->nb[0], t->nb[1] * static_cast<size_t>(codebook));
}

void Sampler::compose_shared() {
    ggml_context* ctx = graph_.ctx();
    const int64_t codes = inputs_.ranks->ne[0], codebooks = inputs_.uniforms->ne[1];
    const float step = rank_step(codes);
    // Far below any logit over a temperature.
    constexpr float kHidden = 1e30f;
    for (int plane = 0; plane < 2; ++plane) {
        Shared& shared = shared_[plane];
        // how many ranks that top-k leaves follow, itself included
        ggml_tensor* following = ggml_add(ctx, inputs_.ranks, setting(kKept, plane));
        shared.hidden = ggml_scale_bias(ctx, ggml_step(ctx, following), kHidden, -kHidden);
        shared.last = ggml_step(ctx, ggml_scale_bias(ctx, following, -1.0f, 1.5f * step));
        if (needs_.top_p) continue;
        const int64_t first = plane == 0 ? 0 : 1, count = plane == 0 ? 1 : codebooks - 1;
        const ggml_tensor* t = inputs_.uniforms;
        ggml_tensor* u = ggml_view_3d(ctx, inputs_.uniforms, 1, batch_, count, t->nb[0], t->nb[1],
                                      t->nb[1] * static_cast<size_t>(first));
        shared.borders = ggml_sub(ctx, ggml_repeat_4d(ctx, u, codes, batch_, count, 1), shared.last);
    }
    if (!needs_.forced) return;
    forced_ = ggml_cast(ctx, inputs_.forced, GGML_TYPE_F32);
    is_forced_ = ggml_step(ctx, ggml_scale_bias(ctx, forced_, 1.0f, 0.5f));
}

// Positive for the ranks whose cumulated mass is above the border.
ggml_tensor* Sampler::above_border(ggml_tensor* mass, ggml_tensor* cumulated, int codebook) const {
    ggml_context* ctx = graph_.ctx();
    const int plane = codebook == 0 ? 0 : 1;
    const Shared& shared = shared_[plane];
    if (!needs_.top_p) {
        const ggml_tensor* t = shared.borders;
        const auto i = static_cast<size_t>(codebook - plane);
        return ggml_sub(
            ctx, cumulated,
            graph_.bindable(ggml_view_2d(ctx, shared.borders, t->ne[0], t->ne[1], t->nb[1], t->nb[2] * i)));
    }
    // The ranks before which no more than the limit has been cumulated are left; u is a part of their mass.
    // With top_p off that is exactly u, whatever the sum was rounded to, and the result as without top_p.
    ggml_tensor* limit = setting(kLimit, plane);
    ggml_tensor* gone = ggml_step(ctx, ggml_sub(ctx, ggml_sub(ctx, cumulated, mass), limit));
    ggml_tensor* total = ggml_sum_rows(ctx, ggml_mul(ctx, mass, ggml_scale_bias(ctx, gone, -1.0f, 1.0f)));
    total = ggml_add(ctx, ggml_mul(ctx, total, setting(kPart, plane)), setting(kWhole, plane));
    ggml_tensor* above =
        ggml_sub(ctx, cumulated, ggml_mul(ctx, total, of_codebook(inputs_.uniforms, codebook)));
    ggml_tensor* last = ggml_step(ctx, ggml_sub(ctx, cumulated, limit));
    return ggml_add(ctx, ggml_add(ctx, above, shared.last), last);
}

// The code, or the one that is forced; codes are exact as floats.
ggml_tensor* Sampler::replaced(ggml_tensor* code, int codebook) const {
    ggml_context* ctx = graph_.ctx();
    ggml_tensor* drawn = ggml_cast(ctx, code, GGML_TYPE_F32);
    ggml_tensor* change = ggml_sub(ctx, of_codebook(forced_, codebook), drawn);
    ggml_tensor* taken = ggml_add(ctx, drawn, ggml_mul(ctx, change, of_codebook(is_forced_, codebook)));
    return ggml_cast(ctx, taken, GGML_TYPE_I32);
}

ggml_tensor* Sampler::composed(ggml_tensor* logits, int codebook) const {
    ggml_context* ctx = graph_.ctx();
    const int plane = codebook == 0 ? 0 : 1;
    const int64_t codes = logits->ne[0], batch = logits->ne[1];
    const auto gather = [&](ggml_tensor* from, ggml_tensor* ranks) {
        return ggml_get_rows(ctx, ggml_reshape_3d(ctx, from, 1, codes, batch), ranks);
    };
    ggml_tensor* order = build_descending_order(graph_, logits);
    ggml_tensor* scaled = ggml_mul(ctx, logits, setting(kInverseTemperature, plane));
    ggml_tensor* sorted = ggml_reshape_2d(ctx, gather(scaled, order), codes, batch);
    ggml_tensor* mass = ggml_soft_max_ext(ctx, sorted, shared_[plane].hidden, 1.0f, 0.0f);
    ggml_tensor* above = above_border(mass, ggml_cumsum(ctx, mass), codebook);
    ggml_tensor* rank = ggml_argmax(ctx, ggml_add(ctx, ggml_step(ctx, above), inputs_.ranks));
    ggml_tensor* code = ggml_reshape_2d(ctx, gather(order, ggml_reshape_2d(ctx, rank, 1, batch)), 1, batch);
    if (needs_.forced) code = replaced(code, codebook);
    return ggml_reshape_1d(ctx, code, batch);
}

}  // namespace csm
