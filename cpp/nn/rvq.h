// Residual vector quantization: a vector is the sum of one entry from each of several codebooks, chosen one
// after the other, each the nearest to what the earlier ones left over.
#pragma once

#include <string>

#include "runtime/graph.h"
#include "runtime/weights.h"

namespace csm {

struct Rvq {
    int codebooks = 0;
    int codes = 0;                       // entries of a codebook
    ggml_tensor* entries = nullptr;      // F32 {dim, codes * codebooks}
    ggml_tensor* half_norms = nullptr;   // F32 {codes, codebooks}: -|entry|^2 / 2; encoding only
    ggml_tensor* input_proj = nullptr;   // F32 {hidden, dim}; encoding only
    ggml_tensor* output_proj = nullptr;  // F32 {dim, hidden}

    struct Shape {
        int hidden, dim, codes, codebooks;
    };
    // Requests PREFIX.layers.N.codebook, PREFIX.output_proj.weight and, for encoding,
    // PREFIX.input_proj.weight.
    static Rvq request(Weights& weights, const std::string& prefix, const Shape& shape, bool encoding);
};

// The vectors {hidden, frames} of I32 rows {frames * q}, codebook by codebook: entry n * frames + t is the
// row of `entries`, n * codes + code, that frame t has from codebook n. Fewer codebooks than there are give a
// coarser vector.
ggml_tensor* build_rvq_decode(ggml_context* ctx, const Rvq& rvq, ggml_tensor* rows, int64_t frames);

// Nearest codes of x {hidden, frames}, written to `codes` I32 {frames, codebooks}; between equally near ones
// the lowest.
void build_rvq_encode(Graph& graph, const Rvq& rvq, ggml_tensor* x, ggml_tensor* codes);

// Upper bound of the nodes that build_rvq_encode creates.
inline size_t rvq_encode_nodes(int codebooks) {
    return 4 + 10 * static_cast<size_t>(codebooks);
}

}  // namespace csm
