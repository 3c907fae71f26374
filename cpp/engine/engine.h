// Utterances in flight: slots of the backbone's cache, their pending rows and sampling settings, and the
// graphs that advance any set of them by one frame. A step costs what its slots cost, wherever they are; only
// on devices where attention over scattered slots would copy them it costs all between the lowest and the
// highest.
//
// A slot always has its last row pending: rows are evaluated when something follows. The row of a new frame
// thus waits for the next step or the next text, and the all-zero frame that ends an utterance is already the
// EOS row a dialogue needs.
//
// One thread at a time may use an engine; engines of one model may be used side by side.
#pragma once

#include <algorithm>
#include <memory>
#include <optional>

#include "checkpoint/model.h"
#include "csm/frame_graph.h"
#include "csm/prefill.h"
#include "runtime/graph_cache.h"

namespace csm {

struct SlotSettings {
    uint64_t seed = 0;
    uint32_t attempt = 0;  // of the noise: which go at saying the same
    SamplerSettings sampling;
    SamplerSettings depth_sampling;
};

// Throws ArgumentError naming the first setting out of its range; prefix stands before its name.
void check_sampling(const SamplerSettings& settings, const char* prefix);

struct EngineTimings {
    double prefill_s = 0.0;
    int64_t prefill_rows = 0;
    double step_s = 0.0;
    int64_t steps = 0;
    int64_t frames = 0;
};

// Of the last graph of each kind; zeros if none ran yet.
struct EngineGraphs {
    GraphSize prefill, step;
};

class Engine {
 public:
    // context: rows per slot, 0 = the model's. kv_type: "auto", "f32" or "f16".
    Engine(std::shared_ptr<const Model> model, int slots, int context, const std::string& kv_type);

    int slots() const { return static_cast<int>(slots_.size()); }
    int context() const { return context_; }
    size_t kv_bytes() const { return pool_.bytes(); }
    const Model& model() const { return *model_; }
    const EngineTimings& timings() const { return timings_; }
    const EngineGraphs& graphs() const { return graphs_of_; }

    // Takes the lowest free slot.
    int open(const SlotSettings& settings);
    void close(int slot);
    // New settings; the frame counter of the noise restarts.
    void configure(int slot, const SlotSettings& settings);
    int position(int slot) const;
    void rewind(int slot, int rows);

    // Appends rows; returns the number evaluated by this call. logits, if not null: receives codes *
    // evaluated values.
    int append(int slot, const Rows& rows, std::vector<float>* logits);
    // Rows for a slot.
    struct Piece {
        int slot;
        Rows rows;
    };
    // One frame for each of n slots: codes (n x codebooks). forced (same shape; may be null): codes >= 0
    // replace drawn ones. logits (may be null): n x codebooks x codes. piece (may be null): is appended to a
    // slot that is not among them; where attention takes any slots, in the same pass through the backbone.
    void step(const int* slots, int n, const int32_t* forced, int32_t* codes, float* logits,
              const Piece* piece = nullptr);

    // Gives back what an idle engine does not need: graphs kept for reuse, and the memory of rows that no
    // open slot holds. The next steps take them anew.
    void trim();

    // Keys and values of the evaluated rows, to begin other utterances with. Throws ArgumentError for data
    // that is damaged or of another model; the slot is then as before. So do all that load.
    std::vector<uint8_t> save_prefix(int slot) const;
    void load_prefix(int slot, const uint8_t* data, size_t bytes);
    // The whole slot, to go on with the utterance later in any open slot: the rows, the pending one included,
    // the settings and the frame counter of the noise.
    std::vector<uint8_t> save_slot(int slot) const;
    void load_slot(int slot, const uint8_t* data, size_t bytes);

 private:
    struct Slot {
        bool open = false;
        SlotSettings settings;
        int evaluated = 0;   // rows in the cache
        uint32_t frame = 0;  // of the noise
        // the pending row: a text id >= 0, or codes; nothing pending if neither
        int32_t text = -1;
        std::vector<int32_t> codes;
        bool pending() const { return text >= 0 || !codes.empty(); }
    };
    // Rows that an append evaluates, and the number of them.
    struct Due {
        std::vector<int32_t> text, audio;
        int count() const { return static_cast<int>(text.size()); }
        Rows from(int row, int n, int codebooks) const {
            return {text.data() + row, audio.data() + int64_t{row} * codebooks, n};
        }
    };
    void check_rows(int slot, const Rows& rows) const;
    Due due(const Slot& slot, const Rows& rows) const;
    void keep_last(Slot& slot, const Rows& rows) const;
    Slot& slot_at(int slot);
    const Slot& slot_at(int slot) const { return const_cast<Engine*>(this)->slot_at(slot); }
    void touch(int slot) {
        int& touched = touched_[static_cast<size_t>(slot)];
        touched = std::max(touched, slots_[static_cast<size_t>(slot)].evaluated);
    }
    std::vector<int> sequences(const int* slots, int n) const;
    SamplerNeeds needs(const int* slots, int n, const int32_t* forced) const;
    void fill(FrameGraph::Inputs& inputs, size_t b, const FrameGraph::Shape& shape, int number,
              const Slot* slot, const int32_t* forced);
    void fill_prompt(FrameGraph::Inputs& inputs, int batch, int number, const Due& rows);

    std::shared_ptr<const Model> model_;
    int context_;
    TensorPool pool_;
    KvCache cache_;
    std::vector<Slot> slots_;
    std::vector<int> touched_;  // by slot: rows whose memory is in use
    bool any_slots_;  // whether a step takes slots as they are, or all between the lowest and the highest
    GraphCache<FrameGraph::Shape, FrameGraph> graphs_;
    EngineTimings timings_;
    EngineGraphs graphs_of_;
};

}  // namespace csm
