// Matrices of F32 weights in the form that the device multiplies fastest: packed for our own kernels on the
// CPU, as they are on other devices.
#pragma once

#include <string>
#include <vector>

#include "runtime/graph.h"
#include "runtime/weights.h"

namespace csm {

enum class Activation { none, elu };

struct Dense {
    int64_t in = 0, out = 0;
    ggml_tensor* weight = nullptr;  // {in, out}, or packed by gemm_pack
    bool packed = false;

    // Requests a tensor of shape file_ne, from which `to_rows(from, to)` makes `out` rows of `in` weights.
    static Dense request(Weights& weights, const std::string& name, std::vector<int64_t> file_ne, int64_t in,
                         int64_t out, Weights::Transform to_rows = nullptr);
};

// What is done to a product before it is stored.
struct Epilogue {
    ggml_tensor* bias = nullptr;      // {out}
    ggml_tensor* residual = nullptr;  // {out, rows}
    Activation activation = Activation::none;
};

// x {in, rows} -> {out, rows}. The rows of x may lie at any distance, and overlap, if the matrix is packed.
ggml_tensor* build_dense(ggml_context* ctx, const Dense& dense, ggml_tensor* x,
                         const Epilogue& epilogue = {});

// Whether graphs of this device use our own kernels.
bool use_gemm(const Device& device);

}  // namespace csm
