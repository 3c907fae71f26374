// Data between the host and tensors that have their memory. What a driver throws on the way is a BackendError
// that names the device.
#pragma once

#include <cstdint>
#include <vector>

#include "runtime/graph.h"

namespace csm {

void upload(ggml_tensor* tensor, const void* data, size_t offset, size_t bytes);
void download(const ggml_tensor* tensor, void* data, size_t offset, size_t bytes);
void clear(ggml_tensor* tensor, size_t offset, size_t bytes);  // zeros

// From the start of the tensor on.
inline void upload(ggml_tensor* tensor, const void* data, size_t bytes) {
    upload(tensor, data, 0, bytes);
}
inline void download(const ggml_tensor* tensor, void* data, size_t bytes) {
    download(tensor, data, 0, bytes);
}

// The same for a tensor of TensorPool::columns(); `data` has n elements per column.
void upload_columns(ggml_tensor* tensor, const void* data, int64_t n);
void download_columns(const ggml_tensor* tensor, void* data, int64_t n);

// Inputs of a graph that lie side by side, so that one transfer takes all of them to the device: each costs a
// wait there, whatever its size. Describe them, close(), allocate the pool; then, for each run, write() and
// send().
class InputBlock {
 public:
    InputBlock(TensorPool& pool, const Device& device);

    ggml_tensor* input(ggml_type type, int64_t ne0, int64_t ne1 = 1, int64_t ne2 = 1, int64_t ne3 = 1);
    // As TensorPool::columns().
    ggml_tensor* columns(ggml_type type, int64_t n, int64_t count);
    void close();

    // `values` are those of the whole tensor, or the first n of each column.
    template <typename T>
    void write(const ggml_tensor* tensor, const std::vector<T>& values) {
        write_columns(tensor, values.data(), tensor->ne[0], values.size() * sizeof(T));
    }
    template <typename T>
    void write_columns(const ggml_tensor* tensor, const std::vector<T>& values, int64_t n) {
        write_columns(tensor, values.data(), n, values.size() * sizeof(T));
    }
    void send();

    static constexpr size_t kTensors = 1;  // besides the inputs

 private:
    void write_columns(const ggml_tensor* tensor, const void* data, int64_t n, size_t bytes);

    TensorPool& pool_;
    const Device& device_;
    ggml_tensor* block_;
    size_t size_ = 0;
    std::vector<char> staged_;  // where the block itself cannot be written
};

}  // namespace csm
