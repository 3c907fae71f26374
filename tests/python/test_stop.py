"""Knowing when to stop: the rules on synthetic streams of codes and samples, and drawing again."""

import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from csm_ggml import CSM, Audio
from csm_ggml.speech.stop import StopDetector, StopRules, level_db, resolve_stop_rules, worst
from csm_ggml.speech.utterance import ChunkSizes
from fakes import END, FRAME_SIZE, ScriptedEngine, request, speak

LOUD = float("inf")


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
    assert resolve_stop_rules({}, greedy=False, frame_rate=12.5) == StopRules(38, -55.0, 38)
    assert resolve_stop_rules({}, greedy=True, frame_rate=12.5) == StopRules(None, -55.0, None)
    asked = {"silence_seconds": 1, "loop_seconds": 2.0, "silence_db": -40}
    for greedy in (False, True):
        rules = resolve_stop_rules(asked, greedy=greedy, frame_rate=12.5)
        assert rules == StopRules(12, -40.0, 25)
    off = {"silence_seconds": 0, "loop_seconds": 0}
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


# Drawing again


CUT = [(1, 1), (2, 2), (3, 3)]


@pytest.mark.parametrize("chunks", [ChunkSizes(1, 1), ChunkSizes(99, 99)])
def test_a_cut_turn_is_drawn_again_with_the_next_seed(chunks: ChunkSizes) -> None:
    engine = ScriptedEngine([[*CUT, *CUT, (4, 4), END]])
    [(_, audio)] = speak(engine, request("a", 3, seed=7, retries=5), chunks=chunks)
    assert audio.codes.tolist() == [[4, 4]]
    assert audio.samples.tolist() == [4.0] * FRAME_SIZE
    assert audio.finish_reason == "eos"
    assert (audio.seed, audio.turns[0].seed) == (7, 9)
    assert audio.stats.frames == 1
    assert engine.history[0].settings["seed"] == 9
    # The attempts that failed have left nothing in the cache.
    text = [(1000,), (91,), (48,), (93,), (97,), (1001,)]
    assert engine.history[0].rows == [*text, (4, 4), END]


def test_without_retries_it_stays_cut() -> None:
    [(_, audio)] = speak(ScriptedEngine([[*CUT, END]]), request("a", 3, seed=7))
    assert (audio.finish_reason, audio.turns[0].seed) == ("max_frames", 7)


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
    assert (first.turns[0].finish_reason, first.turns[0].seed) == ("max_frames", 8)
    assert second.codes.tolist() == [[6, 6]]
    assert (second.turns[0].finish_reason, second.turns[0].seed) == ("eos", 10)
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
    return CSM.from_pretrained(path, device="cpu", threads=1)


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


def test_retries_are_the_next_seeds(csm: CSM) -> None:
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
