// How streams are cut into pieces. A graph serves one size, so there are few sizes; the largest bounds the
// memory that long inputs and many streams need.
#pragma once

#include <cstdint>

namespace csm {

constexpr int kMaxChunkFrames = 16;  // of all streams of a piece together

// Frames of the next piece of each of so many streams, at most kMaxChunkFrames, when `left` are left: the
// largest power of two that fits.
inline int chunk_frames(int64_t left, int streams = 1) {
    int frames = kMaxChunkFrames;
    while (frames > left || frames * streams > kMaxChunkFrames) frames /= 2;
    return frames;
}

}  // namespace csm
