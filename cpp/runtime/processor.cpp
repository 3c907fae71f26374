#include "runtime/processor.h"

#include <cstdint>

#if defined(__GNUC__) && defined(__x86_64__)
#define CSM_CPUID 1
#include <cpuid.h>
#endif

namespace csm {

#if defined(CSM_CPUID)

namespace {

enum Register { eax, ebx, ecx, edx };

// Registers that the system has to save: bits of the extended control register 0.
constexpr uint32_t kYmm = 0x06, kZmm = 0xe6;

struct Feature {
    const char* name;
    unsigned leaf, subleaf;
    Register in;
    int bit;
    uint32_t saved;
};

constexpr Feature kFeatures[] = {{"avx", 1, 0, ecx, 28, kYmm},      {"fma", 1, 0, ecx, 12, kYmm},
                                 {"f16c", 1, 0, ecx, 29, kYmm},     {"avx2", 7, 0, ebx, 5, kYmm},
                                 {"avxvnni", 7, 1, eax, 4, kYmm},   {"avx512f", 7, 0, ebx, 16, kZmm},
                                 {"avx512dq", 7, 0, ebx, 17, kZmm}, {"avx512bw", 7, 0, ebx, 30, kZmm},
                                 {"avx512vl", 7, 0, ebx, 31, kZmm}, {"avx512vnni", 7, 0, ecx, 11, kZmm}};

bool has_bit(unsigned leaf, unsigned subleaf, Register in, int bit) {
    unsigned values[4] = {};
    if (!__get_cpuid_count(leaf, subleaf, &values[eax], &values[ebx], &values[ecx], &values[edx]))
        return false;
    return (values[in] >> bit & 1) != 0;
}

// What the system saves of a thread's registers.
uint32_t saved_registers() {
    constexpr int kOsxsave = 27;
    if (!has_bit(1, 0, ecx, kOsxsave)) return 0;
    uint32_t low = 0, high = 0;
    __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    return low;
}

}  // namespace

bool processor_has(const std::string& name) {
    for (const Feature& f : kFeatures) {
        if (name == f.name)
            return (saved_registers() & f.saved) == f.saved && has_bit(f.leaf, f.subleaf, f.in, f.bit);
    }
    return false;
}

#else

bool processor_has(const std::string&) {
    return false;
}

#endif

std::string missing_instructions() {
    std::string missing;
#define CSM_NEEDS(name) \
    if (!processor_has(name)) missing += (missing.empty() ? "" : ", ") + std::string(name);
#include "native_instructions.h"
#undef CSM_NEEDS
    return missing;
}

}  // namespace csm
