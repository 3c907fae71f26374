// The inner loops of gemm.cpp, compiled once per instruction set. The includer sets the target options, a
// namespace, the floats of a vector (CSM_LANES), and the vectors (CSM_VECTORS) and rows (CSM_ROWS) of a tile,
// which together fill the registers. For that reason there is no include guard, and nothing is included here.

typedef float Floats __attribute__((vector_size(CSM_LANES * sizeof(float))));
typedef int32_t Ints __attribute__((vector_size(CSM_LANES * sizeof(int32_t))));
typedef float UnalignedFloats
    __attribute__((vector_size(CSM_LANES * sizeof(float)), aligned(sizeof(float)), may_alias));

#define CSM_INLINE inline __attribute__((always_inline))

CSM_INLINE Floats load(const float* p) {
    return *reinterpret_cast<const UnalignedFloats*>(p);
}
CSM_INLINE void store(float* p, Floats v) {
    *reinterpret_cast<UnalignedFloats*>(p) = v;
}

// exp(x) - 1 = 2^n (exp(r) - 1) + (2^n - 1) with x = n ln 2 + r, which keeps its relative accuracy near zero.
CSM_INLINE Floats elu(Floats x) {
    const Floats zero = {};
    Floats z = x < zero ? x : zero;
    z = z > zero - 87.0f ? z : zero - 87.0f;
    const Floats shifted =
        z * 1.44269504f + 12582912.0f;  // adding 1.5 * 2^23 rounds, and leaves n in the lowest bits
    const Floats n = shifted - 12582912.0f;
    const Floats r = (z - n * 0.693359375f) + n * 2.12194440e-4f;
    Floats p = r * 1.98412698e-4f + 1.38888889e-3f;
    p = p * r + 8.33333333e-3f;
    p = p * r + 4.16666667e-2f;
    p = p * r + 1.66666667e-1f;
    p = p * r + 0.5f;
    p = p * (r * r) + r;
    const Floats power = reinterpret_cast<Floats>((reinterpret_cast<Ints>(shifted) << 23) + 0x3f800000);
    return x <= zero ? power * p + (power - 1.0f) : x;  // not a number stays what it is
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
        store(y, g.elu ? elu(sum) : sum);
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
    store(rest, g.elu ? elu(sum) : sum);
    for (int64_t i = 0; i < n; ++i) y[i] = rest[i];
}

template <int R>
void tile(const Gemm& g, int64_t row, int64_t panel) {
    for (int64_t part = 0; part < kGemmPanel; part += CSM_VECTORS * CSM_LANES) {
        const int64_t first = panel * kGemmPanel + part;
        if (first >= g.out) return;
        const float* w = g.weights + panel * kGemmPanel * g.in + part;
        const float* x = g.x + row * g.x_step;
        Floats sums[R][CSM_VECTORS] = {};
        for (int64_t k = 0; k < g.in; ++k, w += kGemmPanel) {
            Floats weights[CSM_VECTORS];
            for (int v = 0; v < CSM_VECTORS; ++v) weights[v] = load(w + v * CSM_LANES);
            for (int r = 0; r < R; ++r) {
                const float input = x[r * g.x_step + k];
                for (int v = 0; v < CSM_VECTORS; ++v) sums[r][v] += weights[v] * input;
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

template <int R>
CSM_INLINE void tile_of(int64_t rows, const Gemm& g, int64_t row, int64_t panel) {
    if constexpr (R > 0) {
        if (rows == R) {
            tile<R>(g, row, panel);
        } else {
            tile_of<R - 1>(rows, g, row, panel);
        }
    }
}

// Few outputs: dot products, with unpacked weights.
void narrow_row(const Gemm& g, int64_t row) {
    const float* x = g.x + row * g.x_step;
    for (int64_t o = 0; o < g.out; ++o) {
        const float* w = g.weights + o * g.in;
        Floats sums[2] = {};
        int64_t k = 0;
        for (; k + 2 * CSM_LANES <= g.in; k += 2 * CSM_LANES) {
            sums[0] += load(x + k) * load(w + k);
            sums[1] += load(x + k + CSM_LANES) * load(w + k + CSM_LANES);
        }
        const Floats both = sums[0] + sums[1];
        float sum = 0.0f;
        for (int i = 0; i < CSM_LANES; ++i) sum += both[i];
        for (; k < g.in; ++k) sum += x[k] * w[k];
        Floats result = {};
        result[0] = sum;
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
void run(const Gemm& g, int64_t first_unit, int64_t last_unit) {
    constexpr int64_t kCachedWeights = 1 << 16;
    if (g.out < kGemmNarrow) {
        for (int64_t row = first_unit; row < last_unit; ++row) narrow_row(g, row);
        return;
    }
    const int64_t panels = (g.out + kGemmPanel - 1) / kGemmPanel;
    const int64_t tiles = (g.rows + CSM_ROWS - 1) / CSM_ROWS;
    const bool panels_first = g.in * g.out > kCachedWeights;
    for (int64_t unit = first_unit; unit < last_unit; ++unit) {
        const int64_t panel = panels_first ? unit / tiles : unit % panels;
        const int64_t part = panels_first ? unit % tiles : unit / panels;
        const int64_t row = g.rows * part / tiles;
        tile_of<CSM_ROWS>(g.rows * (part + 1) / tiles - row, g, row, panel);
    }
}

#undef CSM_INLINE
#undef CSM_LANES
#undef CSM_VECTORS
#undef CSM_ROWS
