// Products with packed matrices, compiled once per instruction set after vectors.h. The includer says how
// bytes are multiplied:
//   CSM_DOT(sums, bytes, quad): to each 32-bit sum the products of its four bytes with those of the quad,
//   which
//     are signed. Bytes are below 128 with CSM_SIGNED_BYTES, else below 256. Besides that, it may give
//     CSM_DOT_2X2(sums, bytes, quads): the four sums of two rows and two activations, 8 bytes of each;
//   CSM_PAIRS(sums, bytes, quad): to each 16-bit sum the products of its two bytes (below 16) with two signed
//     bytes of the quad, and CSM_PAIR_SUMS(sums): the 32-bit sums of two neighbours;
// or nothing, for plain vectors. There is no include guard for that reason, and nothing is included here.
//
// All give the same numbers: integer sums are exact, and the floating-point operations that follow are the
// same, in the same order, everywhere.

constexpr int kGroupVectors = PackedMatrix::kGroupRows / CSM_LANES;

// 16-bit sums hold the products of a block: 8 quads of two times 15 * 128 are below 2^15.
typedef int16_t Shorts __attribute__((vector_size(CSM_LANES * sizeof(int32_t))));

// Activations per pass over the lines of a block, which those of 16-bit sums of two planes need registers
// for.
#if defined(CSM_DOT)
template <bool Q8>
constexpr int kPass = kActivationTile;
#else
template <bool Q8>
constexpr int kPass = Q8 ? kActivationTile / 2 : kActivationTile;

#if !defined(CSM_PAIRS)
CSM_INLINE Ints plain_pairs(Ints sums, Ints bytes, Ints quad) {
    const auto b = reinterpret_cast<Shorts>(bytes), q = reinterpret_cast<Shorts>(quad);
    const Shorts even = (b & 0xff) * ((q << 8) >> 8);
    const Shorts odd = ((b >> 8) & 0xff) * (q >> 8);
    return reinterpret_cast<Ints>(reinterpret_cast<Shorts>(sums) + even + odd);
}
CSM_INLINE Ints plain_pair_sums(Ints sums) {
    return ((sums << 16) >> 16) + (sums >> 16);
}
#define CSM_PAIRS(sums, bytes, quad) plain_pairs(sums, bytes, quad)
#define CSM_PAIR_SUMS(sums) plain_pair_sums(sums)
#endif
#endif

// Nothing, to a processor. Compilers would turn a chain of sums into a tree, and load ahead what is used
// again further down; both need far more registers than there are.
#if defined(CSM_X86)
#define CSM_KEEP_SUM(v) asm("" : "+x"(v))
#elif defined(CSM_ARM)
#define CSM_KEEP_SUM(v) asm("" : "+w"(v))
#else
#define CSM_KEEP_SUM(v) (void)(v)
#endif
#define CSM_FORGET(pointer) asm("" : "+r"(pointer))

CSM_INLINE Ints low_nibbles(Ints bytes) {
    return bytes & 0x0f0f0f0f;
}
CSM_INLINE Ints high_nibbles(Ints bytes) {
    return (bytes >> 4) & 0x0f0f0f0f;
}

// Sums of one block's products of CSM_LANES rows with N activations of a tile of T, offsets included, are
// computed by block_sums(). `quads` is the first of the N for columns 0 to 3.

#if defined(CSM_DOT)

template <int T, int N, bool Q8>
CSM_INLINE void block_dots(const uint8_t* lines, const int32_t* offsets, const int32_t* quads, Ints* sums) {
    for (int t = 0; t < N; ++t) {
#if defined(CSM_SIGNED_BYTES)
        sums[t] = Q8 ? Ints{} : all(offsets[t]);
#else
        sums[t] = all(offsets[t]);
        if (Q8) sums[t] <<= 4;  // -128 = -8 * 16
#endif
    }
    if constexpr (Q8) {
        for (int line = 0; line < 8; ++line) {
            Ints bytes = load_bytes(lines + line * 64);
#if defined(CSM_SIGNED_BYTES)
            bytes ^= static_cast<int32_t>(0x80808080u);
#endif
            for (int t = 0; t < N; ++t) sums[t] = CSM_DOT(sums[t], bytes, all(quads[line * T + t]));
        }
    } else {
        for (int line = 0; line < 4; ++line) {
            const Ints bytes = load_bytes(lines + line * 64);
            const Ints low = low_nibbles(bytes), high = high_nibbles(bytes);
            for (int t = 0; t < N; ++t) {
                sums[t] = CSM_DOT(sums[t], low, all(quads[line * T + t]));
                sums[t] = CSM_DOT(sums[t], high, all(quads[(line + 4) * T + t]));
            }
        }
    }
}

#if defined(CSM_DOT_2X2)

// Adds products of four rows with 2 P activations, for 8 columns.
template <int T, int P>
CSM_INLINE void add_2x2(Ints columns0, Ints columns4, const int32_t* quads, Ints (*sums)[2]) {
    const auto first = reinterpret_cast<int32x4_t>(columns0), second = reinterpret_cast<int32x4_t>(columns4);
    const int32x4_t top = vzip1q_s32(first, second), bottom = vzip2q_s32(first, second);
    for (int p = 0; p < P; ++p) {
        const int32x2_t a = vld1_s32(quads + 2 * p), b = vld1_s32(quads + T + 2 * p);
        const int32x4_t two = vcombine_s32(vzip1_s32(a, b), vzip2_s32(a, b));
        sums[p][0] = CSM_DOT_2X2(sums[p][0], top, two);
        sums[p][1] = CSM_DOT_2X2(sums[p][1], bottom, two);
    }
}

template <int T, int N, bool Q8>
CSM_INLINE void block_sums(const uint8_t* lines, const int32_t* offsets, const int32_t* quads, Ints* sums) {
    constexpr int P = N / 2;
    if constexpr (P > 0) {
        Ints squares[P][2] = {};
        for (int line = 0; line < (Q8 ? 8 : 4); line += 2) {
            const Ints a = load_bytes(lines + line * 64), b = load_bytes(lines + (line + 1) * 64);
            if constexpr (Q8) {
                add_2x2<T, P>(a, b, quads + line * T, squares);
            } else {
                add_2x2<T, P>(low_nibbles(a), low_nibbles(b), quads + line * T, squares);
                add_2x2<T, P>(high_nibbles(a), high_nibbles(b), quads + (line + 4) * T, squares);
            }
        }
        for (int p = 0; p < P; ++p) {
            const auto top = reinterpret_cast<int32x4_t>(squares[p][0]),
                       bottom = reinterpret_cast<int32x4_t>(squares[p][1]);
            constexpr int kShift = Q8 ? 4 : 0;  // -128 = -8 * 16
            sums[2 * p] = reinterpret_cast<Ints>(vuzp1q_s32(top, bottom)) + (all(offsets[2 * p]) << kShift);
            sums[2 * p + 1] =
                reinterpret_cast<Ints>(vuzp2q_s32(top, bottom)) + (all(offsets[2 * p + 1]) << kShift);
        }
    }
    if constexpr (N % 2 != 0) block_dots<T, 1, Q8>(lines, offsets + N - 1, quads + N - 1, sums + N - 1);
}

#else

template <int T, int N, bool Q8>
CSM_INLINE void block_sums(const uint8_t* lines, const int32_t* offsets, const int32_t* quads, Ints* sums) {
    block_dots<T, N, Q8>(lines, offsets, quads, sums);
}

#endif

#else

template <int T, int N, bool Q8>
CSM_INLINE void block_sums(const uint8_t* lines, const int32_t* offsets, const int32_t* quads, Ints* sums) {
    if constexpr (Q8) {
        Ints low[N] = {}, high[N] = {};
        for (int line = 0; line < 8; ++line) {
            const Ints bytes = load_bytes(lines + line * 64);
            const Ints low_part = low_nibbles(bytes), high_part = high_nibbles(bytes);
            for (int t = 0; t < N; ++t) {
                const Ints quad = all(quads[line * T + t]);
                low[t] = CSM_PAIRS(low[t], low_part, quad);
                high[t] = CSM_PAIRS(high[t], high_part, quad);
                CSM_KEEP_SUM(low[t]);
                CSM_KEEP_SUM(high[t]);
            }
        }
        for (int t = 0; t < N; ++t)
            sums[t] = CSM_PAIR_SUMS(low[t]) + ((CSM_PAIR_SUMS(high[t]) + offsets[t]) << 4);
    } else {
        Ints pairs[N] = {};
        for (int line = 0; line < 4; ++line) {
            const Ints bytes = load_bytes(lines + line * 64);
            const Ints low = low_nibbles(bytes), high = high_nibbles(bytes);
            for (int t = 0; t < N; ++t) {
                pairs[t] = CSM_PAIRS(pairs[t], low, all(quads[line * T + t]));
                CSM_KEEP_SUM(pairs[t]);
                pairs[t] = CSM_PAIRS(pairs[t], high, all(quads[(line + 4) * T + t]));
                CSM_KEEP_SUM(pairs[t]);
            }
        }
        for (int t = 0; t < N; ++t) sums[t] = CSM_PAIR_SUMS(pairs[t]) + offsets[t];
    }
}

#endif

// Adds N activations of a tile of T, from First on, to the sums of CSM_LANES rows.
template <int T, int First, bool Q8>
CSM_INLINE void add_block(const uint8_t* lines, Floats scale, const uint8_t* x, Floats* sums) {
    if constexpr (First < T) {
        constexpr int kLeft = T - First, N = kLeft < kPass<Q8> ? kLeft : kPass<Q8>;
        const auto* scales = reinterpret_cast<const float*>(x) + First;
        const auto* offsets = reinterpret_cast<const int32_t*>(x) + T + First;
        Ints integers[N];
        block_sums<T, N, Q8>(lines, offsets, offsets + T, integers);
        for (int t = 0; t < N; ++t)
            sums[First + t] = rounded_once(__builtin_convertvector(integers[t], Floats),
                                           scale * all(scales[t]), sums[First + t]);
        add_block<T, First + N, Q8>(lines, scale, x, sums);
    }
}

template <int T, bool Q8>
void packed_tile(const uint8_t* w, int64_t columns, const uint8_t* x, float* out, int64_t out_stride) {
    constexpr size_t kBlock = Q8 ? kQ8BlockBytes : kQ4BlockBytes;
    Floats sums[kGroupVectors][T] = {};
    for (int64_t pair = 0; pair < columns / 64; ++pair) {
        if (T > kOwnPrefetch) {
            for (size_t at = 0; at < kPairScaleBytes + 2 * kBlock; at += 64)
                __builtin_prefetch(w + kPrefetchBytes + at);
        }
        for (size_t half = 0; half < 2; ++half) {
            for (size_t v = 0; v < kGroupVectors; ++v) {
                CSM_FORGET(x);
                const Floats scale =
                    load(reinterpret_cast<const uint16_t*>(w + half * kPairScaleBytes / 2) + v * CSM_LANES);
                add_block<T, 0, Q8>(w + kPairScaleBytes + half * kBlock + v * CSM_LANES * 4, scale, x,
                                    sums[v]);
            }
            x += T * kActivationBlockBytes;
        }
        w += kPairScaleBytes + 2 * kBlock;
    }
    for (int t = 0; t < T; ++t)
        for (int v = 0; v < kGroupVectors; ++v) store(out + t * out_stride + v * CSM_LANES, sums[v][t]);
}

template <bool Q8, int T>
CSM_INLINE void packed_tile_of(int64_t n, const uint8_t* w, int64_t columns, const uint8_t* x, float* out,
                               int64_t out_stride) {
    if constexpr (T > 0) {
        if (n == T) {
            packed_tile<T, Q8>(w, columns, x, out, out_stride);
        } else {
            packed_tile_of<Q8, T - 1>(n, w, columns, x, out, out_stride);
        }
    }
}

template <bool Q8>
CSM_INLINE void multiply_as(const PackedProduct& p) {
    const ActivationTiles& tiles = p.tiles;
    const int64_t first_token = tiles.first(p.first_tile);
    const size_t group_bytes = p.matrix.group_bytes();
    const auto* w = static_cast<const uint8_t*>(p.packed) + group_bytes * static_cast<size_t>(p.first_group);
    float* out = p.out;
    for (int64_t group = p.first_group; group < p.last_group; ++group) {
        for (int64_t tile = p.first_tile; tile < p.last_tile; ++tile) {
            const int64_t first = tiles.first(tile), n = tiles.first(tile + 1) - first;
            packed_tile_of<Q8, kActivationTile>(
                n, w, tiles.columns, static_cast<const uint8_t*>(p.activations) + tiles.offset(tile),
                out + (first - first_token) * p.out_stride, p.out_stride);
        }
        w += group_bytes;
        out += PackedMatrix::kGroupRows;
    }
}

void multiply(const PackedProduct& p) {
    if (p.matrix.type == GGML_TYPE_Q8_0) {
        multiply_as<true>(p);
    } else {
        multiply_as<false>(p);
    }
}
