// Causal convolutions over time that carry their past from call to call.
//
// Activations are {channels, time}: a window of k steps is then k * channels neighbouring floats, so that a
// convolution is one matrix product with overlapping columns and needs no im2col copy. A transposed
// convolution with kernel m * stride is the same thing: a convolution over m steps whose output rows, stride
// times as many, are the next stride steps of the output. It carries inputs, as every convolution does, and
// no half-finished outputs.
//
// Several streams go through a convolution together as activations {channels, time, streams}, so that the
// weights are read once for all of them.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "nn/linear.h"

namespace csm {

struct Conv {
    int in = 0;                   // channels
    int out = 0;                  // channels of one output step
    int kernel = 1;               // input steps a window takes
    int stride = 1;               // input steps from window to window
    int dilation = 1;             // input steps from tap to tap
    int upsample = 1;             // output steps per window
    Matrix weight;                // kernel * in -> upsample * out
    ggml_tensor* bias = nullptr;  // F32 {upsample * out}, or null

    // Past input steps that the first window needs.
    int lookback() const { return (kernel - 1) * dilation + 1 - stride; }
    int output_steps(int steps) const { return (steps + stride - 1) / stride * upsample; }

    struct Shape {
        int in, out, kernel, stride = 1, dilation = 1;
        bool bias = true;
    };
    // Requests NAME.weight {kernel, in, out} and NAME.bias {out}.
    static Conv request(Weights& weights, const std::string& name, const Shape& shape);
    // Requests NAME.weight {kernel, out, in} and NAME.bias {out} of a transposed convolution; kernel must be
    // a multiple of stride.
    static Conv request_transposed(Weights& weights, const std::string& name, const Shape& shape);
};

// A transposed convolution of each channel for itself, without bias.
struct DepthwiseUpsample {
    int channels = 0;
    int stride = 1;
    ggml_tensor* weight =
        nullptr;  // F32 {channels, stride, 2}: taps on the present and on the previous input step

    // Requests NAME.weight {2 * stride, 1, channels}.
    static DepthwiseUpsample request(Weights& weights, const std::string& name, int channels, int stride);
};

// x + b(elu(a(elu(x))))
struct ResidualBlock {
    Conv a, b;
};

// The past of streams: for each convolution the last input steps of every stream, {in * lookback, streams},
// zero at the start. Which streams a run of a graph is about is an input of the graph, so that one graph
// serves any of them and leaves the others as they are.
class ConvStates {
 public:
    // Runs select up to max_selected of the streams at a time; until select() it is stream 0.
    explicit ConvStates(TensorPool& pool, int streams = 1, int max_selected = 1)
        : pool_(pool),
          streams_(streams),
          selected_(ggml_new_tensor_1d(pool.ctx(), GGML_TYPE_I32, max_selected)),
          each_selected_(pool.columns(GGML_TYPE_I32, 1, max_selected)) {}

    // Describes the state of a convolution, which must stay where it is; the pool's owner allocates.
    void add(const Conv& conv) { add(&conv, conv.in, conv.lookback()); }
    void add(const ResidualBlock& block);
    void add(const DepthwiseUpsample& up) { add(&up, up.channels, 1); }

    // The streams of the next run; activations have them in this order.
    void select(const std::vector<int32_t>& streams);
    // Lets streams begin anew.
    void reset();
    void reset(int stream);
    // Gives back the memory of a stream that begins; see TensorPool.
    void give_back(int stream) const;
    // The past of a stream as bytes, bytes() of them. write() throws ArgumentError, naming `what`, if any
    // number is not finite; nothing is written then.
    size_t bytes() const;
    void read(int stream, uint8_t* out) const;
    void write(int stream, const uint8_t* data, const std::string& what);

    ggml_tensor* of(const void* layer) const;  // null where no past is needed
    // Selected streams from number `first` on, I32 {count}; of those after the first, one at a time.
    ggml_tensor* selected(ggml_context* ctx, int first, int64_t count) const;
    static constexpr size_t kTensors = 2;  // besides the states

 private:
    void add(const void* layer, int channels, int steps);

    TensorPool& pool_;
    int streams_;
    ggml_tensor* selected_;                                     // I32 {max_selected}
    ggml_tensor* each_selected_;                                // I32 {1 or more, max_selected}
    std::vector<std::pair<const void*, ggml_tensor*>> states_;  // in the order in which they were added
};

// States of the selected streams from number `first` on, as many as the activations have.
struct StreamStates {
    StreamStates(const ConvStates& states, int first = 0) : all(states), first(first) {}
    const ConvStates& all;
    int first;
};

enum class Padding { zero, replicate };  // what stands in for steps after the end of the stream

struct ConvOptions {
    Activation before = Activation::none;  // applied to the input
    Activation after = Activation::none;   // applied to the output
    ggml_tensor* residual = nullptr;       // added to the output, before the activation
    Padding padding = Padding::zero;
};

// x {in, steps, streams} -> {out, conv.output_steps(steps), streams}. If steps is no multiple of the stride,
// the streams end here, and the last window is filled up by padding.
ggml_tensor* build_conv(Graph& graph, const Conv& conv, const StreamStates& states, ggml_tensor* x,
                        const ConvOptions& options = {});

// Lets streams begin with copies of the first step of x in place of zeros, if start, F32 {1}, is 1; in later
// calls of the streams it is 0. To be built before the convolution.
void build_replicated_past(Graph& graph, const Conv& conv, const StreamStates& states, ggml_tensor* x,
                           ggml_tensor* start);

// x {channels, steps, streams} -> {channels, steps, streams}
ggml_tensor* build_residual(Graph& graph, const ResidualBlock& block, const StreamStates& states,
                            ggml_tensor* x);

// x {channels, steps, streams} -> {channels, steps * stride, streams}
ggml_tensor* build_upsample(Graph& graph, const DepthwiseUpsample& up, const StreamStates& states,
                            ggml_tensor* x);

// Upper bound of the nodes one build_conv, build_residual or build_upsample creates.
constexpr size_t kConvNodes = 32;

}  // namespace csm
