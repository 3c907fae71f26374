#include <algorithm>
#include <cctype>
#include <cstring>

#include "bindings/module.h"
#include "files/gguf_file.h"
#include "files/weights.h"
#include "runtime/error.h"

namespace csm {

namespace {

py::object to_python(const GgufFile::Value& value) {
    return std::visit(
        [](const auto& v) -> py::object {
            using T = std::decay_t<decltype(v)>;
            if constexpr (std::is_same_v<T, std::string>) {
                return to_text(v);
            } else if constexpr (std::is_same_v<T, std::vector<std::string>>) {
                py::list out;
                for (const auto& s : v) out.append(py::bytes(s));
                return std::move(out);
            } else {
                return py::cast(v);
            }
        },
        value);
}

py::dict gguf_info(const std::string& path) {
    const GgufFile file(path);
    py::dict metadata;
    for (const auto& [key, value] : file.metadata()) metadata[to_text(key)] = to_python(value);
    py::list tensors;
    for (const auto& t : file.tensors()) {
        py::list shape;
        for (int d = t.n_dims - 1; d >= 0; --d) shape.append(t.ne[static_cast<size_t>(d)]);
        py::dict entry;
        entry["name"] = to_text(t.name);
        entry["type"] = ggml_type_name(t.type);
        entry["shape"] = py::tuple(shape);
        entry["offset"] = t.offset;
        entry["bytes"] = t.n_bytes;
        tensors.append(entry);
    }
    py::dict out;
    out["version"] = file.version();
    out["metadata"] = metadata;
    out["tensors"] = tensors;
    return out;
}

}  // namespace

ggml_type parse_type(std::string name) {
    std::transform(name.begin(), name.end(), name.begin(),
                   [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
    for (int i = 0; i < GGML_TYPE_COUNT; ++i) {
        const auto type = static_cast<ggml_type>(i);
        if (ggml_type_size(type) == 0 || ggml_type_name(type) == nullptr) continue;
        std::string known = ggml_type_name(type);
        std::transform(known.begin(), known.end(), known.begin(),
                       [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
        if (known == name) return type;
    }
    throw ArgumentError(cat("type '", name, "' is not known; examples: f32, f16, bf16, q8_0, q4_0, q4_k"));
}

namespace {

size_t type_size(const std::string& name, int64_t columns) {
    const ggml_type type = parse_type(name);
    if (columns <= 0 || columns % ggml_blck_size(type) != 0) {
        throw ArgumentError(
            cat("rows of ", columns, " do not divide into ", name, " blocks of ", ggml_blck_size(type)));
    }
    return ggml_row_size(type, columns);
}

py::array_t<uint8_t> quantize(const Array<float>& values, const std::string& name) {
    if (values.ndim() != 2) throw ArgumentError(cat("values has ", values.ndim(), " dimensions, expected 2"));
    const ggml_type type = parse_type(name);
    const size_t row = type_size(name, values.shape(1));
    if (ggml_quantize_requires_imatrix(type))
        throw ArgumentError(cat("type '", name, "' needs an importance matrix, which is not supported"));
    const int64_t rows = values.shape(0), columns = values.shape(1);
    std::vector<uint8_t> out(row * static_cast<size_t>(rows));
    const float* data = values.data();
    {
        const py::gil_scoped_release release;
        if (type == GGML_TYPE_F32) {
            std::memcpy(out.data(), data, out.size());
        } else {
            if (!ggml_is_quantized(type) && type != GGML_TYPE_F16 && type != GGML_TYPE_BF16) {
                throw ArgumentError(cat("type '", name, "' cannot hold weights"));
            }
            // With importances, even equal ones, ggml searches the scale of a block for the smallest error;
            // without, it takes the largest value's. It asks for none where there is nothing to search.
            const std::vector<float> equal(static_cast<size_t>(columns), 1.0f);
            ggml_quantize_chunk(type, data, out.data(), 0, rows, columns, equal.data());
        }
    }
    return to_array(std::move(out), {rows, static_cast<py::ssize_t>(row)});
}

py::array_t<float> dequantize(const Array<uint8_t>& data, const std::string& name, int64_t columns) {
    const ggml_type type = parse_type(name);
    const size_t row = type_size(name, columns);
    if (data.ndim() != 2 || static_cast<size_t>(data.shape(1)) != row) {
        throw ArgumentError(cat("data must be (rows, ", row, ") bytes for ", columns, " columns of ", name));
    }
    std::vector<float> out(static_cast<size_t>(data.shape(0) * columns));
    to_f32(type, data.data(), static_cast<int64_t>(out.size()), out.data());
    return to_array(std::move(out), {data.shape(0), columns});
}

}  // namespace

void register_files(py::module_& m) {
    m.def("gguf_info", &gguf_info, py::arg("path"),
          "Read a GGUF header: {'version', 'metadata', 'tensors'}. Raises ModelFormatError.");
    m.def("quantize", &quantize, py::arg("values"), py::arg("type"),
          "Quantize a (rows, columns) matrix to a ggml type; returns (rows, bytes per row).");
    m.def("dequantize", &dequantize, py::arg("data"), py::arg("type"), py::arg("columns"),
          "The inverse of quantize: (rows, bytes per row) -> (rows, columns).");
    m.def("type_size", &type_size, py::arg("type"), py::arg("columns"),
          "Bytes of one row of that many columns.");
}

}  // namespace csm
