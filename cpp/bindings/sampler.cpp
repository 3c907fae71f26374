#include "nn/sampler.h"

#include "bindings/module.h"
#include "nn/philox.h"
#include "runtime/error.h"

namespace csm {

namespace {

py::array_t<int32_t> sample(const Array<float>& logits, const Array<float>& uniforms, float temperature,
                            int top_k, float top_p) {
    if (logits.ndim() != 2 || uniforms.ndim() != 1 || uniforms.shape(0) != logits.shape(0) ||
        logits.shape(1) < 1) {
        throw ArgumentError("expected logits (n, codes) and uniforms (n,)");
    }
    const SamplerSettings settings{temperature, top_p, top_k};
    SamplerScratch scratch;
    std::vector<int32_t> codes;
    for (py::ssize_t i = 0; i < logits.shape(0); ++i) {
        codes.push_back(sample_code(logits.data(i, 0), static_cast<int>(logits.shape(1)), settings,
                                    uniforms.at(i), scratch));
    }
    return to_array(std::move(codes), {logits.shape(0)});
}

py::array_t<float> noise(uint64_t seed, uint32_t first_frame, uint32_t frames, uint32_t codebooks,
                         uint32_t attempt) {
    std::vector<float> out;
    for (uint32_t f = 0; f < frames; ++f) {
        for (uint32_t c = 0; c < codebooks; ++c) out.push_back(uniform(seed, first_frame + f, c, attempt));
    }
    return to_array(std::move(out), {static_cast<py::ssize_t>(frames), static_cast<py::ssize_t>(codebooks)});
}

}  // namespace

void register_sampler(py::module_& m) {
    m.def("sample", &sample, py::arg("logits"), py::arg("uniforms"), py::kw_only(), py::arg("temperature"),
          py::arg("top_k"), py::arg("top_p"),
          "The sampler that runs inside the frame graph, on (n, codes) logits and (n,) uniform numbers in "
          "[0, 1).");
    m.def("uniforms", &noise, py::arg("seed"), py::arg("first_frame"), py::arg("frames"),
          py::arg("codebooks"), py::arg("attempt") = 0,
          "The noise of a request: (frames, codebooks) uniform numbers in [0, 1), Philox4x32-10 keyed by "
          "(seed, attempt, frame, codebook).");
}

}  // namespace csm
