// Sorting on devices.
#pragma once

#include "runtime/graph.h"

namespace csm {

// The order of the values of each column of x {n, columns}, from the largest to the smallest: I32 {n,
// columns}.
ggml_tensor* build_descending_order(Graph& graph, ggml_tensor* x);

}  // namespace csm
