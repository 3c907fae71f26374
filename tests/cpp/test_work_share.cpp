// Every unit is worked on once per run, whoever comes first and however often the node runs.
#include <thread>
#include <vector>

#include "check.h"
#include "runtime/work_share.h"

using namespace csm;

TEST(every_unit_once_in_every_run) {
    for (const int threads : {1, 2, 5}) {
        for (const int64_t n : {0, 1, 3, 64, 1000}) {
            WorkShare share(threads);
            for (int run = 1; run <= 5; ++run) {
                std::vector<std::atomic<int>> done(static_cast<size_t>(n));
                std::vector<std::thread> workers;
                for (int t = 0; t < threads; ++t) {
                    workers.emplace_back([&, t] {
                        share.run(n, t, threads, [&](int64_t first, int64_t last) {
                            for (int64_t i = first; i < last; ++i) done[static_cast<size_t>(i)]++;
                        });
                    });
                }
                for (auto& worker : workers) worker.join();
                for (const auto& count : done) CHECK_EQ(count.load(), 1);
            }
        }
    }
}
