// Owning pointers for ggml's C handles.
#pragma once

#include <memory>

#include "ggml-alloc.h"
#include "ggml-backend.h"
#include "ggml.h"
#include "runtime/process.h"

namespace csm {

// Frees only what its own process made: see process.h.
struct HandleDeleter {
    void operator()(ggml_context* p) const { ggml_free(p); }
    void operator()(ggml_backend_buffer* p) const {
        if (is_ours()) ggml_backend_buffer_free(p);
    }
    void operator()(ggml_gallocr* p) const {
        if (is_ours()) ggml_gallocr_free(p);
    }
    void operator()(ggml_backend_sched* p) const {
        if (is_ours()) ggml_backend_sched_free(p);
    }

 private:
    bool is_ours() const { return process_ == current_process(); }
    int process_ = current_process();
};

using ContextPtr = std::unique_ptr<ggml_context, HandleDeleter>;
// A context of descriptions, which have no data. Throws std::bad_alloc, where ggml would end the process.
class Context {
 public:
    explicit Context(size_t bytes)
        : memory_(new char[bytes]), context_(ggml_init({bytes, memory_.get(), true})) {}
    ggml_context* get() const { return context_.get(); }

 private:
    std::unique_ptr<char[]> memory_;
    ContextPtr context_;
};

using BufferPtr = std::unique_ptr<ggml_backend_buffer, HandleDeleter>;
using AllocatorPtr = std::unique_ptr<ggml_gallocr, HandleDeleter>;
using SchedulerPtr = std::unique_ptr<ggml_backend_sched, HandleDeleter>;

}  // namespace csm
