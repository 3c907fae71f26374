#include "engine/engine.h"

#include "bindings/module.h"
#include "runtime/error.h"

namespace csm {

namespace {

SlotSettings settings(uint64_t seed, uint32_t attempt, float temperature, int top_k, float top_p,
                      float depth_temperature, int depth_top_k, float depth_top_p) {
    return {seed, attempt, {temperature, top_p, top_k}, {depth_temperature, depth_top_p, depth_top_k}};
}

Rows rows_of(const Engine& engine, const Array<int32_t>& text, const Array<int32_t>& audio) {
    const int codebooks = engine.model().csm().codebooks;
    if (text.ndim() != 1 || audio.ndim() != 2 || audio.shape(0) != text.shape(0) ||
        audio.shape(1) != codebooks) {
        throw ArgumentError(cat("expected text (n,) and audio (n, ", codebooks, ")"));
    }
    return {text.data(), audio.data(), static_cast<int>(text.shape(0))};
}

py::object append(Engine& engine, int slot, const Array<int32_t>& text, const Array<int32_t>& audio,
                  bool return_logits) {
    const auto& c = engine.model().csm();
    const Rows rows = rows_of(engine, text, audio);
    std::vector<float> logits;
    int evaluated = 0;
    {
        const py::gil_scoped_release release;
        evaluated = engine.append(slot, rows, return_logits ? &logits : nullptr);
    }
    if (!return_logits) return py::none();
    return to_array(std::move(logits), {evaluated, c.codes});
}

// A slot, and text and audio of rows.
using Prompt = std::tuple<int, Array<int32_t>, Array<int32_t>>;

py::tuple step(Engine& engine, const std::vector<int>& slots, const std::optional<Prompt>& prompt,
               const std::optional<Array<int32_t>>& forced, bool return_logits) {
    const auto& c = engine.model().csm();
    const auto n = static_cast<py::ssize_t>(slots.size());
    if (forced && (forced->ndim() != 2 || forced->shape(0) != n || forced->shape(1) != c.codebooks)) {
        throw ArgumentError(cat("expected forced codes (", n, ", ", c.codebooks, ")"));
    }
    std::vector<int32_t> codes(static_cast<size_t>(n * c.codebooks));
    std::vector<float> logits(return_logits ? static_cast<size_t>(n) * static_cast<size_t>(c.codebooks) *
                                                  static_cast<size_t>(c.codes)
                                            : 0);
    Engine::Piece piece{};
    if (prompt) {
        const auto& [slot, text, audio] = *prompt;
        piece = {slot, rows_of(engine, text, audio)};
    }
    {
        const int32_t* forced_data = forced ? forced->data() : nullptr;
        const py::gil_scoped_release release;
        engine.step(slots.data(), static_cast<int>(n), forced_data, codes.data(),
                    return_logits ? logits.data() : nullptr, prompt ? &piece : nullptr);
    }
    py::object out_logits = py::none();
    if (return_logits) out_logits = to_array(std::move(logits), {n, c.codebooks, c.codes});
    return py::make_tuple(to_array(std::move(codes), {n, c.codebooks}), out_logits);
}

}  // namespace

void register_engine(py::module_& m) {
    py::class_<Engine>(
        m, "Engine",
        "KV cache slots and the frame graph. One thread at a time; several engines may share one model.")
        .def(py::init([](std::shared_ptr<Model> model, int slots, int context, const std::string& kv_type) {
                 return std::make_unique<Engine>(std::move(model), slots, context, kv_type);
             }),
             py::arg("model").none(false), py::kw_only(), py::arg("slots") = 1, py::arg("context") = 0,
             py::arg("kv_type") = "auto")
        .def(
            "open",
            [](Engine& engine, uint64_t seed, uint32_t attempt, float temperature, int top_k, float top_p,
               float depth_temperature, int depth_top_k, float depth_top_p) {
                return engine.open(settings(seed, attempt, temperature, top_k, top_p, depth_temperature,
                                            depth_top_k, depth_top_p));
            },
            py::kw_only(), py::arg("seed") = 0, py::arg("attempt") = 0, py::arg("temperature") = 0.9,
            py::arg("top_k") = 50, py::arg("top_p") = 1.0, py::arg("depth_temperature") = 0.9,
            py::arg("depth_top_k") = 50, py::arg("depth_top_p") = 1.0,
            "Take a free slot with an empty cache; returns its number. Raises RuntimeError when none is "
            "free.")
        .def("close", &Engine::close, py::arg("slot"))
        .def(
            "reseed",
            [](Engine& engine, int slot, uint64_t seed, uint32_t attempt, float temperature, int top_k,
               float top_p, float depth_temperature, int depth_top_k, float depth_top_p) {
                engine.configure(slot, settings(seed, attempt, temperature, top_k, top_p, depth_temperature,
                                                depth_top_k, depth_top_p));
            },
            py::arg("slot"), py::kw_only(), py::arg("seed"), py::arg("attempt") = 0, py::arg("temperature"),
            py::arg("top_k"), py::arg("top_p"), py::arg("depth_temperature"), py::arg("depth_top_k"),
            py::arg("depth_top_p"), "New sampling settings; the frame counter of the noise restarts at 0.")
        .def("append", &append, py::arg("slot"), py::arg("text"), py::arg("audio"),
             py::arg("return_logits") = false,
             "Append prompt rows; the last stays pending. With return_logits, the c0 logits of every row "
             "evaluated by this call.")
        .def("step", &step, py::arg("slots"), py::kw_only(), py::arg("prompt") = py::none(),
             py::arg("forced") = py::none(), py::arg("return_logits") = false,
             "One frame for each of the slots in one graph: codes (len(slots), codebooks) and, if asked for, "
             "the logits. prompt: a slot that is not among them, and the rows to append to it meanwhile.")
        .def("position", &Engine::position, py::arg("slot"),
             "Rows of the slot so far, the pending one included.")
        .def("rewind", &Engine::rewind, py::arg("slot"), py::arg("rows"),
             "Drop all but the first rows rows; none is pending afterwards.")
        .def(
            "save_prefix", [](const Engine& engine, int slot) { return to_bytes(engine.save_prefix(slot)); },
            py::arg("slot"), "The keys and values of the evaluated rows (all but the pending one).")
        .def(
            "load_prefix",
            [](Engine& engine, int slot, const py::bytes& data) {
                const std::string_view view = data;
                const py::gil_scoped_release release;
                engine.load_prefix(slot, data_of(view), view.size());
            },
            py::arg("slot"), py::arg("data"))
        .def(
            "save_slot",
            [](const Engine& engine, int slot) {
                std::vector<uint8_t> data;
                {
                    const py::gil_scoped_release release;
                    data = engine.save_slot(slot);
                }
                return to_bytes(data);
            },
            py::arg("slot"),
            "All that the slot's utterance needs to go on later: rows, the pending one, settings, noise.")
        .def(
            "load_slot",
            [](Engine& engine, int slot, const py::bytes& data) {
                const std::string_view view = data;
                const py::gil_scoped_release release;
                engine.load_slot(slot, data_of(view), view.size());
            },
            py::arg("slot"), py::arg("data"),
            "Go on with a saved slot in this open one. Raises ValueError if the data is damaged or foreign.")
        .def("trim", &Engine::trim, py::call_guard<py::gil_scoped_release>(),
             "Give back what an idle engine does not need; it is taken anew when it is.")
        .def("timings",
             [](const Engine& engine) {
                 const EngineTimings& t = engine.timings();
                 py::dict out;
                 out["prefill_s"] = t.prefill_s;
                 out["prefill_rows"] = t.prefill_rows;
                 out["step_s"] = t.step_s;
                 out["steps"] = t.steps;
                 out["frames"] = t.frames;
                 return out;
             })
        .def_property_readonly(
            "splits",
            [](const Engine& engine) {
                py::dict out;
                out["prefill"] = engine.graphs().prefill.splits;
                out["step"] = engine.graphs().step.splits;
                return out;
            },
            "Parts that the device's scheduler cut the last prefill and the last step into: 1 where the "
            "device "
            "ran all of it, 0 where none ran yet.")
        .def_property_readonly(
            "nodes",
            [](const Engine& engine) {
                py::dict out;
                out["prefill"] = engine.graphs().prefill.nodes;
                out["step"] = engine.graphs().step.nodes;
                return out;
            },
            "Nodes that compute in the last prefill and the last step, before a device fuses some.")
        .def_property_readonly("slots", &Engine::slots)
        .def_property_readonly("context", &Engine::context)
        .def_property_readonly("kv_bytes", &Engine::kv_bytes);
}

}  // namespace csm
