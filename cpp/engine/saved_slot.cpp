// What a slot holds as bytes: keys and values alone (a prefix that utterances begin with, kept in files), or
// all that an utterance in progress needs to go on.
#include <cstring>

#include "engine/engine.h"
#include "runtime/error.h"
#include "runtime/saved_state.h"

namespace csm {

namespace {

struct PrefixHeader {
    char magic[8];
    uint32_t type, layers, kv_width, rows;
};
constexpr char kPrefixMagic[8] = {'C', 'S', 'M', 'K', 'V', '0', '0', '1'};
constexpr StateMagic kSlotMagic = "CSMSLOT2";

void write(StateWriter& out, const SamplerSettings& s) {
    out.value(s.temperature);
    out.value(s.top_p);
    out.value(s.top_k);
}

SamplerSettings read_sampling(StateReader& in, const char* prefix) {
    SamplerSettings s;
    s.temperature = in.value<float>();
    s.top_p = in.value<float>();
    s.top_k = in.value<int32_t>();
    check_sampling(s, prefix);
    return s;
}

}  // namespace

std::vector<uint8_t> Engine::save_prefix(int slot) const {
    const Slot& s = slot_at(slot);
    const TransformerConfig& c = model_->csm().backbone;
    PrefixHeader header{};
    std::memcpy(header.magic, kPrefixMagic, sizeof kPrefixMagic);
    header.type = cache_.k.front()->type;
    header.layers = static_cast<uint32_t>(c.layers);
    header.kv_width = static_cast<uint32_t>(c.kv_width());
    header.rows = static_cast<uint32_t>(s.evaluated);
    std::vector<uint8_t> out(sizeof header + cache_.bytes(s.evaluated));
    std::memcpy(out.data(), &header, sizeof header);
    cache_.read(slot, 0, s.evaluated, out.data() + sizeof header);
    return out;
}

void Engine::load_prefix(int slot, const uint8_t* data, size_t bytes) {
    Slot& s = slot_at(slot);
    const TransformerConfig& c = model_->csm().backbone;
    PrefixHeader header;
    if (bytes < sizeof header) throw ArgumentError("the saved prefix is too short");
    std::memcpy(&header, data, sizeof header);
    if (std::memcmp(header.magic, kPrefixMagic, sizeof kPrefixMagic) != 0)
        throw ArgumentError("the saved prefix has no valid header");
    if (header.type != static_cast<uint32_t>(cache_.k.front()->type) ||
        header.layers != static_cast<uint32_t>(c.layers) ||
        header.kv_width != static_cast<uint32_t>(c.kv_width())) {
        throw ArgumentError(cat("the saved prefix belongs to another model: ", header.layers,
                                " layers of width ", header.kv_width, " against ", c.layers, " of ",
                                c.kv_width(), ", or another cache type"));
    }
    if (header.rows > static_cast<uint32_t>(context_))
        throw ArgumentError(cat("the saved prefix has ", header.rows, " rows, the slot holds ", context_));
    const auto rows = static_cast<int>(header.rows);
    if (bytes != sizeof header + cache_.bytes(rows))
        throw ArgumentError("the saved prefix is damaged: its length does not fit its header");
    cache_.write(slot, 0, rows, data + sizeof header, "saved prefix");
    s.evaluated = rows;
    s.text = -1;
    s.codes.clear();
    touch(slot);
}

std::vector<uint8_t> Engine::save_slot(int slot) const {
    const Slot& s = slot_at(slot);
    const CsmConfig& c = model_->csm();
    StateWriter out(kSlotMagic);
    out.value(static_cast<uint32_t>(cache_.k.front()->type));
    out.value(c.backbone.layers);
    out.value(c.backbone.kv_width());
    out.value(c.codebooks);
    out.value(s.settings.seed);
    out.value(s.settings.attempt);
    write(out, s.settings.sampling);
    write(out, s.settings.depth_sampling);
    out.value(s.frame);
    out.value(s.text);
    out.value(static_cast<int>(s.codes.size()));
    for (const int32_t code : s.codes) out.value(code);
    out.value(s.evaluated);
    cache_.read(slot, 0, s.evaluated, out.room(cache_.bytes(s.evaluated)));
    return out.finish();
}

void Engine::load_slot(int slot, const uint8_t* data, size_t bytes) {
    Slot& s = slot_at(slot);
    const CsmConfig& c = model_->csm();
    StateReader in("saved slot", kSlotMagic, data, bytes);
    in.expect("type of keys and values", static_cast<uint32_t>(cache_.k.front()->type));
    in.expect("number of layers", c.backbone.layers);
    in.expect("width of keys", c.backbone.kv_width());
    in.expect("number of codebooks", c.codebooks);
    Slot loaded;
    loaded.open = true;
    loaded.settings.seed = in.value<uint64_t>();
    loaded.settings.attempt = in.value<uint32_t>();
    loaded.settings.sampling = read_sampling(in, "the saved slot's ");
    loaded.settings.depth_sampling = read_sampling(in, "the saved slot's depth_");
    loaded.frame = in.value<uint32_t>();
    loaded.text = in.value<int32_t>();
    const int codes = in.value<int>();
    if (loaded.text < -1 || loaded.text >= c.text_vocab || (codes != 0 && codes != c.codebooks) ||
        (codes != 0 && loaded.text >= 0))
        throw ArgumentError("the saved slot is damaged: its pending row is no row of this model");
    for (int i = 0; i < codes; ++i) {
        loaded.codes.push_back(in.value<int32_t>());
        if (loaded.codes.back() < 0 || loaded.codes.back() >= c.audio_vocab)
            throw ArgumentError(cat("the saved slot is damaged: its pending row has code ",
                                    loaded.codes.back(), ", expected 0 to ", c.audio_vocab - 1));
    }
    loaded.evaluated = in.value<int>();
    if (loaded.evaluated < 0 || loaded.evaluated > context_)
        throw ArgumentError(
            cat("the saved slot has ", loaded.evaluated, " rows, a slot of this engine holds ", context_));
    in.expect_left(cache_.bytes(loaded.evaluated));
    cache_.write(slot, 0, loaded.evaluated, in.take(cache_.bytes(loaded.evaluated)), "saved slot");
    s = std::move(loaded);
    touch(slot);
}

}  // namespace csm
