// Pages of memory: larger ones for what is read often, and those given back that are not needed for now.
#pragma once

#include <cstddef>
#include <cstdint>

#if defined(__linux__)
#include <sys/mman.h>
#include <unistd.h>
#endif

namespace csm {

// Asks for huge pages for untouched memory. Weights are read from end to end for every frame: with 4 KiB
// pages a good part of that time goes into address translation. Advice: where they are not to be had, nothing
// happens.
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

// Gives the whole pages within the memory back to the system. What is read there afterwards is zero, or,
// where that cannot be had, what it was.
inline void give_back(void* memory, size_t bytes) {
#if defined(__linux__)
    const auto page = static_cast<uintptr_t>(sysconf(_SC_PAGESIZE));
    const auto base = reinterpret_cast<uintptr_t>(memory);
    const uintptr_t first = (base + page - 1) / page * page, last = (base + bytes) / page * page;
    if (first < last) madvise(reinterpret_cast<void*>(first), last - first, MADV_DONTNEED);
#else
    (void)memory;
    (void)bytes;
#endif
}

}  // namespace csm
