#include "csm/frame_graph.h"

#include <algorithm>
#include <cmath>

#include "nn/embedding.h"

namespace csm {

namespace {

size_t max_nodes(const CsmConfig& c) {
    return 64 + Sampler::kSharedNodes + transformer_nodes(c.backbone) +
           static_cast<size_t>(c.codebooks) * (transformer_nodes(c.depth) + 24 + Sampler::kNodes);
}

template <typename T>
void upload_all(ggml_tensor* tensor, const std::vector<T>& values) {
    upload(tensor, values.data(), values.size() * sizeof(T));
}

}  // namespace

FrameGraph::FrameGraph(std::shared_ptr<Device> device, const CsmConfig& config, const CsmWeights& weights,
                       const KvCache& cache, Shape shape)
    : shape_(shape),
      n_codes_(config.codes),
      pool_(device, 32 + KvCache::tensors(config.depth)),
      block_(pool_, *device),
      graph_(device, max_nodes(config)),
      sampler_(block_, pool_, *device, config.codes, config.codebooks, shape.batch) {
    const int batch = shape.batch, rows = batch + shape.prompt, codebooks = config.codebooks;
    ggml_context* ctx = pool_.ctx();
    audio_rows_ = block_.input(GGML_TYPE_I32, int64_t{codebooks} * rows);
    text_ids_ = block_.input(GGML_TYPE_I32, rows);
    if (!device->runs_own_nodes()) {
        audio_gate_ = block_.input(GGML_TYPE_F32, 1, batch);
        text_gate_ = block_.input(GGML_TYPE_F32, 1, batch);
    }
    positions_ = block_.input(GGML_TYPE_I32, rows);
    cache_rows_ = block_.input(GGML_TYPE_I64, rows);
    const bool any_slots = attends_itself(*device, config.backbone, cache.k.front()->type);
    if (any_slots) {
        slots_ = block_.input(GGML_TYPE_I32, rows);
    } else {
        mask_ = block_.input(GGML_TYPE_F16, shape.keys, 1, 1, batch);
    }
    block_.close();
    codes_ = pool_.columns(GGML_TYPE_I32, batch, codebooks);
    if (shape.logits) logits_ = pool_.columns(GGML_TYPE_F32, config.codes, int64_t{codebooks} * batch);
    depth_positions_ = pool_.columns(GGML_TYPE_I32, batch, codebooks);
    depth_rows_ = pool_.columns(GGML_TYPE_I64, batch, codebooks);
    pair_positions_ = ggml_new_tensor_1d(ctx, GGML_TYPE_I32, 2 * batch);
    pair_rows_ = ggml_new_tensor_1d(ctx, GGML_TYPE_I64, 2 * batch);
    pair_mask_ = ggml_new_tensor_2d(ctx, GGML_TYPE_F16, 2, 2);
    // GPUs would convert keys and values to F16 before each attention
    const ggml_type depth_type = device->runs_own_nodes() ? GGML_TYPE_F32 : cache.k.front()->type;
    depth_cache_ = KvCache(pool_, config.depth, codebooks, batch, depth_type);
    pool_.allocate();

    const auto n = static_cast<size_t>(batch), all = static_cast<size_t>(rows),
               per_code = n * static_cast<size_t>(codebooks);
    inputs_ = {std::vector<int32_t>(all * static_cast<size_t>(codebooks)),
               std::vector<int32_t>(all),
               std::vector<int32_t>(all),
               std::vector<int32_t>(any_slots ? all : 0),
               std::vector<int64_t>(all),
               std::vector<ggml_fp16_t>(any_slots ? 0 : n * static_cast<size_t>(shape.keys)),
               std::vector<float>(2 * n * kSettingsWidth),
               std::vector<float>(per_code),
               std::vector<int32_t>(per_code, -1)};

    // constants of the depth decoder: its positions restart at 0 with every frame
    std::vector<int32_t> positions, pair_positions;
    std::vector<int64_t> depth_rows, pair_rows;
    for (int p = 0; p < codebooks; ++p) {
        for (int b = 0; b < batch; ++b) {
            positions.push_back(p);
            depth_rows.push_back(int64_t{b} * codebooks + p);
        }
    }
    for (int b = 0; b < batch; ++b) {
        for (int p = 0; p < 2; ++p) {
            pair_positions.push_back(p);
            pair_rows.push_back(int64_t{b} * codebooks + p);
        }
    }
    const ggml_fp16_t seen = ggml_fp32_to_fp16(0.0f), hidden = ggml_fp32_to_fp16(-INFINITY);
    sampler_.upload_constants();
    upload_columns(depth_positions_, positions.data(), batch);
    upload_columns(depth_rows_, depth_rows.data(), batch);
    upload_all(pair_positions_, pair_positions);
    upload_all(pair_rows_, pair_rows);
    upload_all(pair_mask_, std::vector<ggml_fp16_t>{seen, hidden, seen, seen});

    build(config, weights, cache);
    graph_.allocate();
}

// The pending row of each sequence, and the prompt's, {D, rows}. Without a node of our own each is embedded
// as text and as audio, and the gates say which of the two it is.
ggml_tensor* FrameGraph::build_input(const CsmConfig& c, const CsmWeights& w) {
    if (text_gate_ == nullptr)
        return build_embedding(graph_, w.text_embd, w.audio_embd, text_ids_, audio_rows_);
    ggml_context* ctx = graph_.ctx();
    ggml_tensor* text = ggml_get_rows(ctx, w.text_embd, text_ids_);
    ggml_tensor* audio = build_frame_embedding(ctx, w.audio_embd, audio_rows_, c.codebooks);
    return ggml_add(ctx, ggml_mul(ctx, text, text_gate_), ggml_mul(ctx, audio, audio_gate_));
}

void FrameGraph::write_embedding_inputs() {
    block_.write(audio_rows_, inputs_.audio_rows);
    if (text_gate_ == nullptr) {
        block_.write(text_ids_, inputs_.text_ids);
        return;
    }
    std::vector<int32_t> ids;
    std::vector<float> text, audio;
    for (const int32_t id : inputs_.text_ids) {
        ids.push_back(std::max(id, 0));
        text.push_back(id >= 0 ? 1.0f : 0.0f);
        audio.push_back(id >= 0 ? 0.0f : 1.0f);
    }
    block_.write(text_ids_, ids);
    block_.write(text_gate_, text);
    block_.write(audio_gate_, audio);
}

// Head and sampler of one codebook: hidden {width, batch} -> codes I32 {batch}, recorded in codes_ (and
// logits_).
ggml_tensor* FrameGraph::draw(const Sampler& sampler, ggml_tensor* hidden, int codebook, const CsmConfig& c,
                              const CsmWeights& w) {
    ggml_context* ctx = graph_.ctx();
    ggml_tensor* logits = build_linear(graph_, w.heads[static_cast<size_t>(codebook)], hidden);
    if (logits_) {
        ggml_tensor* kept = ggml_view_2d(ctx, logits_, c.codes, shape_.batch,
                                         logits_->nb[1] * static_cast<size_t>(c.codebooks),
                                         logits_->nb[1] * static_cast<size_t>(codebook));
        graph_.add(ggml_cpy(ctx, logits, kept));
    }
    ggml_tensor* codes = sampler.draw(logits, codebook);
    ggml_tensor* kept =
        ggml_view_1d(ctx, codes_, shape_.batch, codes_->nb[1] * static_cast<size_t>(codebook));
    graph_.add(ggml_cpy(ctx, codes, kept));
    return codes;
}

void FrameGraph::build(const CsmConfig& c, const CsmWeights& w, const KvCache& cache) {
    ggml_context* ctx = graph_.ctx();
    const int batch = shape_.batch;
    const Sampler sampler(graph_, sampler_, batch, shape_.needs);
    const auto columns = [&](ggml_tensor* t, int p) {
        return ggml_view_1d(ctx, t, batch, t->nb[1] * static_cast<size_t>(p));
    };
    // embeddings of drawn codes, {D, batch}
    const auto embed = [&](ggml_tensor* codes, int codebook) {
        ggml_tensor* rows = ggml_view_2d(
            ctx, w.audio_embd, c.backbone.width, c.audio_vocab, w.audio_embd->nb[1],
            w.audio_embd->nb[1] * static_cast<size_t>(w.audio_page) * static_cast<size_t>(codebook));
        return ggml_get_rows(ctx, rows, codes);
    };

    AttentionPass pass;
    pass.cache = &cache;
    pass.first_slot = shape_.first_slot;
    pass.batch = batch + shape_.prompt;  // a prompt's rows, too, each name their slot
    pass.keys = shape_.keys;
    pass.rows = cache_rows_;
    pass.positions = positions_;
    pass.slots = slots_;
    pass.mask = mask_;
    pass.causal = slots_ != nullptr;
    ggml_tensor* h = build_transformer(graph_, c.backbone, w.backbone, pass, build_input(c, w));
    if (shape_.prompt > 0) h = ggml_view_2d(ctx, h, c.backbone.width, batch, h->nb[1], 0);
    h = build_norm(graph_, c.backbone, h, w.backbone_norm, nullptr, {});
    ggml_tensor* codes = draw(sampler, h, 0, c, w);

    // positions 0 (the backbone's state) and 1 (codebook 0) go through the weights together
    pass = {};
    pass.cache = &depth_cache_;
    pass.batch = batch;
    pass.queries = 2;
    pass.keys = 2;
    pass.rows = pair_rows_;
    pass.positions = pair_positions_;
    pass.mask = pair_mask_;
    ggml_tensor* pair = ggml_concat(ctx, ggml_reshape_3d(ctx, h, c.backbone.width, 1, batch),
                                    ggml_reshape_3d(ctx, embed(codes, 0), c.backbone.width, 1, batch), 1);
    pair = build_linear(graph_, w.projection, ggml_reshape_2d(ctx, pair, c.backbone.width, 2 * batch));
    pair = build_transformer(graph_, c.depth, w.depth, pass, pair);
    ggml_tensor* x =
        graph_.bindable(ggml_view_2d(ctx, pair, c.depth.width, batch, 2 * pair->nb[1], pair->nb[1]));
    codes = draw(sampler, build_norm(graph_, c.depth, x, w.depth_norm, nullptr, w.heads[1]), 1, c, w);

    pass.queries = 1;
    pass.mask = nullptr;
    for (int p = 2; p < c.codebooks; ++p) {
        pass.keys = p + 1;
        pass.rows = columns(depth_rows_, p);
        pass.positions = columns(depth_positions_, p);
        x = build_linear(graph_, w.projection, embed(codes, p - 1));
        x = build_transformer(graph_, c.depth, w.depth, pass, x);
        const Matrix& head = w.heads[static_cast<size_t>(p)];
        codes = draw(sampler, build_norm(graph_, c.depth, x, w.depth_norm, nullptr, head), p, c, w);
    }
}

void FrameGraph::run(int32_t* codes, float* logits) {
    write_embedding_inputs();
    block_.write(positions_, inputs_.positions);
    block_.write(cache_rows_, inputs_.cache_rows);
    if (slots_) block_.write(slots_, inputs_.slots);
    if (mask_) block_.write(mask_, inputs_.mask);
    block_.write_columns(sampler_.settings, inputs_.settings, shape_.batch);
    block_.write_columns(sampler_.uniforms, inputs_.uniforms, shape_.batch);
    if (shape_.needs.forced) block_.write_columns(sampler_.forced, inputs_.forced, shape_.batch);
    block_.send();
    graph_.compute();
    drawn_.resize(inputs_.forced.size());
    download_columns(codes_, drawn_.data(), shape_.batch);
    const auto batch = static_cast<size_t>(shape_.batch), codebooks = drawn_.size() / batch;
    for (size_t b = 0; b < batch; ++b) {
        for (size_t i = 0; i < codebooks; ++i) codes[b * codebooks + i] = drawn_[i * batch + b];
    }
    if (logits_ && logits) download_columns(logits_, logits, n_codes_);
}

}  // namespace csm
