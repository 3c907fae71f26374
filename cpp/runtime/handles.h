// Owning pointers for ggml's C handles.
#pragma once

#include <memory>

#include "ggml-alloc.h"
#include "ggml-backend.h"
#include "ggml.h"

namespace csm {

struct HandleDeleter {
    void operator()(ggml_context* p) const { ggml_free(p); }
    void operator()(ggml_backend_buffer* p) const { ggml_backend_buffer_free(p); }
    void operator()(ggml_gallocr* p) const { ggml_gallocr_free(p); }
    void operator()(ggml_backend_sched* p) const { ggml_backend_sched_free(p); }
};

using ContextPtr = std::unique_ptr<ggml_context, HandleDeleter>;
using BufferPtr = std::unique_ptr<ggml_backend_buffer, HandleDeleter>;
using AllocatorPtr = std::unique_ptr<ggml_gallocr, HandleDeleter>;
using SchedulerPtr = std::unique_ptr<ggml_backend_sched, HandleDeleter>;

}  // namespace csm
