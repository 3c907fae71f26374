// The layers of the codec against plain loops that follow their definitions, at once and in pieces.

#include <algorithm>
#include <cmath>
#include <map>

#include "check.h"
#include "gguf_bytes.h"
#include "nn/conv.h"
#include "nn/philox.h"
#include "nn/rvq.h"
#include "runtime/transfers.h"

namespace {

using Numbers = std::vector<float>;

Numbers random(size_t n, uint32_t series, float size = 1.0f) {
    Numbers values(n);
    for (size_t i = 0; i < n; ++i)
        values[i] = size * (2.0f * csm::uniform(6, static_cast<uint32_t>(i), series) - 1.0f);
    return values;
}

// A file of F32 tensors, and graphs that are run on its weights.
class Fixture {
 public:
    Fixture& tensor(const std::string& name, const std::vector<uint64_t>& ne, const Numbers& values) {
        infos_.tensor(name, ne, GGML_TYPE_F32, data_.size());
        data_.append(reinterpret_cast<const char*>(values.data()), values.size() * sizeof(float));
        data_.resize((data_.size() + 31) / 32 * 32);
        ++count_;
        return *this;
    }

    void load() {
        csm::load_backends(CSM_TEST_BACKEND_DIR);
        device = csm::Device::open("cpu", 2);
        GgufBytes bytes;
        bytes.header(count_, 0).append(infos_).pad();
        file_.write(bytes.bytes() + data_);
        source_->file = std::make_shared<csm::GgufFile>(file_.path());
        weights = std::make_unique<csm::Weights>(device, source_, 64);
    }

    std::shared_ptr<csm::Device> device;
    std::unique_ptr<csm::Weights> weights;

 private:
    struct Source : csm::TensorSource {
        std::shared_ptr<const csm::GgufFile> file;
        csm::TensorSlice find(const std::string& name) const override {
            const auto* t = file->find(name);
            if (t == nullptr) return {};
            return {file, t, 0, std::vector<int64_t>(t->ne.begin(), t->ne.begin() + t->n_dims)};
        }
        std::string describe(const std::string& name) const override { return name; }
    };
    GgufBytes infos_;
    std::string data_;
    uint64_t count_ = 0;
    TemporaryFile file_{"csm-layers-"};
    std::shared_ptr<Source> source_ = std::make_shared<Source>();
};

// Runs a layer over x {channels, steps} in pieces; build(graph, states, x) makes its nodes.
template <typename Layer, typename Build>
Numbers run(Fixture& fixture, const Layer& layer, int channels, const Numbers& x,
            const std::vector<int64_t>& pieces, Build build) {
    const auto steps = static_cast<int64_t>(x.size()) / channels;
    csm::TensorPool pool(fixture.device, 8);
    csm::ConvStates states(pool);
    states.add(layer);
    ggml_tensor* input = ggml_new_tensor_2d(pool.ctx(), GGML_TYPE_F32, channels, steps);
    pool.allocate();
    Numbers out;
    int64_t done = 0;
    for (size_t i = 0; done < steps; ++i) {
        const int64_t n = std::min(pieces[i % pieces.size()], steps - done);
        csm::Graph graph(fixture.device, 64);
        csm::upload(input, &x[static_cast<size_t>(done * channels)],
                    sizeof(float) * static_cast<size_t>(n * channels));
        ggml_tensor* y = build(graph, states, ggml_view_2d(graph.ctx(), input, channels, n, input->nb[1], 0));
        graph.add_output(y);
        graph.allocate();
        graph.compute();
        const auto size = static_cast<size_t>(ggml_nelements(y));
        out.resize(out.size() + size);
        csm::download(y, &out[out.size() - size], size * sizeof(float));
        done += n;
    }
    return out;
}

void check_close(const Numbers& got, const Numbers& expected) {
    CHECK_EQ(got.size(), expected.size());
    for (size_t i = 0; i < got.size(); ++i) CHECK_NEAR(got[i], expected[i], 1e-5);
}

float elu(float x) {
    return x > 0.0f ? x : std::expm1(x);
}

// y[t][o] = bias[o] + sum over i, k of w[o][i][k] x[t * stride + k * dilation - left][i], zeros outside.
Numbers convolve(const Numbers& x, const Numbers& w, const Numbers& bias, int in, int out, int kernel,
                 int stride, int dilation) {
    const int steps = static_cast<int>(x.size()) / in, left = (kernel - 1) * dilation + 1 - stride;
    Numbers y;
    for (int t = 0; t < (steps + stride - 1) / stride; ++t) {
        for (int o = 0; o < out; ++o) {
            double sum = bias[static_cast<size_t>(o)];
            for (int k = 0; k < kernel; ++k) {
                const int at = t * stride + k * dilation - left;
                if (at < 0 || at >= steps) continue;
                for (int i = 0; i < in; ++i)
                    sum += static_cast<double>(w[static_cast<size_t>((o * in + i) * kernel + k)]) *
                           x[static_cast<size_t>(at * in + i)];
            }
            y.push_back(static_cast<float>(sum));
        }
    }
    return y;
}

// Every input step adds w[i][o][k] x[t][i] to output step t * stride + k; the last kernel - stride are cut
// off.
Numbers convolve_transposed(const Numbers& x, const Numbers& w, const Numbers& bias, int in, int out,
                            int kernel, int stride) {
    const int steps = static_cast<int>(x.size()) / in;
    std::vector<double> sums(static_cast<size_t>((steps * stride + kernel) * out));
    for (int t = 0; t < steps; ++t)
        for (int i = 0; i < in; ++i)
            for (int o = 0; o < out; ++o)
                for (int k = 0; k < kernel; ++k)
                    sums[static_cast<size_t>((t * stride + k) * out + o)] +=
                        static_cast<double>(w[static_cast<size_t>((i * out + o) * kernel + k)]) *
                        x[static_cast<size_t>(t * in + i)];
    Numbers y;
    for (int t = 0; t < steps * stride; ++t)
        for (int o = 0; o < out; ++o)
            y.push_back(
                static_cast<float>(sums[static_cast<size_t>(t * out + o)] + bias[static_cast<size_t>(o)]));
    return y;
}

Numbers map_elu(Numbers x) {
    for (float& value : x) value = elu(value);
    return x;
}

}  // namespace

TEST(convolutions_are_their_definition) {
    struct Case {
        int in, out, kernel, stride, dilation;
    };
    for (const Case& c : {Case{1, 9, 7, 1, 1}, Case{6, 4, 3, 1, 4}, Case{5, 40, 8, 4, 1},
                          Case{16, 1, 3, 1, 1}, Case{3, 8, 4, 2, 1}, Case{4, 12, 1, 1, 1}}) {
        const auto w = random(static_cast<size_t>(c.kernel * c.in * c.out), 1, 0.3f);
        const auto bias = random(static_cast<size_t>(c.out), 2);
        Fixture fixture;
        const auto u = [](int n) { return static_cast<uint64_t>(n); };
        fixture.tensor("c.weight", {u(c.kernel), u(c.in), u(c.out)}, w)
            .tensor("c.bias", {u(c.out)}, bias)
            .load();
        const auto conv =
            csm::Conv::request(*fixture.weights, "c", {c.in, c.out, c.kernel, c.stride, c.dilation});
        fixture.weights->load();
        for (const int steps : {c.stride, 6 * c.stride, 6 * c.stride + 1, 7 * c.stride - 1}) {
            const auto x = random(static_cast<size_t>(steps * c.in), 3);
            for (const bool activated : {false, true}) {
                csm::ConvOptions options;
                if (activated) options.before = options.after = csm::Activation::elu;
                const auto build = [&](csm::Graph& graph, const csm::ConvStates& states, ggml_tensor* in) {
                    return csm::build_conv(graph, conv, states, in, options);
                };
                const Numbers expected =
                    activated
                        ? map_elu(convolve(map_elu(x), w, bias, c.in, c.out, c.kernel, c.stride, c.dilation))
                        : convolve(x, w, bias, c.in, c.out, c.kernel, c.stride, c.dilation);
                check_close(run(fixture, conv, c.in, x, {steps}, build), expected);
                check_close(run(fixture, conv, c.in, x, {c.stride, 3 * c.stride}, build), expected);
            }
        }
    }
}

TEST(streams_share_a_convolution_and_nothing_else) {
    struct Case {
        int in, out, kernel, stride, dilation;
    };
    constexpr int kStreams = 4, kSteps = 5;
    const std::vector<std::vector<int32_t>> selections = {{2, 0}, {2}, {3, 2, 0}, {0, 2}};
    for (const Case& c : {Case{1, 9, 7, 1, 1}, Case{6, 40, 3, 1, 4}, Case{5, 40, 8, 4, 1},
                          Case{4, 12, 1, 1, 1}, Case{4, 12, 2, 2, 1}}) {
        const auto u = [](int n) { return static_cast<uint64_t>(n); };
        Fixture fixture;
        fixture
            .tensor("c.weight", {u(c.kernel), u(c.in), u(c.out)},
                    random(static_cast<size_t>(c.kernel * c.in * c.out), 1, 0.3f))
            .tensor("c.bias", {u(c.out)}, random(static_cast<size_t>(c.out), 2))
            .load();
        const auto conv =
            csm::Conv::request(*fixture.weights, "c", {c.in, c.out, c.kernel, c.stride, c.dilation});
        fixture.weights->load();
        const int64_t steps = kSteps * c.stride;
        const auto size = static_cast<size_t>(steps * c.in);
        csm::ConvOptions options;
        options.before = csm::Activation::elu;
        const auto build = [&](csm::Graph& graph, const csm::StreamStates& states, ggml_tensor* in) {
            return csm::build_conv(graph, conv, states, in, options);
        };

        csm::TensorPool pool(fixture.device, 8);
        csm::ConvStates states(pool, kStreams, kStreams);
        states.add(conv);
        ggml_tensor* input = ggml_new_tensor_3d(pool.ctx(), GGML_TYPE_F32, c.in, steps, kStreams);
        pool.allocate();
        std::vector<Numbers> x(kStreams), y(kStreams);
        uint32_t series = 3;
        for (const auto& selected : selections) {
            const auto streams = static_cast<int64_t>(selected.size());
            Numbers piece;
            for (const int32_t stream : selected) {
                const auto part = random(size, series++);
                piece.insert(piece.end(), part.begin(), part.end());
                auto& all = x[static_cast<size_t>(stream)];
                all.insert(all.end(), part.begin(), part.end());
            }
            csm::upload(input, piece.data(), piece.size() * sizeof(float));
            states.select(selected);
            csm::Graph graph(fixture.device, 64);
            ggml_tensor* out =
                build(graph, states,
                      ggml_view_3d(graph.ctx(), input, c.in, steps, streams, input->nb[1], input->nb[2], 0));
            CHECK_EQ(out->ne[1], kSteps);
            CHECK_EQ(out->ne[2], streams);
            graph.add_output(out);
            graph.allocate();
            graph.compute();
            Numbers got(static_cast<size_t>(ggml_nelements(out)));
            csm::download(out, got.data(), got.size() * sizeof(float));
            const auto each = static_cast<std::ptrdiff_t>(got.size() / selected.size());
            for (size_t i = 0; i < selected.size(); ++i) {
                const auto first = got.begin() + static_cast<std::ptrdiff_t>(i) * each;
                auto& all = y[static_cast<size_t>(selected[i])];
                all.insert(all.end(), first, first + each);
            }
        }
        for (size_t stream = 0; stream < kStreams; ++stream)
            check_close(y[stream], run(fixture, conv, c.in, x[stream], {steps}, build));
        CHECK(x[1].empty());
    }
}

TEST(transposed_convolutions_are_their_definition) {
    for (const int stride : {1, 2, 5}) {
        for (const int factor : {1, 2, 3}) {
            const int in = 6, out = 5, kernel = factor * stride, steps = 9;
            const auto w = random(static_cast<size_t>(kernel * in * out), 1, 0.5f), bias = random(out, 2);
            Fixture fixture;
            fixture.tensor("c.weight", {static_cast<uint64_t>(kernel), out, in}, w)
                .tensor("c.bias", {out}, bias)
                .load();
            const auto conv = csm::Conv::request_transposed(*fixture.weights, "c", {in, out, kernel, stride});
            fixture.weights->load();
            const auto x = random(steps * in, 3);
            const auto build = [&](csm::Graph& graph, const csm::ConvStates& states, ggml_tensor* input) {
                return csm::build_conv(graph, conv, states, input);
            };
            const auto expected = convolve_transposed(x, w, bias, in, out, kernel, stride);
            check_close(run(fixture, conv, in, x, {steps}, build), expected);
            check_close(run(fixture, conv, in, x, {1, 3}, build), expected);
        }
    }
}

TEST(depthwise_upsampling_is_its_definition) {
    const int channels = 7, stride = 3, steps = 8;
    const auto w = random(2 * stride * channels, 1);
    Fixture fixture;
    fixture.tensor("u.weight", {2 * stride, 1, channels}, w).load();
    const auto up = csm::DepthwiseUpsample::request(*fixture.weights, "u", channels, stride);
    fixture.weights->load();
    const auto x = random(steps * channels, 2);
    Numbers expected(static_cast<size_t>(steps * stride * channels));
    for (int t = 0; t < steps; ++t)
        for (int k = 0; k < 2 * stride && t * stride + k < steps * stride; ++k)
            for (int c = 0; c < channels; ++c)
                expected[static_cast<size_t>((t * stride + k) * channels + c)] +=
                    w[static_cast<size_t>(c * 2 * stride + k)] * x[static_cast<size_t>(t * channels + c)];
    const auto build = [&](csm::Graph& graph, const csm::ConvStates& states, ggml_tensor* input) {
        return csm::build_upsample(graph, up, states, input);
    };
    check_close(run(fixture, up, channels, x, {steps}, build), expected);
    check_close(run(fixture, up, channels, x, {1, 2}, build), expected);
}

TEST(residual_blocks_are_their_definition) {
    const int channels = 10, narrow = 5, steps = 23;
    const auto wa = random(3 * channels * narrow, 1, 0.3f), wb = random(narrow * channels, 2);
    const auto bias_a = random(narrow, 3), bias_b = random(channels, 4);
    Fixture fixture;
    fixture.tensor("a.weight", {3, channels, narrow}, wa).tensor("a.bias", {narrow}, bias_a);
    fixture.tensor("b.weight", {1, narrow, channels}, wb).tensor("b.bias", {channels}, bias_b).load();
    const csm::ResidualBlock block{csm::Conv::request(*fixture.weights, "a", {channels, narrow, 3}),
                                   csm::Conv::request(*fixture.weights, "b", {narrow, channels, 1})};
    fixture.weights->load();
    const auto x = random(steps * channels, 5);
    auto expected = convolve(map_elu(convolve(map_elu(x), wa, bias_a, channels, narrow, 3, 1, 1)), wb, bias_b,
                             narrow, channels, 1, 1, 1);
    for (size_t i = 0; i < x.size(); ++i) expected[i] += x[i];
    const auto build = [&](csm::Graph& graph, const csm::ConvStates& states, ggml_tensor* input) {
        return csm::build_residual(graph, block, states, input);
    };
    check_close(run(fixture, block, channels, x, {steps}, build), expected);
    check_close(run(fixture, block, channels, x, {1, 6}, build), expected);
}

TEST(a_stream_may_begin_and_end_with_copies) {
    const int channels = 4, steps = 7;  // an odd number: the last window of stride 2 lacks a step
    const auto w = random(4 * channels * channels, 1);
    Fixture fixture;
    fixture.tensor("d.weight", {4, channels, channels}, w).load();
    csm::Conv::Shape shape{channels, channels, 4, 2};
    shape.bias = false;
    const auto conv = csm::Conv::request(*fixture.weights, "d", shape);
    fixture.weights->load();
    const auto x = random(steps * channels, 2);
    // the definition on an input that has the copies; its own first window, over zeros, is dropped
    Numbers padded(x.begin(), x.begin() + channels);
    padded.insert(padded.end(), x.begin(), x.begin() + channels);
    padded.insert(padded.end(), x.begin(), x.end());
    padded.insert(padded.end(), x.end() - channels, x.end());
    auto expected = convolve(padded, w, Numbers(channels), channels, channels, 4, 2, 1);
    expected.erase(expected.begin(), expected.begin() + channels);

    csm::TensorPool pool(fixture.device, 8);
    csm::ConvStates states(pool);
    states.add(conv);
    ggml_tensor* input = ggml_new_tensor_2d(pool.ctx(), GGML_TYPE_F32, channels, steps);
    ggml_tensor* start = ggml_new_tensor_1d(pool.ctx(), GGML_TYPE_F32, 1);
    pool.allocate();
    for (const std::vector<int>& pieces : {std::vector<int>{steps}, std::vector<int>{2, 2, 3}}) {
        Numbers got;
        int done = 0;
        for (const int n : pieces) {
            const float first = done == 0 ? 1.0f : 0.0f;
            csm::upload(start, &first, sizeof first);
            csm::upload(input, &x[static_cast<size_t>(done * channels)],
                        sizeof(float) * static_cast<size_t>(n * channels));
            csm::Graph graph(fixture.device, 64);
            ggml_tensor* in = ggml_view_2d(graph.ctx(), input, channels, n, input->nb[1], 0);
            csm::build_replicated_past(graph, conv, states, in, start);
            csm::ConvOptions options;
            options.padding = csm::Padding::replicate;
            ggml_tensor* y = csm::build_conv(graph, conv, states, in, options);
            graph.add_output(y);
            graph.allocate();
            graph.compute();
            const auto size = static_cast<size_t>(ggml_nelements(y));
            got.resize(got.size() + size);
            csm::download(y, &got[got.size() - size], size * sizeof(float));
            done += n;
        }
        check_close(got, expected);
        states.reset();
    }
}

TEST(quantization_takes_the_nearest_entries_one_after_the_other) {
    const int hidden = 12, dim = 8, codes = 50, codebooks = 5, frames = 30;
    Fixture fixture;
    const auto in = random(hidden * dim, 1), out = random(hidden * dim, 2), x = random(hidden * frames, 3);
    std::vector<Numbers> books;
    fixture.tensor("q.input_proj.weight", {hidden, dim}, in)
        .tensor("q.output_proj.weight", {dim, hidden}, out);
    for (int n = 0; n < codebooks; ++n) {
        books.push_back(random(codes * dim, static_cast<uint32_t>(10 + n), 2.0f / static_cast<float>(n + 1)));
        // the second half repeats the first: every nearest entry has a twin, and the lower one must win
        std::copy(books.back().begin(), books.back().begin() + codes / 2 * dim,
                  books.back().begin() + codes / 2 * dim);
        fixture.tensor("q.layers." + std::to_string(n) + ".codebook", {dim, codes}, books.back());
    }
    fixture.load();
    const auto rvq = csm::Rvq::request(*fixture.weights, "q", {hidden, dim, codes, codebooks}, true);
    fixture.weights->load();

    std::vector<int32_t> expected(codebooks * frames);
    Numbers decoded;
    for (int t = 0; t < frames; ++t) {
        std::vector<double> rest(dim), sum(dim);
        for (int d = 0; d < dim; ++d)
            for (int i = 0; i < hidden; ++i)
                rest[static_cast<size_t>(d)] += static_cast<double>(in[static_cast<size_t>(d * hidden + i)]) *
                                                x[static_cast<size_t>(t * hidden + i)];
        for (int n = 0; n < codebooks; ++n) {
            const auto entry = [&](int code, int d) {
                return books[static_cast<size_t>(n)][static_cast<size_t>(code * dim + d)];
            };
            double nearest = 1e30;
            int best = 0;
            for (int code = 0; code < codes; ++code) {
                double distance = 0.0;
                for (int d = 0; d < dim; ++d)
                    distance += std::pow(rest[static_cast<size_t>(d)] - entry(code, d), 2);
                if (distance < nearest) {
                    nearest = distance;
                    best = code;
                }
            }
            CHECK(best < codes / 2);
            expected[static_cast<size_t>(n * frames + t)] = best;
            for (int d = 0; d < dim; ++d) {
                rest[static_cast<size_t>(d)] -= entry(best, d);
                sum[static_cast<size_t>(d)] += entry(best, d);
            }
        }
        for (int o = 0; o < hidden; ++o) {
            double value = 0.0;
            for (int d = 0; d < dim; ++d)
                value += sum[static_cast<size_t>(d)] * out[static_cast<size_t>(o * dim + d)];
            decoded.push_back(static_cast<float>(value));
        }
    }

    csm::TensorPool pool(fixture.device, 4);
    ggml_tensor* input = ggml_new_tensor_2d(pool.ctx(), GGML_TYPE_F32, hidden, frames);
    ggml_tensor* found = ggml_new_tensor_2d(pool.ctx(), GGML_TYPE_I32, frames, codebooks);
    pool.allocate();
    csm::upload(input, x.data(), x.size() * sizeof(float));
    csm::Graph graph(fixture.device, 128);
    csm::build_rvq_encode(graph, rvq, input, found);
    graph.allocate();
    graph.compute();
    std::vector<int32_t> got(expected.size());
    csm::download(found, got.data(), got.size() * sizeof(int32_t));
    CHECK(got == expected);

    csm::Graph back(fixture.device, 64);
    ggml_tensor* y = csm::build_rvq_decode(back, rvq, found);
    back.add_output(y);
    back.allocate();
    back.compute();
    Numbers vectors(decoded.size());
    csm::download(y, vectors.data(), vectors.size() * sizeof(float));
    check_close(vectors, decoded);
}
