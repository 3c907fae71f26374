#include "nn/conv.h"

#include <algorithm>

#include "runtime/kernels.h"

namespace csm {

Conv Conv::request(Weights& weights, const std::string& name, const Shape& s) {
    Conv conv;
    conv.in = s.in;
    conv.out = s.out;
    conv.kernel = s.kernel;
    conv.stride = s.stride;
    conv.dilation = s.dilation;
    const auto taps = static_cast<size_t>(s.kernel), in = static_cast<size_t>(s.in),
               out = static_cast<size_t>(s.out);
    conv.weight = weights.f32_matrix(name + ".weight", {s.kernel, s.in, s.out}, int64_t{s.kernel} * s.in,
                                     s.out, [=](const float* from, float* to) {
                                         for (size_t o = 0; o < out; ++o)
                                             for (size_t k = 0; k < taps; ++k)
                                                 for (size_t i = 0; i < in; ++i)
                                                     *to++ = from[(o * in + i) * taps + k];
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
    conv.weight = weights.f32_matrix(
        name + ".weight", {s.kernel, s.out, s.in}, int64_t{conv.kernel} * s.in, int64_t{s.stride} * s.out,
        [=](const float* from, float* to) {
            for (size_t j = 0; j < stride; ++j)
                for (size_t o = 0; o < out; ++o)
                    for (size_t back = taps / stride; back-- > 0;)  // the oldest step comes first
                        for (size_t i = 0; i < in; ++i)
                            *to++ = from[(i * out + o) * taps + back * stride + j];
        });
    if (s.bias) {
        conv.bias = weights.f32(name + ".bias", {s.out}, {int64_t{s.stride} * s.out},
                                [=](const float* from, float* to) {
                                    for (size_t j = 0; j < stride; ++j) to = std::copy(from, from + out, to);
                                });
    }
    return conv;
}

DepthwiseUpsample DepthwiseUpsample::request(Weights& weights, const std::string& name, int channels,
                                             int stride) {
    DepthwiseUpsample up;
    up.channels = channels;
    up.stride = stride;
    const auto taps = 2 * static_cast<size_t>(stride), n = static_cast<size_t>(channels);
    up.weight = weights.f32(name + ".weight", {2 * stride, 1, channels}, {channels, stride, 2},
                            [=](const float* from, float* to) {
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

// Whether the steps around convolutions are nodes of our own.
bool own_nodes(Graph& graph) {
    return kHaveKernels && graph.device().is_cpu();
}

template <Activation activation>
void run_join(ggml_tensor* dst, int ith, int nth, void* team) {
    const ggml_tensor *x = dst->src[0], *past = dst->src[1];
    const auto* from = static_cast<const float*>(x->data);
    auto* to = static_cast<float*>(dst->data);
    const int64_t n = ggml_nelements(x), n_past = past != nullptr ? ggml_nelements(past) : 0;
    if (ith == 0) {
        if (past != nullptr) std::copy_n(static_cast<const float*>(past->data), n_past, to);
        std::fill(to + n_past + n, to + ggml_nelements(dst), 0.0f);
    }
    to += n_past;
    constexpr int64_t kBlock = 4096;
    divide(*static_cast<ThreadTeam*>(team), (n + kBlock - 1) / kBlock, ith, nth,
           [&](int64_t first, int64_t last) {
               first *= kBlock;
               const int64_t count = std::min(last * kBlock, n) - first;
               if (activation == Activation::elu) {
                   kernels().elu(from + first, count, to + first);
               } else {
                   std::copy_n(from + first, count, to + first);
               }
           });
}

// past {channels, any} or null, activation(x {channels, steps}), and zeros for `missing` steps, behind one
// another.
ggml_tensor* build_join(Graph& graph, ggml_tensor* past, ggml_tensor* x, int64_t missing,
                        Activation activation) {
    ggml_context* ctx = graph.ctx();
    if (past == nullptr && missing == 0 && activation == Activation::none) return x;
    if (own_nodes(graph)) {
        ggml_tensor* args[] = {x, past};
        return ggml_custom_4d(
            ctx, GGML_TYPE_F32, x->ne[0], (past ? past->ne[1] : 0) + x->ne[1] + missing, 1, 1, args, 2,
            activation == Activation::elu ? run_join<Activation::elu> : run_join<Activation::none>,
            GGML_N_TASKS_MAX, &graph.device().team());
    }
    if (activation == Activation::elu) x = ggml_elu(ctx, x);
    if (past != nullptr) x = ggml_concat(ctx, past, x, 1);
    return missing > 0 ? ggml_pad(ctx, x, 0, static_cast<int>(missing), 0, 0) : x;
}

// Keeps the last steps before the first `end` of joined steps as the past of the next call.
void keep_past(Graph& graph, ggml_tensor* past, ggml_tensor* joined, int64_t end) {
    if (past == nullptr) return;
    graph.add(ggml_cpy(graph.ctx(), steps_view(graph.ctx(), joined, end - past->ne[1], past->ne[1]), past));
}

// The windows of x as a matrix {kernel * in, windows}, or as {in, kernel, windows} where the taps of a window
// do not lie side by side. Windows overlap: ggml's own functions refuse views that hold more than what they
// look at.
ggml_tensor* windows_view(ggml_context* ctx, const Conv& conv, ggml_tensor* x, int64_t windows) {
    ggml_tensor* view = ggml_view_3d(ctx, x, x->ne[0], x->ne[1], 1, x->nb[1], x->nb[2], 0);
    const size_t to_next_window = x->nb[1] * static_cast<size_t>(conv.stride);
    if (conv.dilation == 1) {
        view->ne[0] = int64_t{conv.kernel} * conv.in;
        view->ne[1] = windows;
        view->nb[1] = to_next_window;
        view->nb[2] = view->nb[3] = to_next_window * static_cast<size_t>(windows);
    } else {
        view->ne[1] = conv.kernel;
        view->ne[2] = windows;
        view->nb[1] = x->nb[1] * static_cast<size_t>(conv.dilation);
        view->nb[2] = to_next_window;
        view->nb[3] = to_next_window * static_cast<size_t>(windows);
    }
    return view;
}

}  // namespace

ggml_tensor* build_conv(Graph& graph, const Conv& conv, const ConvStates& states, ggml_tensor* x,
                        const ConvOptions& options) {
    ggml_context* ctx = graph.ctx();
    const int64_t windows = (x->ne[1] + conv.stride - 1) / conv.stride;
    int64_t missing = windows * conv.stride - x->ne[1];
    if (missing > 0 && options.padding == Padding::replicate) {
        ggml_tensor* last = steps_view(ctx, x, x->ne[1] - 1, 1);
        x = ggml_concat(ctx, x, ggml_repeat_4d(ctx, last, x->ne[0], missing, 1, 1), 1);
        missing = 0;
    }
    ggml_tensor* past = states.of(&conv);
    ggml_tensor* joined = build_join(graph, past, x, missing, options.before);
    keep_past(graph, past, joined, joined->ne[1] - missing);

    ggml_tensor* columns = windows_view(ctx, conv, joined, windows);
    if (!conv.weight.panels || conv.dilation > 1)
        columns = ggml_reshape_2d(ctx, ggml_cont(ctx, columns), conv.weight.columns, windows);
    Epilogue epilogue;
    epilogue.bias = conv.bias;
    epilogue.residual = options.residual;
    epilogue.activation = options.after;
    ggml_tensor* y = build_linear(graph, conv.weight, columns, epilogue);
    return ggml_reshape_2d(ctx, y, conv.out, windows * conv.upsample);
}

void build_replicated_past(Graph& graph, const Conv& conv, const ConvStates& states, ggml_tensor* x,
                           ggml_tensor* start) {
    ggml_tensor* state = states.of(&conv);
    if (state == nullptr) return;
    ggml_context* ctx = graph.ctx();
    // the past is zero at the start of a stream
    ggml_tensor* first = ggml_repeat_4d(ctx, steps_view(ctx, x, 0, 1), state->ne[0], state->ne[1], 1, 1);
    graph.add(ggml_cpy(ctx, ggml_add(ctx, state, ggml_mul(ctx, first, start)), state));
}

ggml_tensor* build_residual(Graph& graph, const ResidualBlock& block, const ConvStates& states,
                            ggml_tensor* x) {
    ConvOptions a, b;
    a.before = a.after = Activation::elu;
    b.residual = x;
    return build_conv(graph, block.b, states, build_conv(graph, block.a, states, x, a), b);
}

ggml_tensor* build_upsample(Graph& graph, const DepthwiseUpsample& up, const ConvStates& states,
                            ggml_tensor* x) {
    ggml_context* ctx = graph.ctx();
    const int64_t steps = x->ne[1];
    ggml_tensor* past = states.of(&up);
    ggml_tensor* joined = build_join(graph, past, x, 0, Activation::none);
    keep_past(graph, past, joined, joined->ne[1]);
    const auto tap = [&](int64_t back) {
        ggml_tensor* w = ggml_view_2d(ctx, up.weight, up.channels, up.stride, up.weight->nb[1],
                                      up.weight->nb[2] * static_cast<size_t>(back));
        ggml_tensor* in = ggml_view_3d(ctx, joined, up.channels, 1, steps, joined->nb[1], joined->nb[1],
                                       joined->nb[1] * static_cast<size_t>(1 - back));
        return ggml_mul(ctx, ggml_repeat_4d(ctx, in, up.channels, up.stride, steps, 1), w);
    };
    return ggml_reshape_2d(ctx, ggml_add(ctx, tap(0), tap(1)), up.channels, steps * up.stride);
}

}  // namespace csm
