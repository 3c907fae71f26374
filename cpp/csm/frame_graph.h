// One 80 ms frame of B utterances as one graph: embed the pending rows, step the backbone, sample codebook 0,
// run the depth decoder over its positions with a sampler after each head, and leave all codes in one tensor.
// Nothing returns to the host in between; inputs and results have fixed addresses, so that the graph is built
// once and replayed.
//
// Rows of a prompt may go through the backbone with them, so that its weights are read once for both.
#pragma once

#include <memory>

#include "csm/weights.h"
#include "nn/sampler.h"

namespace csm {

class FrameGraph {
 public:
    // Where attention takes any slots (see attends_itself) a graph serves all slots and all positions:
    // first_slot and keys are 0 then.
    struct Shape {
        int first_slot;  // sequence b uses slot first_slot + b of the backbone's cache
        int batch;
        int prompt;  // rows of a prompt beside them; only where attention takes any slots
        int keys;    // cache rows that attention reads
        bool logits;
        SamplerNeeds needs;  // where samplers are composed
        bool operator==(const Shape& o) const {
            return first_slot == o.first_slot && batch == o.batch && prompt == o.prompt && keys == o.keys &&
                   logits == o.logits && needs == o.needs;
        }
    };

    FrameGraph(std::shared_ptr<Device> device, const CsmConfig& config, const CsmWeights& weights,
               const KvCache& cache, Shape shape);

    // Everything one run needs; the vectors are sized by the constructor. What is said of rows is that of
    // each sequence in batch order, then of the prompt's.
    struct Inputs {
        std::vector<int32_t> audio_rows;  // codebooks * rows: of the audio table
        std::vector<int32_t> text_ids;    // rows; -1 where the row is audio
        std::vector<int32_t> positions;   // rows
        std::vector<int32_t> slots;       // rows, if attention takes any slots
        std::vector<int64_t> cache_rows;  // rows
        std::vector<ggml_fp16_t> mask;    // keys * batch, if not
        std::vector<float> settings;      // 2 * kSettingsWidth rows of batch
        std::vector<float> uniforms;      // codebooks rows of batch
        std::vector<int32_t> forced;      // codebooks rows of batch
    };
    Inputs& inputs() { return inputs_; }

    // Runs a frame; codes: codebooks * batch, frame-major per sequence; logits (if in the shape): codes *
    // codebooks * batch.
    void run(int32_t* codes, float* logits);

    GraphSize size() const { return graph_.size(); }

 private:
    void build(const CsmConfig& config, const CsmWeights& weights, const KvCache& cache);
    ggml_tensor* build_input(const CsmConfig& config, const CsmWeights& weights);
    void write_embedding_inputs();
    ggml_tensor* draw(const Sampler& sampler, ggml_tensor* hidden, int codebook, const CsmConfig& config,
                      const CsmWeights& weights);

    Shape shape_;
    int n_codes_;  // logits of a codebook
    Inputs inputs_;
    std::vector<int32_t> drawn_;
    TensorPool pool_;
    InputBlock block_;
    Graph graph_;
    KvCache depth_cache_;
    // of the block
    ggml_tensor *audio_rows_, *text_ids_;
    ggml_tensor *audio_gate_ = nullptr, *text_gate_ = nullptr;  // F32 {1, batch}: 0 or 1; see build_input
    ggml_tensor *positions_, *cache_rows_, *slots_ = nullptr, *mask_ = nullptr;
    // of the pool
    ggml_tensor *codes_, *logits_ = nullptr;
    ggml_tensor *depth_positions_, *depth_rows_;             // columns of batch, one per depth position
    ggml_tensor *pair_positions_, *pair_rows_, *pair_mask_;  // of the first pass, which holds two positions
    SamplerInputs sampler_;
};

}  // namespace csm
