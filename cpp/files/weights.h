// Weight tensors on their way from file to device: requested by name, shape and use, placed in the buffer
// type that suits the use, and read once. Requests only describe; load() reads, so that every error of shape
// or type comes first.
#pragma once

#include <deque>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "files/gguf_file.h"
#include "kernels/packed_matrix.h"
#include "runtime/device.h"
#include "runtime/handles.h"
#include "runtime/row_dot.h"

namespace csm {

// A tensor in a file, or the part of one that starts at row first_row and has the given shape (ggml order).
struct TensorSlice {
    std::shared_ptr<const GgufFile> file;  // null if there is no such tensor
    const GgufFile::Tensor* tensor = nullptr;
    int64_t first_row = 0;
    std::vector<int64_t> shape;
};

// Where tensors come from: a layout maps the engine's names (docs/GGUF.md) to a file's tensors.
class TensorSource {
 public:
    virtual ~TensorSource() = default;
    virtual TensorSlice find(const std::string& name) const = 0;
    // For messages: the file and the name that the tensor has, or would have, in it.
    virtual std::string describe(const std::string& name) const = 0;
};

// A matrix to multiply with; see nn/linear.h.
struct Matrix {
    ggml_tensor* tensor = nullptr;         // {columns, rows} in ggml's layout, or one of those below
    const PackedMatrix* packed = nullptr;  // bytes {n} that only this, owned by Weights, can read
    bool panels = false;                   // F32, F16 or BF16 {n}, packed by gemm_pack
    const RowDot* dots = nullptr;          // for rows in ggml's layout, where ggml's products are not used
    int64_t columns = 0, rows = 0;
};

class Weights {
 public:
    Weights(std::shared_ptr<Device> device, std::shared_ptr<const TensorSource> source, size_t max_tensors);

    Device& device() const { return *device_; }
    bool has(const std::string& name) const { return source_->find(name).file != nullptr; }

    // A matrix {columns, sum of rows} to multiply with; several names are stacked row-wise into one. rows
    // says how many leading rows of each tensor to take. Types that differ within a stack are widened to F32;
    // so are, without panels, all floating-point types where `exact` products are wanted, as ggml rounds the
    // other factor of a product with an F16 or BF16 matrix to that type.
    struct Part {
        std::string name;
        int64_t rows;      // rows to load
        int64_t expected;  // rows the file must have
    };
    Matrix matrix(const std::vector<Part>& parts, int64_t columns, bool exact = false);
    Matrix matrix(const std::string& name, int64_t columns, int64_t rows, bool exact = false) {
        return matrix({{name, rows, rows}}, columns, exact);
    }
    // Page `page` of a stack of equal matrices ({columns, expected, pages} in the file).
    Matrix matrix_page(const std::string& name, int64_t page, int64_t pages, int64_t columns, int64_t rows,
                       int64_t expected);
    // A table {columns, rows} that rows are gathered from.
    ggml_tensor* table(const std::string& name, int64_t columns, int64_t rows) {
        return table(name, columns, rows, 1);
    }
    // A stack of tables, {columns, pages * rows} in the file; {columns, pages * page_rows(table)} here, where
    // each page starts at an address that the device can bind.
    ggml_tensor* table(const std::string& name, int64_t columns, int64_t rows, int64_t pages);
    // An F32 vector.
    ggml_tensor* vector(const std::string& name, int64_t n);
    // An F32 tensor of any shape made from another F32 (or F16, widened) tensor by `transform(in, out)`;
    // in_ne is the expected shape in the file and out_ne the one of the result; without a transform the data
    // is copied.
    using Transform = std::function<void(const float* in, float* out)>;
    ggml_tensor* f32(const std::string& name, std::vector<int64_t> in_ne, std::vector<int64_t> out_ne,
                     Transform transform = nullptr);
    // An F32 matrix {columns, rows} made in the same way. With panels, `keep_f16` leaves one F16 that is so
    // in the file; the transform may then only move numbers.
    Matrix f32_matrix(const std::string& name, std::vector<int64_t> in_ne, int64_t columns, int64_t rows,
                      Transform transform = nullptr, bool keep_f16 = false);
    // An F32 tensor computed from others by the caller, `fill(out)` at load time.
    ggml_tensor* computed(std::vector<int64_t> ne, std::function<void(float* out)> fill);

    // between, if not empty, is called after each tensor; what it throws ends the loading.
    void load(const std::function<void()>& between = {});
    size_t bytes() const;

 private:
    struct Item {
        ggml_tensor* tensor;
        std::function<void(ggml_tensor*)> fill;
    };
    TensorSlice require(const std::string& name, std::vector<int64_t> ne) const;
    ggml_tensor* place(const std::string& name, ggml_type type, int64_t columns, int64_t rows);
    // Where a tensor goes that is the first source of such a node: what the device cannot hold or use stays
    // with the CPU, and the log says so.
    ggml_context* context_for(const std::string& name, ggml_op use, ggml_type type, int64_t columns,
                              int64_t rows);
    Matrix stack(const std::vector<TensorSlice>& slices, int64_t columns, bool exact);
    bool use_panels() const;

    std::shared_ptr<Device> device_;
    std::shared_ptr<const TensorSource> source_;
    Context plain_, repacked_, hosted_;
    ggml_backend_buffer_type_t repack_type_ = nullptr;
    std::deque<PackedMatrix> packed_;  // stable addresses
    std::vector<BufferPtr> buffers_;
    std::vector<Item> items_;
};

// Converts n values of any type ggml can read to F32.
void to_f32(ggml_type type, const void* data, int64_t n, float* out);

}  // namespace csm
