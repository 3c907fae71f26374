#include "nn/sort.h"

namespace csm {

namespace {

// Floats that comparing the halves may take: beyond it the CPU sorts, which ggml's scheduler sees to.
constexpr int64_t kMaxComparisons = int64_t{16} << 20;

bool sorts(const Device& device, int64_t n, int64_t columns) {
    const Context ctx(2 * ggml_tensor_overhead());
    ggml_tensor* x = ggml_new_tensor_2d(ctx.get(), GGML_TYPE_F32, n, columns);
    return device.supports(ggml_argsort(ctx.get(), x, GGML_SORT_ORDER_DESC));
}

}  // namespace

ggml_tensor* build_descending_order(Graph& graph, ggml_tensor* x) {
    const int64_t n = x->ne[0], columns = x->ne[1], half = n / 2;
    if (!sorts(graph.device(), n, columns) && n % 2 == 0 && sorts(graph.device(), half, 2 * columns) &&
        half * half * columns <= kMaxComparisons)
        return build_merged_order(graph, x);
    return ggml_argsort(graph.ctx(), x, GGML_SORT_ORDER_DESC);
}

ggml_tensor* build_merged_order(Graph& graph, ggml_tensor* x) {
    ggml_context* ctx = graph.ctx();
    const int64_t half = x->ne[0] / 2, columns = x->ne[1];
    const auto offset = static_cast<float>(half);
    ggml_tensor* order = ggml_argsort(ctx, ggml_reshape_2d(ctx, x, half, 2 * columns), GGML_SORT_ORDER_DESC);
    ggml_tensor* sorted = ggml_reshape_2d(
        ctx, ggml_get_rows(ctx, ggml_reshape_3d(ctx, x, 1, half, 2 * columns), order), half, 2 * columns);
    order = ggml_cast(ctx, order, GGML_TYPE_F32);
    // of one half, {half, 1, columns}
    const auto of = [&](ggml_tensor* t, size_t number) {
        return graph.bindable(
            ggml_view_3d(ctx, t, half, 1, columns, 2 * t->nb[1], 2 * t->nb[1], t->nb[1] * number));
    };
    const auto as_column = [&](ggml_tensor* t) {
        return ggml_reshape_3d(ctx, ggml_cont(ctx, t), 1, half, columns);
    };

    // 1 where value j of the second half comes before value i of the first: {j, i, columns}
    ggml_tensor* first = as_column(of(sorted, 0));
    ggml_tensor* second = ggml_repeat_4d(ctx, of(sorted, 1), half, half, columns, 1);
    ggml_tensor* before = ggml_step(ctx, ggml_sub(ctx, second, first));
    ggml_tensor* passed_by_first = ggml_reshape_3d(ctx, ggml_sum_rows(ctx, before), 1, half, columns);
    ggml_tensor* transposed = ggml_cont(ctx, ggml_permute(ctx, before, 1, 0, 2, 3));
    ggml_tensor* passed_by_second = ggml_reshape_3d(ctx, ggml_sum_rows(ctx, transposed), 1, half, columns);

    // where each goes: its rank within its half, and what of the other half comes before it
    ggml_tensor* rank = ggml_reshape_3d(ctx, ggml_arange(ctx, 0.0f, offset, 1.0f), 1, half, 1);
    const auto places = [&](ggml_tensor* place) {
        return ggml_reshape_2d(ctx, ggml_cast(ctx, place, GGML_TYPE_I32), half, columns);
    };
    ggml_tensor* of_first = places(ggml_add(ctx, passed_by_first, rank));
    ggml_tensor* of_second =
        places(ggml_add(ctx, ggml_scale_bias(ctx, passed_by_second, -1.0f, offset), rank));

    // Every place is filled, unless some values are no numbers; then it is the first code.
    ggml_tensor* merged = ggml_scale(ctx, ggml_reshape_3d(ctx, order, 1, 2 * half, columns), 0.0f);
    merged = ggml_set_rows(ctx, merged, as_column(of(order, 0)), of_first);
    merged =
        ggml_set_rows(ctx, merged, ggml_scale_bias(ctx, as_column(of(order, 1)), 1.0f, offset), of_second);
    return ggml_reshape_2d(ctx, ggml_cast(ctx, merged, GGML_TYPE_I32), 2 * half, columns);
}

}  // namespace csm
