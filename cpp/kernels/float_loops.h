// Products with floating-point matrices, attention and ELU, compiled once per instruction set after
// vectors.h. The includer sets the vectors (CSM_VECTORS) and rows (CSM_ROWS) of a tile, and the heads
// (CSM_HEADS) that attention goes through together, so that they fill the registers. There is no include
// guard for that reason, and nothing is included here.

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

template <typename Cache>
CSM_INLINE const Cache* cached(const void* rows, int64_t step, int32_t row) {
    return reinterpret_cast<const Cache*>(static_cast<const char*>(rows) + row * step);
}

// Scores of H heads against the visible keys, four at a time: each part of a key is loaded once for all.
template <typename Cache, int H>
CSM_INLINE void score(const Attention& a, const float* q, float* scores) {
    int64_t i = 0;
    for (; i + 4 <= a.n; i += 4) {
        const Cache* keys[4];
        for (int j = 0; j < 4; ++j) keys[j] = cached<Cache>(a.k, a.kv_step, a.rows[i + j]);
        Floats sums[H][4] = {};
        for (int64_t d = 0; d < a.head_dim; d += CSM_LANES) {
            Floats parts[4];
            for (int j = 0; j < 4; ++j) parts[j] = load(keys[j] + d);
            for (int h = 0; h < H; ++h) {
                const Floats query = load(q + h * a.head_dim + d);
                for (int j = 0; j < 4; ++j) sums[h][j] = fused(query, parts[j], sums[h][j]);
            }
        }
        for (int h = 0; h < H; ++h) {
            float* to = scores + h * a.n + i;
            store_sums(to, sums[h][0], sums[h][1], sums[h][2], sums[h][3]);
            for (int j = 0; j < 4; ++j) to[j] *= a.scale;
        }
    }
    for (; i < a.n; ++i) {
        const Cache* last = cached<Cache>(a.k, a.kv_step, a.rows[i]);
        for (int h = 0; h < H; ++h) {
            Floats sums = {};
            for (int64_t d = 0; d < a.head_dim; d += CSM_LANES)
                sums = fused(load(q + h * a.head_dim + d), load(last + d), sums);
            scores[h * a.n + i] = sum(sums) * a.scale;
        }
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

// Sums of the visible values of H heads, Parts vectors of each from d on, weighted.
template <typename Cache, int H, int Parts>
CSM_INLINE void mix(const Attention& a, const float* weights, const float* factors, float* out, int64_t d) {
    Floats sums[H][Parts] = {};
    for (int64_t i = 0; i < a.n; ++i) {
        const Cache* value = cached<Cache>(a.v, a.kv_step, a.rows[i]) + d;
        Floats parts[Parts];
        for (int j = 0; j < Parts; ++j) parts[j] = load(value + j * CSM_LANES);
        for (int h = 0; h < H; ++h) {
            const Floats weight = all(weights[h * a.n + i]);
            for (int j = 0; j < Parts; ++j) sums[h][j] = fused(parts[j], weight, sums[h][j]);
        }
    }
    for (int h = 0; h < H; ++h)
        for (int j = 0; j < Parts; ++j)
            store(out + h * a.head_dim + d + j * CSM_LANES, sums[h][j] * factors[h]);
}

// The heads from `head` on, H at a time, what is left over in halves of that.
template <typename Cache, int H>
CSM_INLINE void attend_heads(const Attention& a, int64_t head) {
    if constexpr (H > 0) {
        constexpr int kParts = 4;
        for (; head + H <= a.heads; head += H) {
            float* weights = a.scores + head * a.n;
            float* out = a.out + head * a.head_dim;
            score<Cache, H>(a, a.q + head * a.head_dim, weights);
            float factors[H];
            for (int h = 0; h < H; ++h) factors[h] = 1.0f / soft_max(weights + h * a.n, a.n);
            int64_t d = 0;
            for (; d + kParts * CSM_LANES <= a.head_dim; d += kParts * CSM_LANES)
                mix<Cache, H, kParts>(a, weights, factors, out, d);
            for (; d < a.head_dim; d += CSM_LANES) mix<Cache, H, 1>(a, weights, factors, out, d);
        }
        attend_heads<Cache, H / 2>(a, head);
    }
}

void attend(const Attention& a) {
    if (a.f16) {
        attend_heads<uint16_t, CSM_HEADS>(a, 0);
    } else {
        attend_heads<float, CSM_HEADS>(a, 0);
    }
}

// Nothing but fused products and sums, in so many chains that none waits for another; returns how many.
template <int Chains>
CSM_INLINE void peak_round(Floats a, Floats b, Floats* sums) {
    if constexpr (Chains > 0) {
        sums[Chains - 1] = fused(a, b, sums[Chains - 1]);
        CSM_KEEP(sums[Chains - 1]);
        peak_round<Chains - 1>(a, b, sums);
    }
}

int64_t float_peak(int64_t rounds) {
    constexpr int kChains = 12;
    Floats sums[kChains] = {}, a = all(0.5f), b = a;
    CSM_KEEP(a);
    CSM_KEEP(b);
    for (int64_t round = 0; round < rounds; ++round) peak_round<kChains>(a, b, sums);
    CSM_USE(sum_of<kChains>(sums));
    return rounds * kChains * CSM_LANES;
}
