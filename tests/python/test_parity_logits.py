"""Backbone and depth logits equal the reference's at every position, in prefill and steps."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from csm_ggml import _core
from reference import engines, scenes
from reference.compare import assert_logits_close
from reference.expected import Expected
from reference.recipes import Recipe

Load = Callable[..., _core.Model]

PROMPTS = pytest.mark.parametrize("prompt", list(scenes.PROMPTS))


@PROMPTS
def test_prefill(recipe: Recipe, expected: Expected, model: Load, prompt: str) -> None:
    """After every row of text, audio, or the all-zero frame between them."""
    ours = engines.prefill_logits(model(recipe.name), scenes.PROMPTS[prompt](recipe))
    assert_logits_close(ours, expected.prefill[prompt], f"{recipe.name}, prefill of {prompt}")


@PROMPTS
def test_steps(recipe: Recipe, expected: Expected, model: Load, prompt: str) -> None:
    """Of all codebooks of every frame, while random codes are spoken."""
    codes = scenes.forced_codes(recipe)
    ours = engines.forced_logits(model(recipe.name), scenes.PROMPTS[prompt](recipe), codes)
    assert_logits_close(ours, expected.forced[prompt], f"{recipe.name}, steps after {prompt}")


def test_one_row_at_a_time(recipe: Recipe, expected: Expected, model: Load) -> None:
    """A prompt appended row by row is the same prompt."""
    prompt = scenes.text_prompt(recipe)
    engine = _core.Engine(model(recipe.name))
    slot = engine.open(**engines.GREEDY)
    for row in range(len(prompt.text) - 1):
        engine.append(slot, prompt.text[row : row + 1], prompt.audio[row : row + 1])
    codes = scenes.forced_codes(recipe)
    engine.append(slot, prompt.text[-1:], prompt.audio[-1:])
    _, logits = engine.step([slot], forced=codes[:1], return_logits=True)
    assert logits is not None
    first = expected.forced["text"]
    wanted = first._replace(
        values=first.values[:1], spread=first.spread[:1], positions=first.positions[:1]
    )
    assert wanted.positions[0] == 0
    assert_logits_close(logits, wanted, f"{recipe.name}, prompt row by row")
