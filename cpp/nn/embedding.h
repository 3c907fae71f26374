// The input of the backbone: a row is a text token, or a frame of speech whose codes' embeddings are added
// up.
#pragma once

#include "runtime/graph.h"

namespace csm {

// For each token the row text_ids[t] of `text`, or, where that is negative, the sum of the rows
// audio_rows[t * codebooks + i] of `audio`: F32 {width, tokens}. A node of our own, for devices that run
// them: put together from operators, the codes of a frame take as long as a good part of the backbone. text,
// audio: {width, ids} of any type; text_ids: I32 {tokens}; audio_rows: I32 {codebooks * tokens}, in range
// also where they are not used.
ggml_tensor* build_embedding(Graph& graph, ggml_tensor* text, ggml_tensor* audio, ggml_tensor* text_ids,
                             ggml_tensor* audio_rows);

// The sum over the codes of each frame, of operators of ggml only: {width, frames}.
ggml_tensor* build_frame_embedding(ggml_context* ctx, ggml_tensor* audio, ggml_tensor* audio_rows,
                                   int codebooks);

}  // namespace csm
