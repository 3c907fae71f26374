#include "runtime/transfers.h"

#include <cassert>
#include <cstring>

#include "runtime/error.h"

namespace csm {

namespace {

template <typename Function>
void transfer(const ggml_tensor* tensor, const Function& function) {
    try {
        function();
    } catch (...) {
        const ggml_tensor* root = tensor->view_src ? tensor->view_src : tensor;
        ggml_backend_dev_t dev = ggml_backend_buft_get_device(ggml_backend_buffer_get_type(root->buffer));
        rethrow_of_device(dev ? ggml_backend_dev_name(dev) : "cpu");
    }
}

}  // namespace

void upload(ggml_tensor* tensor, const void* data, size_t offset, size_t bytes) {
    assert(offset + bytes <= ggml_nbytes(tensor));
    transfer(tensor, [&] { ggml_backend_tensor_set(tensor, data, offset, bytes); });
}

void download(const ggml_tensor* tensor, void* data, size_t offset, size_t bytes) {
    assert(offset + bytes <= ggml_nbytes(tensor));
    transfer(tensor, [&] { ggml_backend_tensor_get(tensor, data, offset, bytes); });
}

void clear(ggml_tensor* tensor, size_t offset, size_t bytes) {
    assert(offset + bytes <= ggml_nbytes(tensor));
    transfer(tensor, [&] { ggml_backend_tensor_memset(tensor, 0, offset, bytes); });
}

namespace {

// From host memory, n elements per column, to a place that is laid out as the tensor.
void spread(const ggml_tensor* tensor, const void* data, int64_t n, char* out) {
    const size_t bytes = ggml_row_size(tensor->type, n);
    for (int64_t i = 0; i < ggml_nrows(tensor); ++i) {
        std::memcpy(out + static_cast<size_t>(i) * tensor->nb[1],
                    static_cast<const char*>(data) + static_cast<size_t>(i) * bytes, bytes);
    }
}

}  // namespace

void upload_columns(ggml_tensor* tensor, const void* data, int64_t n) {
    if (n == tensor->ne[0]) {
        upload(tensor, data, ggml_nbytes(tensor));
        return;
    }
    std::vector<char> padded(ggml_nbytes(tensor));
    spread(tensor, data, n, padded.data());
    upload(tensor, padded.data(), padded.size());
}

void download_columns(const ggml_tensor* tensor, void* data, int64_t n) {
    const size_t bytes = ggml_row_size(tensor->type, n);
    if (n == tensor->ne[0]) {
        download(tensor, data, ggml_nbytes(tensor));
        return;
    }
    std::vector<char> padded(ggml_nbytes(tensor));
    download(tensor, padded.data(), padded.size());
    for (int64_t i = 0; i < ggml_nrows(tensor); ++i) {
        std::memcpy(static_cast<char*>(data) + static_cast<size_t>(i) * bytes,
                    padded.data() + static_cast<size_t>(i) * tensor->nb[1], bytes);
    }
}

InputBlock::InputBlock(TensorPool& pool, const Device& device)
    : pool_(pool), device_(device), block_(ggml_new_tensor_1d(pool.ctx(), GGML_TYPE_I8, 1)) {}

ggml_tensor* InputBlock::input(ggml_type type, int64_t ne0, int64_t ne1, int64_t ne2, int64_t ne3) {
    // a view of another type than what it is a part of, for which ggml has no function
    ggml_tensor* tensor = ggml_new_tensor_4d(pool_.ctx(), type, ne0, ne1, ne2, ne3);
    tensor->view_src = block_;
    tensor->view_offs = size_;
    const size_t align = ggml_backend_buft_get_alignment(device_.buffer_type());
    size_ += GGML_PAD(ggml_nbytes(tensor), align);
    return tensor;
}

ggml_tensor* InputBlock::columns(ggml_type type, int64_t n, int64_t count) {
    return input(type, padded(device_, type, n), count);
}

void InputBlock::close() {
    block_->ne[0] = static_cast<int64_t>(size_);
    for (int i = 1; i < GGML_MAX_DIMS; ++i) block_->nb[i] = size_;
}

void InputBlock::write_columns(const ggml_tensor* tensor, const void* data, int64_t n, size_t bytes) {
    assert(bytes == ggml_row_size(tensor->type, n) * static_cast<size_t>(ggml_nrows(tensor)));
    char* begin = static_cast<char*>(block_->data);
    if (!ggml_backend_buffer_is_host(block_->buffer)) {
        staged_.resize(size_);
        begin = staged_.data();
    }
    if (n == tensor->ne[0]) {
        std::memcpy(begin + tensor->view_offs, data, bytes);
    } else {
        spread(tensor, data, n, begin + tensor->view_offs);
    }
}

void InputBlock::send() {
    if (!staged_.empty()) upload(block_, staged_.data(), size_);
}

}  // namespace csm
