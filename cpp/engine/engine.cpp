#include "engine/engine.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <numeric>

#include "nn/philox.h"
#include "runtime/error.h"

namespace csm {

namespace {

// Graphs kept for reuse. Batches are exact, not rounded up: building a graph costs a millisecond or two, and
// a sequence that is only passed through as much as one that speaks.
constexpr size_t kMaxGraphs = 16;
constexpr int kMaxSlots = 1024;
// Rows of a prompt that go through the backbone in a step: with more the weights' reading is a small part.
constexpr int kMostPromptRows = 64;

class Stopwatch {
 public:
    double seconds() const {
        return std::chrono::duration<double>(std::chrono::steady_clock::now() - start_).count();
    }

 private:
    std::chrono::steady_clock::time_point start_ = std::chrono::steady_clock::now();
};

int checked_context(const Model& model, int context) {
    if (context < 0 || context > model.csm().context) {
        throw ArgumentError(cat("context is ", context, " rows, expected 1 to ", model.csm().context,
                                " (the model's), or 0 for all"));
    }
    return context == 0 ? model.csm().context : context;
}

ggml_type kv_type_of(const Model& model, const std::string& name) {
    if (name == "auto") return model.default_kv_type();
    if (name == "f32") return GGML_TYPE_F32;
    if (name == "f16") return GGML_TYPE_F16;
    throw ArgumentError(cat("kv_type is '", name, "', expected auto, f32 or f16"));
}

}  // namespace

void check_sampling(const SamplerSettings& s, const char* prefix) {
    if (!(s.temperature >= 0.0f) || std::isinf(s.temperature))
        throw ArgumentError(
            cat(prefix, "temperature is ", s.temperature, ", expected 0 (greedy) or a positive number"));
    if (s.top_k < 0) throw ArgumentError(cat(prefix, "top_k is ", s.top_k, ", expected 0 (off) or more"));
    if (!(s.top_p > 0.0f && s.top_p <= 1.0f))
        throw ArgumentError(cat(prefix, "top_p is ", s.top_p, ", expected a number in (0, 1]"));
}

Engine::Engine(std::shared_ptr<const Model> model, int slots, int context, const std::string& kv_type)
    : model_(std::move(model)),
      context_(checked_context(*model_, context)),
      pool_(model_->device(), KvCache::tensors(model_->csm().backbone)),
      graphs_(kMaxGraphs) {
    if (slots < 1 || slots > kMaxSlots)
        throw ArgumentError(cat("slots is ", slots, ", expected 1 to ", kMaxSlots));
    // one spare row per slot takes the writes of rows that are computed only because others are
    cache_ = KvCache(pool_, model_->csm().backbone, KvCache::round_up(context_ + 1), slots,
                     kv_type_of(*model_, kv_type));
    any_slots_ = attends_itself(*model_->device(), model_->csm().backbone, cache_.k.front()->type);
    pool_.allocate();
    slots_.resize(static_cast<size_t>(slots));
    touched_.resize(static_cast<size_t>(slots));
}

Engine::Slot& Engine::slot_at(int slot) {
    if (slot < 0 || slot >= slots() || !slots_[static_cast<size_t>(slot)].open) {
        throw ArgumentError(cat("slot ", slot, " is not open"));
    }
    return slots_[static_cast<size_t>(slot)];
}

int Engine::open(const SlotSettings& settings) {
    for (int i = 0; i < slots(); ++i) {
        if (slots_[static_cast<size_t>(i)].open) continue;
        slots_[static_cast<size_t>(i)] = Slot();
        slots_[static_cast<size_t>(i)].open = true;
        try {
            configure(i, settings);
        } catch (...) {
            slots_[static_cast<size_t>(i)].open = false;
            throw;
        }
        return i;
    }
    throw std::runtime_error(cat("all ", slots(), " slots are taken; close one or make an engine with more"));
}

void Engine::close(int slot) {
    slot_at(slot).open = false;
}

void Engine::trim() {
    graphs_.clear();
    for (int i = 0; i < slots(); ++i) {
        const Slot& s = slots_[static_cast<size_t>(i)];
        int& touched = touched_[static_cast<size_t>(i)];
        const int kept = s.open ? s.evaluated : 0;
        if (touched > kept) cache_.give_back(pool_, i, kept);
        touched = kept;
    }
}

void Engine::configure(int slot, const SlotSettings& settings) {
    check_sampling(settings.sampling, "");
    check_sampling(settings.depth_sampling, "depth_");
    Slot& s = slot_at(slot);
    s.settings = settings;
    s.frame = 0;
}

int Engine::position(int slot) const {
    const Slot& s = slot_at(slot);
    return s.evaluated + (s.pending() ? 1 : 0);
}

void Engine::rewind(int slot, int rows) {
    Slot& s = slot_at(slot);
    if (rows < 0 || rows > s.evaluated)
        throw ArgumentError(
            cat("cannot rewind slot ", slot, " to ", rows, " rows, it has ", s.evaluated, " evaluated"));
    s.evaluated = rows;
    s.text = -1;
    s.codes.clear();
}

void Engine::check_rows(int slot, const Rows& rows) const {
    const CsmConfig& c = model_->csm();
    for (int i = 0; i < rows.count; ++i) {
        if (rows.text[i] >= c.text_vocab)
            throw ArgumentError(
                cat("row ", i, ": text id ", rows.text[i], " is outside the vocabulary of ", c.text_vocab));
        if (rows.text[i] >= 0) continue;
        for (int codebook = 0; codebook < c.codebooks; ++codebook) {
            const int32_t code = rows.audio[int64_t{i} * c.codebooks + codebook];
            if (code < 0 || code >= c.audio_vocab) {
                throw ArgumentError(cat("row ", i, ", codebook ", codebook, ": code ", code,
                                        " is outside 0..", c.audio_vocab - 1));
            }
        }
    }
    const int have = position(slot);
    if (rows.count > context_ - have) {
        throw ArgumentError(cat(rows.count, " rows do not fit into slot ", slot, ": ", have, " of ", context_,
                                " rows are taken"));
    }
}

// The pending row and all new ones but the last.
Engine::Due Engine::due(const Slot& s, const Rows& rows) const {
    const auto codebooks = static_cast<size_t>(model_->csm().codebooks);
    Due out;
    if (s.pending()) {
        out.text.push_back(s.text);
        out.audio.insert(out.audio.end(), s.codes.begin(), s.codes.end());
        out.audio.resize(codebooks);
    }
    const int n = rows.count - 1;
    out.text.insert(out.text.end(), rows.text, rows.text + n);
    out.audio.insert(out.audio.end(), rows.audio, rows.audio + static_cast<size_t>(n) * codebooks);
    return out;
}

// The last of the rows becomes pending.
void Engine::keep_last(Slot& s, const Rows& rows) const {
    const int64_t codebooks = model_->csm().codebooks, last = rows.count - 1;
    s.text = std::max(rows.text[last], -1);
    s.codes.clear();
    if (s.text < 0) s.codes.assign(rows.audio + last * codebooks, rows.audio + (last + 1) * codebooks);
}

int Engine::append(int slot, const Rows& rows, std::vector<float>* logits) {
    Slot& s = slot_at(slot);
    const CsmConfig& c = model_->csm();
    if (rows.count < 1) return 0;
    check_rows(slot, rows);
    const Due due = this->due(s, rows);

    const Stopwatch watch;
    const int total = due.count();
    if (logits) logits->resize(static_cast<size_t>(total) * static_cast<size_t>(c.codes));
    for (int done = 0; done < total;) {
        const int n = std::min(prefill_chunk(*model_->device(), c, cache_, s.evaluated), total - done);
        graphs_of_.prefill = prefill(model_->device(), c, model_->csm_weights(), cache_, slot, s.evaluated,
                                     due.from(done, n, c.codebooks),
                                     logits ? logits->data() + int64_t{done} * c.codes : nullptr);
        s.evaluated += n;
        touch(slot);
        done += n;
    }
    timings_.prefill_s += watch.seconds();
    timings_.prefill_rows += total;
    keep_last(s, rows);
    return total;
}

// Inputs of sequence b, which is slot `number`; a null slot is one that the batch only passes through: it
// writes to the spare row, and what it draws is nobody's.
void Engine::fill(FrameGraph::Inputs& in, size_t b, const FrameGraph::Shape& shape, int number,
                  const Slot* slot, const int32_t* forced) {
    const CsmConfig& c = model_->csm();
    const auto codebooks = static_cast<size_t>(c.codebooks);
    const bool is_text = slot == nullptr || slot->text >= 0;
    in.text_ids[b] = slot == nullptr ? 0 : is_text ? slot->text : -1;
    in.positions[b] = slot ? slot->evaluated : 0;
    in.cache_rows[b] = int64_t{number} * cache_.capacity + (slot ? slot->evaluated : cache_.capacity - 1);
    if (any_slots_) {
        in.slots[b] = number;
    } else {
        const auto keys = static_cast<size_t>(shape.keys);
        const ggml_fp16_t seen = ggml_fp32_to_fp16(0.0f), hidden = ggml_fp32_to_fp16(-INFINITY);
        const auto mask = in.mask.begin() + static_cast<int64_t>(b * keys);
        const int visible = slot ? slot->evaluated + 1 : 1;
        std::fill(mask, mask + visible, seen);
        std::fill(mask + visible, mask + static_cast<int64_t>(keys), hidden);
    }
    const SlotSettings settings = slot ? slot->settings : SlotSettings{};
    const auto batch = static_cast<size_t>(shape.batch);
    pack_settings(settings.sampling, c.codes, &in.settings[b], batch);
    pack_settings(settings.depth_sampling, c.codes, &in.settings[kSettingsWidth * batch + b], batch);
    for (size_t i = 0; i < codebooks; ++i) {
        in.audio_rows[b * codebooks + i] =
            static_cast<int32_t>(i) * static_cast<int32_t>(model_->csm_weights().audio_page) +
            (is_text ? 0 : slot->codes[i]);
        in.uniforms[i * batch + b] =
            slot ? uniform(settings.seed, slot->frame, static_cast<uint32_t>(i), settings.attempt) : 0.0f;
        in.forced[i * batch + b] = forced ? forced[i] : -1;
    }
}

// Inputs of a prompt's rows, which follow the sequences.
void Engine::fill_prompt(FrameGraph::Inputs& in, int batch, int number, const Due& rows) {
    const auto codebooks = static_cast<size_t>(model_->csm().codebooks);
    const auto page = static_cast<int32_t>(model_->csm_weights().audio_page);
    for (size_t row = 0; row < rows.text.size(); ++row) {
        const size_t b = static_cast<size_t>(batch) + row;
        const bool is_text = rows.text[row] >= 0;
        in.text_ids[b] = is_text ? rows.text[row] : -1;
        in.positions[b] = slots_[static_cast<size_t>(number)].evaluated + static_cast<int32_t>(row);
        in.cache_rows[b] = int64_t{number} * cache_.capacity + in.positions[b];
        in.slots[b] = number;
        for (size_t i = 0; i < codebooks; ++i) {
            in.audio_rows[b * codebooks + i] =
                static_cast<int32_t>(i) * page + (is_text ? 0 : rows.audio[row * codebooks + i]);
        }
    }
}

// The slot of each sequence of a step over these slots, in the order of the batch. Where they have to follow
// each other the batch passes through all between the lowest and the highest.
std::vector<int> Engine::sequences(const int* slots, int n) const {
    std::vector<int> out(slots, slots + n);
    if (any_slots_) return out;
    const auto [low, high] = std::minmax_element(slots, slots + n);
    out.resize(static_cast<size_t>(*high - *low + 1));
    std::iota(out.begin(), out.end(), *low);
    return out;
}

// What the samplers of a step have to do. Nodes of our own see to everything.
SamplerNeeds Engine::needs(const int* slots, int n, const int32_t* forced) const {
    SamplerNeeds needs;
    if (model_->device()->runs_own_nodes()) return needs;
    needs.top_p = std::any_of(slots, slots + n, [this](int slot) {
        const SlotSettings& s = slots_[static_cast<size_t>(slot)].settings;
        return s.sampling.top_p < 1.0f || s.depth_sampling.top_p < 1.0f;
    });
    needs.forced = forced != nullptr;
    return needs;
}

void Engine::step(const int* slots, int n, const int32_t* forced, int32_t* codes, float* logits,
                  const Piece* piece) {
    if (n < 1) return;
    const CsmConfig& c = model_->csm();
    std::vector<int> index_of(slots_.size(), -1);
    int rows = 0;
    for (int i = 0; i < n; ++i) {
        const Slot& s = slot_at(slots[i]);
        if (!s.pending())
            throw ArgumentError(
                cat("slot ", slots[i], " has no row to continue from; append a prompt first"));
        if (s.evaluated >= context_)
            throw ArgumentError(cat("slot ", slots[i], " is full: ", context_, " rows"));
        int& index = index_of[static_cast<size_t>(slots[i])];
        if (index >= 0) throw ArgumentError(cat("slot ", slots[i], " stands twice in one step"));
        index = i;
        rows = std::max(rows, s.evaluated + 1);
    }
    if (forced) {
        for (int64_t i = 0; i < int64_t{n} * c.codebooks; ++i) {
            if (forced[i] >= c.audio_vocab)
                throw ArgumentError(cat("forced code ", forced[i], " is outside 0..", c.audio_vocab - 1));
        }
    }
    Due prompt;
    if (piece && piece->rows.count > 0) {
        const Slot& s = slot_at(piece->slot);
        if (index_of[static_cast<size_t>(piece->slot)] >= 0)
            throw ArgumentError(cat("slot ", piece->slot, " stands in a step and is given rows in it"));
        check_rows(piece->slot, piece->rows);
        prompt = due(s, piece->rows);
        if (!any_slots_ || prompt.count() > kMostPromptRows) {
            append(piece->slot, piece->rows, nullptr);
            piece = nullptr;
            prompt = {};
        }
    }

    const Stopwatch watch;
    const std::vector<int> members = sequences(slots, n);
    const FrameGraph::Shape shape{any_slots_ ? 0 : members.front(),
                                  static_cast<int>(members.size()),
                                  prompt.count(),
                                  any_slots_ ? 0 : cache_.bucket(rows),
                                  logits != nullptr,
                                  needs(slots, n, forced)};
    FrameGraph& graph = graphs_.get(shape, [&] {
        return std::make_unique<FrameGraph>(model_->device(), c, model_->csm_weights(), cache_, shape);
    });
    for (size_t b = 0; b < members.size(); ++b) {
        const int i = index_of[static_cast<size_t>(members[b])];
        fill(graph.inputs(), b, shape, members[b],
             i >= 0 ? &slots_[static_cast<size_t>(members[b])] : nullptr,
             forced && i >= 0 ? forced + int64_t{i} * c.codebooks : nullptr);
    }
    if (shape.prompt > 0) fill_prompt(graph.inputs(), shape.batch, piece->slot, prompt);
    const auto per_sequence = static_cast<size_t>(c.codebooks) * static_cast<size_t>(c.codes);
    std::vector<int32_t> drawn(members.size() * static_cast<size_t>(c.codebooks));
    std::vector<float> all_logits(logits ? per_sequence * members.size() : 0);
    graph.run(drawn.data(), logits ? all_logits.data() : nullptr);
    graphs_of_.step = graph.size();

    for (size_t b = 0; b < members.size(); ++b) {
        const int i = index_of[static_cast<size_t>(members[b])];
        if (i < 0) continue;
        Slot& s = slots_[static_cast<size_t>(members[b])];
        const auto first = drawn.begin() + static_cast<int64_t>(b) * c.codebooks;
        s.evaluated += 1;
        touch(members[b]);
        s.frame += 1;
        s.text = -1;
        s.codes.assign(first, first + c.codebooks);
        std::copy(s.codes.begin(), s.codes.end(), codes + int64_t{i} * c.codebooks);
        if (logits)
            std::copy_n(&all_logits[b * per_sequence], per_sequence,
                        logits + static_cast<size_t>(i) * per_sequence);
    }
    if (piece && piece->rows.count > 0) {
        Slot& s = slot_at(piece->slot);
        s.evaluated += prompt.count();
        touch(piece->slot);
        timings_.prefill_rows += prompt.count();
        keep_last(s, piece->rows);
    }
    timings_.step_s += watch.seconds();
    timings_.steps += 1;
    timings_.frames += n;
}

}  // namespace csm
