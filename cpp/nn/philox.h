// Philox4x32-10, a counter-based generator (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC
// 2011): the number for (seed, attempt, frame, codebook) is a pure function of the four, so that what an
// utterance draws cannot depend on its neighbours in a batch, on threads, or on how often it was interrupted.
// The attempt is a part of the counter of its own: what is drawn again shares no number with any other seed.
#pragma once

#include <array>
#include <cstdint>

namespace csm {

using PhiloxBlock = std::array<uint32_t, 4>;

inline PhiloxBlock philox4x32(PhiloxBlock counter, std::array<uint32_t, 2> key) {
    for (int round = 0; round < 10; ++round) {
        const uint64_t a = uint64_t{0xD2511F53u} * counter[0];
        const uint64_t b = uint64_t{0xCD9E8D57u} * counter[2];
        counter = {static_cast<uint32_t>(b >> 32) ^ counter[1] ^ key[0], static_cast<uint32_t>(b),
                   static_cast<uint32_t>(a >> 32) ^ counter[3] ^ key[1], static_cast<uint32_t>(a)};
        key[0] += 0x9E3779B9u;
        key[1] += 0xBB67AE85u;
    }
    return counter;
}

// A uniform number in [0, 1) with 24 bits, all exact in F32.
inline float uniform(uint64_t seed, uint32_t frame, uint32_t codebook, uint32_t attempt = 0) {
    const PhiloxBlock block = philox4x32({codebook, frame, attempt, 0},
                                         {static_cast<uint32_t>(seed), static_cast<uint32_t>(seed >> 32)});
    return static_cast<float>(block[0] >> 8) * 0x1.0p-24f;
}

}  // namespace csm
