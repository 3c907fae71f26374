#include "csm/config.h"

#include <cmath>

#include "runtime/error.h"

namespace csm {

namespace {

// Bounds far above any speech model; they keep products of sizes from a hostile file inside 64 bits.
constexpr int kMaxWidth = 1 << 16;
constexpr int kMaxLayers = 512;
constexpr int kMaxVocab = 1 << 24;
constexpr int kMaxCodebooks = 256;
constexpr int kMaxContext = 1 << 20;

TransformerConfig read_transformer(const GgufFile& file, const std::string& prefix) {
    TransformerConfig c;
    c.layers = file.size(prefix + ".block_count", 1, kMaxLayers);
    c.width = file.size(prefix + ".embedding_length", 1, kMaxWidth);
    c.heads = file.size(prefix + ".attention.head_count", 1, kMaxWidth);
    c.kv_heads = file.size(prefix + ".attention.head_count_kv", 1, kMaxWidth);
    c.head_dim = file.size(prefix + ".attention.head_dim", 2, kMaxWidth);
    c.ffn = file.size(prefix + ".feed_forward_length", 1, 1 << 20);
    c.norm_eps = file.f32(prefix + ".attention.layer_norm_rms_epsilon");
    c.rope_base = file.f32(prefix + ".rope.freq_base");
    c.validate(file.path(), prefix);
    return c;
}

SamplerSettings read_sampling(const GgufFile& file, const std::string& prefix) {
    SamplerSettings s;
    s.temperature = file.f32(prefix + "temperature", s.temperature);
    s.top_p = file.f32(prefix + "top_p", s.top_p);
    s.top_k = static_cast<int32_t>(file.u32(prefix + "top_k", static_cast<uint32_t>(s.top_k)));
    if (!(s.temperature >= 0.0f && s.temperature <= 100.0f) || !(s.top_p > 0.0f && s.top_p <= 1.0f) ||
        s.top_k < 0 || s.top_k > kMaxVocab) {
        throw FormatError(cat(file.path(), ": keys '", prefix, "*' hold impossible sampling defaults"));
    }
    return s;
}

}  // namespace

CsmConfig CsmConfig::read(const GgufFile& file) {
    const uint32_t format = file.u32("csm.format_version");
    if (format != 1)
        throw FormatError(cat(file.path(), ": key 'csm.format_version' is ", format,
                              ", expected 1; a newer csm-ggml may read it"));
    CsmConfig c;
    c.codebooks = file.size("csm.codebooks", 2, kMaxCodebooks);
    c.audio_vocab = file.size("csm.audio_vocab_size", 1, kMaxVocab / kMaxCodebooks);
    c.text_vocab = file.size("csm.text_vocab_size", 1, kMaxVocab);
    c.context = file.size("csm.context_length", 2, kMaxContext);
    c.bos = file.size("csm.bos_token_id", 0, c.text_vocab - 1);
    c.eos = file.size("csm.eos_token_id", 0, c.text_vocab - 1);
    c.backbone = read_transformer(file, "csm.backbone");
    c.depth = read_transformer(file, "csm.depth");
    c.sampling = read_sampling(file, "csm.generation.");
    c.depth_sampling = read_sampling(file, "csm.generation.depth_");
    return c;
}

std::vector<float> llama3_rope_factors(int head_dim, float rope_base) {
    constexpr double kFactor = 32.0, kLow = 1.0, kHigh = 4.0, kOriginal = 8192.0;
    std::vector<float> out;
    for (int i = 0; i < head_dim / 2; ++i) {
        const double frequency = std::pow(static_cast<double>(rope_base), -2.0 * i / head_dim);
        const double wavelength = 2.0 * 3.14159265358979323846 / frequency;
        double factor = 1.0;
        if (wavelength > kOriginal / kLow) {
            factor = kFactor;
        } else if (wavelength > kOriginal / kHigh) {
            const double smooth = (kOriginal / wavelength - kLow) / (kHigh - kLow);
            factor = 1.0 / ((1.0 - smooth) / kFactor + smooth);
        }
        out.push_back(static_cast<float>(factor));
    }
    return out;
}

}  // namespace csm
