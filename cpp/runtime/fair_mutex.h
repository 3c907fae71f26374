// A mutex that is given to those who wait in the order in which they came. With std::mutex, who has just
// released it mostly gets it again, and another model on the same device waits for seconds.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <mutex>

namespace csm {

class FairMutex {
 public:
    void lock() {
        std::unique_lock<std::mutex> guard(mutex_);
        const uint64_t ticket = next_++;
        turn_.wait(guard, [&] { return serving_ == ticket; });
    }
    void unlock() {
        {
            const std::lock_guard<std::mutex> guard(mutex_);
            ++serving_;
        }
        turn_.notify_all();
    }

 private:
    std::mutex mutex_;
    std::condition_variable turn_;
    uint64_t next_ = 0, serving_ = 0;
};

}  // namespace csm
