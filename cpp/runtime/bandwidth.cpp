#include "runtime/bandwidth.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <memory>

#include "runtime/error.h"
#include "runtime/pages.h"
#include "runtime/thread_team.h"

namespace csm {

namespace {

// Sixteen independent sums keep enough loads in flight, and vectorise to whole cache lines.
uint64_t sum(const uint64_t* data, size_t n) {
    uint64_t lanes[16] = {};
    for (size_t i = 0; i + 16 <= n; i += 16) {
        for (size_t j = 0; j < 16; ++j) lanes[j] += data[i + j];
    }
    uint64_t total = 0;
    for (const uint64_t lane : lanes) total += lane;
    return total;
}

}  // namespace

double read_bandwidth(int threads, size_t bytes, int rounds) {
    const size_t words = bytes / sizeof(uint64_t);
    const std::unique_ptr<uint64_t[]> data(new (std::nothrow) uint64_t[words]);
    if (!data) throw BackendError(cat("no memory for a buffer of ", bytes, " bytes"));
    use_huge_pages(data.get(), bytes);
    std::fill_n(data.get(), words, 1);

    ThreadTeam team(threads);
    const size_t part = words / static_cast<size_t>(threads);
    std::atomic<uint64_t> check{0};
    double best = 0.0;
    for (int round = 0; round < rounds; ++round) {
        const auto start = std::chrono::steady_clock::now();
        team.run(threads, [&](int64_t first, int64_t last) {
            for (int64_t i = first; i < last; ++i)
                check += sum(data.get() + part * static_cast<size_t>(i), part);
        });
        const double seconds =
            std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
        best = std::max(best, static_cast<double>(part * sizeof(uint64_t)) * threads / seconds);
    }
    if (check == 0) throw BackendError("reading memory gave nothing");  // keeps the sums alive
    return best;
}

}  // namespace csm
