#include "mimi/decoder.h"

#include "mimi/chunks.h"
#include "runtime/error.h"

namespace csm {

namespace {

size_t graph_nodes(const MimiModel& model) {
    return 64 + rvq_nodes(model.config.codebooks) + transformer_nodes(model.config.transformer) +
           kConvNodes * (1 + model.weights.decoder.convolutions());
}

}  // namespace

MimiDecoder::MimiDecoder(std::shared_ptr<Device> device, std::shared_ptr<const MimiModel> model)
    : device_(std::move(device)),
      model_(std::move(model)),
      pool_(device_, 8 + LatentTransformer::tensors(model_->config) + model_->weights.decoder.convolutions()),
      states_(pool_),
      transformer_(pool_, model_->config, kMaxChunkFrames * model_->config.resample_stride),
      codes_(ggml_new_tensor_1d(pool_.ctx(), GGML_TYPE_I32,
                                int64_t{model_->config.codebooks} * kMaxChunkFrames)) {
    states_.add(model_->weights.upsample);
    model_->weights.decoder.add_states(states_);
    pool_.allocate();
}

MimiDecoder::Step& MimiDecoder::step(int frames, int q) {
    if (q != q_) steps_.clear();  // a stream hardly ever changes its number of codebooks
    q_ = q;
    Step& step = steps_[frames];
    if (step.graph) return step;
    auto graph = std::make_unique<Graph>(device_, graph_nodes(*model_));
    ggml_context* ctx = graph->ctx();
    const MimiWeights& w = model_->weights;
    const auto decode = [&](const Rvq& rvq, int first, int count) {
        const size_t step = sizeof(int32_t) * static_cast<size_t>(frames);
        return build_rvq_decode(
            *graph, rvq, ggml_view_2d(ctx, codes_, frames, count, step, step * static_cast<size_t>(first)));
    };
    const int semantic = std::min(q, model_->config.semantic_codebooks);
    ggml_tensor* latents = decode(w.semantic, 0, semantic);
    if (q > semantic) latents = ggml_add(ctx, latents, decode(w.acoustic, semantic, q - semantic));
    ggml_tensor* x = build_upsample(*graph, w.upsample, states_, latents);
    x = transformer_.build(*graph, w.decoder_transformer, x);
    step.samples = build_seanet_decoder(*graph, w.decoder, states_, x);
    graph->add_output(step.samples);
    graph->allocate();
    step.graph = std::move(graph);
    return step;
}

void MimiDecoder::run(const int32_t* codes, int frames, int q, float* samples) {
    Step& step = this->step(frames, q);
    const MimiConfig& c = model_->config;
    std::vector<int32_t> by_codebook;
    for (int n = 0; n < q; ++n)
        for (int t = 0; t < frames; ++t) by_codebook.push_back(codes[t * q + n]);
    upload(codes_, by_codebook.data(), by_codebook.size() * sizeof(int32_t));
    transformer_.advance(frames * c.resample_stride);
    step.graph->compute();
    download(step.samples, samples,
             sizeof(float) * static_cast<size_t>(frames) * static_cast<size_t>(c.frame_size()));
}

void MimiDecoder::decode(const int32_t* codes, int64_t frames, int q, float* samples) {
    const MimiConfig& c = model_->config;
    if (q < 1 || q > c.codebooks)
        throw ArgumentError(cat("got ", q, " codes per frame, expected 1 to ", c.codebooks));
    for (int64_t i = 0; i < frames * q; ++i) {
        if (codes[i] < 0 || codes[i] >= c.codebook_size) {
            throw ArgumentError(cat("the code of frame ", i / q, ", codebook ", i % q, " is ", codes[i],
                                    ", expected 0 to ", c.codebook_size - 1));
        }
    }
    for (int64_t done = 0; done < frames;) {
        const int n = chunk_frames(frames - done);
        run(codes + done * q, n, q, samples + done * c.frame_size());
        done += n;
    }
}

void MimiDecoder::reset() {
    states_.reset();
    transformer_.reset();
}

}  // namespace csm
