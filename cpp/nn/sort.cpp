#include "nn/sort.h"

namespace csm {

ggml_tensor* build_descending_order(Graph& graph, ggml_tensor* x) {
    return ggml_argsort(graph.ctx(), x, GGML_SORT_ORDER_DESC);
}

}  // namespace csm
