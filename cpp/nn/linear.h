// Products with weight matrices, and the steps around them that are worth doing in one node when a matrix is
// packed: a node costs a barrier of all threads, and a frame has thousands.
//
// Activations are F32 tensors {width, tokens}, or, where the consumer is packed, quantized ones (I8,
// activation_bytes(width) per token).
#pragma once

#include "runtime/graph.h"
#include "runtime/weights.h"

namespace csm {

// w x (+ residual): {rows of w, tokens}. x may be F32 or quantized; residual, if given, has the result's
// shape.
ggml_tensor* build_linear(Graph& graph, const Matrix& w, ggml_tensor* x, ggml_tensor* residual = nullptr);

// RMS norm with weight, in the form that the products with `consumer` take. eps must outlive the graph.
ggml_tensor* build_rms_norm(Graph& graph, ggml_tensor* x, ggml_tensor* weight, const float& eps,
                            const Matrix& consumer);

// silu(g) * u, where (g, u) = gate_up x, in the form that the products with `consumer` take.
ggml_tensor* build_swiglu(Graph& graph, const Matrix& gate_up, ggml_tensor* x, const Matrix& consumer);

}  // namespace csm
