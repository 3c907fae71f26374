// A compute graph that is built once and run many times, and the tensors that outlive its runs.
#pragma once

#include <cstdlib>
#include <memory>
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

class Graph {
 public:
    Graph(std::shared_ptr<Device> device, size_t max_nodes);

    ggml_context* ctx() { return ctx_.get(); }
    ggml_cgraph* graph() { return graph_; }
    Device& device() { return *device_; }

    // Adds a result (and all it depends on, in dependency order) to the graph.
    void add(ggml_tensor* tensor) { ggml_build_forward_expand(graph_, tensor); }
    // Marks a tensor whose memory may not be reused within the graph, since it is read after the run, and
    // adds it.
    void add_output(ggml_tensor* tensor);

    // Makes an object that lives as long as the graph, for the user data of custom nodes.
    template <typename T, typename... Args>
    T* keep(Args&&... args) {
        auto kept = std::make_shared<T>(std::forward<Args>(args)...);
        kept_.push_back(kept);
        return kept.get();
    }

    // Plans the memory. After this no node may be added.
    void allocate();
    // Runs the graph; throws BackendError when the device fails.
    void compute();

 private:
    std::shared_ptr<Device> device_;
    Context ctx_;
    ggml_cgraph* graph_;
    std::vector<std::shared_ptr<void>> kept_;
    bool ggml_products_ = false;  // whether ggml has anything to compute that is worth its threads
    AllocatorPtr allocator_;      // CPU: one buffer
    SchedulerPtr scheduler_;      // other devices: operators they lack run on the CPU
};

// Whole-tensor transfers from and to host memory; sizes are checked in debug builds.
void upload(ggml_tensor* tensor, const void* data, size_t bytes);
void download(const ggml_tensor* tensor, void* data, size_t bytes);

}  // namespace csm
