"""A prompt evaluated in pieces, of any sizes, leaves the bits that it leaves as a whole.

Also where they go through the backbone with the frames of others, who say what they say alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from csm_ggml import _core
from numpy.typing import NDArray
from reference import devices, engines, scenes
from reference.recipes import RECIPES, Recipe

TYPES = ("f32", "f16", "bf16", "q8_0", "q6_k", "q4_k", "q4_0", "q2_k", "iq4_nl")


def long_prompt(recipe: Recipe, rows: int) -> scenes.Prompt:
    """Rows of text and of audio, mixed."""
    rng = np.random.default_rng(rows)
    audio = scenes.audio_rows(scenes.codes(recipe, "pieces", rows)).audio[:rows]
    text = np.resize(np.asarray(scenes.segment_text(recipe, "pieces", 20), np.int32), rows)
    return scenes.Prompt(np.where(rng.random(rows) < 0.5, text, -1).astype(np.int32), audio)


def pieces(rows: int, largest: int, rng: np.random.Generator) -> Iterator[slice]:
    at = 0
    while at < rows:
        size = int(rng.integers(1, largest + 1))
        yield slice(at, at + size)
        at += size


def left_by(
    engine: _core.Engine, prompt: scenes.Prompt, parts: Iterator[slice]
) -> NDArray[np.uint8]:
    """The keys and values of all rows but the last, and two frames of what follows."""
    slot = engine.open(**engines.GREEDY)
    for part in parts:
        engine.append(slot, prompt.text[part], prompt.audio[part])
    data = engine.save_prefix(slot) + engines.speak(engine, [slot], 2).tobytes()
    engine.close(slot)
    return np.frombuffer(data, np.uint8)


def check(model: _core.Model, prompt: scenes.Prompt, sizes: tuple[int, ...]) -> None:
    rng = np.random.default_rng(3)
    engine, rows = _core.Engine(model, slots=2), len(prompt.text)
    wanted = left_by(engine, prompt, iter([slice(0, rows)]))
    engine.open()  # from now on the prompt stands in another slot
    for largest in sizes:
        got = left_by(engine, prompt, pieces(rows, largest, rng))
        assert np.array_equal(got, wanted), f"pieces of up to {largest} rows"


@pytest.mark.parametrize("type", TYPES)
@pytest.mark.parametrize("device", devices.ALL)
def test_all_formats(gguf: Callable[..., Path], device: str, type: str) -> None:
    model = _core.Model([str(gguf("wide", type))], device=device, threads=1)
    check(model, long_prompt(RECIPES["wide"], 140), (3, 12, 40, 100))


@pytest.mark.parametrize("name", ["plain4", "grouped8", "single32"])
@pytest.mark.parametrize("device", devices.ALL)
def test_all_shapes(gguf: Callable[..., Path], device: str, name: str) -> None:
    """Beyond the number of rows for which graphs of GPUs are built."""
    model = _core.Model([str(gguf(name, "f32"))], device=device, threads=1)
    rows = min(300, model.config["csm.context_length"] - 2)
    check(model, long_prompt(RECIPES[name], rows), (7, 64, 200))


@pytest.mark.parametrize("type", TYPES)
@pytest.mark.parametrize("device", devices.ALL)
def test_beside_speech(gguf: Callable[..., Path], device: str, type: str) -> None:
    model = _core.Model([str(gguf("wide", type))], device=device, threads=1)
    prompt = long_prompt(RECIPES["wide"], 140)
    # More rows than a step takes are evaluated before it.
    rng = np.random.default_rng(5)
    parts = [*pieces(140, 12, rng), slice(140, 240)]
    parts[-2] = slice(parts[-2].start, 140)
    text, audio = np.resize(prompt.text, 240), np.resize(prompt.audio, (240, prompt.audio.shape[1]))

    def said(*, joined: bool) -> list[bytes]:
        engine = _core.Engine(model, slots=5)
        rest = engine.open()
        others = [engines.open_slot(engine, prompt, seed=seed) for seed in range(3)]
        engine.close(rest)  # the prompt stands before or between those who speak
        slot, frames = engine.open(**engines.GREEDY), []
        if not joined:
            engine.append(slot, text, audio)
        for number, part in enumerate(parts):
            speaking = others[number % 2 :]
            if joined:
                codes, _ = engine.step(speaking, prompt=(slot, text[part], audio[part]))
            else:
                codes, _ = engine.step(speaking)
            frames.append(codes.tobytes())
        assert engine.position(slot) == 240
        return [*frames, engine.save_prefix(slot), engines.speak(engine, [slot], 2).tobytes()]

    assert said(joined=True) == said(joined=False)
