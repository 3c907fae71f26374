#include "nn/conv.h"

#include <algorithm>

#include "kernels/kernels.h"
#include "runtime/saved_state.h"
#include "runtime/transfers.h"

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
    conv.weight = weights.f32_matrix(
        name + ".weight", {s.kernel, s.in, s.out}, int64_t{s.kernel} * s.in, s.out,
        [=](const float* from, float* to) {
            for (size_t o = 0; o < out; ++o)
                for (size_t k = 0; k < taps; ++k)
                    for (size_t i = 0; i < in; ++i) *to++ = from[(o * in + i) * taps + k];
        },
        true);
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
        },
        true);
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
    if (steps > 0)
        states_.emplace_back(
            layer, ggml_new_tensor_2d(pool_.ctx(), GGML_TYPE_F32, int64_t{channels} * steps, streams_));
}

ggml_tensor* ConvStates::of(const void* layer) const {
    const auto it = std::find_if(states_.begin(), states_.end(),
                                 [layer](const auto& state) { return state.first == layer; });
    return it == states_.end() ? nullptr : it->second;
}

void ConvStates::select(const std::vector<int32_t>& streams) {
    upload(selected_, streams.data(), streams.size() * sizeof(int32_t));
    std::vector<int32_t> each = streams;
    each.resize(static_cast<size_t>(each_selected_->ne[1]));
    upload_columns(each_selected_, each.data(), 1);
}

ggml_tensor* ConvStates::selected(ggml_context* ctx, int first, int64_t count) const {
    if (first == 0) return ggml_view_1d(ctx, selected_, count, 0);
    return ggml_view_1d(ctx, each_selected_, 1, each_selected_->nb[1] * static_cast<size_t>(first));
}

void ConvStates::reset() {
    for (int stream = 0; stream < streams_; ++stream) reset(stream);
}

void ConvStates::reset(int stream) {
    for (const auto& [layer, state] : states_)
        clear(state, state->nb[1] * static_cast<size_t>(stream), state->nb[1]);
}

void ConvStates::give_back(int stream) const {
    for (const auto& [layer, state] : states_)
        pool_.give_back(state, state->nb[1] * static_cast<size_t>(stream), state->nb[1]);
}

size_t ConvStates::bytes() const {
    size_t total = 0;
    for (const auto& [layer, state] : states_) total += state->nb[1];
    return total;
}

void ConvStates::read(int stream, uint8_t* out) const {
    for (const auto& [layer, state] : states_) {
        download(state, out, state->nb[1] * static_cast<size_t>(stream), state->nb[1]);
        out += state->nb[1];
    }
}

void ConvStates::write(int stream, const uint8_t* data, const std::string& what) {
    check_finite(what, GGML_TYPE_F32, data, bytes());
    for (const auto& [layer, state] : states_) {
        upload(state, data, state->nb[1] * static_cast<size_t>(stream), state->nb[1]);
        data += state->nb[1];
    }
}

namespace {

ggml_tensor* steps_view(ggml_context* ctx, ggml_tensor* x, int64_t first, int64_t steps) {
    return ggml_view_3d(ctx, x, x->ne[0], steps, x->ne[2], x->nb[1], x->nb[2],
                        x->nb[1] * static_cast<size_t>(first));
}

// Whether the steps around convolutions are nodes of our own.
bool own_nodes(Graph& graph) {
    return kHaveKernels && graph.device().runs_own_nodes();
}

// The past of one layer in the streams of a graph.
struct Past {
    ggml_tensor* state = nullptr;     // {channels * steps, all streams}; null where no past is needed
    ggml_tensor* selected = nullptr;  // I32 {streams of the graph}
    int64_t steps = 0;
};

Past past_of(Graph& graph, const StreamStates& states, const void* layer, const ggml_tensor* x) {
    Past past;
    past.state = states.all.of(layer);
    if (past.state == nullptr) return past;
    past.selected = states.all.selected(graph.ctx(), states.first, x->ne[2]);
    past.steps = past.state->ne[0] / x->ne[0];
    return past;
}

// {channels, steps, streams}
ggml_tensor* read_past(Graph& graph, const Past& past, const ggml_tensor* x) {
    ggml_context* ctx = graph.ctx();
    return ggml_reshape_3d(ctx, ggml_get_rows(ctx, graph.current(past.state), past.selected), x->ne[0],
                           past.steps, x->ne[2]);
}

// steps {channels, past.steps, streams}, of each stream one behind another
void write_past(Graph& graph, const Past& past, ggml_tensor* steps) {
    ggml_context* ctx = graph.ctx();
    ggml_tensor* rows = ggml_view_2d(ctx, steps, past.state->ne[0], steps->ne[2], steps->nb[2], 0);
    graph.set_rows(past.state, graph.bindable(rows), past.selected);
}

template <Activation activation>
void run_join(ggml_tensor* dst, int ith, int nth, void* team) {
    const ggml_tensor *x = dst->src[0], *state = dst->src[1], *selected = dst->src[2];
    const int64_t n = x->ne[0] * x->ne[1], n_past = state != nullptr ? state->ne[0] : 0,
                  n_joined = dst->ne[0] * dst->ne[1];
    constexpr int64_t kBlock = 4096;
    const int64_t blocks = (n + kBlock - 1) / kBlock;
    divide(*static_cast<ThreadTeam*>(team), blocks * x->ne[2], ith, nth, [&](int64_t first, int64_t last) {
        for (int64_t unit = first; unit < last; ++unit) {
            const int64_t stream = unit / blocks, begin = unit % blocks * kBlock,
                          count = std::min(kBlock, n - begin);
            const auto* from = static_cast<const float*>(x->data) + stream * n + begin;
            float* joined = static_cast<float*>(dst->data) + stream * n_joined;
            if (begin == 0) {
                if (state != nullptr) {
                    const int64_t row = static_cast<const int32_t*>(selected->data)[stream];
                    std::copy_n(static_cast<const float*>(state->data) + row * n_past, n_past, joined);
                }
                std::fill(joined + n_past + n, joined + n_joined, 0.0f);
            }
            if (activation == Activation::elu) {
                kernels().elu(from, count, joined + n_past + begin);
            } else {
                std::copy_n(from, count, joined + n_past + begin);
            }
        }
    });
}

// The past, activation(x {channels, steps, streams}), and zeros for `missing` steps, behind one another.
ggml_tensor* build_join(Graph& graph, const Past& past, ggml_tensor* x, int64_t missing,
                        Activation activation) {
    ggml_context* ctx = graph.ctx();
    if (past.state == nullptr && missing == 0 && activation == Activation::none) return x;
    if (own_nodes(graph)) {
        ggml_tensor* args[] = {x, past.state ? graph.current(past.state) : nullptr, past.selected};
        return ggml_custom_4d(
            ctx, GGML_TYPE_F32, x->ne[0], past.steps + x->ne[1] + missing, x->ne[2], 1, args, 3,
            activation == Activation::elu ? run_join<Activation::elu> : run_join<Activation::none>,
            GGML_N_TASKS_MAX, &graph.device().team());
    }
    if (activation == Activation::elu) x = ggml_elu(ctx, x);
    if (past.state != nullptr) x = ggml_concat(ctx, read_past(graph, past, x), x, 1);
    return missing > 0 ? ggml_pad(ctx, x, 0, static_cast<int>(missing), 0, 0) : x;
}

// Keeps the last steps before the first `end` of joined steps as the past of the next call.
void keep_past(Graph& graph, const Past& past, ggml_tensor* joined, int64_t end) {
    if (past.state == nullptr) return;
    write_past(graph, past, steps_view(graph.ctx(), joined, end - past.steps, past.steps));
}

// The windows of x {in, steps, streams} as {kernel * in, windows, streams}, or as {in, kernel, windows,
// streams} where the taps of a window do not lie side by side. Windows overlap: ggml's own functions refuse
// views that hold more than what they look at.
ggml_tensor* windows_view(ggml_context* ctx, const Conv& conv, ggml_tensor* x, int64_t windows) {
    ggml_tensor* view =
        ggml_view_4d(ctx, x, x->ne[0], x->ne[1], x->ne[2], 1, x->nb[1], x->nb[2], x->nb[3], 0);
    const size_t to_next_window = x->nb[1] * static_cast<size_t>(conv.stride);
    if (conv.dilation == 1) {
        view->ne[0] = int64_t{conv.kernel} * conv.in;
        view->ne[1] = windows;
        view->nb[1] = to_next_window;
    } else {
        view->ne[1] = conv.kernel;
        view->ne[2] = windows;
        view->ne[3] = x->ne[2];
        view->nb[1] = x->nb[1] * static_cast<size_t>(conv.dilation);
        view->nb[2] = to_next_window;
        view->nb[3] = x->nb[2];
    }
    return view;
}

// The windows as a matrix {kernel * in, windows * streams}. Panels take columns at any distance, if it is the
// same from each to the next, which it is within a stream; where streams follow each other after the steps
// that their last windows share with no other, columns are copied.
ggml_tensor* build_columns(Graph& graph, const Conv& conv, ggml_tensor* x, int64_t windows) {
    ggml_context* ctx = graph.ctx();
    ggml_tensor* columns = windows_view(ctx, conv, x, windows);
    const int64_t streams = x->ne[2];
    const bool even = streams == 1 || windows * conv.stride == x->ne[1];
    if (!conv.weight.panels || conv.dilation > 1 || !even)
        return ggml_reshape_2d(ctx, ggml_cont(ctx, columns), conv.weight.columns, windows * streams);
    columns->ne[1] *= streams;
    columns->ne[2] = 1;
    return columns;
}

}  // namespace

ggml_tensor* build_conv(Graph& graph, const Conv& conv, const StreamStates& states, ggml_tensor* x,
                        const ConvOptions& options) {
    ggml_context* ctx = graph.ctx();
    const int64_t windows = (x->ne[1] + conv.stride - 1) / conv.stride, streams = x->ne[2];
    int64_t missing = windows * conv.stride - x->ne[1];
    if (missing > 0 && options.padding == Padding::replicate) {
        ggml_tensor* last = graph.bindable(steps_view(ctx, x, x->ne[1] - 1, 1));
        x = ggml_concat(ctx, x, ggml_repeat_4d(ctx, last, x->ne[0], missing, streams, 1), 1);
        missing = 0;
    }
    const Past past = past_of(graph, states, &conv, x);
    ggml_tensor* joined = build_join(graph, past, x, missing, options.before);
    keep_past(graph, past, joined, joined->ne[1] - missing);

    Epilogue epilogue;
    epilogue.bias = conv.bias;
    if (options.residual != nullptr)
        epilogue.residual = ggml_reshape_2d(ctx, options.residual, conv.weight.rows, windows * streams);
    epilogue.activation = options.after;
    ggml_tensor* y = build_linear(graph, conv.weight, build_columns(graph, conv, joined, windows), epilogue);
    return ggml_reshape_3d(ctx, y, conv.out, windows * conv.upsample, streams);
}

void build_replicated_past(Graph& graph, const Conv& conv, const StreamStates& states, ggml_tensor* x,
                           ggml_tensor* start) {
    const Past past = past_of(graph, states, &conv, x);
    if (past.state == nullptr) return;
    ggml_context* ctx = graph.ctx();
    // the past is zero at the start of a stream
    ggml_tensor* first = ggml_repeat_4d(ctx, steps_view(ctx, x, 0, 1), x->ne[0], past.steps, x->ne[2], 1);
    write_past(graph, past, ggml_add(ctx, read_past(graph, past, x), ggml_mul(ctx, first, start)));
}

ggml_tensor* build_residual(Graph& graph, const ResidualBlock& block, const StreamStates& states,
                            ggml_tensor* x) {
    ConvOptions a, b;
    a.before = a.after = Activation::elu;
    b.residual = x;
    return build_conv(graph, block.b, states, build_conv(graph, block.a, states, x, a), b);
}

ggml_tensor* build_upsample(Graph& graph, const DepthwiseUpsample& up, const StreamStates& states,
                            ggml_tensor* x) {
    ggml_context* ctx = graph.ctx();
    const int64_t steps = x->ne[1], streams = x->ne[2];
    const Past past = past_of(graph, states, &up, x);
    ggml_tensor* joined = build_join(graph, past, x, 0, Activation::none);
    keep_past(graph, past, joined, joined->ne[1]);
    const auto tap = [&](int64_t back) {
        ggml_tensor* w = ggml_view_2d(ctx, up.weight, up.channels, up.stride, up.weight->nb[1],
                                      up.weight->nb[2] * static_cast<size_t>(back));
        ggml_tensor* in =
            ggml_view_4d(ctx, joined, up.channels, 1, steps, streams, joined->nb[1], joined->nb[1],
                         joined->nb[2], joined->nb[1] * static_cast<size_t>(1 - back));
        return ggml_mul(ctx, ggml_repeat_4d(ctx, graph.bindable(in), up.channels, up.stride, steps, streams),
                        graph.bindable(w));
    };
    return ggml_reshape_3d(ctx, ggml_add(ctx, tap(0), tap(1)), up.channels, steps * up.stride, streams);
}

}  // namespace csm
