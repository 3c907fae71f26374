// ggml's dot products of one row of a quantized matrix with one quantized row of activations: what its own
// products are made of, taken from the CPU backend that is loaded, without the threads that it runs them on.
#pragma once

#include <cstddef>
#include <cstdint>

#include "ggml.h"

namespace csm {

struct RowDot {
    ggml_type activations;  // what the other factor is quantized to
    // Quantizes n numbers, whole blocks of the type.
    void (*quantize)(const float* values, void* out, int64_t n);
    // The product of n columns; the strides and the last argument, 1, are for several rows at once.
    void (*dot)(int n, float* out, size_t, const void* row, size_t, const void* quantized, size_t, int);
};

// Those for matrices of a quantized type, or null if the backend has none.
const RowDot* row_dot(ggml_type type);

}  // namespace csm
