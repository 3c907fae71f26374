#include "nn/conv.h"

#include "runtime/error.h"

namespace csm {

Conv Conv::request(Weights& weights, const std::string& name, const Shape& s) {
    Conv conv;
    conv.in = s.in;
    conv.out = s.out;
    conv.kernel = s.kernel;
    conv.stride = s.stride;
    conv.dilation = s.dilation;
    const auto taps = static_cast<size_t>(s.kernel), in = static_cast<size_t>(s.in), out = static_cast<size_t>(s.out);
    conv.weight = weights.f32(name + ".weight", {s.kernel, s.in, s.out}, {int64_t{s.kernel} * s.in, s.out},
                              [=](const float* from, float* to) {
                                  for (size_t o = 0; o < out; ++o)
                                      for (size_t k = 0; k < taps; ++k)
                                          for (size_t i = 0; i < in; ++i) *to++ = from[(o * in + i) * taps + k];
                              });
    if (s.bias) conv.bias = weights.vector(name + ".bias", s.out);
    return conv;
}

Conv Conv::request_transposed(Weights& weights, const std::string& name, const Shape& s) {
    Conv conv;
    conv.in = s.in;
    conv.out = s.out;
    conv.kernel = s.kernel / s.stride;
    conv.upsample = s.stride;
    const auto taps = static_cast<size_t>(s.kernel), stride = static_cast<size_t>(s.stride);
    const auto in = static_cast<size_t>(s.in), out = static_cast<size_t>(s.out);
    conv.weight = weights.f32(name + ".weight", {s.kernel, s.out, s.in},
                              {int64_t{conv.kernel} * s.in, int64_t{s.stride} * s.out}, [=](const float* from, float* to) {
                                  for (size_t j = 0; j < stride; ++j)
                                      for (size_t o = 0; o < out; ++o)
                                          for (size_t back = taps / stride; back-- > 0;)  // the oldest step comes first
                                              for (size_t i = 0; i < in; ++i)
                                                  *to++ = from[(i * out + o) * taps + back * stride + j];
                              });
    if (s.bias) {
        conv.bias = weights.f32(name + ".bias", {s.out}, {int64_t{s.stride} * s.out}, [=](const float* from, float* to) {
            for (size_t j = 0; j < stride; ++j) to = std::copy(from, from + out, to);
        });
    }
    return conv;
}

DepthwiseUpsample DepthwiseUpsample::request(Weights& weights, const std::string& name, int channels, int stride) {
    DepthwiseUpsample up;
    up.channels = channels;
    up.stride = stride;
    const auto taps = 2 * static_cast<size_t>(stride), n = static_cast<size_t>(channels);
    up.weight = weights.f32(name + ".weight", {2 * stride, 1, channels}, {channels, stride, 2}, [=](const float* from, float* to) {
        for (size_t k = 0; k < taps; ++k)
            for (size_t c = 0; c < n; ++c) *to++ = from[c * taps + k];
    });
    return up;
}

void ConvStates::add(const ResidualBlock& block) {
    add(block.a);
    add(block.b);
}

void ConvStates::add(const void* layer, int channels, int steps) {
    if (steps > 0) states_[layer] = ggml_new_tensor_2d(pool_.ctx(), GGML_TYPE_F32, channels, steps);
}

ggml_tensor* ConvStates::of(const void* layer) const {
    const auto it = states_.find(layer);
    return it == states_.end() ? nullptr : it->second;
}

void ConvStates::reset() {
    for (const auto& [layer, state] : states_) ggml_backend_tensor_memset(state, 0, 0, ggml_nbytes(state));
}

namespace {

ggml_tensor* steps_view(ggml_context* ctx, ggml_tensor* x, int64_t first, int64_t steps) {
    return ggml_view_2d(ctx, x, x->ne[0], steps, x->nb[1], x->nb[1] * static_cast<size_t>(first));
}

// Sets the stream's past in front of x and keeps the end of both as the past of the next call.
ggml_tensor* prepend_past(Graph& graph, ggml_tensor* state, ggml_tensor* x) {
    if (state == nullptr) return x;
    ggml_context* ctx = graph.ctx();
    ggml_tensor* joined = ggml_concat(ctx, state, x, 1);
    graph.add(ggml_cpy(ctx, steps_view(ctx, joined, x->ne[1], state->ne[1]), state));
    return joined;
}

ggml_tensor* append_end(ggml_context* ctx, ggml_tensor* x, int64_t steps, Padding padding) {
    if (steps == 0) return x;
    if (padding == Padding::zero) return ggml_pad(ctx, x, 0, static_cast<int>(steps), 0, 0);
    ggml_tensor* last = steps_view(ctx, x, x->ne[1] - 1, 1);
    return ggml_concat(ctx, x, ggml_repeat_4d(ctx, last, x->ne[0], steps, 1, 1), 1);
}

// {in, kernel, windows}. The windows overlap: ggml's own view functions refuse views larger than what they look at.
ggml_tensor* windows_view(ggml_context* ctx, const Conv& conv, ggml_tensor* x, int64_t windows) {
    ggml_tensor* view = ggml_view_3d(ctx, x, x->ne[0], x->ne[1], 1, x->nb[1], x->nb[2], 0);
    view->ne[1] = conv.kernel;
    view->ne[2] = windows;
    view->nb[1] = x->nb[1] * static_cast<size_t>(conv.dilation);
    view->nb[2] = x->nb[1] * static_cast<size_t>(conv.stride);
    view->nb[3] = view->nb[2] * static_cast<size_t>(windows);
    return view;
}

}  // namespace

ggml_tensor* build_conv(Graph& graph, const Conv& conv, const ConvStates& states, ggml_tensor* x, Activation before, Padding padding) {
    ggml_context* ctx = graph.ctx();
    if (before == Activation::elu) x = ggml_elu(ctx, x);
    const int64_t windows = (x->ne[1] + conv.stride - 1) / conv.stride;
    const int64_t missing = windows * conv.stride - x->ne[1];
    x = append_end(ctx, prepend_past(graph, states.of(&conv), x), missing, padding);

    ggml_tensor* columns = windows_view(ctx, conv, x, windows);
    columns = ggml_reshape_2d(ctx, ggml_cont(ctx, columns), int64_t{conv.kernel} * conv.in, windows);
    ggml_tensor* y = ggml_mul_mat(ctx, conv.weight, columns);
    if (conv.bias != nullptr) y = ggml_add(ctx, y, conv.bias);
    return ggml_reshape_2d(ctx, y, conv.out, windows * conv.upsample);
}

void build_replicated_past(Graph& graph, const Conv& conv, const ConvStates& states, ggml_tensor* x, ggml_tensor* start) {
    ggml_tensor* state = states.of(&conv);
    if (state == nullptr) return;
    ggml_context* ctx = graph.ctx();
    // the past is zero at the start of a stream
    ggml_tensor* first = ggml_repeat_4d(ctx, steps_view(ctx, x, 0, 1), state->ne[0], state->ne[1], 1, 1);
    graph.add(ggml_cpy(ctx, ggml_add(ctx, state, ggml_mul(ctx, first, start)), state));
}

ggml_tensor* build_residual(Graph& graph, const ResidualBlock& block, const ConvStates& states, ggml_tensor* x) {
    ggml_tensor* y = build_conv(graph, block.a, states, x, Activation::elu);
    return ggml_add(graph.ctx(), x, build_conv(graph, block.b, states, y, Activation::elu));
}

ggml_tensor* build_upsample(Graph& graph, const DepthwiseUpsample& up, const ConvStates& states, ggml_tensor* x) {
    ggml_context* ctx = graph.ctx();
    const int64_t steps = x->ne[1];
    ggml_tensor* joined = prepend_past(graph, states.of(&up), x);
    const auto tap = [&](int64_t back) {
        ggml_tensor* w = ggml_view_2d(ctx, up.weight, up.channels, up.stride, up.weight->nb[1], up.weight->nb[2] * static_cast<size_t>(back));
        ggml_tensor* in = ggml_view_3d(ctx, joined, up.channels, 1, steps, joined->nb[1], joined->nb[1],
                                       joined->nb[1] * static_cast<size_t>(1 - back));
        return ggml_mul(ctx, ggml_repeat_4d(ctx, in, up.channels, up.stride, steps, 1), w);
    };
    return ggml_reshape_2d(ctx, ggml_add(ctx, tap(0), tap(1)), up.channels, steps * up.stride);
}

}  // namespace csm
