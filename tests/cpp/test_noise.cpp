// The noise that codes are drawn with.

#include <set>

#include "check.h"
#include "nn/philox.h"

// Known answers published with the generator (Random123, kat_vectors, philox4x32 with 10 rounds).
TEST(philox_known_answers) {
    CHECK((csm::philox4x32({0, 0, 0, 0}, {0, 0}) ==
           csm::PhiloxBlock{0x6627e8d5u, 0xe169c58du, 0xbc57ac4cu, 0x9b00dbd8u}));
    constexpr uint32_t ones = 0xffffffffu;
    CHECK((csm::philox4x32({ones, ones, ones, ones}, {ones, ones}) ==
           csm::PhiloxBlock{0x408f276du, 0x41c83b0eu, 0xa20bc7c6u, 0x6d5451fdu}));
    CHECK(
        (csm::philox4x32({0x243f6a88u, 0x85a308d3u, 0x13198a2eu, 0x03707344u}, {0xa4093822u, 0x299f31d0u}) ==
         csm::PhiloxBlock{0xd16cfe09u, 0x94fdccebu, 0x5001e420u, 0x24126ea1u}));
}

TEST(uniforms_lie_in_the_half_open_unit_interval) {
    double sum = 0;
    constexpr int n = 100000;
    for (uint32_t i = 0; i < n; ++i) {
        const float u = csm::uniform(1, i, 0);
        CHECK(u >= 0.0f && u < 1.0f);
        sum += static_cast<double>(u);
    }
    // Five standard errors of the mean of n uniform numbers: 5 / sqrt(12 n).
    CHECK_NEAR(sum / n, 0.5, 0.0046);
}

TEST(seed_attempt_frame_and_codebook_all_count) {
    std::set<float> drawn;
    for (const uint64_t seed : {uint64_t{0}, uint64_t{1}, uint64_t{1} << 32})
        for (uint32_t attempt = 0; attempt < 3; ++attempt)
            for (uint32_t frame = 0; frame < 4; ++frame)
                for (uint32_t codebook = 0; codebook < 4; ++codebook)
                    drawn.insert(csm::uniform(seed, frame, codebook, attempt));
    CHECK_EQ(drawn.size(), 144u);
    // What one seed draws again is not what another one draws.
    CHECK_EQ(csm::uniform(7, 3, 1), csm::uniform(7, 3, 1, 0));
    CHECK_EQ(drawn.count(csm::uniform(2, 0, 0)), 0u);
}
