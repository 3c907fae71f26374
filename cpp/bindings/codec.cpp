#include <optional>

#include "bindings/module.h"
#include "checkpoint/model.h"
#include "mimi/decoder.h"
#include "mimi/encoder.h"
#include "runtime/error.h"

namespace csm {

namespace {

// A stream keeps the model's weights alive.
template <typename Codec>
struct Stream {
    template <typename... Args>
    explicit Stream(std::shared_ptr<const Model> m, Args... args)
        : model(std::move(m)), codec(model->codec_device(), model->codec(), args...) {}
    std::shared_ptr<const Model> model;
    Codec codec;
};

using DecoderStream = Stream<MimiDecoder>;
using EncoderStream = Stream<MimiEncoder>;

py::array_t<float> decode(DecoderStream& stream, const Array<int32_t>& codes,
                          const std::optional<std::vector<int32_t>>& streams) {
    if (!streams && codes.ndim() != 2)
        throw ArgumentError(cat("codes has ", codes.ndim(), " dimensions, expected 2: (frames, codebooks)"));
    if (streams && codes.ndim() != 3)
        throw ArgumentError(
            cat("codes has ", codes.ndim(), " dimensions, expected 3: (streams, frames, codebooks)"));
    if (streams && codes.shape(0) != static_cast<py::ssize_t>(streams->size()))
        throw ArgumentError(
            cat("codes are of ", codes.shape(0), " streams, but ", streams->size(), " streams are named"));
    const py::ssize_t frames = codes.shape(codes.ndim() - 2);
    const auto q = static_cast<int>(codes.shape(codes.ndim() - 1));
    const std::vector<int32_t> named = streams.value_or(std::vector<int32_t>{0});
    const auto n = static_cast<py::ssize_t>(named.size()), each = frames * stream.codec.frame_size();
    std::vector<float> samples(static_cast<size_t>(n * each));
    {
        const int32_t* data = codes.data();
        const py::gil_scoped_release release;
        stream.codec.decode(named, data, frames, q, samples.data());
    }
    return streams ? to_array(std::move(samples), {n, each}) : to_array(std::move(samples), {each});
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
    constexpr const char* kSplits =
        "Parts that the device's scheduler cut the last piece into: 1 where the device ran all of it, 0 "
        "where "
        "none ran yet.";
    py::class_<DecoderStream>(m, "MimiDecoder",
                              "Streams of codes to samples; carries the codec's state from call to call.")
        .def(py::init([](std::shared_ptr<Model> model, int streams) {
                 return std::make_unique<DecoderStream>(std::move(model), streams);
             }),
             py::arg("model").none(false), py::arg("streams") = 1)
        .def(
            "decode", &decode, py::arg("codes"), py::arg("streams") = py::none(),
            "(frames, q) codes of stream 0, 1 <= q <= codebooks, to (frames * frame_size,) samples; with the "
            "numbers of n streams, (n, frames, q) codes to (n, frames * frame_size) samples. Raises "
            "ValueError on codes or streams out of range.")
        .def(
            "reset",
            [](DecoderStream& stream, std::optional<int> number) {
                if (number) {
                    stream.codec.reset(*number);
                } else {
                    stream.codec.reset();
                }
            },
            py::arg("stream") = py::none(), "Lets a stream begin anew, or all.")
        .def(
            "trim", [](DecoderStream& stream) { stream.codec.trim(); },
            py::call_guard<py::gil_scoped_release>(),
            "Give back what an idle decoder does not need; it is taken anew when it is.")
        .def(
            "save",
            [](const DecoderStream& stream, int number) {
                std::vector<uint8_t> data;
                {
                    const py::gil_scoped_release release;
                    data = stream.codec.save(number);
                }
                return to_bytes(data);
            },
            py::arg("stream"), "All that a stream's future depends on.")
        .def(
            "load",
            [](DecoderStream& stream, int number, const py::bytes& data) {
                const std::string_view view = data;
                const py::gil_scoped_release release;
                stream.codec.load(number, data_of(view), view.size());
            },
            py::arg("stream"), py::arg("data"),
            "Go on with a saved stream in the place of this one. Raises ValueError if the data is damaged or "
            "foreign.")
        .def_property_readonly("streams", [](const DecoderStream& stream) { return stream.codec.streams(); })
        .def_property_readonly(
            "splits", [](const DecoderStream& stream) { return stream.codec.graph_size().splits; }, kSplits);
    py::class_<EncoderStream>(m, "MimiEncoder", "A stream of samples to codes.")
        .def(py::init([](std::shared_ptr<Model> model) {
                 return std::make_unique<EncoderStream>(std::move(model));
             }),
             py::arg("model").none(false))
        .def("encode", &encode, py::arg("samples"), py::arg("final") = true,
             py::arg("return_latents") = false,
             "(n,) samples to (ceil(n / frame_size), codebooks) codes; with return_latents also the (frames, "
             "hidden) latents.")
        .def("reset", [](EncoderStream& stream) { stream.codec.reset(); })
        .def_property_readonly(
            "splits", [](const EncoderStream& stream) { return stream.codec.graph_size().splits; }, kSplits);
}

}  // namespace csm
