// Graphs of one kind in several sizes, kept for reuse. Each holds its activations, so the one that was used
// least recently makes room for the next.
#pragma once

#include <algorithm>
#include <list>
#include <memory>
#include <utility>

namespace csm {

// Key: what a graph was built for, compared by ==.
template <typename Key, typename Built>
class GraphCache {
 public:
    explicit GraphCache(size_t capacity) : capacity_(capacity) {}

    // The graph for the key; make() builds it, as a std::unique_ptr<Built>, if it is not there. Valid until
    // the next call.
    template <typename Make>
    Built& get(const Key& key, const Make& make) {
        const auto found =
            std::find_if(kept_.begin(), kept_.end(), [&](const auto& entry) { return entry.first == key; });
        if (found != kept_.end()) {
            kept_.splice(kept_.begin(), kept_, found);
        } else {
            while (kept_.size() >= capacity_) kept_.pop_back();
            kept_.emplace_front(key, make());
        }
        return *kept_.front().second;
    }
    void clear() { kept_.clear(); }

 private:
    size_t capacity_;
    std::list<std::pair<Key, std::unique_ptr<Built>>> kept_;  // most recently used first
};

}  // namespace csm
