// Steps on rows of activations around the products with packed matrices, compiled once per instruction set
// after vectors.h. There is no include guard for that reason, and nothing is included here.
//
// All instruction sets give the same numbers: operations are the same, in the same order, with none fused.

constexpr int kSumVectors = 16 / CSM_LANES;

// Sum of 16 numbers, always in the same order.
CSM_INLINE float sum16(Floats* v) {
    for (int width = kSumVectors / 2; width > 0; width /= 2)
        for (int i = 0; i < width; ++i) v[i] += v[i + width];
    return sum(v[0]);
}

// 32 numbers of 8 bits, as bytes.
CSM_INLINE void store_bytes(int8_t* to, const Ints* v) {
#if CSM_LANES == 8
    // packing works in halves of 128 bits, which leaves groups of four out of order
    const __m256i low = _mm256_packs_epi32(reinterpret_cast<__m256i>(v[0]), reinterpret_cast<__m256i>(v[1]));
    const __m256i high = _mm256_packs_epi32(reinterpret_cast<__m256i>(v[2]), reinterpret_cast<__m256i>(v[3]));
    const __m256i bytes = _mm256_packs_epi16(low, high);
    const __m256i order = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7);
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(to), _mm256_permutevar8x32_epi32(bytes, order));
#else
    typedef int8_t Quants __attribute__((vector_size(CSM_LANES)));
    for (int i = 0; i < 32 / CSM_LANES; ++i) {
        const Quants narrow = __builtin_convertvector(v[i], Quants);
        std::memcpy(to + i * CSM_LANES, &narrow, sizeof narrow);
    }
#endif
}

void quantize(const float* values, int64_t first_block, int64_t last_block, const ActivationTiles& tiles,
              int64_t token, void* activations) {
    constexpr int kVectors = 32 / CSM_LANES;
    const ActivationForm form = tiles.form;
    const int64_t tile = tiles.tile_of(token), first = tiles.first(tile), n = tiles.first(tile + 1) - first;
    const int64_t index = token - first;
    const size_t block_bytes = static_cast<size_t>(n) * form.block_bytes();
    auto* to = static_cast<uint8_t*>(activations) + tiles.offset(tile) +
               static_cast<size_t>(first_block) * block_bytes + static_cast<size_t>(index) * 4;
    for (int64_t block = first_block; block < last_block; ++block, values += 32, to += block_bytes) {
        // The bits of positive numbers are ordered as the numbers are, and those of NaN above all.
        Ints sizes = {};
        for (int v = 0; v < kVectors; ++v) {
            const Ints size = reinterpret_cast<Ints>(load(values + v * CSM_LANES)) & 0x7fffffff;
            sizes = size > sizes ? size : sizes;
        }
        const int32_t top = largest(sizes);
        float size;
        std::memcpy(&size, &top, sizeof size);
        int8_t quants[32] = {};
        int32_t halves[2] = {};
        // nothing is left of blocks so small, and nothing but their scale of those that are not finite
        if (size > 1e-30f && size <= 3.4028234e38f) {
            const float inverse = 127.0f / size;
            Ints totals[2] = {}, integers[kVectors];
            for (int v = 0; v < kVectors; ++v) {
                // adding 1.5 * 2^23 rounds to even, and leaves the integer in the lowest bits
                const Floats shifted = load(values + v * CSM_LANES) * inverse + kSumStartNumber;
                integers[v] = reinterpret_cast<Ints>(shifted) - kSumStart;
                totals[v / (kVectors / 2)] += integers[v];
            }
            store_bytes(quants, integers);
            if (form.halves) {
                for (int half = 0; half < 2; ++half) halves[half] = total(totals[half]);
            } else {
                halves[0] = total(totals[0] + totals[1]);
            }
        }
        const float scale = size / 127.0f;
        uint8_t* part = to;
        const auto put = [&part, n](const void* word) {
            std::memcpy(part, word, 4);
            part += n * 4;
        };
        put(&scale);
        if (form.offset == 0) {
            const float shift = scale * static_cast<float>(-halves[0]);
            put(&shift);
        } else {
            for (int half = 0; half < (form.halves ? 2 : 1); ++half) {
                const int32_t start = kSumStart - form.offset * halves[half];
                put(&start);
            }
        }
        for (int quad = 0; quad < 8; ++quad) put(quants + quad * 4);
    }
}

void rms_norm(const float* values, const float* weight, int64_t n, float eps, float* out) {
    Floats squares[kSumVectors] = {};
    for (int64_t i = 0; i < n; i += 16) {
        for (int v = 0; v < kSumVectors; ++v) {
            const Floats x = load(values + i + v * CSM_LANES);
            squares[v] += x * x;
        }
    }
    const float scale = 1.0f / std::sqrt(sum16(squares) / static_cast<float>(n) + eps);
    for (int64_t i = 0; i < n; i += CSM_LANES) store(out + i, load(values + i) * scale * load(weight + i));
}

void swiglu(float* gate, const float* up, int64_t n) {
    const Floats zero = {};
    for (int64_t i = 0; i < n; i += CSM_LANES) {
        const Floats g = load(gate + i), e = exp_negative(g < zero ? g : zero - g);
        const Floats silu = (g < zero ? g * e : g) / (e + 1.0f);  // g / (1 + exp(-g))
        store(gate + i, silu * load(up + i));
    }
}
