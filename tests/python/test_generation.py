"""The loop around the engine, without a model: stop rules, limits, turns, slots, batches."""

import threading
from typing import Any

import numpy as np
import pytest
from csm_ggml import Audio, ContextLengthError, JobCancelled
from csm_ggml.speech.loop import ROWS_ALONE
from csm_ggml.speech.options import Length, Sampling
from csm_ggml.speech.request import Request, check_fits
from csm_ggml.speech.stop import StopRules
from csm_ggml.speech.utterance import ChunkSizes
from csm_ggml.text.turns import Turn
from csm_ggml.voices.prompt import EncodedSegment, PromptBuilder
from fakes import (
    CODEBOOKS,
    END,
    FRAME_SIZE,
    RATE,
    CountingDecoder,
    ScriptedEngine,
    letter_prompts,
    request,
    scheduler_of,
    speak,
)


@pytest.fixture
def prompts() -> PromptBuilder:
    return letter_prompts()


def frames(engine: ScriptedEngine, *requests: Request) -> list[Any]:
    """Frame by frame: request, turn, codes (None where the turn just ends), finish reason."""
    return [
        (
            number,
            chunk.turns[0].index,
            tuple(chunk.codes[0].tolist()) if len(chunk.codes) else None,
            chunk.turns[0].finish_reason,
        )
        for number, chunk in speak(engine, *requests, chunks=ChunkSizes(1, 1))
    ]


def test_the_frame_of_zeros_ends_the_turn_and_is_dropped() -> None:
    engine = ScriptedEngine([[(1, 2), (0, 3), (4, 0), END]])
    assert frames(engine, request("a")) == [
        (0, 0, (1, 2), None),
        (0, 0, (0, 3), None),
        (0, 0, (4, 0), None),
        (0, 0, None, "eos"),
    ]
    assert not engine.open_slots


def test_first_frame_may_be_the_end() -> None:
    [(_, audio)] = speak(ScriptedEngine([[END]]), request("a"))
    assert audio.samples.shape == (0,)
    assert audio.samples.dtype == np.float32
    assert audio.codes.shape == (0, CODEBOOKS)
    assert audio.finish_reason == "empty"
    assert audio.stats.time_to_first_audio is None
    assert audio.stats.rtf == float("inf")


def test_the_limit_cuts() -> None:
    engine = ScriptedEngine([[]])
    steps = frames(engine, request("a", max_frames=3))
    assert [step[3] for step in steps] == [None, None, "max_frames"]
    assert len(engine.steps) == 3


def test_without_a_limit_the_text_sets_one() -> None:
    engine = ScriptedEngine([[]], context=2048)
    assert len(frames(engine, request("Hello.", max_frames=None))) == 69  # 5.5 s at 12.5 Hz
    assert Length().frames(Turn(0, "x" * 5000), 12.5) == 1125  # 90 s


def test_the_context_cuts() -> None:
    engine = ScriptedEngine([[]], context=10)
    assert len(frames(engine, request("a", max_frames=100))) == 10 - 6


def test_too_long_a_text_is_an_error_with_both_numbers(prompts: PromptBuilder) -> None:
    check_fits(request("a" * 10), prompts, 16)
    with pytest.raises(ContextLengthError, match=r"needs 17 rows \(16 of text, 0 of context.* 16"):
        check_fits(request("a" * 11), prompts, 16)
    with pytest.raises(ContextLengthError, match="turn 2 of 2 needs 22 rows") as caught:
        check_fits(request("[0]a[1]" + "b" * 16), prompts, 20)
    assert (caught.value.needed, caught.value.available) == (22, 20)


def test_context_segments_count(prompts: PromptBuilder) -> None:
    spoken = EncodedSegment(Turn(0, "a"), np.ones((5, CODEBOOKS), np.int32))
    with pytest.raises(ContextLengthError, match=r"needs 19 rows \(6 of text, 12 of context"):
        check_fits(request("a", context=(spoken,)), prompts, 18)


def test_turns_follow_in_the_same_slot() -> None:
    engine = ScriptedEngine([[(1, 1), END, (2, 2), (3, 3), (4, 4), END]])
    steps = frames(engine, request("[0]a[1]b[0]c", max_frames=2))
    assert [(turn, reason) for _, turn, _, reason in steps] == [
        (0, None),
        (0, "eos"),
        (1, None),
        (1, "max_frames"),
        (2, None),
        (2, "eos"),
    ]
    text = [[(1000,), (91,), (48 + s,), (93,), (97 + t,), (1001,)] for t, s in enumerate((0, 1, 0))]
    # The first turn ended with its own row of zeros; the second was cut and gets one appended.
    assert engine.history[0].rows == [
        *text[0], (1, 1), END,
        *text[1], (2, 2), (3, 3), END,
        *text[2], (4, 4), END,
    ]  # fmt: skip


def test_oldest_turns_are_forgotten_whole() -> None:
    context = EncodedSegment(Turn(0, "v"), np.full((1, CODEBOOKS), 9, np.int32))
    script = [(1, 1), (1, 1), END, (2, 2), (2, 2), END, (3, 3), END]
    engine = ScriptedEngine([script], context=34)
    steps = frames(engine, request("[0]a[0]b[0]c", max_frames=8, context=(context,)))
    assert [step[3] for step in steps if step[3]] == ["eos", "eos", "eos"]

    def words(letter: str) -> list[tuple[int, ...]]:
        return [(1000,), (91,), (48,), (93,), (ord(letter),), (1001,)]

    # 8 + 9 + 9 + 6 rows leave no room to speak: turns go until half of the rows are free, the
    # context stays.
    assert engine.history[0].rows == [
        *words("v"), (9, 9), END,
        *words("b"), (2, 2), (2, 2), END,
        *words("c"), (3, 3), END,
    ]  # fmt: skip


def test_long_prompts_go_in_parts(prompts: PromptBuilder) -> None:
    engine = ScriptedEngine([[(1, 1), END]], context=2048)
    text = "a" * (2 * ROWS_ALONE)
    frames(engine, request(text))
    rows = prompts.text_rows(Turn(0, text)).text.tolist()
    assert [row[0] for row in engine.history[0].rows[:-2]] == rows


def test_requests_join_and_leave() -> None:
    scripts = [[(1, 1), END], [(2, 2)] * 4 + [END], [(3, 3), (3, 3), END]]
    engine = ScriptedEngine(scripts, slots=2)
    steps = frames(engine, request("a"), request("b"), request("c"))
    for number, script in enumerate(scripts):
        own = [codes for index, _, codes, _ in steps if index == number]
        assert own == [*script[:-1], None]
    assert [len(slots) for slots in engine.steps] == [2, 2, 2, 2, 2]
    assert not engine.open_slots


def test_settings_reach_the_slot() -> None:
    engine = ScriptedEngine([[END]])
    frames(engine, request("a", seed=42, sampling=Sampling(temperature=0.5, top_k=3)))
    assert engine.history[0].settings == {
        "seed": 42,
        "attempt": 0,
        "temperature": 0.5,
        "top_k": 3,
        "top_p": 1.0,
        "depth_temperature": 0.9,
        "depth_top_k": 50,
        "depth_top_p": 1.0,
    }


def test_cancelling_and_failing_free_the_slots() -> None:
    engine = ScriptedEngine([[]])
    scheduler = scheduler_of(engine)
    job = scheduler.submit(request("a", max_frames=50), chunks=ChunkSizes(1, 1))
    next(job)
    assert engine.open_slots
    job.cancel()
    with pytest.raises(JobCancelled):
        list(job)
    assert not engine.open_slots

    engine = ScriptedEngine([[], []], slots=2)

    def fail(_: Any) -> Any:
        raise RuntimeError("broken")

    engine.step = fail  # type: ignore[method-assign]
    scheduler = scheduler_of(engine)
    for broken in [scheduler.submit(request("a")), scheduler.submit(request("b"))]:
        with pytest.raises(RuntimeError, match="broken"):
            broken.result()


def test_the_next_step_runs_while_the_frame_before_is_decoded() -> None:
    engine = ScriptedEngine([[(1, 1), (2, 2), (3, 3), END]])
    order: list[str] = []
    threads, step = set(), engine.step
    stepped = threading.Semaphore(0)

    def tell(slots: Any) -> Any:
        threads.add(threading.current_thread().name)
        order.append("step")
        stepped.release()
        return step(slots)

    class Decoder(CountingDecoder):
        def decode(self, codes: np.ndarray, streams: Any) -> np.ndarray:
            # The step after the one that made these codes begins without waiting for this.
            assert stepped.acquire(timeout=10) and stepped.acquire(timeout=10)
            stepped.release()
            threads.add(threading.current_thread().name)
            return super().decode(codes, streams)

    engine.step = tell  # type: ignore[method-assign]
    [(_, audio)] = speak(engine, request("a"), decoder=Decoder, threads=True)
    assert len(audio.codes) == 3 and len(order) == 4
    assert threads == {"csm-step", "csm-scheduler"}


def test_the_level_of_the_frame_before_decides() -> None:
    class Decoder(CountingDecoder):
        def decode(self, codes: np.ndarray, streams: Any) -> np.ndarray:
            level = np.where(codes[:, :, :1] == 9, 0.7, 0.01).astype(np.float32)
            return np.repeat(level, FRAME_SIZE, axis=2).reshape(len(codes), -1)

    engine = ScriptedEngine([[(9, 1), (0, 2), (0, 3), (0, 4), (0, 5)]])
    asked = request("a", stop=StopRules(silence_frames=2, silence_db=-20))
    [(_, audio)] = speak(engine, asked, decoder=Decoder)
    # The second and third are silent, which is known when the fourth is there.
    assert (len(audio.codes), audio.finish_reason) == (4, "silence")


@pytest.mark.parametrize("sizes", [(1, 1), (1, 2), (2, 3), (100, 100)])
def test_chunks_joined_are_the_whole(sizes: tuple[int, int]) -> None:
    script = [(1, 1), (2, 2), (3, 3), END, (4, 4), (5, 5), (6, 6), (7, 7), (8, 8), END]

    def run(chunks: ChunkSizes | None) -> list[Audio]:
        engine = ScriptedEngine([script])
        sizes = {} if chunks is None else {"chunks": chunks}
        return [a for _, a in speak(engine, request("[0]a[1]b"), **sizes)]  # type: ignore[arg-type]

    whole = Audio.concatenate(run(None))
    chunks = run(ChunkSizes(*sizes))
    joined = Audio.concatenate(chunks)
    assert np.array_equal(joined.samples, whole.samples)
    assert np.array_equal(joined.codes, whole.codes)
    assert joined.turns == whole.turns
    assert joined.finish_reason == whole.finish_reason == "max_frames"
    assert [chunk.finish_reason for chunk in chunks[:-1]] == [None] * (len(chunks) - 1)
    assert len(chunks[0].codes) == min(sizes[0], 3)
    assert all(len(chunk.turns) == 1 and chunk.turns[0].start == 0 for chunk in chunks)


def test_turns_of_an_audio() -> None:
    engine = ScriptedEngine([[(1, 1), (2, 2), END, (3, 3), END]])
    audio = Audio.concatenate(a for _, a in speak(engine, request("[0]a[1]b")))
    assert [(t.index, t.speaker, t.text, t.start, t.frames) for t in audio.turns] == [
        (0, 0, "a", 0, 2),
        (1, 1, "b", 2, 1),
    ]
    # The codec starts from silence with every turn.
    assert audio.samples[::FRAME_SIZE].tolist() == pytest.approx([1, 2.001, 3])


def test_stats() -> None:
    engine = ScriptedEngine([[(1, 1), (2, 2), END]])
    [(_, audio)] = speak(engine, request("ab"))
    stats = audio.stats
    assert (stats.frames, stats.codebooks, stats.prefill_rows) == (2, CODEBOOKS, 7)
    assert stats.audio_seconds == 2 * FRAME_SIZE / RATE
    assert stats.time_to_first_audio is not None
    assert 0 < stats.time_to_first_audio <= stats.total_seconds
    assert stats.prefill_seconds + stats.lm_seconds <= stats.total_seconds
    assert 0 < stats.codec_seconds <= stats.total_seconds
    assert stats.codes_per_second == pytest.approx(4 / stats.total_seconds)
    assert stats.rtf == pytest.approx(stats.total_seconds / stats.audio_seconds)
