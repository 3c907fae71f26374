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

// a b + c, rounded once everywhere.
CSM_INLINE Floats rounded_once(Floats a, Floats b, Floats c) {
#if defined(CSM_FMA)
    return CSM_FMA(a, b, c);
#else
    for (int i = 0; i < CSM_LANES; ++i) c[i] = std::fma(a[i], b[i], c[i]);
    return c;
#endif
}

CSM_INLINE float sum(Floats v) {
    float parts[CSM_LANES];
    store(parts, v);
    for (int width = CSM_LANES / 2; width > 0; width /= 2)
        for (int i = 0; i < width; ++i) parts[i] += parts[i + width];
    return parts[0];
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
