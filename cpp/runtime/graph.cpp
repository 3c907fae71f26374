#include "runtime/graph.h"

#include <cassert>

#include "runtime/error.h"
#include "runtime/pages.h"

namespace csm {

TensorPool::TensorPool(std::shared_ptr<Device> device, size_t max_tensors)
    : device_(std::move(device)), ctx_(max_tensors * ggml_tensor_overhead()) {}

void TensorPool::allocate() {
    device_->check_process();
    const auto fail = [&] { return BackendError(cat("out of memory on device '", device_->name(), "'")); };
    if (!device_->runs_own_nodes()) {
        buffer_.reset(ggml_backend_alloc_ctx_tensors_from_buft(ctx_.get(), device_->buffer_type()));
        if (!buffer_) throw fail();
        ggml_backend_buffer_clear(buffer_.get(), 0);
        return;
    }
    // calloc gives large blocks as zero pages that cost nothing until they are used: a cache is sized for the
    // longest dialogue and mostly filled for a sentence
    const size_t align = ggml_backend_buft_get_alignment(device_->buffer_type());
    size_t total = align;
    for (ggml_tensor* t = ggml_get_first_tensor(ctx_.get()); t; t = ggml_get_next_tensor(ctx_.get(), t)) {
        if (t->view_src == nullptr) total += GGML_PAD(ggml_nbytes(t), align);
    }
    memory_.reset(std::calloc(1, total));
    if (!memory_) throw fail();
    const auto base = GGML_PAD(reinterpret_cast<uintptr_t>(memory_.get()), align);
    buffer_.reset(ggml_backend_cpu_buffer_from_ptr(reinterpret_cast<void*>(base), total - align));
    ggml_tallocr allocator = ggml_tallocr_new(buffer_.get());
    for (ggml_tensor* t = ggml_get_first_tensor(ctx_.get()); t; t = ggml_get_next_tensor(ctx_.get(), t)) {
        if (t->view_src == nullptr) {
            ggml_tallocr_alloc(&allocator, t);
        } else if (t->buffer == nullptr) {
            ggml_backend_view_init(t);
        }
    }
}

void TensorPool::give_back(const ggml_tensor* tensor, size_t offset, size_t bytes) const {
    if (memory_) csm::give_back(static_cast<char*>(tensor->data) + offset, bytes);
}

Graph::Graph(std::shared_ptr<Device> device, size_t max_nodes)
    : device_(std::move(device)),
      ctx_(2 * max_nodes * ggml_tensor_overhead() + ggml_graph_overhead_custom(max_nodes, false)),
      graph_(ggml_new_graph_custom(ctx_.get(), max_nodes, false)) {}

void Graph::add_output(ggml_tensor* tensor) {
    ggml_set_output(tensor);
    add(tensor);
}

void Graph::allocate() {
    device_->check_process();
    bool done = false;
    for (int i = 0; i < ggml_graph_n_nodes(graph_); ++i) {
        const ggml_op op = ggml_graph_node(graph_, i)->op;
        ggml_products_ |= op == GGML_OP_MUL_MAT || op == GGML_OP_MUL_MAT_ID;
    }
    if (device_->runs_own_nodes()) {
        allocator_.reset(ggml_gallocr_new(device_->buffer_type()));
        done = ggml_gallocr_alloc_graph(allocator_.get(), graph_);
    } else {
        auto backends = device_->backends();
        scheduler_.reset(ggml_backend_sched_new(backends.data(), nullptr, static_cast<int>(backends.size()),
                                                static_cast<size_t>(ggml_graph_size(graph_)), false, true));
        done = ggml_backend_sched_alloc_graph(scheduler_.get(), graph_);
    }
    if (!done) throw BackendError(cat("out of memory for a graph on device '", device_->name(), "'"));
}

void Graph::compute() {
    device_->check_process();
    const std::lock_guard<FairMutex> lock(device_->mutex());
    device_->use_graph_threads(ggml_products_);
    const ggml_status status = device_->runs_own_nodes()
                                   ? ggml_backend_graph_compute(device_->main_backend(), graph_)
                                   : ggml_backend_sched_graph_compute(scheduler_.get(), graph_);
    device_->team().check();
    if (status != GGML_STATUS_SUCCESS) {
        throw BackendError(
            cat("computing on device '", device_->name(), "' failed: ", ggml_status_to_string(status)));
    }
}

void upload(ggml_tensor* tensor, const void* data, size_t bytes) {
    assert(bytes <= ggml_nbytes(tensor));
    ggml_backend_tensor_set(tensor, data, 0, bytes);
}

void download(const ggml_tensor* tensor, void* data, size_t bytes) {
    assert(bytes <= ggml_nbytes(tensor));
    ggml_backend_tensor_get(tensor, data, 0, bytes);
}

}  // namespace csm
