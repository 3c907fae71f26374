#include "runtime/graph.h"

#include <algorithm>

#include "runtime/error.h"
#include "runtime/graph_check.h"
#include "runtime/pages.h"

namespace csm {

TensorPool::TensorPool(std::shared_ptr<Device> device, size_t max_tensors)
    : device_(std::move(device)), ctx_(max_tensors * ggml_tensor_overhead()) {}

ggml_tensor* TensorPool::columns(ggml_type type, int64_t n, int64_t count) {
    return ggml_new_tensor_2d(ctx_.get(), type, padded(*device_, type, n), count);
}

int64_t padded(const Device& device, ggml_type type, int64_t n) {
    const auto size = static_cast<int64_t>(ggml_type_size(type));
    const auto step = std::max<int64_t>(static_cast<int64_t>(device.alignment()) / size, 1);
    return (n + step - 1) / step * step;
}

void TensorPool::allocate() {
    device_->check_process();
    const auto fail = [&] { return BackendError(cat("out of memory on device '", device_->name(), "'")); };
    if (!device_->runs_own_nodes()) {
        for (ggml_tensor* t = ggml_get_first_tensor(ctx_.get()); t; t = ggml_get_next_tensor(ctx_.get(), t)) {
            if (!device_->supports(t))
                throw BackendError(cat("device '", device_->name(), "' cannot hold ", ggml_nbytes(t),
                                       " bytes in one piece; take fewer slots or a shorter context"));
        }
        device_->guard([&] {
            buffer_.reset(ggml_backend_alloc_ctx_tensors_from_buft(ctx_.get(), device_->buffer_type()));
            if (!buffer_) throw fail();
            ggml_backend_buffer_clear(buffer_.get(), 0);
        });
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

Graph::~Graph() {
    if (!scheduler_ || !device_->is_ours()) return;
    const std::lock_guard<FairMutex> lock(device_->mutex());
    scheduler_.reset();
}

void Graph::add_output(ggml_tensor* tensor) {
    ggml_set_output(tensor);
    add(tensor);
}

ggml_tensor* Graph::bindable(ggml_tensor* view) {
    return view->view_offs % device_->alignment() == 0 ? view : ggml_cont(ctx_.get(), view);
}

void Graph::set_rows(ggml_tensor* into, ggml_tensor* rows, ggml_tensor* indices) {
    ggml_tensor* node = ggml_set_rows(ctx_.get(), current(into), rows, indices);
    add(node);
    const auto known = std::find_if(written_.begin(), written_.end(),
                                    [into](const auto& entry) { return entry.first == into; });
    if (known != written_.end()) {
        known->second = node;
    } else {
        written_.emplace_back(into, node);
    }
}

ggml_tensor* Graph::current(ggml_tensor* tensor) const {
    const auto known = std::find_if(written_.begin(), written_.end(),
                                    [tensor](const auto& entry) { return entry.first == tensor; });
    return known == written_.end() ? tensor : known->second;
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
        check_dependencies(graph_);
        check_placed();
        // planning waits for what the backends still run, which other engines may be using
        const std::lock_guard<FairMutex> lock(device_->mutex());
        auto backends = device_->backends();
        device_->guard([&] {
            // Products stay where their weights are, however many rows there are: what a row says may not
            // depend on its neighbours.
            constexpr bool kParallel = false, kOffload = false;
            scheduler_.reset(
                ggml_backend_sched_new(backends.data(), nullptr, static_cast<int>(backends.size()),
                                       static_cast<size_t>(ggml_graph_size(graph_)), kParallel, kOffload));
            done = ggml_backend_sched_alloc_graph(scheduler_.get(), graph_);
        });
        if (done) check_bound();
    }
    if (!done) throw BackendError(cat("out of memory for a graph on device '", device_->name(), "'"));
}

// A tensor that has its memory already cannot be computed anywhere else; ggml would end the process.
void Graph::check_placed() const {
    const auto check = [&](const ggml_tensor* t) {
        const ggml_tensor* root = t->view_src ? t->view_src : t;
        if (root->buffer == nullptr || ggml_backend_buffer_is_host(root->buffer) || device_->supports(t))
            return;
        throw BackendError(cat("device '", device_->name(), "' lacks the operator ", ggml_op_desc(t), " for ",
                               ggml_nbytes(t), " bytes of type ", ggml_type_name(t->type),
                               "; use device 'cpu'"));
    };
    for (int i = 0; i < ggml_graph_n_nodes(graph_); ++i) {
        const ggml_tensor* node = ggml_graph_node(graph_, i);
        check(node);
        for (const ggml_tensor* source : node->src) {
            if (source != nullptr) check(source);
        }
    }
}

void Graph::check_bound() const {
    const size_t alignment = device_->alignment();
    const auto check = [&](const ggml_tensor* node, const ggml_tensor* t) {
        if (reinterpret_cast<uintptr_t>(t->data) % alignment == 0) return;
        throw BackendError(cat("device '", device_->name(), "' binds memory in steps of ", alignment,
                               " bytes; ", ggml_op_desc(node), " would use ", ggml_op_desc(t), " at ",
                               t->view_offs, " bytes of its tensor: this is a fault of csm-ggml"));
    };
    for (int i = 0; i < ggml_graph_n_nodes(graph_); ++i) {
        ggml_tensor* node = ggml_graph_node(graph_, i);
        if (is_view(node) ||
            ggml_backend_sched_get_tensor_backend(scheduler_.get(), node) != device_->main_backend())
            continue;
        check(node, node);
        if (node->op == GGML_OP_CONT) continue;  // copies are what reads other addresses
        for (const ggml_tensor* source : node->src) {
            if (source != nullptr) check(node, source);
        }
    }
}

GraphSize Graph::size() const {
    GraphSize size;
    for (int i = 0; i < ggml_graph_n_nodes(graph_); ++i) size.nodes += !is_view(ggml_graph_node(graph_, i));
    size.splits = scheduler_ ? ggml_backend_sched_get_n_splits(scheduler_.get()) : 1;
    return size;
}

void Graph::compute() {
    device_->check_process();
    const std::lock_guard<FairMutex> lock(device_->mutex());
    device_->use_graph_threads(ggml_products_);
    ggml_status status = GGML_STATUS_SUCCESS;
    if (device_->runs_own_nodes()) {
        status = ggml_backend_graph_compute(device_->main_backend(), graph_);
    } else {
        device_->guard([&] { status = ggml_backend_sched_graph_compute(scheduler_.get(), graph_); });
    }
    device_->team().check();
    if (status != GGML_STATUS_SUCCESS) {
        throw BackendError(
            cat("computing on device '", device_->name(), "' failed: ", ggml_status_to_string(status)));
    }
}

}  // namespace csm
