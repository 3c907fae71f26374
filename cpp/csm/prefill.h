// Evaluating many prompt rows of one utterance at once: the backbone over a chunk of rows, which leaves their
// keys and values in the cache. Built for the chunk's own size, used once: the graph is small beside the work
// it describes.
#pragma once

#include <memory>

#include "csm/weights.h"

namespace csm {

// Prompt rows: row i is text (text[i] >= 0) or a frame of codes (audio + i * codebooks).
struct Rows {
    const int32_t* text;
    const int32_t* audio;
    int count;
};

// Chunks are of this size whatever the batch, so that a prompt is rounded the same way alone and among
// others.
constexpr int kPrefillChunk = 512;

// Evaluates rows (at most kPrefillChunk) at positions first .. first + count - 1 of a slot. keys: cache rows
// to attend over, at least first + count. logits, if not null: c0 logits, codes * count.
void prefill(const std::shared_ptr<Device>& device, const CsmConfig& config, const CsmWeights& weights,
             const KvCache& cache, int slot, int first, int keys, const Rows& rows, float* logits);

}  // namespace csm
