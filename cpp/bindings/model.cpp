#include "checkpoint/model.h"

#include "bindings/module.h"

namespace csm {

namespace {

void describe(py::dict& out, const std::string& prefix, const TransformerConfig& c) {
    const auto set = [&](const char* name, auto value) { out[py::str(prefix + name)] = value; };
    set(".block_count", c.layers);
    set(".embedding_length", c.width);
    set(".feed_forward_length", c.ffn);
    set(".attention.head_count", c.heads);
    set(".attention.head_count_kv", c.kv_heads);
    set(".attention.head_dim", c.head_dim);
    set(c.codec ? ".attention.layer_norm_epsilon" : ".attention.layer_norm_rms_epsilon", c.norm_eps);
    set(".rope.freq_base", c.rope_base);
}

void describe(py::dict& out, const std::string& prefix, const SamplerSettings& s) {
    out[py::str(prefix + "temperature")] = s.temperature;
    out[py::str(prefix + "top_k")] = s.top_k;
    out[py::str(prefix + "top_p")] = s.top_p;
}

py::dict config(const Model& model) {
    const CsmConfig& c = model.csm();
    const MimiConfig& m = model.mimi();
    py::dict out;
    out["layout"] = model.checkpoint().layout;
    if (model.checkpoint().main->has("general.name"))
        out["general.name"] = to_text(model.checkpoint().main->str("general.name"));
    // Whoever writes prompts checks them.
    for (const char* key : {"csm.prompt.text", "csm.prompt.voice"})
        if (model.checkpoint().main->has(key)) out[key] = to_text(model.checkpoint().main->str(key));
    // The bounds of the option of this name.
    if (const char* key = "csm.generation.piece_characters"; model.checkpoint().main->has(key))
        out[key] = model.checkpoint().main->size(key, 20, 100000);
    out["csm.codebooks"] = c.codebooks;
    out["csm.codes"] = c.codes;
    out["csm.audio_vocab_size"] = c.audio_vocab;
    out["csm.text_vocab_size"] = c.text_vocab;
    out["csm.context_length"] = c.context;
    out["csm.bos_token_id"] = c.bos;
    out["csm.eos_token_id"] = c.eos;
    describe(out, "csm.backbone", c.backbone);
    describe(out, "csm.depth", c.depth);
    describe(out, "csm.generation.", c.sampling);
    describe(out, "csm.generation.depth_", c.depth_sampling);
    out["mimi.sample_rate"] = m.sample_rate;
    out["mimi.frame_size"] = m.frame_size();
    out["mimi.hidden_size"] = m.hidden;
    out["mimi.num_filters"] = m.num_filters;
    out["mimi.upsampling_ratios"] = m.ratios;
    out["mimi.codebook_size"] = m.codebook_size;
    out["mimi.codebook_dim"] = m.codebook_dim;
    out["mimi.semantic_codebooks"] = m.semantic_codebooks;
    out["mimi.has_encoder"] = model.codec()->weights.has_encoder;
    describe(out, "mimi.transformer", m.transformer);
    return out;
}

py::dict tokenizer(const Model& model) {
    const GgufFile& file = *model.checkpoint().main;
    py::dict out;
    if (!file.has("tokenizer.ggml.tokens")) return out;
    const auto bytes = [&](const char* key) {
        py::list list;
        for (const auto& s : file.strings(key)) list.append(py::bytes(s));
        return list;
    };
    out["tokens"] = bytes("tokenizer.ggml.tokens");
    out["merges"] = bytes("tokenizer.ggml.merges");
    out["token_type"] = file.has("tokenizer.ggml.token_type") ? file.u32_array("tokenizer.ggml.token_type")
                                                              : std::vector<uint32_t>();
    out["pre"] = to_text(file.has("tokenizer.ggml.pre") ? file.str("tokenizer.ggml.pre") : std::string());
    out["bos"] = model.csm().bos;
    out["eos"] = model.csm().eos;
    return out;
}

}  // namespace

void register_model(py::module_& m) {
    py::class_<Model, std::shared_ptr<Model>>(
        m, "Model", "Weights of one checkpoint on one device. Immutable; may be shared by threads.")
        .def(py::init([](const std::vector<std::string>& files, const std::string& device, int threads) {
                 const py::gil_scoped_release release;
                 return std::make_shared<Model>(files, device, threads, [] {
                     const py::gil_scoped_acquire acquire;
                     if (PyErr_CheckSignals() != 0) throw py::error_already_set();
                 });
             }),
             py::arg("files"), py::kw_only(), py::arg("device") = "auto", py::arg("threads") = 0)
        .def_property_readonly("config", &config, "Hyper-parameters under the names of docs/GGUF.md.")
        .def_property_readonly("tokenizer", &tokenizer,
                               "Vocabulary, merges and special ids; empty if the file has none.")
        .def_property_readonly("device", [](const Model& model) { return model.device()->name(); })
        .def_property_readonly("threads", [](const Model& model) { return model.device()->threads(); })
        .def_property_readonly("weight_bytes", &Model::weight_bytes)
        .def("__repr__", [](const Model& model) {
            return to_text("<Model " + model.checkpoint().main->path() + " on " + model.device()->name() +
                           ">");
        });
}

}  // namespace csm
