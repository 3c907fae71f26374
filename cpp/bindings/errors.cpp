#include "bindings/module.h"
#include "runtime/error.h"

namespace csm {

void register_errors(py::module_& m) {
    static py::exception<FormatError> format_error(m, "ModelFormatError");
    format_error.doc() = "A model file is damaged, incomplete or of another kind.";
    static py::exception<BackendError> backend_error(m, "BackendError", PyExc_RuntimeError);
    backend_error.doc() = "A compute device could not be used, or ran out of memory.";
    py::register_exception_translator([](std::exception_ptr p) {
        try {
            if (p) std::rethrow_exception(p);
        } catch (const FormatError& e) {
            py::set_error(format_error, to_text(e.what()));
        } catch (const BackendError& e) {
            py::set_error(backend_error, to_text(e.what()));
        } catch (const ArgumentError& e) {
            py::set_error(PyExc_ValueError, to_text(e.what()));
        }
    });
}

}  // namespace csm
