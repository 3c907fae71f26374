#include "nn/embedding.h"

#include <algorithm>

namespace csm {

namespace {

// Columns of a unit of work; a multiple of the blocks of all types.
constexpr int64_t kPart = 256;

// `count` values of row `row` of a table, from column `first` on.
void read_row(const ggml_tensor* table, int64_t row, int64_t first, int64_t count, float* out) {
    const auto* data = static_cast<const char*>(table->data) + static_cast<size_t>(row) * table->nb[1] +
                       ggml_row_size(table->type, first);
    if (table->type == GGML_TYPE_F32) {
        std::copy_n(reinterpret_cast<const float*>(data), count, out);
    } else {
        ggml_get_type_traits(table->type)->to_float(data, out, count);
    }
}

void run_embedding(ggml_tensor* dst, int ith, int nth, void* userdata) {
    const ggml_tensor *text = dst->src[0], *audio = dst->src[1];
    const auto* text_ids = static_cast<const int32_t*>(dst->src[2]->data);
    const auto* audio_rows = static_cast<const int32_t*>(dst->src[3]->data);
    const int64_t width = dst->ne[0], parts = (width + kPart - 1) / kPart,
                  codebooks = dst->src[3]->ne[0] / dst->ne[1];
    divide(*static_cast<ThreadTeam*>(userdata), parts * dst->ne[1], ith, nth,
           [&](int64_t first, int64_t last) {
               for (int64_t unit = first; unit < last; ++unit) {
                   const int64_t token = unit / parts, begin = unit % parts * kPart,
                                 count = std::min(kPart, width - begin);
                   float* out = reinterpret_cast<float*>(static_cast<char*>(dst->data) +
                                                         static_cast<size_t>(token) * dst->nb[1]) +
                                begin;
                   if (text_ids[token] >= 0) {
                       read_row(text, text_ids[token], begin, count, out);
                       continue;
                   }
                   // in the order and precision of ggml_sum_rows
                   double sum[kPart] = {};
                   for (int64_t i = 0; i < codebooks; ++i) {
                       read_row(audio, audio_rows[token * codebooks + i], begin, count, out);
                       for (int64_t j = 0; j < count; ++j) sum[j] += static_cast<double>(out[j]);
                   }
                   for (int64_t j = 0; j < count; ++j) out[j] = static_cast<float>(sum[j]);
               }
           });
}

}  // namespace

ggml_tensor* build_embedding(Graph& graph, ggml_tensor* text, ggml_tensor* audio, ggml_tensor* text_ids,
                             ggml_tensor* audio_rows) {
    ggml_tensor* args[] = {text, audio, text_ids, audio_rows};
    return ggml_custom_4d(graph.ctx(), GGML_TYPE_F32, text->ne[0], text_ids->ne[0], 1, 1, args, 4,
                          run_embedding, GGML_N_TASKS_MAX, &graph.device().team());
}

ggml_tensor* build_frame_embedding(ggml_context* ctx, ggml_tensor* audio, ggml_tensor* audio_rows,
                                   int codebooks) {
    const int64_t width = audio->ne[0], frames = audio_rows->ne[0] / codebooks;
    ggml_tensor* codes =
        ggml_reshape_3d(ctx, ggml_get_rows(ctx, audio, audio_rows), width, codebooks, frames);
    ggml_tensor* sum = ggml_sum_rows(ctx, ggml_cont(ctx, ggml_permute(ctx, codes, 1, 0, 2, 3)));
    return ggml_reshape_2d(ctx, sum, width, frames);
}

}  // namespace csm
