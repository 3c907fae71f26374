#include "runtime/processor.h"

namespace csm {

std::string missing_instructions() {
    std::string missing;
#if defined(__GNUC__) && defined(__x86_64__)
    __builtin_cpu_init();
#define CSM_NEEDS(name) \
    if (!__builtin_cpu_supports(name)) missing += (missing.empty() ? "" : ", ") + std::string(name);
#include "native_instructions.h"
#undef CSM_NEEDS
#endif
    return missing;
}

}  // namespace csm
