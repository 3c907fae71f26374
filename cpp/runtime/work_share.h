// Sharing a node's work among the threads of a graph as they come: a thread that the system takes off its
// core for a while leaves its part to the others, where fixed shares would let all wait at the next barrier.
#pragma once

#include <atomic>
#include <cstdint>
#include <vector>

namespace csm {

// One object per node, for any number of runs, each of which all `threads` threads take part in. There is
// nothing to reset between runs, which no thread could do safely: every thread ends a run with one claim past
// the end, so a run of n units takes exactly n + threads claims, and each thread knows how many runs it has
// seen.
class WorkShare {
 public:
    explicit WorkShare(int threads) : runs_(static_cast<size_t>(threads)) {}

    // Calls work(first, last) for claimed chunks of n units, about kChunks per thread.
    template <typename Work>
    void run(int64_t n, int thread, int threads, const Work& work) {
        const int64_t chunk = n / (int64_t{threads} * kChunks) + 1, chunks = (n + chunk - 1) / chunk;
        const int64_t base = (chunks + threads) * runs_[static_cast<size_t>(thread)].seen++;
        for (;;) {
            const int64_t claim = next_.fetch_add(1, std::memory_order_relaxed) - base;
            if (claim >= chunks) return;
            const int64_t first = claim * chunk;
            work(first, first + chunk < n ? first + chunk : n);
        }
    }

 private:
    static constexpr int64_t kChunks = 8;
    struct alignas(64) Runs {
        int64_t seen = 0;
    };
    alignas(64) std::atomic<int64_t> next_{0};
    std::vector<Runs> runs_;
};

}  // namespace csm
