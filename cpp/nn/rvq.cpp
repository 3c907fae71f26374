#include "nn/rvq.h"

#include "runtime/error.h"

namespace csm {

Rvq Rvq::request(Weights& weights, const std::string& prefix, const Shape& s, bool encoding) {
    Rvq rvq;
    rvq.codebooks = s.codebooks;
    rvq.codes = s.codes;
    const auto name = [prefix](int n) { return cat(prefix, ".layers.", n, ".codebook"); };
    std::vector<std::string> names;
    for (int n = 0; n < s.codebooks; ++n) names.push_back(name(n));
    rvq.entries = weights.f32_stack(names, {s.dim, s.codes});
    rvq.output_proj = weights.f32(prefix + ".output_proj.weight", {s.dim, s.hidden}, {s.dim, s.hidden});
    if (!encoding) return rvq;
    rvq.input_proj = weights.f32(prefix + ".input_proj.weight", {s.hidden, s.dim}, {s.hidden, s.dim});
    rvq.half_norms = weights.computed({s.codes, s.codebooks}, [&weights, names, s](float* out) {
        for (const auto& codebook : names) {
            const std::vector<float> entries = weights.read_f32(codebook, {s.dim, s.codes});
            for (size_t c = 0; c < static_cast<size_t>(s.codes); ++c) {
                double sum = 0.0;
                const float* entry = entries.data() + c * static_cast<size_t>(s.dim);
                for (int i = 0; i < s.dim; ++i) sum += static_cast<double>(entry[i]) * entry[i];
                *out++ = static_cast<float>(-0.5 * sum);
            }
        }
    });
    return rvq;
}

ggml_tensor* build_rvq_decode(ggml_context* ctx, const Rvq& rvq, ggml_tensor* rows, int64_t frames) {
    const int64_t dim = rvq.entries->ne[0];
    const int64_t q = rows->ne[0] / frames;
    ggml_tensor* found = ggml_reshape_3d(ctx, ggml_get_rows(ctx, rvq.entries, rows), dim, frames, q);
    ggml_tensor* sum =
        ggml_sum_rows(ctx, ggml_cont(ctx, ggml_permute(ctx, found, 1, 2, 0, 3)));  // {1, dim, frames}
    return ggml_mul_mat(ctx, rvq.output_proj, ggml_reshape_2d(ctx, sum, dim, frames));
}

namespace {

// Index of the largest value of each column, the lowest on ties: ggml_argmax does not say which it takes.
void run_argmax(ggml_tensor* dst, int ith, int nth, void*) {
    const ggml_tensor* scores = dst->src[0];
    for (int64_t t = ith; t < scores->ne[1]; t += nth) {
        const auto* column = reinterpret_cast<const float*>(static_cast<const char*>(scores->data) +
                                                            static_cast<size_t>(t) * scores->nb[1]);
        int32_t best = 0;
        for (int32_t c = 1; c < static_cast<int32_t>(scores->ne[0]); ++c) {
            if (column[c] > column[best]) best = c;
        }
        static_cast<int32_t*>(dst->data)[t] = best;
    }
}

}  // namespace

void build_rvq_encode(Graph& graph, const Rvq& rvq, ggml_tensor* x, ggml_tensor* codes) {
    ggml_context* ctx = graph.ctx();
    const int64_t frames = x->ne[1];
    ggml_tensor* rest = ggml_mul_mat(ctx, rvq.input_proj, x);
    for (int n = 0; n < rvq.codebooks; ++n) {
        const auto i = static_cast<size_t>(n);
        ggml_tensor* entries =
            ggml_view_2d(ctx, rvq.entries, rvq.entries->ne[0], rvq.codes, rvq.entries->nb[1],
                         rvq.entries->nb[1] * i * static_cast<size_t>(rvq.codes));
        ggml_tensor* half_norms = ggml_view_1d(ctx, rvq.half_norms, rvq.codes, rvq.half_norms->nb[1] * i);
        // |r - e|^2 is smallest where r.e - |e|^2 / 2 is largest
        ggml_tensor* scores = ggml_add(ctx, ggml_mul_mat(ctx, entries, rest), half_norms);
        ggml_tensor* nearest = ggml_custom_4d(ctx, GGML_TYPE_I32, frames, 1, 1, 1, &scores, 1, run_argmax,
                                              GGML_N_TASKS_MAX, nullptr);
        graph.add(ggml_cpy(ctx, nearest, ggml_view_1d(ctx, codes, frames, codes->nb[1] * i)));
        rest = ggml_sub(ctx, rest, ggml_get_rows(ctx, entries, nearest));
    }
}

}  // namespace csm
