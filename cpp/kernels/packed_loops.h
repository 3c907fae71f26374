// Products with packed matrices, compiled once per instruction set after vectors.h and packed_formats.h. The
// includer says how bytes are multiplied:
//   CSM_DOT(sums, bytes, quad): to each 32-bit sum the products of its four bytes with those of the quad,
//     which are signed. Bytes are signed with CSM_SIGNED_BYTES, else below 256. Besides that, it may give
//     CSM_DOT_2X2(sums, bytes, quads): the four sums of two rows and two activations, 8 bytes of each;
//   CSM_PAIRS(sums, bytes, quad): to each 16-bit sum the products of its two bytes (below 64) with two signed
//     bytes of the quad, and CSM_PAIR_SUMS(sums): the 32-bit sums of two neighbours;
// or nothing, for plain vectors. There is no include guard for that reason, and nothing is included here.
//
// All give the same numbers: integer sums are exact, and the floating-point operations that follow are the
// same, in the same order, everywhere.

constexpr int kGroupVectors = PackedMatrix::kGroupRows / CSM_LANES;

// 16-bit sums hold the products of so many quads of b bits: n of two times (2^b - 1) * 127 are below 2^15.
constexpr int quads_in_16_bits(int bits) {
    return bits == 4 ? 8 : bits == 5 ? 4 : 2;
}
typedef int16_t Shorts __attribute__((vector_size(CSM_LANES * sizeof(int32_t))));

// Activations per pass over the lines of a block. Those whose products need two sums have registers for half
// a tile.
#if defined(CSM_DOT)
template <ggml_type Type>
constexpr int kPass =
    packed_layout(Type).form.halves && CSM_LANES < 16 ? kActivationTile / 2 : kActivationTile;
#else
template <ggml_type Type>
constexpr int kPass = product_bits(Type) > 4 ? kActivationTile / 2 : kActivationTile;

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

// Nothing, to a processor: a compiler may not load ahead what is used again further down.
#define CSM_FORGET(pointer) asm("" : "+r"(pointer))

// Sums of one block's products of CSM_LANES rows with N activations of a tile of T are computed by
// block_sums(), for the whole block or for each half. `starts` and `quads` are the first of the N.
template <ggml_type Type>
constexpr int kParts = packed_layout(Type).form.halves ? 2 : 1;

// Columns 0 to 15, which are one half, and 16 to 31 share bytes where they have four bits.
constexpr int quad_in_order(ggml_type type, int i) {
    return type == GGML_TYPE_Q8_0 ? i : i / 2 + i % 2 * 4;
}

#if defined(CSM_DOT)

// Whether sums begin with the integers of the activations, else with kSumStart.
template <ggml_type Type>
constexpr bool kHasStarts = packed_layout(Type).form.offset != 0 && !(kSignedBytes && is_wide(Type));

template <ggml_type Type, int N>
CSM_INLINE Ints start(const int32_t* starts, int t) {
    return all(kHasStarts<Type> ? starts[t] : kSumStart);
}

template <ggml_type Type, int T, int N, int I>
CSM_INLINE void add_dots(const uint8_t* lines, const int32_t* quads, Ints (*sums)[N]) {
    if constexpr (I < 8) {
        constexpr int kQuad = quad_in_order(Type, I);
        const Ints bytes = quad_bytes<Type, kQuad>(lines);
        Ints* to = sums[kParts<Type> == 2 ? kQuad / 4 : 0];
        for (int t = 0; t < N; ++t) to[t] = CSM_DOT(to[t], bytes, all(quads[kQuad * T + t]));
        add_dots<Type, T, N, I + 1>(lines, quads, sums);
    }
}

template <ggml_type Type, int T, int N>
CSM_INLINE void block_dots(const uint8_t* lines, const int32_t* starts, const int32_t* quads,
                           Ints (*sums)[N]) {
    for (int part = 0; part < kParts<Type>; ++part)
        for (int t = 0; t < N; ++t) sums[part][t] = start<Type, N>(starts + part * T, t);
    add_dots<Type, T, N, 0>(lines, quads, sums);
}

#if defined(CSM_DOT_2X2)

// Adds products of four rows with 2 P activations, for 8 columns of each of four steps.
template <ggml_type Type, int T, int P, int Step>
CSM_INLINE void add_2x2(const uint8_t* lines, const int32_t* quads, Ints (*squares)[P][2]) {
    if constexpr (Step < 4) {
        constexpr int kQuad = Step * 2;
        const auto first = reinterpret_cast<int32x4_t>(quad_bytes<Type, kQuad>(lines)),
                   second = reinterpret_cast<int32x4_t>(quad_bytes<Type, kQuad + 1>(lines));
        const int32x4_t top = vzip1q_s32(first, second), bottom = vzip2q_s32(first, second);
        auto* to = squares[kParts<Type> == 2 ? kQuad / 4 : 0];
        for (int p = 0; p < P; ++p) {
            const int32_t* pair = quads + kQuad * T + 2 * p;
            const int32x2_t a = vld1_s32(pair), b = vld1_s32(pair + T);
            const int32x4_t two = vcombine_s32(vzip1_s32(a, b), vzip2_s32(a, b));
            to[p][0] = CSM_DOT_2X2(to[p][0], top, two);
            to[p][1] = CSM_DOT_2X2(to[p][1], bottom, two);
        }
        add_2x2<Type, T, P, Step + 1>(lines, quads, squares);
    }
}

template <ggml_type Type, int T, int N>
CSM_INLINE void block_sums(const uint8_t* lines, const int32_t* starts, const int32_t* quads,
                           Ints (*sums)[N]) {
    constexpr int P = N / 2, kPartsHere = kParts<Type>;
    if constexpr (P > 0) {
        Ints squares[kPartsHere][P][2] = {};
        add_2x2<Type, T, P, 0>(lines, quads, squares);
        for (int part = 0; part < kPartsHere; ++part) {
            for (int p = 0; p < P; ++p) {
                const auto top = reinterpret_cast<int32x4_t>(squares[part][p][0]),
                           bottom = reinterpret_cast<int32x4_t>(squares[part][p][1]);
                const int32_t* from = starts + part * T;
                sums[part][2 * p] =
                    reinterpret_cast<Ints>(vuzp1q_s32(top, bottom)) + start<Type, N>(from, 2 * p);
                sums[part][2 * p + 1] =
                    reinterpret_cast<Ints>(vuzp2q_s32(top, bottom)) + start<Type, N>(from, 2 * p + 1);
            }
        }
    }
    if constexpr (N % 2 != 0) {
        Ints last[kPartsHere][1];
        block_dots<Type, T, 1>(lines, starts + N - 1, quads + N - 1, last);
        for (int part = 0; part < kPartsHere; ++part) sums[part][N - 1] = last[part][0];
    }
}

#else

template <ggml_type Type, int T, int N>
CSM_INLINE void block_sums(const uint8_t* lines, const int32_t* starts, const int32_t* quads,
                           Ints (*sums)[N]) {
    block_dots<Type, T, N>(lines, starts, quads, sums);
}

#endif

// The floats that such sums are the bits of.
template <ggml_type Type>
CSM_INLINE Floats finished(Ints sum) {
    return reinterpret_cast<Floats>(sum) - kSumStartNumber;
}

#else

template <ggml_type Type, int T, int N, int I>
CSM_INLINE void add_pairs(const uint8_t* lines, const int32_t* quads, Ints* pairs, Ints (*sums)[N]) {
    if constexpr (I < 8) {
        constexpr int kRun = quads_in_16_bits(product_bits(Type)), kPart = kParts<Type> == 2 ? I / 4 : 0;
        constexpr int kQuad = kRun == 8 ? quad_in_order(Type, I) : I;
        const Ints bytes = quad_bytes<Type, kQuad>(lines);
        for (int t = 0; t < N; ++t) {
            const Ints quad = all(quads[kQuad * T + t]);
            pairs[t] = CSM_PAIRS(I % kRun == 0 ? Ints{} : pairs[t], bytes, quad);
            CSM_KEEP(pairs[t]);
        }
        if constexpr ((I + 1) % kRun == 0) {
            for (int t = 0; t < N; ++t) sums[kPart][t] += CSM_PAIR_SUMS(pairs[t]);
        }
        add_pairs<Type, T, N, I + 1>(lines, quads, pairs, sums);
    }
}

template <ggml_type Type, int T, int N, int I>
CSM_INLINE void add_planes(const uint8_t* lines, const int32_t* quads, Ints* low, Ints* high) {
    if constexpr (I < 8) {
        constexpr int kQuad = quad_in_order(Type, I);
        const Planes planes = byte_planes<Type, kQuad>(lines);
        for (int t = 0; t < N; ++t) {
            const Ints quad = all(quads[kQuad * T + t]);
            low[t] = CSM_PAIRS(low[t], planes.low, quad);
            high[t] = CSM_PAIRS(high[t], planes.high, quad);
            CSM_KEEP(low[t]);
            CSM_KEEP(high[t]);
        }
        add_planes<Type, T, N, I + 1>(lines, quads, low, high);
    }
}

template <ggml_type Type, int T, int N>
CSM_INLINE void block_sums(const uint8_t* lines, const int32_t* starts, const int32_t* quads,
                           Ints (*sums)[N]) {
    constexpr bool kHasStarts = packed_layout(Type).form.offset != 0;
    for (int part = 0; part < kParts<Type>; ++part)
        for (int t = 0; t < N; ++t) sums[part][t] = kHasStarts ? all(starts[part * T + t]) : Ints{};
    if constexpr (product_bits(Type) == 8) {
        Ints low[N] = {}, high[N] = {};
        add_planes<Type, T, N, 0>(lines, quads, low, high);
        for (int t = 0; t < N; ++t) sums[0][t] += CSM_PAIR_SUMS(low[t]) + (CSM_PAIR_SUMS(high[t]) << 4);
    } else {
        Ints pairs[N];
        add_pairs<Type, T, N, 0>(lines, quads, pairs, sums);
    }
}

template <ggml_type Type>
CSM_INLINE Floats finished(Ints sum) {
    if constexpr (packed_layout(Type).form.offset == 0) return numbers(sum);
    return reinterpret_cast<Floats>(sum) - kSumStartNumber;
}

#endif

// Adds N activations of a tile of T, from First on, to the sums of CSM_LANES rows.
template <ggml_type Type, int T, int First>
CSM_INLINE void add_block(const uint8_t* lines, const BlockScales& scales, const uint8_t* x, Floats* sums) {
    if constexpr (First < T) {
        constexpr ActivationForm kForm = packed_layout(Type).form;
        constexpr int kLeft = T - First, N = kLeft < kPass<Type> ? kLeft : kPass<Type>;
        const auto* factors = reinterpret_cast<const float*>(x) + First;
        const auto* starts = reinterpret_cast<const int32_t*>(x) + T + First;
        Ints integers[kParts<Type>][N];
        block_sums<Type, T, N>(lines, starts, starts + kParts<Type> * T, integers);
        for (int t = 0; t < N; ++t) {
            Floats& sum = sums[First + t];
            const Floats product = finished<Type>(integers[0][t]), factor = all(factors[t]);
            if constexpr (kForm.halves) {
                const Floats both =
                    rounded_once(finished<Type>(integers[1][t]), scales.other, product * scales.scale);
                sum = rounded_once(both, factor, sum);
            } else {
                sum = rounded_once(product, scales.scale * factor, sum);
                if constexpr (kForm.offset == 0) {
                    sum = rounded_once(scales.other, all(factors[T + t]), sum);
                }
            }
        }
        add_block<Type, T, First + N>(lines, scales, x, sums);
    }
}

template <ggml_type Type, int T>
void packed_tile(const uint8_t* w, int64_t columns, const uint8_t* x, float* out, int64_t out_stride) {
    constexpr PackedLayout kLayout = packed_layout(Type);
    constexpr int kBlocks = static_cast<int>(kLayout.blocks);
    constexpr size_t kBlockOfTile = T * kLayout.form.block_bytes();
    constexpr size_t kPairBytes = 2 * kLayout.chunk_bytes() / kBlocks;
    Floats sums[kGroupVectors][T] = {};
    for (int64_t chunk = columns / (kBlocks * PackedMatrix::kBlockColumns); chunk > 0; --chunk) {
        for (int v = 0; v < kGroupVectors; ++v) {
            CSM_FORGET(x);
            BlockScales scales[kBlocks];
            load_scales<Type>(w, v, scales);
            const uint8_t *lines = w + kLayout.header + v * CSM_LANES * 4, *activations = x;
            for (int block = 0; block < kBlocks; block += 2) {
                if (v == 0) {
                    for (size_t at = 0; at < kPairBytes; at += 64)
                        __builtin_prefetch(lines + kPrefetchBytes + at);
                }
                add_block<Type, T, 0>(lines, scales[block], activations, sums[v]);
                add_block<Type, T, 0>(lines + kLayout.block, scales[block + 1], activations + kBlockOfTile,
                                      sums[v]);
                lines += 2 * kLayout.block;
                activations += 2 * kBlockOfTile;
            }
        }
        w += kLayout.chunk_bytes();
        x += kBlocks * kBlockOfTile;
    }
    for (int t = 0; t < T; ++t)
        for (int v = 0; v < kGroupVectors; ++v) store(out + t * out_stride + v * CSM_LANES, sums[v][t]);
}

template <ggml_type Type, int T>
CSM_INLINE void packed_tile_of(int64_t n, const uint8_t* w, int64_t columns, const uint8_t* x, float* out,
                               int64_t out_stride) {
    if constexpr (T > 0) {
        if (n == T) {
            packed_tile<Type, T>(w, columns, x, out, out_stride);
        } else {
            packed_tile_of<Type, T - 1>(n, w, columns, x, out, out_stride);
        }
    }
}

template <ggml_type Type>
CSM_INLINE void multiply_as(const PackedProduct& p) {
    const ActivationTiles& tiles = p.tiles;
    const int64_t first_token = tiles.first(p.first_tile);
    const size_t group_bytes = p.matrix.group_bytes();
    const auto* w = static_cast<const uint8_t*>(p.packed) + group_bytes * static_cast<size_t>(p.first_group);
    float* out = p.out;
    for (int64_t group = p.first_group; group < p.last_group; ++group) {
        for (int64_t tile = p.first_tile; tile < p.last_tile; ++tile) {
            const int64_t first = tiles.first(tile), n = tiles.first(tile + 1) - first;
            packed_tile_of<Type, kActivationTile>(
                n, w, tiles.columns, static_cast<const uint8_t*>(p.activations) + tiles.offset(tile),
                out + (first - first_token) * p.out_stride, p.out_stride);
        }
        w += group_bytes;
        out += PackedMatrix::kGroupRows;
    }
}

void multiply(const PackedProduct& p) {
    switch (p.matrix.type) {
        case GGML_TYPE_Q8_0:
            return multiply_as<GGML_TYPE_Q8_0>(p);
        case GGML_TYPE_IQ4_NL:
            return multiply_as<GGML_TYPE_IQ4_NL>(p);
        case GGML_TYPE_Q4_K:
            return multiply_as<GGML_TYPE_Q4_K>(p);
        case GGML_TYPE_Q5_K:
            return multiply_as<GGML_TYPE_Q5_K>(p);
        case GGML_TYPE_Q6_K:
            return multiply_as<GGML_TYPE_Q6_K>(p);
        default:
            return multiply_as<GGML_TYPE_Q4_0>(p);
    }
}

// Nothing but products of bytes that have so many bits, in so many chains that none waits for another;
// returns how many multiply-adds it did.
#if defined(CSM_DOT)

template <int Chains>
CSM_INLINE void peak_round(Ints bytes, Ints quad, Ints* sums) {
    if constexpr (Chains > 0) {
#if defined(CSM_DOT_2X2)
        sums[Chains - 1] = CSM_DOT_2X2(sums[Chains - 1], bytes, quad);
#else
        sums[Chains - 1] = CSM_DOT(sums[Chains - 1], bytes, quad);
#endif
        CSM_KEEP(sums[Chains - 1]);
        peak_round<Chains - 1>(bytes, quad, sums);
    }
}

int64_t integer_peak(int, int64_t rounds) {
    constexpr int kChains = 12;
    Ints sums[kChains] = {}, bytes = all(0x01010101), quad = bytes;
    CSM_KEEP(bytes);
    CSM_KEEP(quad);
    for (int64_t round = 0; round < rounds; ++round) peak_round<kChains>(bytes, quad, sums);
    CSM_USE(sum_of<kChains>(sums));
#if defined(CSM_DOT_2X2)
    return rounds * kChains * 32;
#else
    return rounds * kChains * CSM_LANES * 4;
#endif
}

#else

template <int Bits>
int64_t peak_of_pairs(int64_t rounds) {
    constexpr int kChains = 6, kRun = quads_in_16_bits(Bits == 8 ? 4 : Bits);
    Ints sums[kChains] = {}, bytes = all(0x01010101), quad = bytes;
    CSM_KEEP(bytes);
    for (int64_t round = 0; round < rounds; ++round) {
        Ints pairs[kChains] = {};
        for (int i = 0; i < kRun; ++i) {
            for (int chain = 0; chain < kChains; ++chain) {
                CSM_KEEP(quad);  // or the product would be computed once for all
                pairs[chain] = CSM_PAIRS(pairs[chain], bytes, quad);
                CSM_KEEP(pairs[chain]);
            }
        }
        for (int chain = 0; chain < kChains; ++chain) {
            sums[chain] += CSM_PAIR_SUMS(pairs[chain]);
            CSM_KEEP(sums[chain]);
        }
    }
    CSM_USE(sum_of<kChains>(sums));
    const int64_t products = rounds * kChains * kRun * CSM_LANES * 4;
    return Bits == 8 ? products / 2 : products;
}

int64_t integer_peak(int bits, int64_t rounds) {
    if (bits == 4) return peak_of_pairs<4>(rounds);
    if (bits == 5) return peak_of_pairs<5>(rounds);
    return bits == 6 ? peak_of_pairs<6>(rounds) : peak_of_pairs<8>(rounds);
}

#endif
