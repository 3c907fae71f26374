#include "nn/rvq.h"

#include <algorithm>

#include "kernels/kernels.h"
#include "runtime/error.h"

namespace csm {

Rvq Rvq::request(Weights& weights, const std::string& prefix, const Shape& s, bool encoding) {
    Rvq rvq;
    rvq.codes = s.codes;
    for (int n = 0; n < s.codebooks; ++n) {
        const std::string name = cat(prefix, ".layers.", n, ".codebook");
        rvq.codebooks.push_back(weights.f32_matrix(name, {s.dim, s.codes}, s.dim, s.codes));
        if (!encoding) continue;
        rvq.half_norms.push_back(
            weights.f32(name, {s.dim, s.codes}, {s.codes}, [s](const float* entry, float* out) {
                for (int c = 0; c < s.codes; ++c, entry += s.dim) {
                    double sum = 0.0;
                    for (int i = 0; i < s.dim; ++i) sum += static_cast<double>(entry[i]) * entry[i];
                    *out++ = static_cast<float>(-0.5 * sum);
                }
            }));
    }
    rvq.output_proj = weights.f32_matrix(prefix + ".output_proj.weight", {s.dim, s.hidden}, s.dim, s.hidden);
    if (encoding && !weights.device().runs_own_nodes()) {
        rvq.ranks = weights.computed({s.codes}, [s](float* out) {
            for (int c = 0; c < s.codes; ++c) *out++ = -static_cast<float>(c);
        });
    }
    if (encoding)
        rvq.input_proj =
            weights.f32_matrix(prefix + ".input_proj.weight", {s.hidden, s.dim}, s.hidden, s.dim);
    return rvq;
}

namespace {

template <typename T>
T* column(const ggml_tensor* t, int64_t i) {
    return reinterpret_cast<T*>(static_cast<char*>(t->data) + static_cast<size_t>(i) * t->nb[1]);
}

// Looks a code up in a codebook made of panels and adds `count` elements of the entry {dim}, from the first
// on, times `sign`, to out.
void add_entry(const ggml_tensor* codebook, int64_t dim, int64_t codes, int32_t code, float sign,
               int64_t first, int64_t count, float* out) {
    const auto* panels = static_cast<const float*>(codebook->data);
    const GemmEntry entry = gemm_entry(dim, codes, code);
    for (int64_t i = 0; i < count; ++i) out[i] += sign * panels[entry.offset + (first + i) * entry.step];
}

void run_subtract(ggml_tensor* dst, int ith, int nth, void* userdata) {
    const ggml_tensor *rest = dst->src[0], *codes = dst->src[1];
    const int64_t dim = dst->ne[0];
    for (int64_t t = ith; t < dst->ne[1]; t += nth) {
        auto* out = column<float>(dst, t);
        std::copy_n(column<const float>(rest, t), dim, out);
        add_entry(dst->src[2], dim, *static_cast<const int*>(userdata),
                  static_cast<const int32_t*>(codes->data)[t], -1.0f, 0, dim, out);
    }
}

struct Sum {
    ThreadTeam* team;
    const Rvq* rvq;
};

void run_sum(ggml_tensor* dst, int ith, int nth, void* userdata) {
    const ggml_tensor* codes = dst->src[0];
    const auto& node = *static_cast<const Sum*>(userdata);
    const int64_t dim = dst->ne[0];
    // a part of a vector per unit: single frames are worth both cores as well
    constexpr int64_t kPart = 64;
    const int64_t parts = (dim + kPart - 1) / kPart;
    divide(*node.team, parts * dst->ne[1], ith, nth, [&](int64_t first, int64_t last) {
        for (int64_t unit = first; unit < last; ++unit) {
            const int64_t token = unit / parts, begin = unit % parts * kPart,
                          count = std::min(kPart, dim - begin);
            auto* out = column<float>(dst, token) + begin;
            std::fill_n(out, count, 0.0f);
            for (int64_t n = 0; n < codes->ne[1]; ++n)
                add_entry(node.rvq->codebooks[static_cast<size_t>(n)].tensor, dim, node.rvq->codes,
                          column<const int32_t>(codes, n)[token], 1.0f, begin, count, out);
        }
    });
}

// Index of the largest value of each column, the lowest on ties: ggml_argmax does not say which it takes.
void run_argmax(ggml_tensor* dst, int ith, int nth, void*) {
    const ggml_tensor* scores = dst->src[0];
    for (int64_t t = ith; t < scores->ne[1]; t += nth) {
        const auto* values = column<const float>(scores, t);
        int32_t best = 0;
        for (int32_t c = 1; c < static_cast<int32_t>(scores->ne[0]); ++c) {
            if (values[c] > values[best]) best = c;
        }
        static_cast<int32_t*>(dst->data)[t] = best;
    }
}

// The same of ggml's operators: {codes, columns} -> I32 {columns}.
ggml_tensor* build_argmax(ggml_context* ctx, ggml_tensor* scores, ggml_tensor* ranks) {
    const int64_t codes = scores->ne[0], columns = scores->ne[1];
    // Far above what the scores of two entries can differ by in comparison with the codes' ranks, however
    // little it is: the rank decides only where nothing else does.
    constexpr float kFar = 1e30f;
    ggml_tensor* one = ggml_reshape_2d(ctx, ggml_argmax(ctx, scores), 1, columns);
    ggml_tensor* largest = ggml_get_rows(ctx, ggml_reshape_3d(ctx, scores, 1, codes, columns), one);
    ggml_tensor* below = ggml_sub(ctx, scores, ggml_reshape_2d(ctx, largest, 1, columns));
    return ggml_argmax(ctx, ggml_add(ctx, ggml_scale(ctx, below, kFar), ranks));
}

ggml_tensor* row_view(ggml_context* ctx, ggml_tensor* codes, size_t n) {
    return ggml_view_1d(ctx, codes, codes->ne[0], codes->nb[1] * n);
}

}  // namespace

ggml_tensor* build_rvq_decode(Graph& graph, const Rvq& rvq, ggml_tensor* codes) {
    ggml_context* ctx = graph.ctx();
    ggml_tensor* sum = nullptr;
    if (rvq.output_proj.panels) {
        sum = ggml_custom_4d(ctx, GGML_TYPE_F32, rvq.output_proj.columns, codes->ne[0], 1, 1, &codes, 1,
                             run_sum, GGML_N_TASKS_MAX, graph.keep<Sum>(Sum{&graph.device().team(), &rvq}));
    } else {
        for (size_t n = 0; n < static_cast<size_t>(codes->ne[1]); ++n) {
            ggml_tensor* found = ggml_get_rows(ctx, rvq.codebooks[n].tensor, row_view(ctx, codes, n));
            sum = sum ? ggml_add(ctx, sum, found) : found;
        }
    }
    return build_linear(graph, rvq.output_proj, sum);
}

void build_rvq_encode(Graph& graph, const Rvq& rvq, ggml_tensor* x, ggml_tensor* codes) {
    ggml_context* ctx = graph.ctx();
    const int64_t frames = x->ne[1];
    ggml_tensor* rest = build_linear(graph, rvq.input_proj, x);
    for (size_t n = 0; n < rvq.codebooks.size(); ++n) {
        const Matrix& codebook = rvq.codebooks[n];
        // |r - e|^2 is smallest where r.e - |e|^2 / 2 is largest
        Epilogue epilogue;
        epilogue.bias = rvq.half_norms[n];
        ggml_tensor* scores = build_linear(graph, codebook, rest, epilogue);
        ggml_tensor* nearest = rvq.ranks ? build_argmax(ctx, scores, rvq.ranks)
                                         : ggml_custom_4d(ctx, GGML_TYPE_I32, frames, 1, 1, 1, &scores, 1,
                                                          run_argmax, GGML_N_TASKS_MAX, nullptr);
        graph.add(ggml_cpy(ctx, nearest, row_view(ctx, codes, n)));
        if (codebook.panels) {
            ggml_tensor* args[] = {rest, nearest, codebook.tensor};
            rest = ggml_custom_4d(ctx, GGML_TYPE_F32, rest->ne[0], frames, 1, 1, args, 3, run_subtract,
                                  GGML_N_TASKS_MAX, const_cast<int*>(&rvq.codes));
        } else {
            rest = ggml_sub(ctx, rest, ggml_get_rows(ctx, codebook.tensor, nearest));
        }
    }
}

}  // namespace csm
