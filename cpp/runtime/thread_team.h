// Threads that share one piece of work at a time, for the nodes of our own that do nearly all the computing.
//
// ggml runs every thread through every node and lets them meet at a spinning barrier after each: 2,500 times
// a frame. A thread that the system takes off its core, because another process wants it too, then stops all
// others for as long, and again a moment later. Here the calling thread alone walks through the graph, and
// work is claimed in chunks: whoever is running takes the next, a worker that is not costs nothing, and only
// a chunk that is under way is waited for.
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <exception>
#include <mutex>
#include <thread>
#include <type_traits>
#include <vector>

namespace csm {

class ThreadTeam {
 public:
    // threads: the calling one included. Throws BackendError if the system gives fewer.
    explicit ThreadTeam(int threads);
    ~ThreadTeam();
    ThreadTeam(const ThreadTeam&) = delete;
    ThreadTeam& operator=(const ThreadTeam&) = delete;

    int threads() const { return static_cast<int>(workers_.size()) + 1; }

    // Calls work(first, last) for chunks that together are 0 .. n, on the caller and on workers; returns when
    // all are done. What a chunk computes must not depend on how the range was cut. One caller at a time.
    // What work throws is kept for check(): the caller may be a C library's function.
    template <typename Work>
    void run(int64_t n, const Work& work) {
        const Job<Work> job{*this, work};
        run(
            n,
            [](const void* j, int64_t first, int64_t last) {
                (*static_cast<const Job<Work>*>(j))(first, last);
            },
            &job);
    }
    // The same on the calling thread alone, for one range.
    template <typename Work>
    void run_here(int64_t first, int64_t last, const Work& work) {
        Job<Work>{*this, work}(first, last);
    }
    // Throws what work has thrown since the last check, if anything.
    void check();

 private:
    template <typename Work>
    struct Job {
        ThreadTeam& team;
        const Work& work;
        void operator()(int64_t first, int64_t last) const {
            try {
                work(first, last);
            } catch (...) {
                team.keep_failure();
            }
        }
    };
    void keep_failure() noexcept;

    using Function = void (*)(const void* work, int64_t first, int64_t last);
    void run(int64_t n, Function function, const void* work);
    void stop();
    bool claim_and_work();
    void worker();

    // One word says which job is on and how far it is: 32 bits of job number, 16 of its chunks, 16 of the
    // chunks claimed. A claim is one compare-and-swap, which fails if the job changed since the word was
    // read.
    std::atomic<uint64_t> word_{0};
    // Of the current job; written before the word is published, read only by holders of a claim.
    Function function_ = nullptr;
    const void* work_ = nullptr;
    int64_t n_ = 0;
    alignas(64) std::atomic<int64_t> done_{0};  // chunks of the current job

    alignas(64) std::atomic<int> sleepers_{0};
    std::atomic<bool> stop_{false};
    std::mutex mutex_;
    std::condition_variable wake_;
    std::exception_ptr failure_;  // under the mutex
    std::atomic<bool> failed_{false};
    std::vector<std::thread> workers_;
};

// Throws BackendError if the system does not give so many threads at once, besides those that there are. For
// libraries that end the process then.
void check_threads(int threads);

// The way custom nodes divide n units. Where a graph runs on one thread (see Graph), the team takes the
// chunks as they come; where ggml's threads run it, this is one of `threads` calls and does its fixed part.
template <typename Work>
void divide(ThreadTeam& team, int64_t n, int thread, int threads, const Work& work) {
    if (threads > 1) {
        team.run_here(n * thread / threads, n * (thread + 1) / threads, work);
    } else {
        team.run(n, work);
    }
}

}  // namespace csm
