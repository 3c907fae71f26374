// Weights are read from end to end for every frame: with 4 KiB pages a good part of that time goes into
// address translation.
#pragma once

#include <cstddef>
#include <cstdint>

#if defined(__linux__)
#include <sys/mman.h>
#endif

namespace csm {

// Asks for huge pages for untouched memory. Advice: where they are not to be had, nothing happens.
inline void use_huge_pages(void* memory, size_t bytes) {
#if defined(__linux__) && defined(MADV_HUGEPAGE)
    constexpr uintptr_t kHuge = uintptr_t{2} << 20;
    const auto base = reinterpret_cast<uintptr_t>(memory);
    const uintptr_t first = (base + kHuge - 1) / kHuge * kHuge;
    const uintptr_t last = (base + bytes) / kHuge * kHuge;
    if (first < last) madvise(reinterpret_cast<void*>(first), last - first, MADV_HUGEPAGE);
#else
    (void)memory;
    (void)bytes;
#endif
}

}  // namespace csm
