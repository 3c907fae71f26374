"""Knowing when to stop: the rules on synthetic streams of codes and samples, and drawing again."""

import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from csm_ggml import CSM, Audio, _core
from csm_ggml.speech.stop import StopDetector, StopRules, level_db, resolve_stop_rules, worst
from csm_ggml.speech.utterance import ChunkSizes
from fakes import END, FRAME_SIZE, ScriptedEngine, request, speak
from reference import devices

LOUD = float("inf")
PINNED = [0.8902591466903687, 0.6719982624053955, 0.2474014163017273]


def run(
    rules: StopRules, codes: Iterable[int], levels: Iterable[float] | None = None, limit: int = 999
) -> tuple[str | None, int]:
    """How a turn of these first codes and levels ends, and after how many frames."""
    codes = list(codes)
    detector = StopDetector(rules, limit)
    for number, (code, level) in enumerate(
        zip(codes, levels or [LOUD] * len(codes), strict=True), start=1
    ):
        if reason := detector.accept(np.array([code, number]), level):
            return reason, number
    return None, len(codes)


def test_the_limit() -> None:
    assert run(StopRules(), [1] * 9, limit=5) == ("max_frames", 5)


def test_defaults_are_on_when_codes_are_drawn_and_off_when_greedy() -> None:
    assert resolve_stop_rules({}, greedy=False, frame_rate=12.5) == StopRules(38, -55.0, 38, 3.2)
    assert resolve_stop_rules({}, greedy=True, frame_rate=12.5) == StopRules(None, -55.0, None)
    asked: dict[str, Any] = {"silence_seconds": 1, "loop_seconds": 2.0, "silence_db": -40}
    asked["max_characters_per_second"] = 25
    for greedy in (False, True):
        rules = resolve_stop_rules(asked, greedy=greedy, frame_rate=12.5)
        assert rules == StopRules(12, -40.0, 25, 2.0)
    off = {"silence_seconds": 0, "loop_seconds": 0, "max_characters_per_second": 0}
    assert resolve_stop_rules(off, greedy=False, frame_rate=12.5) == StopRules(None, -55.0, None)


@pytest.mark.parametrize(
    ("option", "error"),
    [
        ({"silence_seconds": -1}, ValueError),
        ({"silence_seconds": "long"}, TypeError),
        ({"silence_db": 1}, ValueError),
        ({"silence_db": float("nan")}, ValueError),
        ({"loop_seconds": float("inf")}, ValueError),
        ({"loop_seconds": True}, TypeError),
        ({"max_characters_per_second": 0.5}, ValueError),
        ({"max_characters_per_second": "many"}, TypeError),
    ],
)
def test_ranges(option: dict[str, Any], error: type[Exception]) -> None:
    with pytest.raises(error, match=next(iter(option))):
        resolve_stop_rules(option, greedy=False, frame_rate=12.5)


def test_silence() -> None:
    rules = StopRules(silence_frames=3, silence_db=-50.0)
    codes = range(10)
    quiet, loud = -50.1, -49.9
    assert run(rules, codes, [quiet] * 10) == ("silence", 3)
    assert run(rules, codes, [quiet, quiet, loud] * 3 + [quiet]) == (None, 10)
    assert run(rules, codes, [loud] * 5 + [-math.inf] * 5) == ("silence", 8)
    assert run(StopRules(silence_db=0.0), codes, [quiet] * 10) == (None, 10)


def test_level() -> None:
    assert level_db(np.zeros(10, np.float32)) == -math.inf
    assert level_db(np.full(10, 0.1, np.float32)) == pytest.approx(-20)
    square = np.array([1, -1] * 5, np.float32)
    assert level_db(square) == pytest.approx(0)


def test_loop() -> None:
    rules = StopRules(loop_frames=9)
    assert run(rules, [1, 2, 3, 4] + [7] * 20) == ("loop", 4 + 9)
    assert run(rules, [5] + [1, 2] * 20) == ("loop", 1 + 9)
    assert run(rules, [5] + [1, 2, 3] * 20) == ("loop", 1 + 9)
    # Longer than a third of the time: speech may repeat a word.
    assert run(rules, [1, 2, 3, 4] * 20) == (None, 80)
    assert run(rules, [7] * 8 + [1] + [7] * 8) == (None, 17)
    assert run(rules, range(100)) == (None, 100)
    assert run(StopRules(), [7] * 100) == (None, 100)


def test_the_worst_reason_of_several_turns() -> None:
    assert worst(["eos", "eos"]) == "eos"
    assert worst(["eos", "silence"]) == "silence"
    assert worst(["max_frames", "silence", "loop", "eos"]) == "loop"
    assert worst(["loop", "empty", "short"]) == "empty"


def test_an_end_is_judged_by_the_text() -> None:
    rules = StopRules(frame_characters=3.0)
    assert rules.judge_end("Hello!", 0) == StopRules().judge_end("Hello!", 0) == "empty"
    assert rules.judge_end("Hello there, you!", 4) == "short"
    assert rules.judge_end("Hello there, you!", 5) == "eos"
    # Marks take no time.
    assert rules.judge_end("... -- (No!) -- ...", 1) == "eos"
    assert StopRules().judge_end("Hello there, you!", 1) == "eos"


# Drawing again


CUT = [(1, 1), (2, 2), (3, 3)]


@pytest.mark.parametrize("chunks", [ChunkSizes(1, 1), ChunkSizes(99, 99)])
def test_a_cut_turn_is_drawn_again_with_other_noise(chunks: ChunkSizes) -> None:
    engine = ScriptedEngine([[*CUT, *CUT, (4, 4), END]])
    [(_, audio)] = speak(engine, request("a", 3, seed=7, retries=5), chunks=chunks)
    assert audio.codes.tolist() == [[4, 4]]
    assert audio.samples.tolist() == [4.0] * FRAME_SIZE
    assert audio.finish_reason == "eos"
    assert (audio.seed, audio.turns[0].seed, audio.turns[0].attempt) == (7, 7, 2)
    assert audio.stats.frames == 1
    noise = engine.history[0].settings
    assert (noise["seed"], noise["attempt"]) == (7, 2)
    # The attempts that failed have left nothing in the cache.
    text = [(1000,), (91,), (48,), (93,), (97,), (1001,)]
    assert engine.history[0].rows == [*text, (4, 4), END]


def test_without_retries_it_stays_cut() -> None:
    [(_, audio)] = speak(ScriptedEngine([[*CUT, END]]), request("a", 3, seed=7))
    assert (audio.finish_reason, audio.turns[0].attempt) == ("max_frames", 0)


TEXT_ROWS = [(1000,), (91,), (48,), (93,), (97,), (1001,)]


def test_an_empty_turn_is_no_success() -> None:
    engine = ScriptedEngine([[END, END, (4, 4), END]])
    [(_, audio)] = speak(engine, request("a", retries=2))
    assert (audio.codes.tolist(), audio.finish_reason) == ([[4, 4]], "eos")
    assert audio.turns[0].attempt == 2
    assert engine.history[0].rows == [*TEXT_ROWS, (4, 4), END]
    [(_, audio)] = speak(ScriptedEngine([[END, END]]), request("a", retries=1))
    assert (len(audio.samples), audio.finish_reason) == (0, "empty")
    assert audio.turns[0].finish_reason == "empty"


def test_what_follows_an_empty_turn_does_not_know_of_it() -> None:
    engine = ScriptedEngine([[(4, 4), END, END, (6, 6), END]])
    chunks = speak(engine, request("[0]a[1]b[0]c"), chunks=ChunkSizes(1, 1))
    audio = Audio.concatenate(chunk for _, chunk in chunks)
    assert [turn.finish_reason for turn in audio.turns] == ["eos", "empty", "eos"]
    assert audio.finish_reason == "empty"
    words = [(1000,), (91,), (48,), (93,), (99,), (1001,)]
    assert engine.history[0].rows == [*TEXT_ROWS, (4, 4), END, *words, (6, 6), END]


def test_a_turn_too_short_for_its_text_is_drawn_again() -> None:
    rules = StopRules(frame_characters=2.0)
    script = [(1, 1), END, (2, 2), (3, 3), END, (4, 4), END, (5, 5)]
    [(_, audio)] = speak(ScriptedEngine([script]), request("abc", retries=1, stop=rules))
    assert (audio.codes.tolist(), audio.finish_reason) == ([[2, 2], [3, 3]], "eos")
    # Where none is long enough, the longest loses the fewest words.
    [(_, audio)] = speak(ScriptedEngine([script]), request("abcde", retries=2, stop=rules))
    assert (audio.codes.tolist(), audio.finish_reason) == ([[2, 2], [3, 3]], "short")
    assert audio.turns[0].attempt == 1


def test_the_best_attempt_is_kept_and_what_follows_hears_that_one() -> None:
    rules = StopRules(loop_frames=3)
    loop = [(5, 5), (5, 6), (5, 7)]
    # Three attempts at the first turn: a loop, a cut, a loop. Two at the second.
    script = [*loop, *CUT, *loop, (8, 8), (9, 9), (8, 1), (6, 6), END]
    engine = ScriptedEngine([script])
    asked = request("[0]a[0]b", 3, seed=7, retries=2, stop=rules)
    (_, first), (_, second) = speak(engine, asked, chunks=ChunkSizes(1, 1))
    assert first.codes.tolist() == [list(frame) for frame in CUT]
    assert first.samples[::FRAME_SIZE].tolist() == pytest.approx([1, 2.001, 3.002])
    assert (first.turns[0].finish_reason, first.turns[0].attempt) == ("max_frames", 1)
    assert second.codes.tolist() == [[6, 6]]
    assert (second.turns[0].finish_reason, second.turns[0].attempt) == ("eos", 1)
    # The noise of no attempt at one turn is that of one at another.
    assert engine.history[0].settings["attempt"] == 3
    assert second.finish_reason == "max_frames"
    words = [[(1000,), (91,), (48,), (93,), (97 + t,), (1001,)] for t in range(2)]
    assert engine.history[0].rows == [*words[0], *CUT, END, *words[1], (6, 6), END]


def test_codes_alone() -> None:
    engine = ScriptedEngine([[*CUT, (4, 4), END, (6, 6), END]])
    chunks = speak(engine, request("[0]a[1]b", 3, retries=1, sound=False), decoder=None)
    audio = Audio.concatenate(chunk for _, chunk in chunks)
    assert audio.codes.tolist() == [[4, 4], [6, 6]] and not len(audio.samples)


@pytest.fixture(scope="module")
def csm(path: Path) -> CSM:
    return CSM.from_pretrained(path, device=devices.SPEECH, threads=1)


def test_silence_of_real_samples(csm: CSM) -> None:
    # Everything below full scale counts as silence; the fifth frame is heard during the sixth.
    options: dict[str, Any] = {"seed": 1, "max_frames": 20, "silence_seconds": 0.4}
    audio = csm.generate("Hi.", silence_db=0, **options)
    assert (len(audio.codes), audio.finish_reason) == (6, "silence")
    codes = csm.generate_codes("Hi.", silence_db=0, **options)
    assert np.array_equal(codes, audio.codes)
    chunks = list(csm.stream("Hi.", silence_db=0, **options))
    assert np.array_equal(Audio.concatenate(chunks).samples, audio.samples)
    assert csm.generate("Hi.", silence_db=-90, **options).finish_reason == "max_frames"


def test_the_noise_of_an_attempt_is_no_seeds_noise(csm: CSM, monkeypatch: Any) -> None:
    first = _core.uniforms(5, 0, 8, 4)
    assert np.array_equal(first, _core.uniforms(5, 0, 8, 4, attempt=0))
    # As it was before there were attempts: what a seed says does not change with the version.
    assert _core.uniforms(1, 0, 1, 3)[0].tolist() == PINNED
    again = [_core.uniforms(5, 0, 8, 4, attempt=attempt) for attempt in range(1, 4)]
    seeds = [_core.uniforms(seed, 0, 8, 4) for seed in range(20)]
    for noise in again:
        assert not any(np.isin(noise, other).any() for other in seeds)

    # The engine draws with it: the second attempt is what no seed nearby says.
    ends = iter(["loop", "max_frames"])
    monkeypatch.setattr(StopDetector, "accept", lambda *_: next(ends, "max_frames"))
    [turn] = csm.generate("Hi.", seed=5, retries=1).turns
    assert turn.attempt == 1
    monkeypatch.undo()
    options: dict[str, Any] = {"retries": 0, "max_frames": 1, "temperature": 5, "top_k": 0}
    near = csm.generate_batch(["Hi."] * 4, seed=4, **options)
    drawn = [audio.codes.tolist() for audio in near]
    engine = _core.Engine(csm.model.core)
    for attempt in range(3):
        slot = engine.open(seed=5, attempt=attempt, temperature=5.0, top_k=0)
        ids = np.array(csm.tokenize("Hi."), np.int32)
        engine.append(slot, ids, np.zeros((len(ids), csm.codebooks), np.int32))
        codes = engine.step([slot])[0].tolist()
        assert (codes in drawn) == (codes == drawn[1]) == (attempt == 0)
        engine.close(slot)


def test_retries_depend_on_nothing_but_the_seed(csm: CSM) -> None:
    options: dict[str, Any] = {"max_frames": 4, "retries": 2}
    seeds = [csm.generate_codes("Hi.", seed=seed, max_frames=4) for seed in (5, 6, 7)]
    # None of the attempts ends by itself: the first is kept, deterministically.
    audio = csm.generate("Hi.", seed=5, **options)
    assert np.array_equal(audio.codes, seeds[0])
    assert np.array_equal(csm.generate_codes("Hi.", seed=5, **options), seeds[0])
    batch = csm.generate_batch(["Hi."] * 3, seed=5, batch_size=2, **options)
    assert all(np.array_equal(a.codes, b) for a, b in zip(batch, seeds, strict=True))
    with pytest.raises(ValueError, match="retries must be 0 to 100 times, got -1"):
        csm.generate("Hi.", retries=-1)
