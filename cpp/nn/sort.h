// Sorting on devices.
#pragma once

#include "runtime/graph.h"

namespace csm {

// The order of the values of each column of x {n, columns}, from the largest to the smallest: I32 {n,
// columns}. Where the device sorts half of them at most, as ggml does on AMD's GPUs (1,024), the order is put
// together from those of the halves.
ggml_tensor* build_descending_order(Graph& graph, ggml_tensor* x);

// That composition: n must be even. Of equal values those of the first half come first; within a half they
// come as the device sorts them.
ggml_tensor* build_merged_order(Graph& graph, ggml_tensor* x);

}  // namespace csm
