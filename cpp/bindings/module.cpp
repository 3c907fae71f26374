#include "bindings/module.h"

#include "ggml.h"
#include "runtime/error.h"
#include "runtime/processor.h"

// Needs no global interpreter lock: what is not for one thread at a time (Engine, the codecs) is so with the
// lock as well, as a step runs without it; the rest is immutable or locks by itself.
PYBIND11_MODULE(_core, m, pybind11::mod_gil_not_used()) {
    if (const std::string missing = csm::missing_instructions(); !missing.empty()) {
        throw pybind11::import_error(
            csm::cat("csm-ggml was built for another processor: this one has no ", missing,
                     "; install it on this machine: pip install --force-reinstall --no-cache-dir csm-ggml"));
    }
    m.doc() = "The compiled core: ggml graphs behind plain arrays. csm_ggml.CSM is the public face.";
    m.attr("__version__") = CSM_GGML_VERSION;
    m.attr("ggml_version") = ggml_version();
    m.attr("ggml_commit") = ggml_commit();
    csm::register_errors(m);
    csm::register_backend(m);
    csm::register_files(m);
    csm::register_sampler(m);
    csm::register_model(m);
    csm::register_engine(m);
    csm::register_codec(m);
}
