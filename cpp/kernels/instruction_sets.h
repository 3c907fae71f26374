// The instruction sets that there are kernels for. Each function has a file of its own, and gives those
// kernels if the build has them and the processor can run them.
#pragma once

#include <optional>

#include "kernels/kernels.h"

namespace csm {

struct InstructionSet {
    const char* name;
    std::optional<Kernels> (*find)();
};

std::optional<Kernels> find_avx512vnni();
std::optional<Kernels> find_avx512();
std::optional<Kernels> find_avxvnni();
std::optional<Kernels> find_avx2();
std::optional<Kernels> find_i8mm();
std::optional<Kernels> find_dotprod();
std::optional<Kernels> find_portable();

}  // namespace csm
