#include "bindings/module.h"

#include "ggml.h"

PYBIND11_MODULE(_core, m) {
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
