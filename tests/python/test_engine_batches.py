"""Which slots a step takes changes nothing that they say, and costs only what those slots cost."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from csm_ggml import _core
from reference import devices, engines, scenes
from reference.recipes import GROUPED8, PLAIN4, WIDE, Recipe

FRAMES = 12
SLOTS = 7

Load = Callable[..., _core.Model]


@pytest.fixture(params=devices.ALL)
def load(gguf: Callable[..., Path], request: pytest.FixtureRequest) -> Load:
    """A recipe's model on a device with nodes of our own, and on one as GPUs are."""

    # ggml's own threads spin at barriers between nodes; one needs none
    threads = 2 if request.param == "cpu" else 1

    def model(name: str, type: str = "f32") -> _core.Model:
        return _core.Model([str(gguf(name, type))], device=request.param, threads=threads)

    return model


@pytest.mark.parametrize("small", [PLAIN4, GROUPED8], ids=lambda recipe: recipe.name)
def test_any_subset_in_any_order(small: Recipe, load: Load) -> None:
    """Slots at different positions, prompts of different lengths: each says what it says alone."""
    model = load(small.name)
    words = scenes.segment_text(small, "subset", 9)
    prompts = [scenes.text_rows(words[: 2 + i], small.codebooks) for i in range(SLOTS)]
    wanted = [engines.speak_alone(model, p, FRAMES, seed=i) for i, p in enumerate(prompts)]
    engine = _core.Engine(model, slots=SLOTS + 2)
    slots = [engines.open_slot(engine, p, seed=i) for i, p in enumerate(prompts)]
    said: list[list[np.ndarray]] = [[] for _ in slots]
    rng = np.random.default_rng(5)
    while left := [i for i in range(SLOTS) if len(said[i]) < FRAMES]:
        chosen = rng.permutation(left)[: rng.integers(1, len(left) + 1)].tolist()
        codes, _ = engine.step([slots[i] for i in chosen])
        for i, frame in zip(chosen, codes, strict=True):
            said[i].append(frame)
    for i, codes in enumerate(said):
        np.testing.assert_array_equal(np.stack(codes), wanted[i], err_msg=f"slot {i}")


def test_distant_slots_cost_what_neighbours_cost(model: Load) -> None:
    """Slots between those of a step are not computed: they would be seven times as many."""
    engine = _core.Engine(model("wide", "q8_0"), slots=16)
    for seed in range(16):
        engines.open_slot(engine, scenes.text_prompt(WIDE), seed=seed)

    def seconds(slots: list[int]) -> float:
        engine.step(slots)
        taken = []
        for _ in range(15):
            begin = time.perf_counter()
            engine.step(slots)
            taken.append(time.perf_counter() - begin)
        return min(taken)

    assert seconds([0, 15]) < 2 * seconds([0, 1])
