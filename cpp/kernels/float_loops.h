// Products with floating-point matrices, attention and ELU, compiled once per instruction set after
// vectors.h. The includer sets the vectors (CSM_VECTORS) and rows (CSM_ROWS) of a tile, which together fill
// the registers. There is no include guard for that reason, and nothing is included here.

CSM_INLINE Floats activate(Activation activation, Floats x) {
    if (activation == Activation::elu) return elu(x);
    return activation == Activation::gelu ? gelu(x) : x;
}

void elu_array(const float* x, int64_t n, float* y) {
    int64_t i = 0;
    for (; i + CSM_LANES <= n; i += CSM_LANES) store(y + i, elu(load(x + i)));
    if (i == n) return;
    float rest[CSM_LANES] = {};
    for (int64_t j = i; j < n; ++j) rest[j - i] = x[j];
    store(rest, elu(load(rest)));
    for (int64_t j = i; j < n; ++j) y[j] = rest[j - i];
}

// Adds bias and residual to `n` finished sums of a row and stores them.
CSM_INLINE void finish(const Gemm& g, Floats sum, int64_t row, int64_t first, int64_t n) {
    float* y = g.y + row * g.out + first;
    const float* residual = g.residual ? g.residual + row * g.out + first : nullptr;
    if (n >= CSM_LANES) {
        if (g.bias) sum += load(g.bias + first);
        if (residual) sum += load(residual);
        store(y, activate(g.activation, sum));
        return;
    }
    float rest[CSM_LANES] = {};
    if (g.bias) {
        for (int64_t i = 0; i < n; ++i) rest[i] = g.bias[first + i];
        sum += load(rest);
    }
    if (residual) {
        for (int64_t i = 0; i < n; ++i) rest[i] = residual[i];
        sum += load(rest);
    }
    store(rest, activate(g.activation, sum));
    for (int64_t i = 0; i < n; ++i) y[i] = rest[i];
}

template <typename Weight, int R>
void tile(const Gemm& g, int64_t row, int64_t panel) {
    for (int64_t part = 0; part < kGemmPanel; part += CSM_VECTORS * CSM_LANES) {
        const int64_t first = panel * kGemmPanel + part;
        if (first >= g.out) return;
        const Weight* w = static_cast<const Weight*>(g.weights) + panel * kGemmPanel * g.in + part;
        const float* x = g.x + row * g.x_step;
        Floats sums[R][CSM_VECTORS] = {};
        for (int64_t k = 0; k < g.in; ++k, w += kGemmPanel) {
            Floats weights[CSM_VECTORS];
            for (int v = 0; v < CSM_VECTORS; ++v) weights[v] = load(w + v * CSM_LANES);
            for (int r = 0; r < R; ++r) {
                const float input = x[r * g.x_step + k];
                for (int v = 0; v < CSM_VECTORS; ++v) sums[r][v] = fused(weights[v], all(input), sums[r][v]);
            }
        }
        for (int r = 0; r < R; ++r) {
            for (int v = 0; v < CSM_VECTORS; ++v) {
                const int64_t channel = first + v * CSM_LANES;
                if (channel < g.out) finish(g, sums[r][v], row + r, channel, g.out - channel);
            }
        }
    }
}

template <typename Weight, int R>
CSM_INLINE void tile_of(int64_t rows, const Gemm& g, int64_t row, int64_t panel) {
    if constexpr (R > 0) {
        if (rows == R) {
            tile<Weight, R>(g, row, panel);
        } else {
            tile_of<Weight, R - 1>(rows, g, row, panel);
        }
    }
}

// Few outputs: dot products, with unpacked weights.
template <typename Weight>
void narrow_row(const Gemm& g, int64_t row) {
    const float* x = g.x + row * g.x_step;
    for (int64_t o = 0; o < g.out; ++o) {
        const Weight* w = static_cast<const Weight*>(g.weights) + o * g.in;
        Floats sums[2] = {};
        int64_t k = 0;
        for (; k + 2 * CSM_LANES <= g.in; k += 2 * CSM_LANES) {
            sums[0] = fused(load(x + k), load(w + k), sums[0]);
            sums[1] = fused(load(x + k + CSM_LANES), load(w + k + CSM_LANES), sums[1]);
        }
        const Floats both = sums[0] + sums[1];
        float total = sum(both);
        for (; k < g.in; ++k) total += x[k] * widened(w[k]);
        Floats result = {};
        result[0] = total;
        finish(g, result, row, o, 1);
    }
}

// A unit is one tile, or one row of a narrow product.
int64_t units(const Gemm& g) {
    if (g.out < kGemmNarrow) return g.rows;
    return (g.out + kGemmPanel - 1) / kGemmPanel * ((g.rows + CSM_ROWS - 1) / CSM_ROWS);
}

// Weights that a core's cache holds are gone through for each tile of rows; of larger ones each panel is gone
// through once, with all rows.
template <typename Weight>
CSM_INLINE void run_with(const Gemm& g, int64_t first_unit, int64_t last_unit) {
    constexpr int64_t kCachedWeights = (1 << 18) / sizeof(Weight);
    if (g.out < kGemmNarrow) {
        for (int64_t row = first_unit; row < last_unit; ++row) narrow_row<Weight>(g, row);
        return;
    }
    const int64_t panels = (g.out + kGemmPanel - 1) / kGemmPanel;
    const int64_t tiles = (g.rows + CSM_ROWS - 1) / CSM_ROWS;
    const bool panels_first = g.in * g.out > kCachedWeights;
    for (int64_t unit = first_unit; unit < last_unit; ++unit) {
        const int64_t panel = panels_first ? unit / tiles : unit % panels;
        const int64_t part = panels_first ? unit % tiles : unit / panels;
        const int64_t row = g.rows * part / tiles;
        tile_of<Weight, CSM_ROWS>(g.rows * (part + 1) / tiles - row, g, row, panel);
    }
}

void run(const Gemm& g, int64_t first_unit, int64_t last_unit) {
    if (g.type == GGML_TYPE_F32) {
        run_with<float>(g, first_unit, last_unit);
    } else if (g.type == GGML_TYPE_F16) {
        run_with<uint16_t>(g, first_unit, last_unit);
    } else {
        run_with<Bf16>(g, first_unit, last_unit);
    }
}

// Scores of one head: q {dim} against the visible keys, four at a time.
template <typename Cache>
CSM_INLINE void score(const Attention& a, const float* q, float* scores) {
    const auto key = [&](int64_t i) {
        return reinterpret_cast<const Cache*>(static_cast<const char*>(a.k) + a.rows[i] * a.kv_step);
    };
    int64_t i = 0;
    for (; i + 4 <= a.n; i += 4) {
        const Cache* keys[4] = {key(i), key(i + 1), key(i + 2), key(i + 3)};
        Floats sums[4] = {};
        for (int64_t d = 0; d < a.head_dim; d += CSM_LANES) {
            const Floats part = load(q + d);
            for (int j = 0; j < 4; ++j) sums[j] = fused(part, load(keys[j] + d), sums[j]);
        }
        store_sums(scores + i, sums[0], sums[1], sums[2], sums[3]);
        for (int j = 0; j < 4; ++j) scores[i + j] *= a.scale;
    }
    for (; i < a.n; ++i) {
        const Cache* last = key(i);
        Floats sums = {};
        for (int64_t d = 0; d < a.head_dim; d += CSM_LANES) sums = fused(load(q + d), load(last + d), sums);
        scores[i] = sum(sums) * a.scale;
    }
}

// Scores to weights; returns what their sum has to be divided by.
CSM_INLINE float soft_max(float* scores, int64_t n) {
    float top = scores[0];
    for (int64_t i = 1; i < n; ++i) top = scores[i] > top ? scores[i] : top;
    Floats sums = {};
    int64_t i = 0;
    for (; i + CSM_LANES <= n; i += CSM_LANES) {
        const Floats weights = exp_negative(load(scores + i) - top);
        store(scores + i, weights);
        sums += weights;
    }
    float total = sum(sums);
    if (i < n) {
        float rest[CSM_LANES] = {};
        for (int64_t j = i; j < n; ++j) rest[j - i] = scores[j] - top;
        store(rest, exp_negative(load(rest)));
        for (int64_t j = i; j < n; ++j) total += scores[j] = rest[j - i];
    }
    return total;
}

template <typename Cache>
CSM_INLINE void attend_to(const Attention& a) {
    constexpr int kParts = 4;  // vectors of the result that are summed up at a time
    for (int64_t h = 0; h < a.heads; ++h) {
        float* weights = a.scores + h * a.n;
        score<Cache>(a, a.q + h * a.head_dim, weights);
        const float factor = 1.0f / soft_max(weights, a.n);
        float* out = a.out + h * a.head_dim;
        for (int64_t d = 0; d < a.head_dim; d += kParts * CSM_LANES) {
            const int64_t left = (a.head_dim - d) / CSM_LANES, parts = left < kParts ? left : kParts;
            Floats sums[kParts] = {};
            for (int64_t i = 0; i < a.n; ++i) {
                const auto* value =
                    reinterpret_cast<const Cache*>(static_cast<const char*>(a.v) + a.rows[i] * a.kv_step) + d;
                if (parts == kParts) {
                    for (int j = 0; j < kParts; ++j)
                        sums[j] = fused(load(value + j * CSM_LANES), all(weights[i]), sums[j]);
                } else {
                    for (int64_t j = 0; j < parts; ++j)
                        sums[j] = fused(load(value + j * CSM_LANES), all(weights[i]), sums[j]);
                }
            }
            for (int64_t j = 0; j < parts; ++j) store(out + d + j * CSM_LANES, sums[j] * factor);
        }
    }
}

void attend(const Attention& a) {
    if (a.f16) {
        attend_to<uint16_t>(a);
    } else {
        attend_to<float>(a);
    }
}
