// What the processor at hand can do, and whether it can run this build.
#pragma once

#include <string>

namespace csm {

// Whether an x86 processor and its system have a set of instructions, named as compilers name it ("avx2").
// Asked of the processor itself: the run-time library of zig answers __builtin_cpu_supports with no.
bool processor_has(const std::string& name);

// Instructions that the build needs and the processor lacks, separated by commas; empty if it can run. It
// must be asked before ggml is first called.
std::string missing_instructions();

}  // namespace csm
