// How fast this machine multiplies: the floor under frames of many utterances and under long prompts, whose
// time is that of arithmetic.
#pragma once

#include "kernels/kernels.h"

namespace csm {

// Multiply-adds per second that `threads` threads do together with nothing but the instructions that products
// with matrices of a type consist of; the best of `rounds`. Types that are neither packed nor floating-point
// count as bytes. Throws BackendError without threads.
double peak_multiply_adds(const Kernels& kernels, ggml_type type, int threads, int rounds);

}  // namespace csm
