// The weights of each packed format as vectors: the scales of a chunk and the bytes of four columns, compiled
// once per instruction set after vectors.h. The includer may give CSM_LOOKUP(table, bytes), the bytes of a
// table of 16 at the places that bytes say, and set CSM_SIGNED_BYTES if products take signed bytes only.
// There is no include guard for that reason, and nothing is included here.

#if defined(CSM_SIGNED_BYTES)
constexpr bool kSignedBytes = true;
#else
constexpr bool kSignedBytes = false;
#endif

CSM_INLINE Ints low_nibbles(Ints bytes) {
    return bytes & 0x0f0f0f0f;
}
CSM_INLINE Ints high_nibbles(Ints bytes) {
    return (bytes >> 4) & 0x0f0f0f0f;
}

#if !defined(CSM_LOOKUP)
CSM_INLINE Ints plain_lookup(const uint8_t* table, Ints bytes) {
    uint8_t lanes[CSM_LANES * 4];
    std::memcpy(lanes, &bytes, sizeof lanes);
    for (uint8_t& lane : lanes) lane = table[lane];
    std::memcpy(&bytes, lanes, sizeof lanes);
    return bytes;
}
#define CSM_LOOKUP(table, bytes) plain_lookup(table, bytes)
#endif

// What nibbles of IQ4_NL stand for, plus 128.
alignas(16) constexpr uint8_t kNonlinear[16] = {1,   24,  45,  63,  79,  93,  106, 118,
                                                129, 141, 153, 166, 181, 197, 217, 241};
// The table's lowest four bits, its highest four, and its numbers as signed ones.
struct NonlinearPart {
    alignas(16) uint8_t bytes[16];
};
constexpr NonlinearPart nonlinear_part(unsigned shift, unsigned mask, unsigned change) {
    NonlinearPart part = {};
    for (int i = 0; i < 16; ++i)
        part.bytes[i] = static_cast<uint8_t>(((kNonlinear[i] >> shift) & mask) ^ change);
    return part;
}
constexpr NonlinearPart kNonlinearLow = nonlinear_part(0, 15, 0), kNonlinearHigh = nonlinear_part(4, 15, 0),
                        kNonlinearSigned = nonlinear_part(0, 255, 0x80);

constexpr bool is_wide(ggml_type type) {
    return product_bits(type) == 8;
}

// Moves a field of bits from one place to another.
template <int From, int To>
CSM_INLINE Ints moved(Ints bytes) {
    if constexpr (From < To) return bytes << (To - From);
    if constexpr (From > To) return bytes >> (From - To);
    return bytes;
}

// The indices of columns 4 I to 4 I + 3: what is stored, in as many bits as there are for it.
template <ggml_type Type, int I>
CSM_INLINE Ints stored_bytes(const uint8_t* lines) {
    if constexpr (Type == GGML_TYPE_Q8_0) return load_bytes(lines + I * 64);
    const Ints line = load_bytes(lines + I % 4 * 64);
    const Ints low = I < 4 ? low_nibbles(line) : high_nibbles(line);
    if constexpr (Type == GGML_TYPE_Q5_K) return low | (moved<I, 4>(load_bytes(lines + 256)) & 0x10101010);
    if constexpr (Type == GGML_TYPE_Q6_K)
        return low | (moved<I / 2 * 2, 4>(load_bytes(lines + 256 + I % 2 * 64)) & 0x30303030);
    return low;
}

// The bytes of columns 4 I to 4 I + 3, as products take them.
template <ggml_type Type, int I>
CSM_INLINE Ints quad_bytes(const uint8_t* lines) {
    const Ints bytes = stored_bytes<Type, I>(lines);
    if constexpr (Type == GGML_TYPE_IQ4_NL)
        return CSM_LOOKUP(kSignedBytes ? kNonlinearSigned.bytes : kNonlinear, bytes);
    if constexpr (Type == GGML_TYPE_Q8_0 && kSignedBytes) return bytes ^ static_cast<int32_t>(0x80808080u);
    return bytes;
}

// The lowest and the highest four bits of bytes that have eight.
struct Planes {
    Ints low, high;
};
template <ggml_type Type, int I>
CSM_INLINE Planes byte_planes(const uint8_t* lines) {
    const Ints bytes = stored_bytes<Type, I>(lines);
    if constexpr (Type == GGML_TYPE_IQ4_NL)
        return {CSM_LOOKUP(kNonlinearLow.bytes, bytes), CSM_LOOKUP(kNonlinearHigh.bytes, bytes)};
    return {low_nibbles(bytes), high_nibbles(bytes)};
}

// Of a block of 32 columns and CSM_LANES rows.
struct BlockScales {
    Floats scale;
    Floats other;  // the second half's scale, or the minimum, where the format has one
};

CSM_INLINE Floats numbers(Ints v) {
    return __builtin_convertvector(v, Floats);
}

// Byte j of each word.
template <int J>
CSM_INLINE Ints byte_of(Ints words) {
    if constexpr (J == 0) return words & 0xff;
    return (words >> (8 * J)) & 0xff;
}
template <int J>
CSM_INLINE Ints signed_byte_of(Ints words) {
    return (words << (24 - 8 * J)) >> 24;
}

template <int First>
CSM_INLINE void four_with_minima(Ints scales, Ints minima, Floats d, Floats dmin, BlockScales* to) {
    to[First] = {numbers(byte_of<0>(scales)) * d, numbers(byte_of<0>(minima)) * dmin};
    to[First + 1] = {numbers(byte_of<1>(scales)) * d, numbers(byte_of<1>(minima)) * dmin};
    to[First + 2] = {numbers(byte_of<2>(scales)) * d, numbers(byte_of<2>(minima)) * dmin};
    to[First + 3] = {numbers(byte_of<3>(scales)) * d, numbers(byte_of<3>(minima)) * dmin};
}

// The scales of a chunk's blocks. Products of 11 bits with 6 or 8 are exact.
template <ggml_type Type>
CSM_INLINE void load_scales(const uint8_t* chunk, int vector, BlockScales* to) {
    const auto* halves = reinterpret_cast<const uint16_t*>(chunk) + vector * CSM_LANES;
    const uint8_t* words = chunk + 64 + vector * CSM_LANES * 4;
    if constexpr (Type == GGML_TYPE_Q4_K || Type == GGML_TYPE_Q5_K) {
        const Floats d = load(halves), dmin = load(halves + PackedMatrix::kGroupRows);
        // Scales and minima of the first four blocks have six bits of the first two words' bytes; the others
        // have four of the third's and the two that are left over above.
        const Ints first = load_bytes(words), second = load_bytes(words + 64),
                   third = load_bytes(words + 128);
        four_with_minima<0>(first & 0x3f3f3f3f, second & 0x3f3f3f3f, d, dmin, to);
        four_with_minima<4>(low_nibbles(third) | ((first >> 2) & 0x30303030),
                            high_nibbles(third) | ((second >> 2) & 0x30303030), d, dmin, to);
    } else if constexpr (Type == GGML_TYPE_Q6_K) {
        const Floats d = load(halves);
        for (int word = 0; word < 4; ++word) {
            const Ints scales = load_bytes(words + word * 64);
            to[2 * word] = {numbers(signed_byte_of<0>(scales)) * d, numbers(signed_byte_of<1>(scales)) * d};
            to[2 * word + 1] = {numbers(signed_byte_of<2>(scales)) * d,
                                numbers(signed_byte_of<3>(scales)) * d};
        }
    } else {
        for (int block = 0; block < 2; ++block)
            to[block].scale = load(halves + block * PackedMatrix::kGroupRows);
    }
}
