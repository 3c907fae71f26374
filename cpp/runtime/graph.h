// A compute graph that is built once and run many times, and the tensors that outlive its runs.
#pragma once

#include <cstdlib>
#include <memory>
#include <utility>
#include <vector>

#include "runtime/device.h"
#include "runtime/handles.h"

namespace csm {

// Tensors with memory of their own: inputs, caches and results whose addresses must not change between runs.
// Create tensors in ctx(), then call allocate() once; the memory starts zeroed.
class TensorPool {
 public:
    TensorPool(std::shared_ptr<Device> device, size_t max_tensors);

    ggml_context* ctx() { return ctx_.get(); }
    // A tensor {n or more, count} of which every column starts at an address that the device can bind: many
    // GPUs bind memory in steps of 16 to 256 bytes, and ggml's backends for them abort on other addresses, or
    // leave the remainder out and compute with the wrong numbers.
    ggml_tensor* columns(ggml_type type, int64_t n, int64_t count);
    void allocate();
    // Gives back the memory of a part of a tensor, as far as it is whole pages of this process; it then reads
    // as zeros, or as it was.
    void give_back(const ggml_tensor* tensor, size_t offset, size_t bytes) const;
    size_t bytes() const { return buffer_ ? ggml_backend_buffer_get_size(buffer_.get()) : 0; }

 private:
    struct Free {
        void operator()(void* p) const { std::free(p); }
    };
    std::shared_ptr<Device> device_;
    Context ctx_;
    std::unique_ptr<void, Free> memory_;  // outlives the buffer that stands on it
    BufferPtr buffer_;
};

// Elements of this type that n of them take up, so that what follows them starts where the device can bind
// it.
int64_t padded(const Device& device, ggml_type type, int64_t n);

// What a run of a graph costs besides its arithmetic.
struct GraphSize {
    int nodes = 0;  // that compute; a launch each on most devices
    // Parts that the scheduler cut it into: 1 if the device runs all of it, and two more wherever it leaves a
    // piece to the CPU.
    int splits = 0;
};

class Graph {
 public:
    Graph(std::shared_ptr<Device> device, size_t max_nodes);
    ~Graph();
    Graph(const Graph&) = delete;
    Graph& operator=(const Graph&) = delete;

    ggml_context* ctx() { return ctx_.get(); }
    ggml_cgraph* graph() { return graph_; }
    Device& device() { return *device_; }

    // Adds a result (and all it depends on, in dependency order) to the graph.
    void add(ggml_tensor* tensor) { ggml_build_forward_expand(graph_, tensor); }
    // Marks a tensor whose memory may not be reused within the graph, since it is read after the run, and
    // adds it.
    void add_output(ggml_tensor* tensor);

    // The view itself where the device can bind its start, else a copy of it.
    ggml_tensor* bindable(ggml_tensor* view);

    // Writes rows into a tensor of a pool, in ggml_set_rows's way, and adds that to the graph. What reads the
    // tensor afterwards reads current(tensor): backends run nodes in another order, or side by side, where
    // no source of the one is a result of the other.
    void set_rows(ggml_tensor* into, ggml_tensor* rows, ggml_tensor* indices);
    // The tensor as the last set_rows() of this graph left it.
    ggml_tensor* current(ggml_tensor* tensor) const;

    // Makes an object that lives as long as the graph, for the user data of custom nodes.
    template <typename T, typename... Args>
    T* keep(Args&&... args) {
        auto kept = std::make_shared<T>(std::forward<Args>(args)...);
        kept_.push_back(kept);
        return kept.get();
    }

    // Plans the memory. After this no node may be added. Throws BackendError if there is not enough, or if
    // the device cannot run what has to run on it.
    void allocate();
    // Runs the graph; throws BackendError when the device fails.
    void compute();
    GraphSize size() const;

 private:
    void check_placed() const;
    void check_bound() const;

    std::shared_ptr<Device> device_;
    Context ctx_;
    ggml_cgraph* graph_;
    std::vector<std::shared_ptr<void>> kept_;
    std::vector<std::pair<const ggml_tensor*, ggml_tensor*>> written_;  // of pools, and by which node
    bool ggml_products_ = false;  // whether ggml has anything to compute that is worth its threads
    AllocatorPtr allocator_;      // CPU: one buffer
    SchedulerPtr scheduler_;      // other devices: operators they lack run on the CPU
};

}  // namespace csm
