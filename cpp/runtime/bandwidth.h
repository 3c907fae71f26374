// How fast this machine reads memory: the floor under every frame of one utterance, whose time is that of
// reading the weights.
#pragma once

#include <cstddef>

namespace csm {

// Bytes per second that `threads` threads together read from a buffer of `bytes` bytes, each its own
// contiguous part, the best of `rounds` passes. The buffer should be several times the last-level cache.
// Throws BackendError without memory or threads.
double read_bandwidth(int threads, size_t bytes, int rounds);

}  // namespace csm
