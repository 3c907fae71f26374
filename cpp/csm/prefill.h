// Evaluating many prompt rows of one utterance at once: the backbone over a chunk of rows, which leaves their
// keys and values in the cache. Built for the chunk's own size, used once: building takes a fifth of a
// millisecond, a chunk of eight rows of csm-1b thirty.
//
// What a row leaves does not depend on the pieces that a prompt comes in. Nodes of our own compute every row
// for itself; with operators of ggml a row's rounding depends on how many rows are computed at once, and with
// some devices on which of them it is, so that they always evaluate whole blocks: a row is then the same row
// of the same block whatever it is evaluated with, and rows that are not wanted go to the spare row.
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

// The largest number of rows, from row `first` of a slot on, that prefill() takes at once.
int prefill_chunk(const Device& device, const CsmConfig& config, const KvCache& cache, int first);

// Evaluates rows (at most prefill_chunk) at positions first .. first + count - 1 of a slot, whose last row of
// the cache is spare. logits, if not null: c0 logits, codes * count. Returns the graph's size.
GraphSize prefill(const std::shared_ptr<Device>& device, const CsmConfig& config, const CsmWeights& weights,
                  const KvCache& cache, int slot, int first, const Rows& rows, float* logits);

}  // namespace csm
