// Utterances through the engine: what an utterance is drawn depends on its own rows and settings, and on
// nothing else.

#include <algorithm>
#include <cstdlib>

#include "check.h"
#include "engine/engine.h"
#include "runtime/error.h"
#include "tiny_model.h"

namespace {

constexpr int kCodebooks = TinyModel::kCodebooks;

using Codes = std::vector<int32_t>;

struct Prompt {
    Codes text;   // -1 for a row of codes
    Codes audio;  // kCodebooks per row
    csm::Rows rows() const { return {text.data(), audio.data(), static_cast<int>(text.size())}; }
};

// Some rows of text, some frames, and text again; n distinguishes prompts.
Prompt prompt(int n) {
    Prompt p;
    const auto add = [&](int32_t id, int32_t code) {
        p.text.push_back(id);
        for (int i = 0; i < kCodebooks; ++i)
            p.audio.push_back(id < 0 ? (code + 5 * i) % TinyModel::kCodes : 0);
    };
    for (int i = 0; i < 3 + n; ++i) add((7 * i + n) % TinyModel::kTextVocab, 0);
    for (int i = 0; i < 4; ++i) add(-1, 3 * i + n);
    for (int i = 0; i < 5; ++i) add((5 * i + n + 1) % TinyModel::kTextVocab, 0);
    return p;
}

csm::SlotSettings settings(uint64_t seed) {
    return {seed, 0, {0.9f, 1.0f, 20}, {0.8f, 0.95f, 0}};
}
csm::SlotSettings greedy() {
    return {0, 0, {0.0f, 1.0f, 0}, {0.0f, 1.0f, 0}};
}

// Takes frames steps of the slot alone.
Codes speak(csm::Engine& engine, int slot, int frames) {
    Codes out;
    for (int i = 0; i < frames; ++i) {
        Codes frame(kCodebooks);
        engine.step(&slot, 1, nullptr, frame.data(), nullptr);
        out.insert(out.end(), frame.begin(), frame.end());
    }
    return out;
}

Codes speak_alone(const std::shared_ptr<const csm::Model>& model, const Prompt& p, const csm::SlotSettings& s,
                  int frames) {
    csm::Engine engine(model, 1, 0, "auto");
    const int slot = engine.open(s);
    engine.append(slot, p.rows(), nullptr);
    return speak(engine, slot, frames);
}

// All prompts at once in slots 0, 1, ...; by prompt.
std::vector<Codes> speak_together(csm::Engine& engine, int prompts, int frames) {
    std::vector<int> slots;
    for (int n = 0; n < prompts; ++n) {
        slots.push_back(engine.open(settings(static_cast<uint64_t>(100 + n))));
        engine.append(slots.back(), prompt(n).rows(), nullptr);
    }
    std::vector<Codes> out(slots.size());
    Codes drawn(slots.size() * kCodebooks);
    for (int i = 0; i < frames; ++i) {
        engine.step(slots.data(), prompts, nullptr, drawn.data(), nullptr);
        for (size_t n = 0; n < out.size(); ++n) {
            const auto first = drawn.begin() + static_cast<int64_t>(n) * kCodebooks;
            out[n].insert(out[n].end(), first, first + kCodebooks);
        }
    }
    return out;
}

}  // namespace

TEST(neighbours_do_not_matter) {
    for (const ggml_type type : {GGML_TYPE_F32, GGML_TYPE_Q8_0, GGML_TYPE_Q4_0}) {
        const auto model = TinyModel(type).load(2);
        csm::Engine engine(model, 5, 0, "auto");
        const std::vector<Codes> together = speak_together(engine, 5, 20);
        for (int n = 0; n < 5; ++n)
            CHECK(together[static_cast<size_t>(n)] ==
                  speak_alone(model, prompt(n), settings(static_cast<uint64_t>(100 + n)), 20));
    }
}

TEST(threads_do_not_matter) {
    const TinyModel file;
    const Codes one = speak_alone(file.load(1), prompt(2), settings(5), 20);
    CHECK(one == speak_alone(file.load(2), prompt(2), settings(5), 20));
    CHECK(one != speak_alone(file.load(1), prompt(2), settings(6), 20));
}

TEST(all_drawn_codes_have_a_sound) {
    const Codes codes =
        speak_alone(TinyModel().load(), prompt(0), {3, 0, {5.0f, 1.0f, 0}, {5.0f, 1.0f, 0}}, 40);
    CHECK(*std::min_element(codes.begin(), codes.end()) >= 0);
    CHECK(*std::max_element(codes.begin(), codes.end()) < TinyModel::kCodes);
}

TEST(rows_in_pieces_are_rows_at_once) {
    const auto model = TinyModel().load();
    const Prompt p = prompt(1);
    csm::Engine engine(model, 2, 0, "f32");
    const int whole = engine.open(greedy()), pieces = engine.open(greedy());
    std::vector<float> expected;
    const int evaluated = engine.append(whole, p.rows(), &expected);
    CHECK_EQ(evaluated, static_cast<int>(p.text.size()) - 1);
    CHECK_EQ(expected.size(), static_cast<size_t>(evaluated * TinyModel::kCodes));

    std::vector<float> got;
    for (size_t row = 0; row < p.text.size(); ++row) {
        std::vector<float> logits;
        engine.append(pieces, {&p.text[row], &p.audio[row * kCodebooks], 1}, &logits);
        got.insert(got.end(), logits.begin(), logits.end());
    }
    CHECK_EQ(got.size(), expected.size());
    float range = 0.0f;
    for (const float x : expected) range = std::max(range, std::fabs(x));
    // F32 sums of a few hundred products in another order.
    for (size_t i = 0; i < got.size(); ++i) CHECK_NEAR(got[i], expected[i], 1e-5 * range);
    CHECK_EQ(engine.position(whole), engine.position(pieces));
    CHECK(speak(engine, whole, 10) == speak(engine, pieces, 10));
}

TEST(forced_codes_steer) {
    const auto model = TinyModel().load();
    const Codes free = speak_alone(model, prompt(0), greedy(), 12);
    csm::Engine engine(model, 1, 0, "auto");
    const int slot = engine.open(settings(1));
    engine.append(slot, prompt(0).rows(), nullptr);
    // A drawing engine that is led along the greedy path ends where the greedy one does.
    Codes frame(kCodebooks);
    for (int i = 0; i < 11; ++i) {
        engine.step(&slot, 1, &free[static_cast<size_t>(i * kCodebooks)], frame.data(), nullptr);
        CHECK(std::equal(frame.begin(), frame.end(), free.begin() + i * kCodebooks));
    }
    engine.configure(slot, greedy());
    CHECK(speak(engine, slot, 1) == Codes(free.end() - kCodebooks, free.end()));
}

TEST(rewound_rows_are_forgotten) {
    const auto model = TinyModel().load();
    csm::Engine engine(model, 1, 0, "auto");
    const int slot = engine.open(settings(9));
    const Prompt p = prompt(3);
    engine.append(slot, p.rows(), nullptr);
    const Codes first = speak(engine, slot, 15);
    engine.rewind(slot, 0);
    CHECK_EQ(engine.position(slot), 0);
    CHECK_THROWS(speak(engine, slot, 1), csm::ArgumentError, "append a prompt first");
    engine.append(slot, p.rows(), nullptr);
    engine.configure(slot, settings(9));
    CHECK(speak(engine, slot, 15) == first);
}

TEST(a_saved_prefix_replaces_its_rows) {
    const auto model = TinyModel().load();
    const Prompt p = prompt(2);
    const Codes expected = speak_alone(model, p, settings(4), 15);
    const int last = static_cast<int>(p.text.size()) - 1;

    csm::Engine engine(model, 3, 0, "auto");
    const int source = engine.open(settings(0));
    engine.append(source, p.rows(), nullptr);
    std::vector<uint8_t> saved = engine.save_prefix(source);
    engine.open(settings(0));
    const int target = engine.open(settings(4));
    engine.load_prefix(target, saved.data(), saved.size());
    CHECK_EQ(engine.position(target), last);
    engine.append(target,
                  {&p.text[static_cast<size_t>(last)], &p.audio[static_cast<size_t>(last * kCodebooks)], 1},
                  nullptr);
    CHECK(speak(engine, target, 15) == expected);

    CHECK_THROWS(engine.load_prefix(target, saved.data(), 3), csm::ArgumentError, "too short");
    CHECK_THROWS(engine.load_prefix(target, saved.data(), saved.size() - 1), csm::ArgumentError, "damaged");
    saved[0] ^= 1;
    CHECK_THROWS(engine.load_prefix(target, saved.data(), saved.size()), csm::ArgumentError, "header");
}

TEST(slots_open_and_close) {
    const auto model = TinyModel().load();
    csm::Engine engine(model, 2, 0, "auto");
    CHECK_EQ(engine.open(settings(0)), 0);
    CHECK_EQ(engine.open(settings(0)), 1);
    CHECK_THROWS(engine.open(settings(0)), std::runtime_error, "2 slots are taken");
    engine.close(0);
    CHECK_THROWS(engine.position(0), csm::ArgumentError, "slot 0 is not open");
    CHECK_EQ(engine.open(settings(0)), 0);
    CHECK_THROWS(csm::Engine(model, 0, 0, "auto"), csm::ArgumentError, "slots");
    CHECK_THROWS(csm::Engine(model, 1, TinyModel::kContext + 1, "auto"), csm::ArgumentError, "context");
    CHECK_THROWS(csm::Engine(model, 1, 0, "q4_0"), csm::ArgumentError, "q4_0");
}

TEST(a_slot_fills_up_to_its_last_row) {
    const auto model = TinyModel().load();
    const Prompt p = prompt(0);
    const auto rows = static_cast<int>(p.text.size());
    csm::Engine engine(model, 1, rows + 3, "auto");
    const int slot = engine.open(greedy());
    engine.append(slot, p.rows(), nullptr);
    CHECK(speak(engine, slot, 3) == speak_alone(model, p, greedy(), 3));
    CHECK_EQ(engine.position(slot), engine.context());
    CHECK_THROWS(engine.append(slot, p.rows(), nullptr), csm::ArgumentError, "do not fit");
    // The pending row is the last that can be evaluated; what follows it has no place.
    speak(engine, slot, 1);
    CHECK_THROWS(speak(engine, slot, 1), csm::ArgumentError, "is full");
}

TEST(wrong_rows_are_refused_before_anything_happens) {
    const auto model = TinyModel().load();
    csm::Engine engine(model, 1, 0, "auto");
    const int slot = engine.open(greedy());
    Prompt p = prompt(0);
    p.text.back() = TinyModel::kTextVocab;
    CHECK_THROWS(engine.append(slot, p.rows(), nullptr), csm::ArgumentError, "vocabulary of 48");
    p = prompt(0);
    p.audio[static_cast<size_t>(4 * kCodebooks)] = TinyModel::kAudioVocab;
    CHECK_THROWS(engine.append(slot, p.rows(), nullptr), csm::ArgumentError, "code 35");
    CHECK_EQ(engine.position(slot), 0);

    const int twice[] = {slot, slot};
    engine.append(slot, prompt(0).rows(), nullptr);
    Codes codes(2 * kCodebooks);
    CHECK_THROWS(engine.step(twice, 2, nullptr, codes.data(), nullptr), csm::ArgumentError, "twice");
}
