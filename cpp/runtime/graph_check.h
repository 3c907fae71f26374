// What a graph for another device than the CPU must not rely on: the order in which its nodes were added.
#pragma once

#include "ggml.h"

namespace csm {

// Whether a node only describes memory in another way, and computes nothing.
inline bool is_view(const ggml_tensor* node) {
    return node->op == GGML_OP_NONE || node->op == GGML_OP_VIEW || node->op == GGML_OP_RESHAPE ||
           node->op == GGML_OP_PERMUTE || node->op == GGML_OP_TRANSPOSE;
}

// Throws std::logic_error if a node of the graph reads a tensor of a pool that another node writes, or writes
// one that another reads or writes, while neither is computed from the other. Backends may run such two in
// any order.
void check_dependencies(ggml_cgraph* graph);

}  // namespace csm
