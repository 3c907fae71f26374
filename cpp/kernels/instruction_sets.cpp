#include "kernels/instruction_sets.h"

#include <cstdlib>
#include <string>

#include "runtime/error.h"

namespace csm {

namespace {

// The fastest first.
constexpr InstructionSet kInstructionSets[] = {
    {"avx512vnni", find_avx512vnni},
    {"avx512", find_avx512},
    {"avxvnni", find_avxvnni},
    {"avx2", find_avx2},
    {"i8mm", find_i8mm},
    {"dotprod", find_dotprod},
    {"portable", find_portable},
};

const Kernels& choose() {
    const char* wanted = std::getenv(kInstructionSetVariable);
    if (wanted == nullptr || *wanted == '\0') return usable_kernels().front();
    std::string usable;
    for (const Kernels& kernels : usable_kernels()) {
        if (kernels.name == std::string(wanted)) return kernels;
        usable += cat(usable.empty() ? "" : ", ", kernels.name);
    }
    bool is_known = false;
    for (const InstructionSet& set : kInstructionSets) is_known |= set.name == std::string(wanted);
    throw ArgumentError(cat("environment variable ", kInstructionSetVariable, " is '", wanted, "', ",
                            is_known ? "which this processor or build lacks" : "which is no instruction set",
                            "; expected one of: ", usable, " (or leave it unset for the fastest)"));
}

}  // namespace

const std::vector<Kernels>& usable_kernels() {
    static const std::vector<Kernels> usable = [] {
        std::vector<Kernels> found;
        for (const InstructionSet& set : kInstructionSets) {
            if (const std::optional<Kernels> kernels = set.find()) found.push_back(*kernels);
        }
        return found;
    }();
    return usable;
}

const Kernels& kernels() {
    static const Kernels& chosen = choose();
    return chosen;
}

}  // namespace csm
