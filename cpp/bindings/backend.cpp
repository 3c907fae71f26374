#include "bindings/module.h"
#include "kernels/kernels.h"
#include "kernels/peak.h"
#include "runtime/bandwidth.h"
#include "runtime/device.h"
#include "runtime/error.h"
#include "runtime/log.h"

namespace csm {

namespace {

const char* type_name(enum ggml_backend_dev_type type) {
    switch (type) {
        case GGML_BACKEND_DEVICE_TYPE_CPU:
            return "cpu";
        case GGML_BACKEND_DEVICE_TYPE_GPU:
            return "gpu";
        case GGML_BACKEND_DEVICE_TYPE_IGPU:
            return "igpu";
        default:
            return "accel";
    }
}

py::list devices() {
    py::list out;
    for (size_t i = 0; i < ggml_backend_dev_count(); ++i) {
        ggml_backend_dev_t dev = ggml_backend_dev_get(i);
        size_t free = 0, total = 0;
        ggml_backend_dev_memory(dev, &free, &total);
        py::dict d;
        d["name"] = ggml_backend_dev_name(dev);
        d["description"] = ggml_backend_dev_description(dev);
        d["type"] = type_name(ggml_backend_dev_type(dev));
        d["memory_free"] = free;
        d["memory_total"] = total;
        out.append(d);
    }
    return out;
}

std::vector<std::string> instruction_sets() {
    std::vector<std::string> names;
    for (const Kernels& kernels : usable_kernels()) names.emplace_back(kernels.name);
    return names;
}

double peak(const std::string& type, int threads, int rounds, const std::string& instruction_set) {
    if (threads < 1 || threads > GGML_MAX_N_THREADS || rounds < 1)
        throw ArgumentError(cat("threads is ", threads, ", rounds ", rounds, "; expected threads from 1 to ",
                                GGML_MAX_N_THREADS, ", and rounds from 1 on"));
    const ggml_type number_type = parse_type(type);
    for (const Kernels& kernels : usable_kernels()) {
        if (kernels.name != instruction_set) continue;
        const py::gil_scoped_release release;
        return peak_multiply_adds(kernels, number_type, threads, rounds);
    }
    throw ArgumentError(
        cat("instruction set '", instruction_set, "' cannot be used here; see instruction_sets()"));
}

// The numbers of Python's logging.
int level_number(LogLevel level) {
    return level == LogLevel::info ? 20 : level == LogLevel::warning ? 30 : 40;
}

void set_python_log(const py::object& function) {
    if (function.is_none()) {
        set_log({});
        return;
    }
    // not freed: another thread may be calling it
    const auto* kept = new py::object(function);
    set_log([kept](LogLevel level, const std::string& message) {
        if (!Py_IsInitialized()) return;
        const py::gil_scoped_acquire acquire;
        try {
            (*kept)(level_number(level), to_text(message));
        } catch (py::error_already_set& error) {
            error.discard_as_unraisable("csm_ggml log");
        }
    });
    // while the interpreter ends, messages go where they went before
    static const bool registered = [] {
        py::module_::import("atexit").attr("register")(py::cpp_function([] { set_log({}); }));
        return true;
    }();
    (void)registered;
}

}  // namespace

void register_backend(py::module_& m) {
    m.def("set_backend_dir", &load_backends, py::arg("path"), py::call_guard<py::gil_scoped_release>(),
          "Load ggml's backend libraries from this folder, once; a no-op in builds with a linked-in ggml.");
    m.def("set_log", &set_python_log, py::arg("function"),
          "Where ggml's messages go: function(level, message), the level as in Python's logging; None: "
          "warnings and errors to standard error.");
    m.def("devices", &devices,
          "Compute devices: dicts with name, description, type, memory_free and memory_total (bytes).");
    m.def(
        "read_bandwidth",
        [](int threads, size_t bytes, int rounds) {
            if (threads < 1 || threads > GGML_MAX_N_THREADS || rounds < 1 || bytes < 4096)
                throw ArgumentError(cat("threads is ", threads, ", rounds ", rounds, ", bytes ", bytes,
                                        "; expected threads from 1 to ", GGML_MAX_N_THREADS,
                                        ", rounds from 1 and bytes from 4096 on"));
            const py::gil_scoped_release release;
            return read_bandwidth(threads, bytes, rounds);
        },
        py::arg("threads"), py::arg("bytes"), py::arg("rounds") = 5,
        "Bytes per second that the threads together read from memory; the best of some rounds.");
    m.def("multiply_add_peak", &peak, py::arg("type"), py::arg("threads"), py::arg("rounds"),
          py::arg("instruction_set"),
          "Multiply-adds per second that the threads together do with the instructions for products with "
          "such a "
          "matrix, and nothing else; the best of some rounds.");
    m.def("cpu_features", &cpu_features, "The CPU features that the loaded CPU backend uses.");
    m.def("instruction_sets", &instruction_sets,
          "The instruction sets that the package's own kernels can use here, the fastest first.");
    m.def(
        "instruction_set",
        []() -> std::optional<std::string> {
            if (!kHaveKernels) return std::nullopt;
            return kernels().name;
        },
        "The instruction set that the package's own kernels use; None for a build without them.");
}

}  // namespace csm
