// Every unit is worked on once per job, whoever comes first and however often the team is called.
#include <atomic>
#include <chrono>
#include <thread>
#include <vector>

#include "check.h"
#include "runtime/fair_mutex.h"
#include "runtime/thread_team.h"

using namespace csm;

TEST(every_unit_once_in_every_job) {
    for (const int threads : {1, 2, 5}) {
        ThreadTeam team(threads);
        CHECK_EQ(team.threads(), threads);
        for (const int64_t n : {0, 1, 3, 64, 1000, 200000}) {
            for (int job = 0; job < 20; ++job) {
                std::vector<std::atomic<int>> done(static_cast<size_t>(n));
                team.run(n, [&](int64_t first, int64_t last) {
                    for (int64_t i = first; i < last; ++i) done[static_cast<size_t>(i)]++;
                });
                bool once = true;
                for (const auto& count : done) once &= count.load() == 1;
                CHECK(once);
            }
        }
    }
}

TEST(thousands_of_small_jobs) {
    ThreadTeam team(3);
    int64_t total = 0;
    for (int64_t job = 0; job < 20000; ++job) {
        std::atomic<int64_t> sum{0};
        team.run(20, [&](int64_t first, int64_t last) {
            for (int64_t i = first; i < last; ++i) sum += i;
        });
        total += sum;
    }
    CHECK_EQ(total, int64_t{20000 * 190});
}

TEST(sleeping_workers_wake_up) {
    ThreadTeam team(2);
    for (int round = 0; round < 5; ++round) {
        std::this_thread::sleep_for(std::chrono::milliseconds(30));
        std::atomic<int64_t> sum{0};
        team.run(100, [&](int64_t first, int64_t last) { sum += last - first; });
        CHECK_EQ(sum.load(), 100);
    }
}

TEST(without_a_team_the_fixed_parts_cover_all) {
    ThreadTeam team(1);
    std::vector<int> done(17);
    for (int thread = 0; thread < 4; ++thread) {
        divide(team, 17, thread, 4, [&](int64_t first, int64_t last) {
            for (int64_t i = first; i < last; ++i) done[static_cast<size_t>(i)]++;
        });
    }
    for (const int count : done) CHECK_EQ(count, 1);
}

TEST(what_work_throws_is_thrown_by_check) {
    for (const int threads : {1, 2, 4}) {
        ThreadTeam team(threads);
        for (int round = 0; round < 50; ++round) {
            team.run(64, [](int64_t, int64_t last) {
                if (last > 32) throw std::bad_alloc();
            });
            CHECK_THROWS(team.check(), std::bad_alloc, "");
            team.check();  // once
            std::atomic<int64_t> sum{0};
            team.run(64, [&](int64_t first, int64_t last) { sum += last - first; });
            team.check();
            CHECK_EQ(sum.load(), 64);
        }
        for (int thread = 0; thread < 2; ++thread)
            divide(team, 2, thread, 2, [](int64_t, int64_t) { throw std::runtime_error("a part"); });
        CHECK_THROWS(team.check(), std::runtime_error, "a part");
    }
}

TEST(threads_come_in_the_order_in_which_they_wait) {
    FairMutex mutex;
    std::vector<int> order;
    std::vector<std::thread> waiting;
    mutex.lock();
    for (int i = 0; i < 6; ++i) {
        waiting.emplace_back([&, i] {
            const std::lock_guard<FairMutex> lock(mutex);
            order.push_back(i);
        });
        std::this_thread::sleep_for(std::chrono::milliseconds(50));
    }
    mutex.unlock();
    for (auto& thread : waiting) thread.join();
    CHECK(order == (std::vector<int>{0, 1, 2, 3, 4, 5}));
}
