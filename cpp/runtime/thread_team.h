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
#include <mutex>
#include <thread>
#include <type_traits>
#include <vector>

namespace csm {

class ThreadTeam {
 public:
    // threads: the calling one included.
    explicit ThreadTeam(int threads);
    ~ThreadTeam();
    ThreadTeam(const ThreadTeam&) = delete;
    ThreadTeam& operator=(const ThreadTeam&) = delete;

    int threads() const { return static_cast<int>(workers_.size()) + 1; }

    // Calls work(first, last) for chunks that together are 0 .. n, on the caller and on workers; returns when
    // all are done. What a chunk computes must not depend on how the range was cut. One caller at a time.
    template <typename Work>
    void run(int64_t n, const Work& work) {
        run(
            n,
            [](const void* w, int64_t first, int64_t last) { (*static_cast<const Work*>(w))(first, last); },
            &work);
    }

 private:
    using Function = void (*)(const void* work, int64_t first, int64_t last);
    void run(int64_t n, Function function, const void* work);
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
    std::vector<std::thread> workers_;
};

// The way custom nodes divide n units. Where a graph runs on one thread (see Graph), the team takes the
// chunks as they come; where ggml's threads run it, this is one of `threads` calls and does its fixed part.
template <typename Work>
void divide(ThreadTeam& team, int64_t n, int thread, int threads, const Work& work) {
    if (threads > 1) {
        work(n * thread / threads, n * (thread + 1) / threads);
    } else {
        team.run(n, work);
    }
}

}  // namespace csm
