#include "csm/prefill.h"

#include <algorithm>
#include <cmath>

#include "nn/embedding.h"
#include "runtime/transfers.h"

namespace csm {

namespace {

// Bounds the memory for activations where rows are computed each for itself.
constexpr int kChunk = 512;
// Rows of a block elsewhere. A GPU reads all weights for a block however few of its rows are wanted; a CPU
// computes them all.
constexpr int kGpuBlock = 64, kCpuBlock = 16;

// Rows of a block, 0 where rows are computed each for itself.
int block_rows(const Device& device, const CsmConfig& config, const KvCache& cache) {
    if (attends_itself(device, config.backbone, cache.k.front()->type)) return 0;
    return device.runs_own_nodes() ? kCpuBlock : kGpuBlock;
}

// What the graph is given, one entry per row of the block.
struct Inputs {
    std::vector<int32_t> text, audio, positions;
    std::vector<int64_t> cache_rows;
};

// Rows `lead` to lead + rows.count - 1 of the block are the wanted ones.
Inputs make_inputs(const CsmConfig& c, const CsmWeights& w, const KvCache& cache, int slot, int first,
                   const Rows& rows, int lead, int total) {
    Inputs in;
    for (int i = 0; i < total; ++i) {
        const int row = i - lead;
        const bool wanted = row >= 0 && row < rows.count;
        const bool is_audio = wanted && rows.text[row] < 0;
        in.text.push_back(is_audio ? -1 : wanted ? rows.text[row] : 0);
        for (int codebook = 0; codebook < c.codebooks; ++codebook)
            in.audio.push_back(codebook * static_cast<int32_t>(w.audio_page) +
                               (is_audio ? rows.audio[int64_t{row} * c.codebooks + codebook] : 0));
        in.positions.push_back(first + row);
        in.cache_rows.push_back(int64_t{slot} * cache.capacity + (wanted ? first + row : cache.capacity - 1));
    }
    return in;
}

// The embedding of rows from operators of ggml: text and audio apart, then brought into the order of the
// prompt.
class ComposedEmbedding {
 public:
    ComposedEmbedding(InputBlock& block, const Inputs& in, int codebooks) : codebooks_(codebooks) {
        for (size_t i = 0; i < in.text.size(); ++i) {
            if (in.text[i] >= 0) text_ids_.push_back(in.text[i]);
        }
        int32_t text = 0, audio = static_cast<int32_t>(text_ids_.size());
        for (size_t i = 0; i < in.text.size(); ++i) {
            order_.push_back(in.text[i] >= 0 ? text++ : audio++);
            const auto codes = in.audio.begin() + static_cast<int64_t>(i) * codebooks;
            if (in.text[i] < 0) audio_rows_.insert(audio_rows_.end(), codes, codes + codebooks);
        }
        const auto input = [&](const std::vector<int32_t>& values) {
            return values.empty() ? nullptr : block.input(GGML_TYPE_I32, static_cast<int64_t>(values.size()));
        };
        text_in_ = input(text_ids_);
        audio_in_ = input(audio_rows_);
        order_in_ = input(order_);
    }
    ggml_tensor* build(ggml_context* ctx, const CsmWeights& w) const {
        ggml_tensor* text = text_in_ ? ggml_get_rows(ctx, w.text_embd, text_in_) : nullptr;
        if (audio_in_ == nullptr) return text;
        ggml_tensor* audio = build_frame_embedding(ctx, w.audio_embd, audio_in_, codebooks_);
        if (text == nullptr) return audio;
        return ggml_get_rows(ctx, ggml_concat(ctx, text, audio, 1), order_in_);
    }
    void write_inputs(InputBlock& block) const {
        if (text_in_) block.write(text_in_, text_ids_);
        if (audio_in_) block.write(audio_in_, audio_rows_);
        block.write(order_in_, order_);
    }

 private:
    int codebooks_;
    std::vector<int32_t> text_ids_, audio_rows_, order_;
    ggml_tensor *text_in_, *audio_in_, *order_in_;
};

// Row i of the block sees the cache up to itself.
std::vector<ggml_fp16_t> make_mask(int keys, const Inputs& in) {
    std::vector<ggml_fp16_t> mask;
    for (const int32_t position : in.positions) {
        mask.resize(mask.size() + static_cast<size_t>(position) + 1, ggml_fp32_to_fp16(0.0f));
        mask.resize(mask.size() + static_cast<size_t>(keys - position - 1), ggml_fp32_to_fp16(-INFINITY));
    }
    return mask;
}

}  // namespace

int prefill_chunk(const Device& device, const CsmConfig& config, const KvCache& cache, int first) {
    const int block = block_rows(device, config, cache);
    return block == 0 ? kChunk : block - first % block;
}

GraphSize prefill(const std::shared_ptr<Device>& device, const CsmConfig& c, const CsmWeights& w,
                  const KvCache& cache, int slot, int first, const Rows& rows, float* logits) {
    const int block = block_rows(*device, c, cache);
    const bool alone = block == 0;  // every row for itself
    const int lead = alone ? 0 : first % block, total = alone ? rows.count : block;
    const Inputs in = make_inputs(c, w, cache, slot, first, rows, lead, total);
    const int keys = alone ? 0 : cache.bucket(first - lead + total);
    const std::vector<ggml_fp16_t> mask = alone ? std::vector<ggml_fp16_t>() : make_mask(keys, in);

    TensorPool pool(device, InputBlock::kTensors + 8);
    InputBlock inputs(pool, *device);
    const auto input = [&](ggml_type type, size_t n) { return inputs.input(type, static_cast<int64_t>(n)); };
    const bool own_embedding = device->runs_own_nodes();
    ggml_tensor* text_in = own_embedding ? input(GGML_TYPE_I32, in.text.size()) : nullptr;
    ggml_tensor* audio_in = own_embedding ? input(GGML_TYPE_I32, in.audio.size()) : nullptr;
    std::unique_ptr<ComposedEmbedding> composed;
    if (!own_embedding) composed = std::make_unique<ComposedEmbedding>(inputs, in, c.codebooks);
    ggml_tensor* positions_in = input(GGML_TYPE_I32, in.positions.size());
    ggml_tensor* cache_rows_in = input(GGML_TYPE_I64, in.cache_rows.size());
    ggml_tensor* mask_in = alone ? nullptr : inputs.input(GGML_TYPE_F16, keys, total);
    inputs.close();
    pool.allocate();

    Graph graph(device, 64 + transformer_nodes(c.backbone));
    ggml_tensor* x = composed ? composed->build(graph.ctx(), w)
                              : build_embedding(graph, w.text_embd, w.audio_embd, text_in, audio_in);
    AttentionPass pass;
    pass.cache = &cache;
    pass.first_slot = slot;
    pass.queries = total;
    pass.keys = keys;
    pass.rows = cache_rows_in;
    pass.positions = positions_in;
    pass.mask = mask_in;
    pass.causal = alone;
    x = build_transformer(graph, c.backbone, w.backbone, pass, x);
    ggml_tensor* out = nullptr;
    if (logits) {
        out = build_linear(graph, w.heads[0],
                           build_norm(graph, c.backbone, x, w.backbone_norm, nullptr, w.heads[0]));
        graph.add_output(out);
    }
    graph.allocate();

    if (composed) {
        composed->write_inputs(inputs);
    } else {
        inputs.write(text_in, in.text);
        inputs.write(audio_in, in.audio);
    }
    inputs.write(positions_in, in.positions);
    inputs.write(cache_rows_in, in.cache_rows);
    if (mask_in) inputs.write(mask_in, mask);
    inputs.send();
    graph.compute();
    if (logits)
        download(out, logits, out->nb[1] * static_cast<size_t>(lead),
                 out->nb[1] * static_cast<size_t>(rows.count));
    return graph.size();
}

}  // namespace csm
