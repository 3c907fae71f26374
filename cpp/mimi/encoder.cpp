#include "mimi/encoder.h"

#include "mimi/chunks.h"
#include "runtime/error.h"
#include "runtime/transfers.h"

namespace csm {

namespace {

// Graphs kept for reuse: the sizes of whole pieces, and one for the end of a stream.
constexpr size_t kMaxGraphs = 6;

size_t graph_nodes(const MimiModel& model) {
    return 64 + transformer_nodes(model.config.transformer) +
           kConvNodes * (2 + model.weights.encoder.convolutions()) + rvq_nodes(model.config.codebooks);
}

std::shared_ptr<const MimiModel> with_encoder(std::shared_ptr<const MimiModel> model) {
    if (!model->weights.has_encoder) {
        throw ArgumentError(
            "the model file holds no Mimi encoder: audio cannot be encoded; convert the checkpoint with its "
            "encoder");
    }
    return model;
}

}  // namespace

MimiEncoder::MimiEncoder(std::shared_ptr<Device> device, std::shared_ptr<const MimiModel> model)
    : device_(std::move(device)),
      model_(with_encoder(std::move(model))),
      pool_(device_, 16 + ConvStates::kTensors + LatentTransformer::tensors(model_->config) +
                         model_->weights.encoder.convolutions()),
      states_(pool_),
      transformer_(pool_, model_->config, kMaxChunkFrames * model_->config.resample_stride),
      samples_(ggml_new_tensor_2d(pool_.ctx(), GGML_TYPE_F32, 1,
                                  int64_t{model_->config.frame_size()} * kMaxChunkFrames)),
      start_(ggml_new_tensor_1d(pool_.ctx(), GGML_TYPE_F32, 1)),
      codes_(pool_.columns(GGML_TYPE_I32, kMaxChunkFrames, model_->config.codebooks)),
      latents_(ggml_new_tensor_2d(pool_.ctx(), GGML_TYPE_F32, model_->config.hidden, kMaxChunkFrames)),
      graphs_(kMaxGraphs) {
    model_->weights.encoder.add_states(states_);
    states_.add(model_->weights.downsample);
    pool_.allocate();
}

std::unique_ptr<Graph> MimiEncoder::build(int64_t n) {
    auto graph = std::make_unique<Graph>(device_, graph_nodes(*model_));
    ggml_context* ctx = graph->ctx();
    const MimiWeights& w = model_->weights;
    ggml_tensor* x = build_seanet_encoder(*graph, w.encoder, states_,
                                          ggml_view_2d(ctx, samples_, 1, n, samples_->nb[1], 0));
    x = transformer_.build(*graph, w.encoder_transformer, x);
    build_replicated_past(*graph, w.downsample, states_, x, start_);
    ConvOptions options;
    options.padding = Padding::replicate;
    x = build_conv(*graph, w.downsample, states_, x, options);
    const int64_t frames = x->ne[1];
    graph->add(ggml_cpy(ctx, x, ggml_view_2d(ctx, latents_, x->ne[0], frames, latents_->nb[1], 0)));
    const auto rows = [&](int first, int count) {
        return ggml_view_2d(ctx, codes_, frames, count, codes_->nb[1],
                            codes_->nb[1] * static_cast<size_t>(first));
    };
    build_rvq_encode(*graph, w.semantic, x, rows(0, model_->config.semantic_codebooks));
    build_rvq_encode(*graph, w.acoustic, x,
                     rows(model_->config.semantic_codebooks, model_->config.acoustic_codebooks()));
    graph->allocate();
    return graph;
}

void MimiEncoder::run(Graph& graph, const float* samples, int64_t n, int32_t* codes, float* latents) {
    const MimiConfig& c = model_->config;
    const auto frames = static_cast<size_t>(this->frames(n)), q = static_cast<size_t>(c.codebooks);
    const float start = started_ ? 0.0f : 1.0f;
    upload(samples_, samples, sizeof(float) * static_cast<size_t>(n));
    upload(start_, &start, sizeof start);
    transformer_.advance({0}, static_cast<int>((n + c.latent_size() - 1) / c.latent_size()));
    graph.compute();
    graph_size_ = graph.size();
    started_ = true;
    std::vector<int32_t> by_codebook(static_cast<size_t>(ggml_nelements(codes_)));
    const auto column = static_cast<size_t>(codes_->ne[0]);
    download(codes_, by_codebook.data(), ggml_nbytes(codes_));
    for (size_t t = 0; t < frames; ++t) {
        for (size_t i = 0; i < q; ++i) codes[t * q + i] = by_codebook[i * column + t];
    }
    if (latents != nullptr)
        download(latents_, latents, sizeof(float) * frames * static_cast<size_t>(c.hidden));
}

void MimiEncoder::encode(const float* samples, int64_t n, bool final, int32_t* codes, float* latents) {
    const MimiConfig& c = model_->config;
    if (!final && n % frame_size() != 0) {
        throw ArgumentError(cat("got ", n, " samples, expected a multiple of ", frame_size(),
                                " unless the stream ends with them"));
    }
    while (n > 0) {
        int64_t frames = 1, taken = n;
        if (n >= frame_size()) {
            frames = chunk_frames(n / frame_size());
            taken = frames * frame_size();
        }
        run(graphs_.get(taken, [&] { return build(taken); }), samples, taken, codes, latents);
        n -= taken;
        samples += taken;
        codes += frames * c.codebooks;
        if (latents != nullptr) latents += frames * c.hidden;
    }
    if (final) reset();
}

void MimiEncoder::reset() {
    states_.reset();
    transformer_.reset(0);
    started_ = false;
}

}  // namespace csm
