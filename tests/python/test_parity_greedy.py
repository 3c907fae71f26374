"""Greedy codes are the reference's for at least 64 frames."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
import pytest
from csm_ggml import _core
from reference import engines, scenes
from reference.compare import assert_codes_equal, assert_logits_close
from reference.expected import Expected, whole
from reference.recipes import Recipe

if TYPE_CHECKING:
    from reference.runner import Reference

Load = Callable[..., _core.Model]
LoadReference = Callable[[str], "Reference"]

PROMPTS = pytest.mark.parametrize("prompt", list(scenes.PROMPTS))


def greedy(model: _core.Model, recipe: Recipe, prompt: str) -> np.ndarray:
    rows = scenes.PROMPTS[prompt](recipe)
    return engines.speak_alone(model, rows, recipe.greedy_frames, **engines.GREEDY)


@PROMPTS
def test_golden(
    recipe: Recipe, expected_of: Callable[[str, str], Expected], model: Load, prompt: str
) -> None:
    wanted = expected_of("golden", recipe.name).greedy[prompt]
    assert len(wanted) >= 64
    # a fixture that says little would prove little
    assert len(np.unique(wanted, axis=0)) > 60 and wanted.any(axis=1).all()
    assert_codes_equal(
        greedy(model(recipe.name), recipe, prompt), wanted, f"{recipe.name}, {prompt}"
    )


@pytest.mark.parity
@PROMPTS
def test_live(recipe: Recipe, reference: LoadReference, model: Load, prompt: str) -> None:
    """The reference, given our greedy codes, finds each of them the likeliest.

    That is the same as generating them (a first code that differs would be found here), in one pass
    instead of thousands.
    """
    codes = greedy(model(recipe.name), recipe, prompt)
    rows = scenes.PROMPTS[prompt](recipe)
    theirs = reference(recipe.name).forced_logits(rows, codes)
    assert_codes_equal(theirs.argmax(axis=-1).astype(np.int32), codes, f"{recipe.name}, {prompt}")
    ours = engines.forced_logits(model(recipe.name), rows, codes)
    assert_logits_close(ours, whole(theirs, recipe), f"{recipe.name}, greedy after {prompt}")


@pytest.mark.parity
def test_generate(recipe: Recipe, reference: LoadReference, model: Load) -> None:
    """transformers' own generation loop gives the same codes."""
    prompt = scenes.text_prompt(recipe)
    theirs = reference(recipe.name).generate(prompt.text, 64)
    ours = engines.speak_alone(model(recipe.name), prompt, 64, **engines.GREEDY)
    assert_codes_equal(ours, theirs, recipe.name)


@pytest.mark.parity
def test_generate_with_context_audio(recipe: Recipe, reference: LoadReference, model: Load) -> None:
    """A context waveform: transformers places its codes by itself, we append them as rows."""
    frames = 6
    sound = scenes.waveform(recipe, frames * recipe.frame_size)
    codes = _core.MimiEncoder(model(recipe.name)).encode(sound)
    assert isinstance(codes, np.ndarray)
    before, after = (scenes.segment_text(recipe, label, 5) for label in ("before", "after"))
    prompt = scenes.join(
        scenes.text_rows(before, recipe.codebooks),
        scenes.audio_rows(codes),
        scenes.text_rows(after, recipe.codebooks),
    )
    theirs = reference(recipe.name).generate(scenes.placeholder_ids(prompt), 8, [sound])
    ours = engines.speak_alone(model(recipe.name), prompt, 8, **engines.GREEDY)
    assert_codes_equal(ours, theirs, recipe.name)
