// Vectors of one instruction set, for the loops of float_loops.h and packed_loops.h. The includer sets the
// target options, a namespace, the floats of a vector (CSM_LANES) and, where there are instructions for it,
// the fused product and sum (CSM_FMA) and the loading of a vector of F16 and BF16 (CSM_LOAD_F16,
// CSM_LOAD_BF16). There is no include guard for that reason, and nothing is included here.
//
// The kernels are compiled without contraction: products and sums are fused where the code says so, and
// nowhere else, so that what has to be the same number on every instruction set is.

typedef float Floats __attribute__((vector_size(CSM_LANES * sizeof(float))));
typedef int32_t Ints __attribute__((vector_size(CSM_LANES * sizeof(int32_t))));
typedef uint32_t Words __attribute__((vector_size(CSM_LANES * sizeof(uint32_t))));
typedef float UnalignedFloats
    __attribute__((vector_size(CSM_LANES * sizeof(float)), aligned(sizeof(float)), may_alias));
typedef int32_t UnalignedInts
    __attribute__((vector_size(CSM_LANES * sizeof(int32_t)), aligned(1), may_alias));

#define CSM_INLINE inline __attribute__((always_inline))

CSM_INLINE Floats load(const float* p) {
    return *reinterpret_cast<const UnalignedFloats*>(p);
}
CSM_INLINE void store(float* p, Floats v) {
    *reinterpret_cast<UnalignedFloats*>(p) = v;
}
// The same number in every lane. (Taking 0 away leaves any number as it is, adding 0 would not.)
CSM_INLINE Floats all(float x) {
    return x - Floats{};
}
CSM_INLINE Ints all(int32_t x) {
    return x - Ints{};
}

CSM_INLINE Ints load_bytes(const void* p) {
    return *static_cast<const UnalignedInts*>(p);
}

CSM_INLINE Floats load(const uint16_t* p) {
#if defined(CSM_LOAD_F16)
    return reinterpret_cast<Floats>(CSM_LOAD_F16(p));
#else
    // Exponent and mantissa are moved to their places, and the exponent corrected by a product; numbers below
    // 2^-14, which have no leading one, by a difference.
    Words bits = {};
    for (int i = 0; i < CSM_LANES; ++i) bits[i] = static_cast<uint32_t>(p[i]) << 16;
    const Words twice = bits + bits;
    const Floats normal = reinterpret_cast<Floats>((twice >> 4) + (0xe0u << 23)) * 0x1p-112f;
    const Floats small = reinterpret_cast<Floats>((twice >> 17) | (126u << 23)) - 0.5f;
    const Words size =
        twice < Words{} + (1u << 27) ? reinterpret_cast<Words>(small) : reinterpret_cast<Words>(normal);
    return reinterpret_cast<Floats>((bits & 0x80000000u) | size);
#endif
}

CSM_INLINE Floats load(const Bf16* p) {
#if defined(CSM_LOAD_BF16)
    return reinterpret_cast<Floats>(CSM_LOAD_BF16(p));
#else
    Words v = {};
    for (int i = 0; i < CSM_LANES; ++i) v[i] = static_cast<uint32_t>(p[i].bits) << 16;
    return reinterpret_cast<Floats>(v);
#endif
}

CSM_INLINE float widened(float w) {
    return w;
}
CSM_INLINE float widened(uint16_t w) {
    return ggml_fp16_to_fp32(w);
}
CSM_INLINE float widened(Bf16 w) {
    return ggml_bf16_to_fp32({w.bits});
}

// a b + c, rounded once where that is one instruction.
CSM_INLINE Floats fused(Floats a, Floats b, Floats c) {
#if defined(CSM_FMA)
    return CSM_FMA(a, b, c);
#else
    return a * b + c;
#endif
}

#if !defined(CSM_FMA)
// The C library's fma takes its time, and mingw-w64's is rounded twice. The product is exact as a double. The
// sum's last bit is set if it is not, so that rounding it to a float is the one rounding that counts.
CSM_INLINE float rounded_once(float a, float b, float c) {
    const double product = static_cast<double>(a) * b;
    double sum = product + c;
    const double added = sum - product, lost = (product - (sum - added)) + (c - added);
    uint64_t bits;
    std::memcpy(&bits, &sum, sizeof(bits));
    if (lost != 0.0 && std::isfinite(sum) && bits % 2 == 0) {
        bits = (lost > 0.0) == (sum > 0.0) ? bits + 1 : bits - 1;
        std::memcpy(&sum, &bits, sizeof(bits));
    }
    return static_cast<float>(sum);
}
#endif

// a b + c, rounded once everywhere.
CSM_INLINE Floats rounded_once(Floats a, Floats b, Floats c) {
#if defined(CSM_FMA)
    return CSM_FMA(a, b, c);
#else
    for (int i = 0; i < CSM_LANES; ++i) c[i] = rounded_once(a[i], b[i], c[i]);
    return c;
#endif
}

// Nothing, to a processor. Compilers would turn a chain of sums into a tree, which needs far more registers
// than there are.
#if defined(CSM_X86)
#define CSM_KEEP(v) asm("" : "+x"(v))
#define CSM_USE(v) asm volatile("" : : "x"(v))  // what is computed for nothing is not left out
#elif defined(CSM_ARM)
#define CSM_KEEP(v) asm("" : "+w"(v))
#define CSM_USE(v) asm volatile("" : : "w"(v))
#else
#define CSM_KEEP(v) (void)(v)
#define CSM_USE(v) (void)(v)
#endif

// The sum of N vectors. (Not a loop: its index would keep them in memory.)
template <int N, typename Vector>
CSM_INLINE Vector sum_of(const Vector* vectors) {
    if constexpr (N == 1) {
        return vectors[0];
    } else {
        return sum_of<N - 1>(vectors) + vectors[N - 1];
    }
}

// Sums of a vector's lanes fold it in half until one is left.
typedef float Floats4 __attribute__((vector_size(16)));
typedef int32_t Ints4 __attribute__((vector_size(16)));

CSM_INLINE Floats4 folded(Floats v) {
#if CSM_LANES == 16
    const __m512 all = reinterpret_cast<__m512>(v);
    const __m256 half = _mm512_castps512_ps256(all) + _mm512_extractf32x8_ps(all, 1);
    return _mm256_castps256_ps128(half) + _mm256_extractf128_ps(half, 1);
#elif CSM_LANES == 8
    const __m256 all = reinterpret_cast<__m256>(v);
    return _mm256_castps256_ps128(all) + _mm256_extractf128_ps(all, 1);
#else
    return v;
#endif
}

CSM_INLINE float sum(Floats v) {
    const Floats4 f = folded(v);
    return (f[0] + f[2]) + (f[1] + f[3]);
}

// The sums of four vectors.
CSM_INLINE void store_sums(float* to, Floats a, Floats b, Floats c, Floats d) {
#if defined(CSM_X86)
    const __m128 fa = folded(a), fb = folded(b), fc = folded(c), fd = folded(d);
    const __m128 ab = _mm_unpacklo_ps(fa, fb) + _mm_unpackhi_ps(fa, fb);
    const __m128 cd = _mm_unpacklo_ps(fc, fd) + _mm_unpackhi_ps(fc, fd);
    _mm_storeu_ps(to, _mm_movelh_ps(ab, cd) + _mm_movehl_ps(cd, ab));
#else
    to[0] = sum(a);
    to[1] = sum(b);
    to[2] = sum(c);
    to[3] = sum(d);
#endif
}

// The largest lane, and the sum of all.
CSM_INLINE Ints4 larger(Ints4 a, Ints4 b) {
    return a > b ? a : b;
}
CSM_INLINE Ints4 added(Ints4 a, Ints4 b) {
    return a + b;
}
template <Ints4 (*Join)(Ints4, Ints4)>
CSM_INLINE int32_t joined(Ints v) {
    Ints4 parts[CSM_LANES / 4];
    std::memcpy(parts, &v, sizeof parts);
    Ints4 all = parts[0];
    for (int i = 1; i < CSM_LANES / 4; ++i) all = Join(all, parts[i]);
#if defined(CSM_X86)
    all = Join(all, reinterpret_cast<Ints4>(_mm_shuffle_epi32(reinterpret_cast<__m128i>(all), 0x4e)));
    all = Join(all, reinterpret_cast<Ints4>(_mm_shuffle_epi32(reinterpret_cast<__m128i>(all), 0xb1)));
#else
    all = Join(all, Ints4{all[2], all[3], all[0], all[1]});
    all = Join(all, Ints4{all[1], all[0], all[3], all[2]});
#endif
    return all[0];
}
CSM_INLINE int32_t largest(Ints v) {
    return joined<larger>(v);
}
CSM_INLINE int32_t total(Ints v) {
    return joined<added>(v);
}

// exp(x) = power * (rest + 1) for x <= 0.
struct Exp {
    Floats power, rest;
};
CSM_INLINE Exp split_exp(Floats x) {
    const Floats zero = {};
    x = x < zero - 87.0f ? zero - 87.0f : x;
    // adding 1.5 * 2^23 rounds, and leaves n of x = n ln 2 + r in the lowest bits
    const Floats shifted = x * 1.44269504f + 12582912.0f;
    const Floats n = shifted - 12582912.0f;
    const Floats r = (x - n * 0.693359375f) + n * 2.12194440e-4f;
    Floats p = r * 1.98412698e-4f + 1.38888889e-3f;
    p = p * r + 8.33333333e-3f;
    p = p * r + 4.16666667e-2f;
    p = p * r + 1.66666667e-1f;
    p = p * r + 0.5f;
    return {reinterpret_cast<Floats>((reinterpret_cast<Ints>(shifted) << 23) + 0x3f800000), p * (r * r) + r};
}

CSM_INLINE Floats exp_negative(Floats x) {
    const Exp e = split_exp(x);
    return e.power * e.rest + e.power;
}

CSM_INLINE Floats elu(Floats x) {
    const Floats zero = {};
    const Exp e = split_exp(x < zero ? x : zero);
    return x <= zero ? e.power * e.rest + (e.power - 1.0f) : x;  // not a number stays what it is
}

// x (1 + erf(x / sqrt 2)) / 2, with the complementary error function as t exp(-z^2 + polynomial in t), t = 1
// / (1 + z / 2): the Chebyshev fit of Numerical Recipes, off by less than 1.2e-7 of its value.
CSM_INLINE Floats gelu(Floats x) {
    const Floats zero = {};
    const Floats a = x < zero ? zero - x : x;
    const Floats z = a * 0.707106781f;
    const Floats t = 1.0f / (z * 0.5f + 1.0f);
    Floats p = t * 0.17087277f - 0.82215223f;
    p = p * t + 1.48851587f;
    p = p * t - 1.13520398f;
    p = p * t + 0.27886807f;
    p = p * t - 0.18628806f;
    p = p * t + 0.09678418f;
    p = p * t + 0.37409196f;
    p = p * t + 1.00002368f;
    p = p * t - 1.26551223f;
    const Floats tail = t * exp_negative(p - z * z) * (x * 0.5f);  // x/2 erfc(|x| / sqrt 2)
    return x < zero ? tail : x - tail;
}
