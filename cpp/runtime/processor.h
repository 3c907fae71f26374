// Whether the processor at hand can run this build.
#pragma once

#include <string>

namespace csm {

// Instructions that the build needs and the processor lacks, separated by commas; empty if it can run. It
// must be asked before ggml is first called.
std::string missing_instructions();

}  // namespace csm
