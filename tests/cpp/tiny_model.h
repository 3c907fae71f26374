// A small random checkpoint in the format of docs/GGUF.md, made on the spot, so that the core is tested from
// the file to the samples without Python. Widths are multiples of 32: every quantized type then fits.

#pragma once

#include <cmath>
#include <filesystem>
#include <memory>
#include <numeric>
#include <string>
#include <vector>

#include "checkpoint/model.h"
#include "ggml.h"
#include "gguf_bytes.h"
#include "nn/philox.h"
#include "runtime/device.h"

class TinyModel {
 public:
    static constexpr int kCodebooks = 4, kAudioVocab = 35, kCodes = 32, kTextVocab = 48, kContext = 80;
    static constexpr int kFrameSize = 2 * 3 * 2;

    // Both language models' matrices have the type; the seed says the weights.
    explicit TinyModel(ggml_type type = GGML_TYPE_F32, uint64_t seed = 1) : type_(type), seed_(seed) {
        keys();
        language_model();
        codec();
    }

    // The whole file; header_bytes() of it come before the weights.
    std::string bytes() const { return header() + data_; }
    size_t header_bytes() const { return header().size(); }

    std::shared_ptr<const csm::Model> load(int threads = 1) const {
        csm::load_backends(CSM_TEST_BACKEND_DIR);
        const TemporaryFile file("csm-tiny-");
        file.write(bytes());
        return std::make_shared<csm::Model>(std::vector<std::string>{file.path()}, "cpu", threads);
    }

 private:
    static constexpr uint64_t kWidth = 64, kDepthWidth = 32, kHidden = 32, kFilters = 4, kCodebookDim = 16;

    void key(const std::string& name, uint32_t value) {
        keys_.key(name, kU32).number(value);
        ++key_count_;
    }
    void key(const std::string& name, float value) {
        keys_.key(name, kF32).number(value);
        ++key_count_;
    }

    void transformer_keys(const std::string& prefix, uint32_t layers, uint32_t heads, uint32_t kv_heads,
                          uint32_t head_dim, uint32_t ffn) {
        key(prefix + "block_count", layers);
        key(prefix + "attention.head_count", heads);
        key(prefix + "attention.head_count_kv", kv_heads);
        key(prefix + "attention.head_dim", head_dim);
        key(prefix + "feed_forward_length", ffn);
        key(prefix + "rope.freq_base", 10000.0f);
    }

    void keys() {
        keys_.key("general.architecture", kString).string("csm");
        ++key_count_;
        key("csm.format_version", 1u);
        key("csm.codebooks", uint32_t{kCodebooks});
        key("csm.audio_vocab_size", uint32_t{kAudioVocab});
        key("csm.text_vocab_size", uint32_t{kTextVocab});
        key("csm.context_length", uint32_t{kContext});
        key("csm.bos_token_id", 46u);
        key("csm.eos_token_id", 47u);
        key("csm.backbone.embedding_length", static_cast<uint32_t>(kWidth));
        key("csm.backbone.attention.layer_norm_rms_epsilon", 1e-5f);
        transformer_keys("csm.backbone.", 2, 4, 2, 16, 96);
        key("csm.depth.embedding_length", static_cast<uint32_t>(kDepthWidth));
        key("csm.depth.attention.layer_norm_rms_epsilon", 1e-5f);
        transformer_keys("csm.depth.", 2, 2, 1, 16, 64);
        key("mimi.sample_rate", 24000u);
        key("mimi.hidden_size", static_cast<uint32_t>(kHidden));
        key("mimi.num_filters", static_cast<uint32_t>(kFilters));
        keys_.key("mimi.upsampling_ratios", kArray).number<uint32_t>(kU32).number<uint64_t>(2);
        keys_.number<uint32_t>(3).number<uint32_t>(2);
        ++key_count_;
        key("mimi.kernel_size", 5u);
        key("mimi.last_kernel_size", 3u);
        key("mimi.residual_kernel_size", 3u);
        key("mimi.num_residual_layers", 1u);
        key("mimi.dilation_growth_rate", 2u);
        key("mimi.compress", 2u);
        key("mimi.resample_stride", 2u);
        key("mimi.transformer.attention.layer_norm_epsilon", 1e-5f);
        key("mimi.transformer.attention.sliding_window", 6u);
        transformer_keys("mimi.transformer.", 2, 2, 2, 16, 48);
        key("mimi.codebook_size", uint32_t{kCodes});
        key("mimi.codebook_dim", static_cast<uint32_t>(kCodebookDim));
        key("mimi.semantic_codebooks", 1u);
    }

    // Uniform values of the given size, a different series for every tensor.
    std::vector<float> random(size_t n, double size) const {
        std::vector<float> values(n);
        for (size_t i = 0; i < n; ++i) {
            values[i] = static_cast<float>(size) *
                        (2.0f * csm::uniform(seed_, static_cast<uint32_t>(i), tensor_count_) - 1.0f);
        }
        return values;
    }

    void tensor(const std::string& name, const std::vector<uint64_t>& ne, ggml_type type,
                const std::vector<float>& values) {
        const auto columns = static_cast<int64_t>(ne[0]);
        const auto rows = static_cast<int64_t>(values.size()) / columns;
        std::string raw(ggml_row_size(type, columns) * static_cast<size_t>(rows), '\0');
        ggml_quantize_chunk(type, values.data(), raw.data(), 0, rows, columns, nullptr);
        data_.resize((data_.size() + 31) / 32 * 32);
        tensors_.tensor(name, ne, static_cast<uint32_t>(type), data_.size());
        data_ += raw;
        ++tensor_count_;
    }
    // fan_in: how many products make up an output; the outputs are then about as large as the inputs.
    void matrix(const std::string& name, const std::vector<uint64_t>& ne, ggml_type type, uint64_t fan_in) {
        const uint64_t n = std::accumulate(ne.begin(), ne.end(), uint64_t{1}, std::multiplies<>());
        tensor(name, ne, type, random(n, std::sqrt(3.0 / static_cast<double>(fan_in))));
    }
    void language_matrix(const std::string& name, const std::vector<uint64_t>& ne) {
        matrix(name, ne, type_, ne[0]);
    }
    void constant(const std::string& name, uint64_t n, float value) {
        tensor(name, {n}, GGML_TYPE_F32, std::vector<float>(n, value));
    }

    void language_blocks(const std::string& part, uint64_t width, uint64_t q, uint64_t kv, uint64_t ffn) {
        for (int layer = 0; layer < 2; ++layer) {
            const std::string block = part + ".blk." + std::to_string(layer) + ".";
            constant(block + "attn_norm.weight", width, 1.0f);
            constant(block + "ffn_norm.weight", width, 1.0f);
            language_matrix(block + "attn_q.weight", {width, q});
            language_matrix(block + "attn_k.weight", {width, kv});
            language_matrix(block + "attn_v.weight", {width, kv});
            language_matrix(block + "attn_output.weight", {q, width});
            language_matrix(block + "ffn_gate.weight", {width, ffn});
            language_matrix(block + "ffn_up.weight", {width, ffn});
            language_matrix(block + "ffn_down.weight", {ffn, width});
        }
        constant(part + ".output_norm.weight", width, 1.0f);
        constant(part + ".rope_freqs.weight", 8, 1.0f);
    }

    void language_model() {
        language_matrix("text_embd.weight", {kWidth, kTextVocab});
        language_matrix("audio_embd.weight", {kWidth, kCodebooks * kAudioVocab});
        language_blocks("backbone", kWidth, 64, 32, 96);
        language_matrix("codebook0_head.weight", {kWidth, kAudioVocab});
        language_matrix("depth.projection.weight", {kWidth, kDepthWidth});
        language_blocks("depth", kDepthWidth, 32, 16, 64);
        language_matrix("depth.heads.weight", {kDepthWidth, kAudioVocab, kCodebooks - 1});
    }

    void codec_transformer(const std::string& part) {
        for (int layer = 0; layer < 2; ++layer) {
            const std::string block = part + ".blk." + std::to_string(layer) + ".";
            for (const char* norm : {"attn_norm", "ffn_norm"}) {
                constant(block + norm + ".weight", kHidden, 1.0f);
                constant(block + norm + ".bias", kHidden, 0.1f);
            }
            for (const char* name : {"attn_q", "attn_k", "attn_v", "attn_output"})
                matrix(block + name + ".weight", {kHidden, kHidden}, GGML_TYPE_F32, kHidden);
            matrix(block + "ffn_up.weight", {kHidden, 48}, GGML_TYPE_F32, kHidden);
            matrix(block + "ffn_down.weight", {48, kHidden}, GGML_TYPE_F32, 48);
            constant(block + "attn_scale.weight", kHidden, 0.5f);
            constant(block + "ffn_scale.weight", kHidden, 0.5f);
        }
    }

    // Weights {k, in, out}, or {k, out, in} of a transposed one, of which each output sees kernel / stride
    // entries.
    void conv(const std::string& name, uint64_t kernel, uint64_t in, uint64_t out,
              uint64_t transposed_stride = 0) {
        if (transposed_stride == 0) {
            matrix(name + ".conv.weight", {kernel, in, out}, GGML_TYPE_F32, kernel * in);
        } else {
            matrix(name + ".conv.weight", {kernel, out, in}, GGML_TYPE_F32, kernel / transposed_stride * in);
        }
        tensor(name + ".conv.bias", {out}, GGML_TYPE_F32, random(out, 0.1));
    }
    void residual(const std::string& layer, uint64_t channels) {
        conv(layer + ".block.1", 3, channels, channels / 2);
        conv(layer + ".block.3", 1, channels / 2, channels);
    }

    void codec() {
        codec_transformer("mimi.encoder_transformer");
        codec_transformer("mimi.decoder_transformer");
        // Layers are numbered with the activations between them.
        const std::string encoder = "mimi.encoder.layers.", decoder = "mimi.decoder.layers.";
        conv(encoder + "0", 5, 1, kFilters);
        residual(encoder + "1", kFilters);
        conv(encoder + "3", 4, kFilters, 2 * kFilters);
        residual(encoder + "4", 2 * kFilters);
        conv(encoder + "6", 6, 2 * kFilters, 4 * kFilters);
        conv(encoder + "8", 3, 4 * kFilters, kHidden);
        conv(decoder + "0", 5, kHidden, 4 * kFilters);
        conv(decoder + "2", 6, 4 * kFilters, 2 * kFilters, 3);
        residual(decoder + "3", 2 * kFilters);
        conv(decoder + "5", 4, 2 * kFilters, kFilters, 2);
        residual(decoder + "6", kFilters);
        conv(decoder + "8", 3, kFilters, 1);
        matrix("mimi.downsample.conv.weight", {4, kHidden, kHidden}, GGML_TYPE_F32, 4 * kHidden);
        matrix("mimi.upsample.conv.weight", {4, 1, kHidden}, GGML_TYPE_F32, 2);
        for (const std::string branch : {"semantic", "acoustic"}) {
            const std::string prefix = "mimi.quantizer." + branch + ".";
            matrix(prefix + "input_proj.weight", {kHidden, kCodebookDim}, GGML_TYPE_F32, kHidden);
            matrix(prefix + "output_proj.weight", {kCodebookDim, kHidden}, GGML_TYPE_F32, kCodebookDim);
            const int layers = branch == "semantic" ? 1 : kCodebooks - 1;
            for (int layer = 0; layer < layers; ++layer) {
                matrix(prefix + "layers." + std::to_string(layer) + ".codebook", {kCodebookDim, kCodes},
                       GGML_TYPE_F32, 3);
            }
        }
    }

    std::string header() const {
        GgufBytes out;
        out.header(tensor_count_, key_count_);
        out.append(keys_).append(tensors_).pad();
        return out.bytes();
    }

    ggml_type type_;
    uint64_t seed_;
    GgufBytes keys_, tensors_;
    uint64_t key_count_ = 0;
    uint32_t tensor_count_ = 0;
    std::string data_;
};
