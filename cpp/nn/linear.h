// Products with weight matrices, and the steps around them that are worth doing in one node when a matrix is
// quantized: what a product is about to read is quantized while it is still in a core's cache.
//
// Activations are F32 tensors {width, tokens}, or quantized ones (I8 {bytes of a token, tokens}) in the form
// that the matrix wants which they are multiplied with: in tiles of tokens for a packed one (see
// ActivationTiles), else rows of a type of ggml. Every product is exact in batches: an output depends on its
// own row of the matrix and its own token only.
#pragma once

#include "files/weights.h"
#include "kernels/kernels.h"
#include "runtime/graph.h"

namespace csm {

// What is done to a product before it is stored: activation(product + bias + residual).
struct Epilogue {
    ggml_tensor* bias = nullptr;      // F32 {rows of w}
    ggml_tensor* residual = nullptr;  // of the result's shape
    Activation activation = Activation::none;
};

// w x: {rows of w, tokens}. x may be F32 or quantized. If w is made of panels, the columns of x may lie at
// any distance, and overlap.
ggml_tensor* build_linear(Graph& graph, const Matrix& w, ggml_tensor* x, const Epilogue& epilogue = {});

// RMS norm with weight, in the form that the products with `consumer` take. eps must outlive the graph.
ggml_tensor* build_rms_norm(Graph& graph, ggml_tensor* x, ggml_tensor* weight, const float& eps,
                            const Matrix& consumer);

// silu(g) * u, where (g, u) = gate_up x, in the form that the products with `consumer` take.
ggml_tensor* build_swiglu(Graph& graph, const Matrix& gate_up, ggml_tensor* x, const Matrix& consumer);

}  // namespace csm
