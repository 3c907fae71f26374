#include "mimi/decoder.h"

#include <algorithm>

#include "mimi/chunks.h"
#include "runtime/error.h"
#include "runtime/saved_state.h"
#include "runtime/transfers.h"

namespace csm {

namespace {

// Graphs kept for reuse: one frame of each number of streams that a piece takes.
constexpr size_t kMaxGraphs = 16;

constexpr StateMagic kStreamMagic = "CSMSTRM1";
// Rotary positions are 32-bit numbers; this leaves months until they end.
constexpr int64_t kMaxPosition = int64_t{1} << 30;

size_t graph_nodes(const MimiModel& model, int streams) {
    return 64 + rvq_nodes(model.config.codebooks) + transformer_nodes(model.config.transformer) +
           kConvNodes * (1 + model.weights.decoder.convolutions() * static_cast<size_t>(streams));
}

int checked_streams(int streams) {
    if (streams < 1 || streams > MimiDecoder::kMaxStreams)
        throw ArgumentError(cat("streams is ", streams, ", expected 1 to ", MimiDecoder::kMaxStreams));
    return streams;
}

}  // namespace

MimiDecoder::MimiDecoder(std::shared_ptr<Device> device, std::shared_ptr<const MimiModel> model, int streams)
    : device_(std::move(device)),
      model_(std::move(model)),
      used_(static_cast<size_t>(checked_streams(streams))),
      touched_(used_.size()),
      pool_(device_, 8 + ConvStates::kTensors + LatentTransformer::tensors(model_->config) +
                         model_->weights.decoder.convolutions()),
      states_(pool_, streams, kMaxChunkFrames),
      transformer_(pool_, model_->config, kMaxChunkFrames * model_->config.resample_stride, streams),
      codes_(pool_.columns(GGML_TYPE_I32, kMaxChunkFrames, model_->config.codebooks)),
      samples_(pool_.columns(GGML_TYPE_F32, model_->config.frame_size(), kMaxChunkFrames)),
      graphs_(kMaxGraphs) {
    states_.add(model_->weights.upsample);
    model_->weights.decoder.add_states(states_);
    pool_.allocate();
}

std::unique_ptr<Graph> MimiDecoder::build(int streams, int frames, int q) {
    auto graph = std::make_unique<Graph>(device_, graph_nodes(*model_, streams));
    ggml_context* ctx = graph->ctx();
    const MimiWeights& w = model_->weights;
    const int64_t tokens = int64_t{streams} * frames;
    const auto decode = [&](const Rvq& rvq, int first, int count) {
        return build_rvq_decode(*graph, rvq,
                                ggml_view_2d(ctx, codes_, tokens, count, codes_->nb[1],
                                             codes_->nb[1] * static_cast<size_t>(first)));
    };
    const int semantic = std::min(q, model_->config.semantic_codebooks);
    ggml_tensor* latents = decode(w.semantic, 0, semantic);
    if (q > semantic) latents = ggml_add(ctx, latents, decode(w.acoustic, semantic, q - semantic));
    latents = ggml_reshape_3d(ctx, latents, latents->ne[0], frames, streams);
    ggml_tensor* x = build_upsample(*graph, w.upsample, states_, latents);
    x = transformer_.build(*graph, w.decoder_transformer, x);
    const int64_t n = int64_t{frames} * frame_size();
    build_seanet_decoder(
        *graph, w.decoder, states_, x,
        ggml_view_2d(ctx, samples_, n, streams, samples_->nb[1] * static_cast<size_t>(frames), 0));
    graph->allocate();
    return graph;
}

// stride: codes from stream to stream. The samples are left in samples_.
void MimiDecoder::run(const std::vector<int32_t>& streams, const int32_t* codes, int64_t stride, int frames,
                      int q) {
    const auto count = static_cast<int>(streams.size());
    Graph& graph = graphs_.get({count, frames, q}, [&] { return build(count, frames, q); });
    std::vector<int32_t> by_codebook(static_cast<size_t>(ggml_nelements(codes_)));
    for (int n = 0; n < q; ++n) {
        auto column = by_codebook.begin() + codes_->ne[0] * n;
        for (size_t i = 0; i < streams.size(); ++i)
            for (int t = 0; t < frames; ++t) *column++ = codes[static_cast<int64_t>(i) * stride + t * q + n];
    }
    upload(codes_, by_codebook.data(), sizeof(int32_t) * static_cast<size_t>(codes_->ne[0] * q));
    for (const int32_t stream : streams)
        used_[static_cast<size_t>(stream)] = touched_[static_cast<size_t>(stream)] = true;
    states_.select(streams);
    transformer_.advance(streams, frames * model_->config.resample_stride);
    graph.compute();
    graph_size_ = graph.size();
}

void MimiDecoder::check_stream(int stream) const {
    if (stream < 0 || stream >= streams())
        throw ArgumentError(cat("there is no stream ", stream, ", the decoder has 0 to ", streams() - 1));
}

void MimiDecoder::check(const std::vector<int32_t>& streams, const int32_t* codes, int64_t frames,
                        int q) const {
    std::vector<bool> named(used_.size());
    for (const int32_t stream : streams) {
        check_stream(stream);
        if (named[static_cast<size_t>(stream)])
            throw ArgumentError(cat("stream ", stream, " stands twice in one call"));
        named[static_cast<size_t>(stream)] = true;
    }
    const MimiConfig& c = model_->config;
    if (q < 1 || q > c.codebooks)
        throw ArgumentError(cat("got ", q, " codes per frame, expected 1 to ", c.codebooks));
    for (size_t i = 0; i < streams.size(); ++i) {
        for (int64_t j = 0; j < frames * q; ++j) {
            const int32_t code = codes[static_cast<int64_t>(i) * frames * q + j];
            if (code >= 0 && code < c.codebook_size) continue;
            throw ArgumentError(cat("the code of stream ", streams[i], ", frame ", j / q, ", codebook ",
                                    j % q, " is ", code, ", expected 0 to ", c.codebook_size - 1));
        }
    }
}

void MimiDecoder::decode(const std::vector<int32_t>& streams, const int32_t* codes, int64_t frames, int q,
                         float* samples) {
    check(streams, codes, frames, q);
    const int64_t frame_size = this->frame_size();
    for (size_t first = 0; first < streams.size(); first += kMaxChunkFrames) {
        const size_t count = std::min<size_t>(kMaxChunkFrames, streams.size() - first);
        const auto begin = streams.begin() + static_cast<std::ptrdiff_t>(first);
        const std::vector<int32_t> group(begin, begin + static_cast<std::ptrdiff_t>(count));
        const auto offset = static_cast<int64_t>(first) * frames;
        for (int64_t done = 0; done < frames;) {
            const int n = chunk_frames(frames - done, static_cast<int>(count));
            run(group, codes + (offset + done) * q, frames * q, n, q);
            const size_t bytes = sizeof(float) * static_cast<size_t>(n * frame_size);
            for (size_t i = 0; i < count; ++i)
                download(samples_, samples + (offset + static_cast<int64_t>(i) * frames + done) * frame_size,
                         samples_->nb[1] * static_cast<size_t>(n) * i, bytes);
            done += n;
        }
    }
}

void MimiDecoder::reset(int stream) {
    check_stream(stream);
    if (!used_[static_cast<size_t>(stream)]) return;  // its memory stays untouched
    states_.reset(stream);
    transformer_.reset(stream);
    used_[static_cast<size_t>(stream)] = false;
}

void MimiDecoder::reset() {
    for (int stream = 0; stream < streams(); ++stream) reset(stream);
}

void MimiDecoder::trim() {
    graphs_.clear();
    for (int stream = 0; stream < streams(); ++stream) {
        const auto i = static_cast<size_t>(stream);
        if (used_[i] || !touched_[i]) continue;
        states_.give_back(stream);
        transformer_.give_back(pool_, stream);
        touched_[i] = false;
    }
}

std::vector<uint8_t> MimiDecoder::save(int stream) const {
    check_stream(stream);
    const TransformerConfig& c = model_->config.transformer;
    const int64_t position = transformer_.position(stream);
    StateWriter out(kStreamMagic);
    out.value(c.layers);
    out.value(c.kv_width());
    out.value(model_->config.window);
    out.value(static_cast<uint64_t>(states_.bytes()));
    out.value(position);
    if (position > 0) {
        states_.read(stream, out.room(states_.bytes()));
        transformer_.read(stream, out.room(transformer_.bytes(position)));
    }
    return out.finish();
}

void MimiDecoder::load(int stream, const uint8_t* data, size_t bytes) {
    check_stream(stream);
    const TransformerConfig& c = model_->config.transformer;
    const std::string what = "saved stream";
    StateReader in(what, kStreamMagic, data, bytes);
    in.expect("number of layers", c.layers);
    in.expect("width of keys", c.kv_width());
    in.expect("window", model_->config.window);
    in.expect("size of the convolutions' past", static_cast<uint64_t>(states_.bytes()));
    const auto position = in.value<int64_t>();
    if (position < 0 || position > kMaxPosition)
        throw ArgumentError(cat("the saved stream is damaged: it is ", position, " latents long"));
    in.expect_left(position == 0 ? 0 : states_.bytes() + transformer_.bytes(position));
    if (position == 0) {
        reset(stream);
        return;
    }
    const uint8_t* past = in.take(states_.bytes());
    const uint8_t* keys = in.take(transformer_.bytes(position));
    check_finite(what, GGML_TYPE_F32, keys, transformer_.bytes(position));
    states_.write(stream, past, what);
    transformer_.write(stream, position, keys, what);
    used_[static_cast<size_t>(stream)] = touched_[static_cast<size_t>(stream)] = true;
}

}  // namespace csm
