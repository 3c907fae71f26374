"""Utterances in one engine: what they may not depend on."""

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
