// How a stream is cut into pieces. A graph serves one size, so there are few sizes; the largest bounds the
// memory that long inputs need.
#pragma once

#include <cstdint>

namespace csm {

constexpr int kMaxChunkFrames = 16;

// Frames of the next piece when so many are left: the largest power of two that fits.
inline int chunk_frames(int64_t left) {
    int frames = kMaxChunkFrames;
    while (frames > left) frames /= 2;
    return frames;
}

}  // namespace csm
