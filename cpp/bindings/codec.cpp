#include "bindings/module.h"
#include "engine/model.h"
#include "mimi/decoder.h"
#include "mimi/encoder.h"
#include "runtime/error.h"

namespace csm {

namespace {

// A stream keeps the model's weights alive.
template <typename Codec>
struct Stream {
    explicit Stream(std::shared_ptr<const Model> m)
        : model(std::move(m)), codec(model->device(), model->codec()) {}
    std::shared_ptr<const Model> model;
    Codec codec;
};

using DecoderStream = Stream<MimiDecoder>;
using EncoderStream = Stream<MimiEncoder>;

py::array_t<float> decode(DecoderStream& stream, const Array<int32_t>& codes) {
    if (codes.ndim() != 2)
        throw ArgumentError(cat("codes has ", codes.ndim(), " dimensions, expected 2: (frames, codebooks)"));
    const py::ssize_t frames = codes.shape(0);
    std::vector<float> samples(static_cast<size_t>(frames) * static_cast<size_t>(stream.codec.frame_size()));
    if (frames > 0) {
        const int32_t* data = codes.data();
        const py::gil_scoped_release release;
        stream.codec.decode(data, frames, static_cast<int>(codes.shape(1)), samples.data());
    }
    const auto n = static_cast<py::ssize_t>(samples.size());
    return to_array(std::move(samples), {n});
}

py::object encode(EncoderStream& stream, const Array<float>& samples, bool final, bool return_latents) {
    if (samples.ndim() != 1)
        throw ArgumentError(cat("samples has ", samples.ndim(), " dimensions, expected 1: mono"));
    const int64_t n = samples.shape(0), frames = stream.codec.frames(n);
    const int codebooks = stream.model->mimi().codebooks, hidden = stream.model->mimi().hidden;
    std::vector<int32_t> codes(static_cast<size_t>(frames * codebooks));
    std::vector<float> latents(return_latents ? static_cast<size_t>(frames * hidden) : 0);
    {
        const float* data = samples.data();
        const py::gil_scoped_release release;
        stream.codec.encode(data, n, final, codes.data(), return_latents ? latents.data() : nullptr);
    }
    auto out = to_array(std::move(codes), {frames, codebooks});
    if (!return_latents) return std::move(out);
    return py::make_tuple(out, to_array(std::move(latents), {frames, hidden}));
}

}  // namespace

void register_codec(py::module_& m) {
    py::class_<DecoderStream>(m, "MimiDecoder",
                              "A stream of codes to samples; carries the codec's state from call to call.")
        .def(py::init([](std::shared_ptr<Model> model) {
                 return std::make_unique<DecoderStream>(std::move(model));
             }),
             py::arg("model"))
        .def("decode", &decode, py::arg("codes"),
             "(frames, q) codes, 1 <= q <= codebooks, to (frames * frame_size,) samples. Raises ValueError "
             "on codes out of range.")
        .def("reset", [](DecoderStream& stream) { stream.codec.reset(); });
    py::class_<EncoderStream>(m, "MimiEncoder", "A stream of samples to codes.")
        .def(py::init([](std::shared_ptr<Model> model) {
                 return std::make_unique<EncoderStream>(std::move(model));
             }),
             py::arg("model"))
        .def("encode", &encode, py::arg("samples"), py::arg("final") = true,
             py::arg("return_latents") = false,
             "(n,) samples to (ceil(n / frame_size), codebooks) codes; with return_latents also the (frames, "
             "hidden) latents.")
        .def("reset", [](EncoderStream& stream) { stream.codec.reset(); });
}

}  // namespace csm
