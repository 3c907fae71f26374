"""The engine: what an utterance may not depend on, and the life of a slot."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from csm_ggml import _core
from numpy.typing import NDArray
from reference import engines, scenes
from reference.compare import assert_codes_equal, assert_logits_close
from reference.expected import whole
from reference.recipes import GROUPED8, PLAIN4, SINGLE32, Recipe

Load = Callable[..., _core.Model]

FRAMES = 24


def mixed_prompts(recipe: Recipe) -> list[scenes.Prompt]:
    """Eight prompts of different lengths, some with audio."""
    prompts = []
    for i in range(8):
        parts = []
        if i % 3 == 1:
            words = scenes.segment_text(recipe, f"said {i}", 2 + i)
            parts = [
                scenes.text_rows(words, recipe.codebooks),
                scenes.audio_rows(scenes.codes(recipe, f"heard {i}", 3 + 2 * i)),
            ]
        words = scenes.segment_text(recipe, f"say {i}", 1 + (5 * i) % 13)
        prompts.append(scenes.join(*parts, scenes.text_rows(words, recipe.codebooks)))
    return prompts


def mixed_settings(i: int) -> dict[str, Any]:
    """Seeds of all sizes; T=0.9 for most, other settings for some."""
    settings = {"seed": i * 0x123456789ABC % 2**64, "temperature": 0.9, "depth_temperature": 0.9}
    others: list[dict[str, Any]] = [
        {},
        {},
        {"top_k": 0, "depth_top_k": 5},
        {},
        {"top_p": 0.8, "depth_top_p": 0.95},
        {},
        {"temperature": 0.0, "depth_temperature": 1.1},
        {},
    ]
    return settings | others[i]


@pytest.fixture(params=[PLAIN4, GROUPED8, SINGLE32], ids=lambda recipe: recipe.name)
def small(request: pytest.FixtureRequest) -> Recipe:
    wanted: Recipe = request.param
    return wanted


@pytest.fixture(scope="module")
def alone(model: Load) -> Callable[[str], list[NDArray[np.int32]]]:
    """What each of the mixed prompts says in an engine of its own, on one thread."""
    spoken: dict[str, list[NDArray[np.int32]]] = {}

    def get(name: str) -> list[NDArray[np.int32]]:
        if name not in spoken:
            recipe = {r.name: r for r in (PLAIN4, GROUPED8, SINGLE32)}[name]
            spoken[name] = [
                engines.speak_alone(model(name, threads=1), prompt, FRAMES, **mixed_settings(i))
                for i, prompt in enumerate(mixed_prompts(recipe))
            ]
        return spoken[name]

    return get


# Independence


@pytest.mark.parametrize(
    ("threads", "order"),
    [
        (1, range(8)),
        (1, range(7, -1, -1)),
        (1, [3, 0, 6, 1, 7, 5, 2, 4]),
        (2, [4, 1, 6, 0, 7, 3, 2, 5]),
    ],
    ids=["1-up", "1-down", "1-mixed", "2-mixed"],
)
def test_batch_says_what_each_says_alone(
    small: Recipe,
    model: Load,
    alone: Callable[[str], list[NDArray[np.int32]]],
    threads: int,
    order: Any,
) -> None:
    """In any slot, in any order within the step, on any number of threads."""
    prompts = mixed_prompts(small)
    engine = _core.Engine(model(small.name, threads=threads), slots=8)
    slots = {i: engines.open_slot(engine, prompts[i], **mixed_settings(i)) for i in order}
    stepped = [(5 * i) % 8 for i in range(8)]
    spoken = engines.speak(engine, [slots[i] for i in stepped], FRAMES)
    for row, i in enumerate(stepped):
        assert_codes_equal(
            spoken[row], alone(small.name)[i], f"{small.name}, utterance {i} of the batch"
        )


def test_utterances_come_and_go(
    small: Recipe, model: Load, alone: Callable[[str], list[NDArray[np.int32]]]
) -> None:
    """Neighbours that start later, stop earlier, pause, or take over a used slot leave no trace."""
    prompts = mixed_prompts(small)
    engine = _core.Engine(model(small.name), slots=3)
    waiting, running = list(range(8)), {}
    said: list[list[NDArray[np.int32]]] = [[] for _ in prompts]
    tick = 0
    while waiting or running:
        if waiting and len(running) < 3:
            i = waiting.pop(0)
            running[i] = engines.open_slot(engine, prompts[i], **mixed_settings(i))
        # each tick another subset speaks
        now = [i for i in running if (i + tick) % 3 or len(running) == 1]
        tick += 1
        if not now:
            continue
        codes, _ = engine.step([running[i] for i in now])
        for row, i in enumerate(now):
            said[i].append(codes[row])
            if len(said[i]) == FRAMES:
                engine.close(running.pop(i))
    for i, wanted in enumerate(alone(small.name)):
        assert_codes_equal(np.stack(said[i]), wanted, f"{small.name}, utterance {i}")


def test_engines_of_several_threads(
    small: Recipe, model: Load, alone: Callable[[str], list[NDArray[np.int32]]]
) -> None:
    """One model, four engines in four threads."""
    prompts, shared = mixed_prompts(small), model(small.name)
    said: dict[int, NDArray[np.int32]] = {}
    failures: list[BaseException] = []

    def work(numbers: list[int]) -> None:
        try:
            for i in numbers:
                said[i] = engines.speak_alone(shared, prompts[i], FRAMES, **mixed_settings(i))
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=([t, t + 4],)) for t in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=120)
        assert not thread.is_alive(), "an engine hangs"
    assert not failures, failures
    for i, wanted in enumerate(alone(small.name)):
        assert_codes_equal(said[i], wanted, f"{small.name}, utterance {i}")


def test_codecs_of_several_threads(model: Load) -> None:
    """One model, three decoders in three threads."""
    codes = [scenes.codes(PLAIN4, f"thread {i}", 20) for i in range(3)]
    wanted = [_core.MimiDecoder(model("plain4")).decode(c) for c in codes]
    heard: dict[int, NDArray[np.float32]] = {}

    def work(i: int) -> None:
        decoder = _core.MimiDecoder(model("plain4"))
        heard[i] = np.concatenate([decoder.decode(codes[i][f : f + 1]) for f in range(20)])

    threads = [threading.Thread(target=work, args=(i,)) for i in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=120)
    for i in range(3):
        np.testing.assert_allclose(heard[i], wanted[i], atol=1e-5)


def test_same_seed_same_speech(model: Load) -> None:
    prompt = scenes.text_prompt(PLAIN4)
    first, again = (engines.speak_alone(model("plain4"), prompt, FRAMES, seed=5) for _ in range(2))
    np.testing.assert_array_equal(first, again)
    other = engines.speak_alone(model("plain4"), prompt, FRAMES, seed=6)
    assert (other != first).mean() > 0.5


def test_reseed_restarts_the_noise(model: Load) -> None:
    prompt = scenes.text_prompt(PLAIN4)
    engine = _core.Engine(model("plain4"))
    slot = engines.open_slot(engine, prompt, seed=5)
    first = engines.speak(engine, [slot], FRAMES)
    engine.rewind(slot, len(prompt.text) - 1)
    engine.append(slot, prompt.text[-1:], prompt.audio[-1:])
    settings = {"temperature": 0.9, "top_k": 50, "top_p": 1.0}
    engine.reseed(slot, seed=5, **settings, **{f"depth_{k}": v for k, v in settings.items()})
    np.testing.assert_array_equal(engines.speak(engine, [slot], FRAMES), first)


def test_forced_codes_may_be_partial(model: Load) -> None:
    """Codes that are not forced follow from those that are."""
    prompt, engine = scenes.text_prompt(PLAIN4), _core.Engine(model("plain4"))
    slot = engines.open_slot(engine, prompt, **engines.GREEDY)
    forced = np.full((1, PLAIN4.codebooks), -1, np.int32)
    forced[0, 1] = 17
    codes, logits = engine.step([slot], forced=forced, return_logits=True)
    assert logits is not None and codes[0, 1] == 17
    wanted = logits[0].argmax(axis=-1)
    wanted[1] = 17
    np.testing.assert_array_equal(codes[0], wanted)


@pytest.mark.parametrize("recipe", [PLAIN4, GROUPED8], ids=lambda recipe: recipe.name)
def test_steps_and_prefill_agree_over_the_whole_context(recipe: Recipe, model: Load) -> None:
    """Hundreds of frames, one by one, against the same rows in one prompt."""
    prompt = scenes.text_prompt(recipe)
    codes = scenes.codes(
        recipe, "long", recipe.config["max_position_embeddings"] - len(prompt.text)
    )
    stepped = engines.forced_logits(model(recipe.name), prompt, codes)[:, 0]
    spoken = scenes.Prompt(np.full(len(codes) - 1, -1, np.int32), codes[:-1])
    rows = scenes.join(prompt, spoken)
    at_once = engines.prefill_logits(model(recipe.name), rows)[len(prompt.text) - 1 :]
    assert_logits_close(stepped, whole(at_once, recipe), recipe.name)


def test_a_long_neighbour(model: Load) -> None:
    """Utterances of very different lengths in one batch, while the longer ones outgrow a bucket."""
    long, short = (
        scenes.join(
            scenes.text_rows(scenes.segment_text(GROUPED8, "old", 4), GROUPED8.codebooks),
            scenes.audio_rows(scenes.codes(GROUPED8, f"old {frames}", frames)),
            scenes.text_rows(scenes.segment_text(GROUPED8, "new", 4), GROUPED8.codebooks),
        )
        for frames in (235, 3)
    )
    prompts = [short, long, short, long]
    engine = _core.Engine(model("grouped8"), slots=4)
    slots = [engines.open_slot(engine, p, seed=i) for i, p in enumerate(prompts)]
    said = engines.speak(engine, slots, FRAMES)
    for i, prompt in enumerate(prompts):
        wanted = engines.speak_alone(model("grouped8"), prompt, FRAMES, seed=i)
        assert_codes_equal(said[i], wanted, f"utterance {i}")


# The life of a slot


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
