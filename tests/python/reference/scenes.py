"""What the models are given in the tests: prompts, codes, waveforms. Needs no PyTorch."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from .draws import centred, integers
from .recipes import AUDIO, BOS, EOS, Recipe


class Prompt(NamedTuple):
    """Rows for the backbone.

    Attributes:
        text: Text ids, int32 (n,); -1 where the row is audio.
        audio: Codes, int32 (n, codebooks); 0 where the row is text.
    """

    text: NDArray[np.int32]
    audio: NDArray[np.int32]


def text_rows(ids: NDArray[np.int32], codebooks: int) -> Prompt:
    """Rows of text ids."""
    return Prompt(ids.astype(np.int32), np.zeros((len(ids), codebooks), np.int32))


def audio_rows(codes: NDArray[np.int32]) -> Prompt:
    """Rows of codes (frames, codebooks), and the all-zero frame that ends every audio."""
    codes = np.concatenate([codes, np.zeros((1, codes.shape[1]), np.int32)])
    return Prompt(np.full(len(codes), -1, np.int32), codes.astype(np.int32))


def join(*parts: Prompt) -> Prompt:
    return Prompt(
        np.concatenate([part.text for part in parts]),
        np.concatenate([part.audio for part in parts]),
    )


def segment_text(recipe: Recipe, label: str, words: int) -> NDArray[np.int32]:
    """BOS, some ordinary text ids, EOS."""
    body = integers(recipe.seed, f"text {label}", (words,), BOS)
    return np.concatenate([[BOS], body, [EOS]]).astype(np.int32)


def text_prompt(recipe: Recipe) -> Prompt:
    """A prompt of text only."""
    ids = segment_text(recipe, "alone", max(recipe.prompt_rows // 4, 8) - 2)
    return text_rows(ids, recipe.codebooks)


def context_prompt(recipe: Recipe) -> Prompt:
    """A prompt with one segment of context before the text to speak."""
    before = segment_text(recipe, "context", recipe.prompt_rows // 5)
    after = segment_text(recipe, "target", recipe.prompt_rows // 5)
    frames = recipe.prompt_rows - len(before) - len(after) - 1
    return join(
        text_rows(before, recipe.codebooks),
        audio_rows(codes(recipe, "context", frames)),
        text_rows(after, recipe.codebooks),
    )


PROMPTS = {"text": text_prompt, "context": context_prompt}


def codes(recipe: Recipe, label: str, frames: int) -> NDArray[np.int32]:
    """Random codes (frames, codebooks) that the codec has sounds for."""
    shape = (frames, recipe.codebooks)
    return integers(recipe.seed, f"codes {label}", shape, recipe.codebook_size)


def forced_codes(recipe: Recipe) -> NDArray[np.int32]:
    """The frames (forced_frames, codebooks) of the teacher-forced run."""
    return codes(recipe, "forced", recipe.forced_frames)


def decode_codes(recipe: Recipe) -> NDArray[np.int32]:
    """The frames (decode_frames, codebooks) of the codec's decoding run."""
    return codes(recipe, "decode", recipe.decode_frames)


def waveform(recipe: Recipe, samples: int) -> NDArray[np.float32]:
    """Coloured noise of changing loudness, float32 (samples,), about 0.3 in size."""
    noise = centred(recipe.seed, f"waveform {samples}", (samples + 8,))
    coloured = sum(noise[8 - lag : samples + 8 - lag] * np.float32(0.5**lag) for lag in range(8))
    loudness = centred(recipe.seed, f"loudness {samples}", (samples // 500 + 1,)) * np.float32(0.1)
    return np.asarray(coloured * np.float32(0.25) * (1 + np.repeat(loudness, 500)[:samples]))


def encode_lengths(recipe: Recipe) -> list[int]:
    """Lengths in samples: below, at and around whole frames, and beyond the codec's window."""
    frame = recipe.frame_size
    long = (recipe.codec["sliding_window"] // 2 + 3) * frame
    return [1, frame // 2 + 1, frame - 1, frame, frame + 1, 3 * frame + frame // 3, long]


def placeholder_ids(prompt: Prompt) -> NDArray[np.int32]:
    """The prompt as transformers' processor writes it: an AUDIO id a frame, AUDIO_EOS last."""
    ids = prompt.text.copy()
    ids[ids < 0] = AUDIO
    ends = (prompt.text < 0) & ~prompt.audio.any(axis=1)
    ids[ends] = AUDIO + 1
    return ids
