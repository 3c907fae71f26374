"""The life of a slot: rows appended, dropped, saved and loaded, limits, and mistakes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from csm_ggml import _core
from reference import engines, scenes
from reference.compare import assert_codes_equal
from reference.recipes import GROUPED8, PLAIN4, SINGLE32, Recipe

Load = Callable[..., _core.Model]

FRAMES = 24


@pytest.fixture(params=[PLAIN4, GROUPED8, SINGLE32], ids=lambda recipe: recipe.name)
def small(request: pytest.FixtureRequest) -> Recipe:
    wanted: Recipe = request.param
    return wanted


def test_rewind_continues_identically(small: Recipe, model: Load) -> None:
    prompt = scenes.context_prompt(small)
    wanted = engines.speak_alone(model(small.name), prompt, FRAMES, **engines.GREEDY)
    engine = _core.Engine(model(small.name))
    slot = engines.open_slot(engine, prompt, **engines.GREEDY)
    engines.speak(engine, [slot], 7)
    assert engine.position(slot) == len(prompt.text) + 7
    for rows in (len(prompt.text) - 1, 9, 0):
        engine.rewind(slot, rows)
        assert engine.position(slot) == rows
        engine.append(slot, prompt.text[rows:], prompt.audio[rows:])
        assert_codes_equal(engines.speak(engine, [slot], FRAMES)[0], wanted, f"after {rows} rows")


def test_prefix_continues_identically(small: Recipe, model: Load) -> None:
    """Saved in one engine, loaded in other slots of another, of other size."""
    prompt = scenes.context_prompt(small)
    wanted = engines.speak_alone(model(small.name), prompt, FRAMES, **engines.GREEDY)
    first = _core.Engine(model(small.name))
    slot = engines.open_slot(first, prompt, **engines.GREEDY)
    data = first.save_prefix(slot)
    assert isinstance(data, bytes)

    second = _core.Engine(model(small.name), slots=3, context=len(prompt.text) + FRAMES)
    second.open()
    for slot in (second.open(**engines.GREEDY), second.open(**engines.GREEDY)):
        second.load_prefix(slot, data)
        assert second.position(slot) == len(prompt.text) - 1
        second.append(slot, prompt.text[-1:], prompt.audio[-1:])
        said = engines.speak(second, [slot], FRAMES)[0]
        assert_codes_equal(said, wanted, f"{small.name}, slot {slot}")


def test_damaged_prefix_is_refused(model: Load) -> None:
    prompt = scenes.text_prompt(PLAIN4)
    engine = _core.Engine(model("plain4"), slots=2, context=32)
    data = engine.save_prefix(engines.open_slot(engine, prompt))
    slot = engine.open()
    other = _core.Engine(model("grouped8"))
    for damaged in (b"", data[:10], data[:-1], data + b"\0", b"x" + data[1:], bytes(len(data))):
        with pytest.raises(ValueError, match=r"prefix|rows|bytes"):
            engine.load_prefix(slot, damaged)
    with pytest.raises(ValueError, match=r"prefix|rows|bytes"):
        other.load_prefix(other.open(), data)
    # the slot is as it was
    engine.load_prefix(slot, data)


def test_a_turn_after_a_turn(model: Load) -> None:
    """Text appended after speech is the same as a prompt that holds that speech."""
    first, then = (
        scenes.text_rows(scenes.segment_text(PLAIN4, label, 6), PLAIN4.codebooks)
        for label in ("first", "then")
    )
    engine = _core.Engine(model("plain4"))
    slot = engines.open_slot(engine, first, **engines.GREEDY)
    spoken = engines.speak(engine, [slot], 10)[0]
    rest = scenes.join(scenes.audio_rows(spoken[:0]), then)
    engine.append(slot, rest.text, rest.audio)
    said = engines.speak(engine, [slot], FRAMES)[0]
    whole = scenes.join(first, scenes.audio_rows(spoken), then)
    assert_codes_equal(
        said, engines.speak_alone(model("plain4"), whole, FRAMES, **engines.GREEDY), "second turn"
    )


def test_context_may_be_filled_to_the_last_row(model: Load) -> None:
    """And not a row more; the error comes before anything is computed and spoils nothing."""
    prompt, frames = scenes.text_prompt(PLAIN4), 6
    rows = len(prompt.text) + frames
    wanted = engines.speak_alone(model("plain4"), prompt, frames + 1, **engines.GREEDY)
    engine = _core.Engine(model("plain4"), context=rows)
    assert engine.context == rows
    slot = engines.open_slot(engine, prompt, **engines.GREEDY)
    said = engines.speak(engine, [slot], frames)[0]
    assert_codes_equal(said, wanted[:frames], "a full context")
    with pytest.raises(ValueError, match=str(rows)):
        engine.append(slot, prompt.text[:1], prompt.audio[:1])
    # the pending frame is the last row; what follows it can still be drawn, but is no row any more
    last = engines.speak(engine, [slot], 1)[0]
    assert_codes_equal(last, wanted[frames:], "the frame after the last row")
    with pytest.raises(ValueError, match="full"):
        engine.step([slot])
    fresh = _core.Engine(model("plain4"), context=rows)
    slot, text = fresh.open(), np.zeros(rows + 1, np.int32)
    with pytest.raises(ValueError, match=str(rows)):
        fresh.append(slot, text, np.zeros((rows + 1, 4), np.int32))


def test_slots_run_out(model: Load) -> None:
    engine = _core.Engine(model("plain4"), slots=2, context=16)
    first, second = engine.open(), engine.open()
    with pytest.raises(RuntimeError, match="2"):
        engine.open()
    engine.close(first)
    assert engine.open() == first
    assert engine.slots == 2 and engine.kv_bytes > 0 and second != first


@pytest.mark.parametrize(
    "mistake",
    [
        lambda e, s: e.append(s, np.array([10**6], np.int32), np.zeros((1, 4), np.int32)),
        lambda e, s: e.append(s, np.array([-1], np.int32), np.full((1, 4), 131, np.int32)),
        lambda e, s: e.append(s, np.array([-1], np.int32), np.full((1, 4), -2, np.int32)),
        lambda e, s: e.append(s, np.array([1], np.int32), np.zeros((1, 3), np.int32)),
        lambda e, s: e.append(s, np.array([1, 2], np.int32), np.zeros((1, 4), np.int32)),
        lambda e, s: e.append(9, np.array([1], np.int32), np.zeros((1, 4), np.int32)),
        lambda e, s: e.append(-1, np.array([1], np.int32), np.zeros((1, 4), np.int32)),
        lambda e, s: e.step([s, s]),
        lambda e, s: e.step([1]),
        lambda e, s: e.step([s], prompt=(s, np.array([1], np.int32), np.zeros((1, 4), np.int32))),
        lambda e, s: e.step([s], prompt=(1, np.array([1], np.int32), np.zeros((1, 4), np.int32))),
        lambda e, s: e.step([s], prompt=(1, np.array([1], np.int32), np.zeros((1, 3), np.int32))),
        lambda e, s: e.step([s], forced=np.full((1, 4), 131, np.int32)),
        lambda e, s: e.step([s], forced=np.zeros((2, 4), np.int32)),
        lambda e, s: e.step([s], forced=np.zeros((1, 5), np.int32)),
        lambda e, s: e.rewind(s, 10**6),
        lambda e, s: e.rewind(s, -1),
        lambda e, s: e.close(7),
        lambda e, s: e.open(temperature=-1.0),
        lambda e, s: e.open(temperature=float("nan")),
        lambda e, s: e.open(depth_temperature=float("inf")),
        lambda e, s: e.open(top_k=-1),
        lambda e, s: e.open(top_p=0.0),
        lambda e, s: e.open(depth_top_p=1.5),
    ],
)
def test_mistakes_are_errors_and_spoil_nothing(
    model: Load, mistake: Callable[[_core.Engine, int], Any]
) -> None:
    prompt = scenes.text_prompt(PLAIN4)
    wanted = engines.speak_alone(model("plain4"), prompt, 3, **engines.GREEDY)
    engine = _core.Engine(model("plain4"), slots=2, context=64)
    slot = engines.open_slot(engine, prompt, **engines.GREEDY)
    with pytest.raises(ValueError, match=r"\w"):
        mistake(engine, slot)
    assert_codes_equal(engines.speak(engine, [slot], 3)[0], wanted, "after the mistake")


def test_a_slot_without_rows_cannot_speak(model: Load) -> None:
    engine = _core.Engine(model("plain4"), context=16)
    slot = engine.open()
    with pytest.raises(ValueError, match=r"prompt|row"):
        engine.step([slot])


def test_codec_refuses_codes_without_sound(model: Load) -> None:
    decoder = _core.MimiDecoder(model("plain4"))
    for codes in (
        np.full((1, 4), 128, np.int32),
        np.full((1, 4), -1, np.int32),
        np.zeros((1, 5), np.int32),
        np.zeros((1, 0), np.int32),
    ):
        with pytest.raises(ValueError, match=r"\w"):
            decoder.decode(codes)
    assert decoder.decode(np.zeros((0, 4), np.int32)).shape == (0,)
    encoder = _core.MimiEncoder(model("plain4"))
    with pytest.raises(ValueError, match="48"):
        encoder.encode(np.zeros(47, np.float32), final=False)


def test_timings_count(model: Load) -> None:
    prompt, engine = scenes.text_prompt(PLAIN4), _core.Engine(model("plain4"), slots=2)
    slots = [engines.open_slot(engine, prompt) for _ in range(2)]
    engines.speak(engine, slots, 5)
    timings = engine.timings()
    assert timings["steps"] == 5 and timings["frames"] == 10
    assert timings["prefill_rows"] == 2 * (len(prompt.text) - 1)
    assert timings["step_s"] > 0 and timings["prefill_s"] > 0
