#include "kernels/peak.h"

#include <algorithm>
#include <atomic>
#include <chrono>

#include "runtime/thread_team.h"

namespace csm {

double peak_multiply_adds(const Kernels& kernels, ggml_type type, int threads, int rounds) {
    using Clock = std::chrono::steady_clock;
    constexpr auto kTime = std::chrono::milliseconds(4);
    constexpr int64_t kStep = 10000;
    ThreadTeam team(threads);
    double best = 0.0;
    for (int round = 0; round < rounds; ++round) {
        std::atomic<int64_t> done{0};
        const auto start = Clock::now();
        // each thread for the same time, since a chunk is all that one that comes late has
        team.run(threads, [&](int64_t first, int64_t last) {
            for (int64_t i = first; i < last; ++i) {
                const auto end = Clock::now() + kTime;
                int64_t own = 0;
                while (Clock::now() < end) {
                    own += gemm_packs(type) ? kernels.float_peak(kStep)
                                            : kernels.integer_peak(product_bits(type), kStep);
                }
                done += own;
            }
        });
        const double seconds = std::chrono::duration<double>(Clock::now() - start).count();
        best = std::max(best, static_cast<double>(done) / seconds);
    }
    return best;
}

}  // namespace csm
