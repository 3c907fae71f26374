// Each file of this folder registers one group of Python objects; nothing here computes.
#pragma once

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <string>
#include <string_view>
#include <vector>

#include "ggml.h"

namespace csm {

namespace py = pybind11;

// Arrays are taken in C order; others are converted by numpy.
template <typename T>
using Array = py::array_t<T, py::array::c_style | py::array::forcecast>;

// Text of a file or a path need not be UTF-8; what is not becomes U+FFFD instead of a UnicodeDecodeError.
inline py::str to_text(const std::string& text) {
    return py::reinterpret_steal<py::str>(
        PyUnicode_DecodeUTF8(text.data(), static_cast<py::ssize_t>(text.size()), "replace"));
}

// A ggml type by its name; ggml spells K-quants with a capital, people and our command line do not.
ggml_type parse_type(std::string name);

void register_errors(py::module_& m);
void register_backend(py::module_& m);
void register_files(py::module_& m);
void register_sampler(py::module_& m);
void register_model(py::module_& m);
void register_engine(py::module_& m);
void register_codec(py::module_& m);

inline py::bytes to_bytes(const std::vector<uint8_t>& data) {
    return py::bytes(reinterpret_cast<const char*>(data.data()), data.size());
}
inline const uint8_t* data_of(std::string_view bytes) {
    return reinterpret_cast<const uint8_t*>(bytes.data());
}

// A numpy array that owns the vector's memory.
template <typename T>
py::array_t<T> to_array(std::vector<T>&& values, std::vector<py::ssize_t> shape) {
    auto* held = new std::vector<T>(std::move(values));
    py::capsule owner(held, [](void* p) { delete static_cast<std::vector<T>*>(p); });
    return py::array_t<T>(std::move(shape), held->data(), owner);
}

}  // namespace csm
