#include "files/weights.h"

#include <algorithm>
#include <cstring>
#include <numeric>

#include "kernels/kernels.h"
#include "runtime/error.h"
#include "runtime/log.h"
#include "runtime/pages.h"

namespace csm {

namespace {

std::string shape_text(const std::vector<int64_t>& ne) {
    std::string out = "{";
    for (size_t i = 0; i < ne.size(); ++i) out += cat(i ? ", " : "", ne[i]);
    return out + "}";
}

// Dimensions of one carry no information: writers disagree on where they stand.
std::vector<int64_t> squeezed(std::vector<int64_t> ne) {
    ne.erase(std::remove(ne.begin(), ne.end(), 1), ne.end());
    return ne;
}

int64_t product(const std::vector<int64_t>& ne) {
    return std::accumulate(ne.begin(), ne.end(), int64_t{1}, std::multiplies<>());
}

std::vector<uint8_t> read_rows(const TensorSlice& slice, int64_t rows) {
    const size_t row = slice.tensor->row_bytes();
    std::vector<uint8_t> data(row * static_cast<size_t>(rows));
    slice.file->read(*slice.tensor, row * static_cast<uint64_t>(slice.first_row), data.size(), data.data());
    return data;
}

// Rows of several slices one after the other, those of another type widened.
std::vector<uint8_t> read_stack(const std::vector<TensorSlice>& slices, ggml_type type) {
    std::vector<uint8_t> data;
    for (const auto& slice : slices) {
        auto rows = read_rows(slice, slice.shape[1]);
        if (slice.tensor->type != type) {
            const int64_t n = product(slice.shape);
            std::vector<uint8_t> wide(static_cast<size_t>(n) * sizeof(float));
            to_f32(slice.tensor->type, rows.data(), n, reinterpret_cast<float*>(wide.data()));
            rows = std::move(wide);
        }
        if (data.empty()) {
            data = std::move(rows);
        } else {
            data.insert(data.end(), rows.begin(), rows.end());
        }
    }
    return data;
}

std::vector<float> read_slice_f32(const TensorSlice& slice) {
    const int64_t n = product(slice.shape);
    const auto raw = read_rows(slice, n / slice.tensor->ne[0]);
    std::vector<float> out(static_cast<size_t>(n));
    to_f32(slice.tensor->type, raw.data(), n, out.data());
    return out;
}

bool is_float(ggml_type type) {
    return type == GGML_TYPE_F32 || type == GGML_TYPE_F16 || type == GGML_TYPE_BF16;
}

}  // namespace

void to_f32(ggml_type type, const void* data, int64_t n, float* out) {
    if (type == GGML_TYPE_F32) {
        std::memcpy(out, data, static_cast<size_t>(n) * sizeof(float));
        return;
    }
    const auto* traits = ggml_get_type_traits(type);
    if (traits->to_float == nullptr)
        throw ArgumentError(cat("type ", ggml_type_name(type), " cannot be read as numbers"));
    traits->to_float(data, out, n);
}

Weights::Weights(std::shared_ptr<Device> device, std::shared_ptr<const TensorSource> source,
                 size_t max_tensors)
    : device_(std::move(device)),
      source_(std::move(source)),
      plain_(max_tensors * ggml_tensor_overhead()),
      repacked_(max_tensors * ggml_tensor_overhead()),
      hosted_(max_tensors * ggml_tensor_overhead()) {
    if (kHaveKernels) kernels();  // the environment may ask for kernels that there are not: said here first
}

TensorSlice Weights::require(const std::string& name, std::vector<int64_t> ne) const {
    TensorSlice slice = source_->find(name);
    if (!slice.file)
        throw FormatError(
            cat(source_->describe(name), ": the tensor is missing, expected shape ", shape_text(ne)));
    if (squeezed(slice.shape) != squeezed(ne)) {
        throw FormatError(cat(source_->describe(name), ": the tensor has shape ", shape_text(slice.shape),
                              ", expected ", shape_text(ne)));
    }
    if (ggml_get_type_traits(slice.tensor->type)->to_float == nullptr &&
        slice.tensor->type != GGML_TYPE_F32) {
        throw FormatError(cat(source_->describe(name), ": the tensor has type ",
                              ggml_type_name(slice.tensor->type), ", which is no weight type"));
    }
    slice.shape = std::move(ne);
    return slice;
}

ggml_context* Weights::context_for(const std::string& name, ggml_op use, ggml_type type, int64_t columns,
                                   int64_t rows) {
    if (device_->runs_own_nodes()) return plain_.get();
    const Context ctx(4 * ggml_tensor_overhead());
    ggml_tensor* w = ggml_new_tensor_2d(ctx.get(), type, columns, rows);
    const ggml_tensor* node =
        use == GGML_OP_GET_ROWS
            ? ggml_get_rows(ctx.get(), w, ggml_new_tensor_1d(ctx.get(), GGML_TYPE_I32, 1))
            : ggml_mul_mat(ctx.get(), w, ggml_new_tensor_2d(ctx.get(), GGML_TYPE_F32, columns, 1));
    if (device_->supports(w) && device_->supports(node)) return plain_.get();
    log(LogLevel::warning,
        cat("device '", device_->name(), "' cannot use '", name, "' (", ggml_nbytes(w) >> 20, " MB of type ",
            ggml_type_name(type), "): it stays in the CPU's memory, where its part of a frame is computed"));
    return hosted_.get();
}

ggml_tensor* Weights::place(const std::string& name, ggml_type type, int64_t columns, int64_t rows) {
    ggml_backend_buffer_type_t repack = device_->repack_buffer_type(type, columns, rows);
    if (repack != nullptr && (repack_type_ == nullptr || repack_type_ == repack)) {
        repack_type_ = repack;
        return ggml_new_tensor_2d(repacked_.get(), type, columns, rows);
    }
    return ggml_new_tensor_2d(context_for(name, GGML_OP_MUL_MAT, type, columns, rows), type, columns, rows);
}

bool Weights::use_panels() const {
    return kHaveKernels && device_->runs_own_nodes();
}

Matrix Weights::stack(const std::vector<TensorSlice>& slices, int64_t columns, bool exact) {
    ggml_type type = slices.front().tensor->type;
    int64_t rows = 0;
    for (const auto& slice : slices) {
        rows += slice.shape[1];
        if (slice.tensor->type != type || (exact && is_float(slice.tensor->type) && !use_panels()))
            type = GGML_TYPE_F32;
    }
    Matrix matrix;
    matrix.columns = columns;
    matrix.rows = rows;
    matrix.panels = use_panels() && gemm_packs(type);
    if (matrix.panels) {
        matrix.tensor = ggml_new_tensor_1d(plain_.get(), type, gemm_packed_size(columns, rows));
    } else if (device_->runs_own_nodes() && PackedMatrix::supported(type, columns, rows)) {
        packed_.push_back({type, columns, rows});
        matrix.packed = &packed_.back();
        matrix.tensor =
            ggml_new_tensor_1d(plain_.get(), GGML_TYPE_I8, static_cast<int64_t>(matrix.packed->bytes()));
    } else if (use_panels() && (matrix.dots = row_dot(type)) != nullptr) {
        matrix.tensor = ggml_new_tensor_2d(plain_.get(), type, columns, rows);
    } else {
        matrix.tensor = place(slices.front().tensor->name, type, columns, rows);
    }
    items_.push_back({matrix.tensor, [slices, type, matrix](ggml_tensor* t) {
                          const std::vector<uint8_t> data = read_stack(slices, type);
                          if (matrix.panels) {
                              gemm_pack(type, data.data(), matrix.columns, matrix.rows, t->data);
                          } else if (matrix.packed != nullptr) {
                              matrix.packed->pack(data.data(), t->data);
                          } else {
                              ggml_backend_tensor_set(t, data.data(), 0, data.size());
                          }
                      }});
    return matrix;
}

Matrix Weights::matrix(const std::vector<Part>& parts, int64_t columns, bool exact) {
    std::vector<TensorSlice> slices;
    for (const auto& part : parts) {
        TensorSlice slice = require(part.name, {columns, part.expected});
        slice.shape = {columns, part.rows};
        slices.push_back(std::move(slice));
    }
    return stack(slices, columns, exact);
}

Matrix Weights::matrix_page(const std::string& name, int64_t page, int64_t pages, int64_t columns,
                            int64_t rows, int64_t expected) {
    TensorSlice slice = require(name, {columns, expected, pages});
    slice.first_row += page * expected;
    slice.shape = {columns, rows};
    return stack({slice}, columns, false);
}

ggml_tensor* Weights::table(const std::string& name, int64_t columns, int64_t rows, int64_t pages) {
    const TensorSlice slice = require(name, {columns, pages * rows});
    const ggml_type type = slice.tensor->type;
    const size_t row = ggml_row_size(type, columns), step = device_->alignment();
    int64_t page_rows = rows;
    while (pages > 1 && row * static_cast<size_t>(page_rows) % step != 0) ++page_rows;
    ggml_context* ctx = context_for(name, GGML_OP_GET_ROWS, type, columns, pages * page_rows);
    ggml_tensor* tensor = ggml_new_tensor_2d(ctx, type, columns, pages * page_rows);
    items_.push_back({tensor, [=](ggml_tensor* t) {
                          // tables are the largest tensors: passed on in pieces
                          constexpr uint64_t kPiece = 16u << 20;
                          const uint64_t first = row * static_cast<uint64_t>(slice.first_row),
                                         in_file = row * static_cast<uint64_t>(rows),
                                         in_memory = row * static_cast<uint64_t>(page_rows);
                          std::vector<uint8_t> piece(std::min<uint64_t>(kPiece, in_file));
                          for (uint64_t page = 0; page < static_cast<uint64_t>(pages); ++page) {
                              for (uint64_t done = 0; done < in_file; done += piece.size()) {
                                  const uint64_t n = std::min<uint64_t>(piece.size(), in_file - done);
                                  slice.file->read(*slice.tensor, first + page * in_file + done, n,
                                                   piece.data());
                                  ggml_backend_tensor_set(t, piece.data(), page * in_memory + done, n);
                              }
                          }
                      }});
    return tensor;
}

Matrix Weights::f32_matrix(const std::string& name, std::vector<int64_t> in_ne, int64_t columns, int64_t rows,
                           Transform transform, bool keep_f16) {
    Matrix matrix;
    matrix.columns = columns;
    matrix.rows = rows;
    matrix.panels = use_panels();
    if (!matrix.panels) {
        matrix.tensor = f32(name, std::move(in_ne), {columns, rows}, std::move(transform));
        return matrix;
    }
    const TensorSlice slice = require(name, std::move(in_ne));
    const ggml_type type = keep_f16 && slice.tensor->type == GGML_TYPE_F16 ? GGML_TYPE_F16 : GGML_TYPE_F32;
    matrix.tensor = ggml_new_tensor_1d(plain_.get(), type, gemm_packed_size(columns, rows));
    items_.push_back({matrix.tensor, [=](ggml_tensor* t) {
                          std::vector<float> values = read_slice_f32(slice);
                          if (transform) {
                              std::vector<float> made(static_cast<size_t>(columns * rows));
                              transform(values.data(), made.data());
                              values = std::move(made);
                          }
                          if (type == GGML_TYPE_F32) {
                              gemm_pack(type, values.data(), columns, rows, t->data);
                              return;
                          }
                          std::vector<ggml_fp16_t> halves(values.size());
                          ggml_fp32_to_fp16_row(values.data(), halves.data(),
                                                static_cast<int64_t>(values.size()));
                          gemm_pack(type, halves.data(), columns, rows, t->data);
                      }});
    return matrix;
}

ggml_tensor* Weights::vector(const std::string& name, int64_t n) {
    return f32(name, {n}, {n});
}

ggml_tensor* Weights::f32(const std::string& name, std::vector<int64_t> in_ne, std::vector<int64_t> out_ne,
                          Transform transform) {
    const TensorSlice slice = require(name, std::move(in_ne));
    return computed(std::move(out_ne), [slice, transform](float* out) {
        const std::vector<float> in = read_slice_f32(slice);
        if (transform) {
            transform(in.data(), out);
        } else {
            std::copy(in.begin(), in.end(), out);
        }
    });
}

ggml_tensor* Weights::computed(std::vector<int64_t> ne, std::function<void(float* out)> fill) {
    ggml_tensor* tensor =
        ggml_new_tensor(plain_.get(), GGML_TYPE_F32, static_cast<int>(ne.size()), ne.data());
    items_.push_back({tensor, [fill = std::move(fill)](ggml_tensor* t) {
                          std::vector<float> out(static_cast<size_t>(ggml_nelements(t)));
                          fill(out.data());
                          ggml_backend_tensor_set(t, out.data(), 0, ggml_nbytes(t));
                      }});
    return tensor;
}

void Weights::load(const std::function<void()>& between) {
    const auto allocate = [&](ggml_context* ctx, ggml_backend_buffer_type_t type) {
        if (ggml_get_first_tensor(ctx) == nullptr) return;
        BufferPtr buffer;
        device_->guard([&] { buffer.reset(ggml_backend_alloc_ctx_tensors_from_buft(ctx, type)); });
        if (!buffer)
            throw BackendError(cat("not enough memory for the weights on device '", device_->name(), "'"));
        ggml_backend_buffer_set_usage(buffer.get(), GGML_BACKEND_BUFFER_USAGE_WEIGHTS);
        if (device_->runs_own_nodes()) {
            use_huge_pages(ggml_backend_buffer_get_base(buffer.get()),
                           ggml_backend_buffer_get_size(buffer.get()));
        }
        buffers_.push_back(std::move(buffer));
    };
    allocate(plain_.get(), device_->buffer_type());
    if (repack_type_ != nullptr) allocate(repacked_.get(), repack_type_);
    allocate(hosted_.get(), device_->host_buffer_type());
    for (const auto& item : items_) {
        device_->guard([&] { item.fill(item.tensor); });
        if (between) between();
    }
    items_.clear();
    source_.reset();  // closes the files
}

size_t Weights::bytes() const {
    size_t total = 0;
    for (const auto& buffer : buffers_) total += ggml_backend_buffer_get_size(buffer.get());
    return total;
}

}  // namespace csm
