#include "runtime/thread_team.h"

#include <algorithm>
#include <exception>
#include <utility>

#include "runtime/error.h"

#if defined(__x86_64__) || defined(_M_X64)
#include <immintrin.h>
#endif

namespace csm {

namespace {

// Chunks per thread: enough that one that is held up leaves little to wait for, few enough to stream through
// memory.
constexpr int64_t kChunks = 8;
constexpr int64_t kMaxChunks = 0xffff;

// An idle worker spins over the gaps between the nodes of a frame, then offers its core to others, then
// sleeps.
constexpr int kSpins = 2000;
constexpr int kYields = 200;

inline void relax() {
#if defined(__x86_64__) || defined(_M_X64)
    _mm_pause();
#elif defined(__aarch64__)
    asm volatile("yield");
#endif
}

constexpr uint64_t chunks_of(uint64_t word) {
    return (word >> 16) & 0xffff;
}
constexpr uint64_t claimed_of(uint64_t word) {
    return word & 0xffff;
}

}  // namespace

namespace {

// Starts threads that do `work`; false if the system does not give them all.
template <typename Work>
bool start(std::vector<std::thread>& threads, int n, const Work& work) {
    try {
        for (int i = 0; i < n; ++i) threads.emplace_back(work);
    } catch (const std::exception&) {  // std::system_error, or no memory
        return false;
    }
    return true;
}

BackendError too_many(int wanted) {
    return BackendError(
        cat("the system does not give ", wanted, " threads; ask for fewer (threads=), or raise its limit"));
}

}  // namespace

ThreadTeam::ThreadTeam(int threads) {
    if (start(workers_, threads - 1, [this] { worker(); })) return;
    stop();
    throw too_many(threads);
}

ThreadTeam::~ThreadTeam() {
    stop();
}

void ThreadTeam::stop() {
    {
        const std::lock_guard<std::mutex> lock(mutex_);
        stop_ = true;
    }
    wake_.notify_all();
    for (auto& worker : workers_) worker.join();
}

void ThreadTeam::keep_failure() noexcept {
    const std::lock_guard<std::mutex> lock(mutex_);
    if (!failure_) failure_ = std::current_exception();
    failed_.store(true, std::memory_order_release);
}

void ThreadTeam::check() {
    if (!failed_.load(std::memory_order_acquire)) return;
    std::exception_ptr failure;
    {
        const std::lock_guard<std::mutex> lock(mutex_);
        std::swap(failure, failure_);
        failed_ = false;
    }
    if (failure) std::rethrow_exception(failure);
}

void check_threads(int threads) {
    std::mutex mutex;
    std::condition_variable wake;
    bool go = false;
    std::vector<std::thread> started;
    const bool all = start(started, threads, [&] {
        std::unique_lock<std::mutex> lock(mutex);
        wake.wait(lock, [&] { return go; });
    });
    {
        const std::lock_guard<std::mutex> lock(mutex);
        go = true;
    }
    wake.notify_all();
    for (auto& thread : started) thread.join();
    if (!all) throw too_many(threads + 1);
}

bool ThreadTeam::claim_and_work() {
    uint64_t word = word_.load(std::memory_order_acquire);
    while (claimed_of(word) < chunks_of(word)) {
        if (!word_.compare_exchange_weak(word, word + 1, std::memory_order_acq_rel)) continue;
        // the job cannot end, nor its description change, before this chunk is counted as done
        const auto chunks = static_cast<int64_t>(chunks_of(word)),
                   index = static_cast<int64_t>(claimed_of(word));
        function_(work_, n_ * index / chunks, n_ * (index + 1) / chunks);
        done_.fetch_add(1, std::memory_order_release);
        return true;
    }
    return false;
}

void ThreadTeam::run(int64_t n, Function function, const void* work) {
    if (n <= 0) return;
    const int64_t chunks = std::min({n, threads() * kChunks, kMaxChunks});
    if (workers_.empty() || chunks == 1) {
        function(work, 0, n);
        return;
    }
    function_ = function;
    work_ = work;
    n_ = n;
    done_.store(0, std::memory_order_relaxed);
    const uint64_t job = (word_.load(std::memory_order_relaxed) >> 32) + 1;
    word_.store(job << 32 | static_cast<uint64_t>(chunks) << 16, std::memory_order_seq_cst);
    if (sleepers_.load(std::memory_order_seq_cst) > 0) {
        const std::lock_guard<std::mutex> lock(mutex_);
        wake_.notify_all();
    }
    while (claim_and_work()) {
    }
    for (int spins = 0; done_.load(std::memory_order_acquire) < chunks; ++spins) {
        if (spins < kSpins) {
            relax();
        } else {
            std::this_thread::yield();  // the thread that is in the way of a worker may be this one
        }
    }
}

void ThreadTeam::worker() {
    const auto has_work = [this] {
        const uint64_t word = word_.load(std::memory_order_seq_cst);
        return claimed_of(word) < chunks_of(word);
    };
    for (int idle = 0; !stop_.load(std::memory_order_relaxed);) {
        if (claim_and_work()) {
            idle = 0;
        } else if (idle < kSpins) {
            ++idle;
            relax();
        } else if (idle < kSpins + kYields) {
            ++idle;
            std::this_thread::yield();
        } else {
            std::unique_lock<std::mutex> lock(mutex_);
            sleepers_.fetch_add(1, std::memory_order_seq_cst);
            wake_.wait(lock, [&] { return stop_.load() || has_work(); });
            sleepers_.fetch_sub(1, std::memory_order_seq_cst);
            idle = 0;
        }
    }
}

}  // namespace csm
