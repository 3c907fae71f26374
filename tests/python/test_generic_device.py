"""What a GPU runs, on the CPU: ggml's operators alone, the composed sampler, ggml's scheduler."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from csm_ggml import _core
from reference import engines, scenes
from reference.compare import assert_codes_equal, assert_logits_close
from reference.expected import whole
from reference.recipes import GROUPED8, PLAIN4, SINGLE32, Recipe

FRAMES = 12
SAMPLED = {
    "temperature": 0.9,
    "top_k": 30,
    "top_p": 0.95,
    "depth_temperature": 0.8,
    "depth_top_k": 0,
    "depth_top_p": 0.9,
}


@pytest.fixture(params=[PLAIN4, GROUPED8, SINGLE32], ids=lambda recipe: recipe.name)
def small(request: pytest.FixtureRequest) -> Recipe:
    wanted: Recipe = request.param
    return wanted


@pytest.fixture
def generic(gguf: Callable[..., Path]) -> Callable[[Recipe], _core.Model]:
    def load(recipe: Recipe) -> _core.Model:
        # ggml's own threads spin at barriers between nodes; one needs none.
        return _core.Model([str(gguf(recipe.name, "f32"))], device="cpu-generic", threads=1)

    return load


Load = Callable[..., _core.Model]
LoadGeneric = Callable[[Recipe], _core.Model]


def test_greedy_codes_and_logits(small: Recipe, model: Load, generic: LoadGeneric) -> None:
    other = generic(small)
    assert other.device == "cpu-generic"
    prompt = scenes.context_prompt(small)
    codes = engines.speak_alone(model(small.name), prompt, FRAMES, **engines.GREEDY)
    got = engines.speak_alone(other, prompt, FRAMES, **engines.GREEDY)
    assert_codes_equal(got, codes, small.name)
    wanted = whole(engines.forced_logits(model(small.name), prompt, codes), small)
    assert_logits_close(engines.forced_logits(other, prompt, codes), wanted, small.name)


def test_sampled_codes_of_a_batch(small: Recipe, model: Load, generic: LoadGeneric) -> None:
    prompt = scenes.context_prompt(small)

    def speak(of: _core.Model) -> np.ndarray:
        engine = _core.Engine(of, slots=3)
        slots = [engines.open_slot(engine, prompt, seed=seed, **SAMPLED) for seed in (5, 6, 7)]
        engine.reseed(slots[1], seed=6, **{**SAMPLED, "temperature": 0.0, "depth_top_k": 1})
        return np.array(engines.speak(engine, slots, FRAMES))

    assert_codes_equal(speak(generic(small)), speak(model(small.name)), small.name)


def test_codec(small: Recipe, model: Load, generic: LoadGeneric) -> None:
    codes = scenes.decode_codes(small)
    wanted = _core.MimiDecoder(model(small.name)).decode(codes)
    got = _core.MimiDecoder(generic(small)).decode(codes)
    np.testing.assert_allclose(got, wanted, atol=1e-5 * np.abs(wanted).max())
    heard = _core.MimiEncoder(model(small.name)).encode(wanted)
    again = _core.MimiEncoder(generic(small)).encode(wanted)
    assert np.array_equal(np.asarray(heard), np.asarray(again))


def test_codec_streams(small: Recipe, model: Load, generic: LoadGeneric) -> None:
    """States are gathered and scattered by ggml's operators."""
    codes = np.stack([scenes.codes(small, f"stream {i}", FRAMES) for i in range(3)])
    wanted = np.stack([_core.MimiDecoder(model(small.name)).decode(own) for own in codes])
    decoder = _core.MimiDecoder(generic(small), streams=4)
    split = 5 * small.frame_size
    got = np.empty_like(wanted)
    got[[2, 0], :split] = decoder.decode(codes[[2, 0], :5], [3, 0])
    got[1] = decoder.decode(codes[1:2], [1])[0]
    got[[0, 2], split:] = decoder.decode(codes[[0, 2], 5:], [0, 3])
    np.testing.assert_allclose(got, wanted, atol=1e-5 * np.abs(wanted).max())
