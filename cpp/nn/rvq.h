// Residual vector quantization: a vector is the sum of one entry from each of several codebooks, chosen one
// after the other, each the nearest to what the earlier ones left over.
#pragma once

#include <string>
#include <vector>

#include "nn/linear.h"

namespace csm {

struct Rvq {
    int codes = 0;                         // entries of a codebook
    std::vector<Matrix> codebooks;         // F32 {dim, codes} each
    std::vector<ggml_tensor*> half_norms;  // F32 {codes} each: -|entry|^2 / 2; encoding only
    ggml_tensor* ranks = nullptr;  // F32 {codes}: 0, -1, -2, ...; encoding without nodes of our own only
    Matrix input_proj;             // {hidden, dim}; encoding only
    Matrix output_proj;            // {dim, hidden}

    struct Shape {
        int hidden, dim, codes, codebooks;
    };
    // Requests PREFIX.layers.N.codebook, PREFIX.output_proj.weight and, for encoding,
    // PREFIX.input_proj.weight.
    static Rvq request(Weights& weights, const std::string& prefix, const Shape& shape, bool encoding);
};

// The vectors {hidden, frames} that I32 codes {frames, q} stand for; row n is of codebook n. Fewer codebooks
// than there are give coarser vectors.
ggml_tensor* build_rvq_decode(Graph& graph, const Rvq& rvq, ggml_tensor* codes);

// Nearest codes of x {hidden, frames}, written to I32 codes {frames, codebooks}; between equally near ones
// the lowest.
void build_rvq_encode(Graph& graph, const Rvq& rvq, ggml_tensor* x, ggml_tensor* codes);

// Upper bound of the nodes that decoding and encoding create.
inline size_t rvq_nodes(int codebooks) {
    return 4 + 20 * static_cast<size_t>(codebooks);
}

}  // namespace csm
