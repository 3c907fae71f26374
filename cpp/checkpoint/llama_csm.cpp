// The files of llama.cpp pull request #12648: two language models that share no names with ours, and a codec
// file without any hyper-parameter. What the files do not state is derived from tensor shapes, and is Mimi's
// or csm-1b's own otherwise.
#include <algorithm>
#include <array>
#include <utility>

#include "checkpoint/checkpoint.h"
#include "runtime/error.h"

namespace csm {

namespace {

using File = std::shared_ptr<const GgufFile>;

// The second part replaces the first wherever it stands in a name.
constexpr std::array<std::pair<const char*, const char*>, 14> kCodecNames{{
    {"mimi.", ""},
    {".semantic.", ".semantic_rvq."},
    {".acoustic.", ".acoustic_rvq."},
    {"transformer.blk.", "transformer.layers."},
    {"attn_norm.", "input_layernorm."},
    {"attn_q.", "self_attn.q_proj."},
    {"attn_k.", "self_attn.k_proj."},
    {"attn_v.", "self_attn.v_proj."},
    {"attn_output.", "self_attn.o_proj."},
    {"attn_scale.weight", "self_attn_layer_scale.scale"},
    {"ffn_norm.", "post_attention_layernorm."},
    {"ffn_up.", "mlp.fc1."},
    {"ffn_down.", "mlp.fc2."},
    {"ffn_scale.weight", "mlp_layer_scale.scale"},
}};

bool starts_with(const std::string& text, const std::string& prefix) {
    return text.rfind(prefix, 0) == 0;
}

// Larger dimensions than this are no codec's, and would not fit into the numbers of its configuration.
constexpr int64_t kMaxSize = 1 << 20;

class LlamaCsmLayout : public TensorSource {
 public:
    LlamaCsmLayout(File backbone, File decoder, File codec)
        : backbone_(std::move(backbone)), decoder_(std::move(decoder)), codec_(std::move(codec)) {}

    TensorSlice find(const std::string& name) const override {
        const auto [file, theirs] = place(name);
        const auto* tensor = file->find(theirs);
        if (tensor == nullptr) return {};
        TensorSlice slice{file, tensor, 0, {tensor->ne.begin(), tensor->ne.end()}};
        if (name == "depth.heads.weight") {
            // page p predicts codebook p; page 0 and a last one beyond the codebooks are zeros that stand for
            // positions without a head
            const int64_t codebooks = find("audio_embd.weight").tensor->ne[1] / tensor->ne[1];
            if (tensor->ne[2] == codebooks || tensor->ne[2] == codebooks + 1) {
                slice.first_row = tensor->ne[1];
                slice.shape[2] = codebooks - 1;
            }
        }
        return slice;
    }
    std::string describe(const std::string& name) const override {
        const auto [file, theirs] = place(name);
        return cat(file->path(), ": tensor '", theirs, "'");
    }

 private:
    std::pair<File, std::string> place(const std::string& name) const {
        if (name == "text_embd.weight") return {backbone_, "token_embd.weight"};
        if (name == "audio_embd.weight") return {decoder_, "audio_embd.weight"};
        if (name == "depth.projection.weight") return {decoder_, "csm_proj.weight"};
        if (name == "depth.heads.weight") return {decoder_, "audio_head.weight"};
        if (starts_with(name, "backbone.")) return {backbone_, name.substr(9)};
        if (starts_with(name, "depth.")) return {decoder_, name.substr(6)};
        if (!starts_with(name, "mimi.")) return {backbone_, name};
        std::string theirs = name;
        for (const auto& [ours, replacement] : kCodecNames) {
            const auto at = theirs.find(ours);
            if (at != std::string::npos) theirs.replace(at, std::string(ours).size(), replacement);
        }
        return {codec_, theirs};
    }

    File backbone_, decoder_, codec_;
};

TransformerConfig read_transformer(const GgufFile& file) {
    const std::string p = "llama-csm.";
    TransformerConfig c;
    c.layers = file.size(p + "block_count", 1, 512);
    c.width = file.size(p + "embedding_length", 1, 1 << 16);
    c.heads = file.size(p + "attention.head_count", 1, 1 << 16);
    c.kv_heads = file.size(p + "attention.head_count_kv", 1, 1 << 16);
    // the converter's newer versions write both
    c.head_dim = file.size(
        p + (file.has(p + "attention.key_length") ? "attention.key_length" : "rope.dimension_count"), 2,
        1 << 16);
    c.ffn = file.size(p + "feed_forward_length", 1, 1 << 20);
    c.norm_eps = file.f32(p + "attention.layer_norm_rms_epsilon");
    c.rope_base = file.f32(p + "rope.freq_base");
    c.validate(file.path(), "llama-csm");
    return c;
}

const GgufFile::Tensor& require(const GgufFile& file, const std::string& name) {
    const auto* tensor = file.find(name);
    if (tensor == nullptr)
        throw FormatError(cat(file.path(), ": tensor '", name, "': the tensor is missing"));
    return *tensor;
}

// Values from tensor shapes; the caller checks that they make sense together.
MimiConfig derive_codec(const GgufFile& file) {
    MimiConfig c;
    const auto count = [&](const std::string& prefix, const std::string& suffix) {
        int n = 0;
        while (file.find(cat(prefix, n, suffix)) != nullptr) ++n;
        return n;
    };
    const auto size = [&](const std::string& name, size_t dim) {
        const int64_t n = require(file, name).ne[dim];
        if (n > kMaxSize)
            throw FormatError(cat(file.path(), ": tensor '", name, "' has a dimension of ", n,
                                  ", expected at most ", kMaxSize));
        return static_cast<int>(n);
    };
    const auto decoder_layer = [](int n, const char* rest) { return cat("decoder.layers.", n, rest); };

    // a stage is an ELU, a transposed convolution of twice its ratio and residual blocks; an ELU and a
    // convolution to one channel follow the last stage
    c.kernel = size("decoder.layers.0.conv.weight", 0);
    c.ratios.clear();
    int layer = 2;
    while (file.find(decoder_layer(layer + 1, ".block.1.conv.weight")) != nullptr) {
        c.ratios.push_back(size(decoder_layer(layer, ".conv.weight"), 0) / 2);
        c.residual_layers = 0;
        for (++layer; file.find(decoder_layer(layer, ".block.1.conv.weight")) != nullptr; ++layer) {
            const std::string block = decoder_layer(layer, ".block.1.conv.weight");
            c.residual_kernel = size(block, 0);
            c.compress = std::max(1, size(block, 1) / std::max(1, size(block, 2)));
            ++c.residual_layers;
        }
        ++layer;
    }
    c.last_kernel = size(decoder_layer(layer, ".conv.weight"), 0);
    c.num_filters = size(decoder_layer(layer, ".conv.weight"), 1);

    c.hidden = size("downsample.conv.weight", 2);
    c.resample_stride = size("downsample.conv.weight", 0) / 2;
    c.transformer.width = c.hidden;
    c.transformer.layers = count("decoder_transformer.layers.", ".input_layernorm.weight");
    c.transformer.ffn = size("decoder_transformer.layers.0.mlp.fc1.weight", 1);
    c.transformer.heads =
        size("decoder_transformer.layers.0.self_attn.q_proj.weight", 1) / c.transformer.head_dim;
    c.transformer.kv_heads =
        size("decoder_transformer.layers.0.self_attn.k_proj.weight", 1) / c.transformer.head_dim;
    c.codebook_dim = size("quantizer.semantic_rvq.layers.0.codebook", 0);
    c.codebook_size = size("quantizer.semantic_rvq.layers.0.codebook", 1);
    c.semantic_codebooks = count("quantizer.semantic_rvq.layers.", ".codebook");
    c.codebooks = c.semantic_codebooks + count("quantizer.acoustic_rvq.layers.", ".codebook");
    c.validate(file.path());
    return c;
}

}  // namespace

Checkpoint open_llama_csm(const std::vector<std::shared_ptr<const GgufFile>>& files) {
    File backbone, decoder, codec;
    std::string names;
    for (const auto& file : files) {
        names += cat(names.empty() ? "" : ", ", file->path());
        if (file->find("codebook0_head.weight")) {
            backbone = file;
        } else if (file->find("audio_head.weight")) {
            decoder = file;
        } else if (file->find("quantizer.semantic_rvq.layers.0.codebook")) {
            codec = file;
        }
    }
    const char* missing = !backbone  ? "the backbone (with 'codebook0_head.weight')"
                          : !decoder ? "the decoder (with 'audio_head.weight')"
                          : !codec   ? "the codec (with 'quantizer.semantic_rvq.layers.0.codebook')"
                                     : nullptr;
    if (missing != nullptr || files.size() != 3) {
        throw FormatError(
            cat(names, ": expected the three files of a llama-csm checkpoint (backbone, decoder, Mimi)",
                missing ? cat("; missing is ", missing) : cat(", got ", files.size())));
    }

    Checkpoint out;
    out.layout = "llama-csm";
    out.main = backbone;
    out.tensors = std::make_shared<LlamaCsmLayout>(backbone, decoder, codec);
    out.csm.backbone = read_transformer(*backbone);
    out.csm.depth = read_transformer(*decoder);
    out.csm.context = backbone->size("llama-csm.context_length", 2, 1 << 20);
    out.csm.bos = backbone->size("tokenizer.ggml.bos_token_id", 0, 1 << 24);
    out.csm.eos = backbone->size("tokenizer.ggml.eos_token_id", 0, 1 << 24);
    const int64_t head_rows = require(*backbone, "codebook0_head.weight").ne[1];
    const int64_t table_rows = require(*decoder, "audio_embd.weight").ne[1];
    const int64_t text_rows = require(*backbone, "token_embd.weight").ne[1];
    if (head_rows > (1 << 16) || table_rows % head_rows != 0 || table_rows / head_rows < 2 ||
        table_rows / head_rows > 256 || text_rows > (1 << 24)) {
        throw FormatError(cat(decoder->path(), ": tensor 'audio_embd.weight' has ", table_rows,
                              " rows, expected a multiple of the ", head_rows,
                              " codes of 'codebook0_head.weight'"));
    }
    out.csm.audio_vocab = static_cast<int>(head_rows);
    out.csm.codebooks = static_cast<int>(table_rows / head_rows);
    out.csm.text_vocab = static_cast<int>(text_rows);
    if (out.csm.bos >= out.csm.text_vocab || out.csm.eos >= out.csm.text_vocab) {
        throw FormatError(
            cat(backbone->path(), ": the begin or end token lies outside the vocabulary of ", text_rows));
    }
    out.mimi = derive_codec(*codec);
    return out;
}

}  // namespace csm
