#include "mimi/seanet.h"

#include <functional>

#include "runtime/error.h"

namespace csm {

namespace {

constexpr ConvOptions kNoActivation{};
constexpr ConvOptions kAfterElu{Activation::elu};

// The first layers of the decoder have many weights and few steps: streams share them. From so many steps of
// a stream on it fills the tiles of a product by itself, and weights are few: streams then go through the
// rest of the layers one after another, which keeps their activations in the cache and takes no copies.
constexpr int64_t kStepsOfTheirOwn = 64;

std::vector<ResidualBlock> request_residual(Weights& weights, const MimiConfig& c, const std::string& prefix,
                                            int& layer, int channels) {
    std::vector<ResidualBlock> blocks;
    const int narrow = channels / c.compress;
    for (int i = 0; i < c.residual_layers; ++i) {
        const std::string block = cat(prefix, layer++, ".block.");
        blocks.push_back({Conv::request(weights, block + "1.conv",
                                        {channels, narrow, c.residual_kernel, 1, c.dilation(i)}),
                          Conv::request(weights, block + "3.conv", {narrow, channels, 1})});
    }
    return blocks;
}

}  // namespace

Seanet Seanet::request_encoder(Weights& weights, const MimiConfig& c) {
    const std::string prefix = "mimi.encoder.layers.";
    int layer = 0;
    Seanet net;
    net.first = Conv::request(weights, cat(prefix, layer++, ".conv"), {1, c.num_filters, c.kernel});
    for (size_t i = c.ratios.size(); i-- > 0;) {
        Stage stage;
        const int channels = c.channels(i + 1);
        stage.residual = request_residual(weights, c, prefix, layer, channels);
        ++layer;  // an activation
        stage.resample = Conv::request(weights, cat(prefix, layer++, ".conv"),
                                       {channels, c.channels(i), 2 * c.ratios[i], c.ratios[i]});
        net.stages.push_back(std::move(stage));
    }
    ++layer;
    net.last = Conv::request(weights, cat(prefix, layer, ".conv"), {c.channels(0), c.hidden, c.last_kernel});
    return net;
}

Seanet Seanet::request_decoder(Weights& weights, const MimiConfig& c) {
    const std::string prefix = "mimi.decoder.layers.";
    int layer = 0;
    Seanet net;
    net.first = Conv::request(weights, cat(prefix, layer++, ".conv"), {c.hidden, c.channels(0), c.kernel});
    for (size_t i = 0; i < c.ratios.size(); ++i) {
        ++layer;  // an activation
        Stage stage;
        const int channels = c.channels(i + 1);
        stage.resample = Conv::request_transposed(weights, cat(prefix, layer++, ".conv"),
                                                  {c.channels(i), channels, 2 * c.ratios[i], c.ratios[i]});
        stage.residual = request_residual(weights, c, prefix, layer, channels);
        net.stages.push_back(std::move(stage));
    }
    ++layer;
    net.last = Conv::request(weights, cat(prefix, layer, ".conv"), {c.num_filters, 1, c.last_kernel});
    return net;
}

size_t Seanet::convolutions() const {
    size_t n = 2;
    for (const auto& stage : stages) n += 1 + 2 * stage.residual.size();
    return n;
}

void Seanet::add_states(ConvStates& states) const {
    states.add(first);
    for (const auto& stage : stages) {
        states.add(stage.resample);
        for (const auto& block : stage.residual) states.add(block);
    }
    states.add(last);
}

ggml_tensor* build_seanet_encoder(Graph& graph, const Seanet& net, const ConvStates& states,
                                  ggml_tensor* samples) {
    ggml_tensor* x = build_conv(graph, net.first, states, samples);
    for (const auto& stage : net.stages) {
        for (const auto& block : stage.residual) x = build_residual(graph, block, states, x);
        x = build_conv(graph, stage.resample, states, x, kAfterElu);
    }
    return build_conv(graph, net.last, states, x, kAfterElu);
}

void build_seanet_decoder(Graph& graph, const Seanet& net, const ConvStates& states, ggml_tensor* latents,
                          ggml_tensor* samples) {
    using Layer = std::function<ggml_tensor*(const StreamStates&, ggml_tensor*)>;
    std::vector<Layer> layers;
    const auto convolve = [&](const Conv& conv, const ConvOptions& options) {
        layers.push_back(
            [&](const StreamStates& s, ggml_tensor* x) { return build_conv(graph, conv, s, x, options); });
    };
    convolve(net.first, kNoActivation);
    for (const auto& stage : net.stages) {
        convolve(stage.resample, kAfterElu);
        for (const auto& block : stage.residual)
            layers.push_back(
                [&](const StreamStates& s, ggml_tensor* x) { return build_residual(graph, block, s, x); });
    }
    convolve(net.last, kAfterElu);

    ggml_context* ctx = graph.ctx();
    ggml_tensor* x = latents;
    size_t shared = 0;
    while (shared < layers.size() && x->ne[1] < kStepsOfTheirOwn) x = layers[shared++](states, x);
    for (int64_t stream = 0; stream < latents->ne[2]; ++stream) {
        ggml_tensor* y = graph.bindable(
            ggml_view_2d(ctx, x, x->ne[0], x->ne[1], x->nb[1], x->nb[2] * static_cast<size_t>(stream)));
        for (size_t i = shared; i < layers.size(); ++i)
            y = layers[i](StreamStates(states, static_cast<int>(stream)), y);
        graph.add(ggml_cpy(
            ctx, y,
            ggml_view_1d(ctx, samples, samples->ne[0], samples->nb[1] * static_cast<size_t>(stream))));
    }
}

}  // namespace csm
