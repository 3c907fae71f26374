"""From text and sounds to samples: `CSM.generate` against transformers' generate and decode."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from csm_ggml import CSM, Segment
from numpy.typing import NDArray
from reference import scenes
from reference.compare import SAMPLES_TOLERANCE, assert_codes_equal, assert_samples_close
from reference.recipes import AUDIO, AUDIO_EOS, BOS, EOS, GROUPED8, PLAIN4, Recipe
from tokenizers import Tokenizer

if TYPE_CHECKING:
    from reference.runner import Reference

FRAMES = 30


def chat(
    checkpoint: Path, recipe: Recipe, said: list[tuple[str, int]], text: str
) -> NDArray[np.int32]:
    """Ids as the processor's chat template makes them: turns with sounds, then the text."""
    tokenizer = Tokenizer.from_file(str(checkpoint / "tokenizer.json"))
    ids = []
    for turn, samples in said:
        ids += [BOS, *tokenizer.encode(turn, add_special_tokens=False).ids, EOS]
        ids += [AUDIO] * -(-samples // recipe.frame_size) + [AUDIO_EOS]
    ids += [BOS, *tokenizer.encode(text, add_special_tokens=False).ids, EOS]
    return np.array(ids, np.int32)


@pytest.mark.parity
@pytest.mark.parametrize("recipe", [PLAIN4, GROUPED8], ids=lambda recipe: recipe.name)
@pytest.mark.parametrize("turns", [0, 1, 2], ids="{} turns of context".format)
def test_speech(
    recipe: Recipe,
    turns: int,
    checkpoint: Callable[[str], Path],
    gguf: Callable[..., Path],
    reference: Callable[[str], Reference],
) -> None:
    """With context sounds that are no whole number of frames."""
    texts = ["Is it raining again?", "No, the sun is out."][:turns]
    sounds = [scenes.waveform(recipe, frames * recipe.frame_size + 7) for frames in (5, 9)[:turns]]
    said = [
        (f"[{i}]{text}", len(sound))
        for i, (text, sound) in enumerate(zip(texts, sounds, strict=True))
    ]
    ids = chat(checkpoint(recipe.name), recipe, said, "[0]Then let us go.")
    codes = reference(recipe.name).generate(ids, FRAMES, sounds)

    csm = CSM.from_pretrained(gguf(recipe.name), device="cpu", threads=1)
    context = [
        Segment(i, text, (sound, csm.sample_rate))
        for i, (text, sound) in enumerate(zip(texts, sounds, strict=True))
    ]
    audio = csm.generate("[0]Then let us go.", context=context, temperature=0, max_frames=FRAMES)
    assert_codes_equal(audio.codes, codes, recipe.name)
    samples = reference(recipe.name).decode(codes)
    assert_samples_close(audio.samples, samples, recipe.name, SAMPLES_TOLERANCE)
