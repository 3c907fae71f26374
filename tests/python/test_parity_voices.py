"""Mimi's encoder hears speech as the reference does: a voice made by rule, and real recordings."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
import pytest
from csm_ggml import _core
from csm_ggml.audio.load import load_audio
from numpy.typing import NDArray
from reference.compare import (
    STREAMING_TOLERANCE,
    assert_encoding_equal,
    assert_samples_close,
)
from reference.recipes import WIDE, Recipe
from reference.speech import DEBIAN_PACKAGE, FOLDER_VARIABLE, recordings, synthetic_voice

if TYPE_CHECKING:
    from reference.runner import Reference

RATE = 24000
# Past the attention window of 10 seconds.
SYNTHETIC_SECONDS = 11
# The last syllable of a phrase, the pause, and how the next one begins: for checkpoints whose
# frames are so short that more takes long.
BRIEFLY = slice(18_000, 31_993)
STREAMED_SAMPLES = 960
MOST_RECORDINGS = 12


def voice_for(recipe: Recipe) -> NDArray[np.float32]:
    """A synthetic voice of a length that suits the recipe; no whole number of frames."""
    voice = synthetic_voice(RATE, SYNTHETIC_SECONDS)
    return voice[:-7] if recipe is WIDE else voice[BRIEFLY]


def assert_encoded_like_the_reference(
    model: _core.Model, reference: Reference, sound: NDArray[np.float32], what: str
) -> None:
    """Offline, and streamed."""
    theirs = reference.encode(sound)
    encoder = _core.MimiEncoder(model)
    codes, latents = encoder.encode(sound, return_latents=True)
    compared = assert_encoding_equal(codes, latents, theirs, what)
    assert compared > 0.95, f"{what}: only {compared:.0%} of the codes could be compared"

    streamed_codes, streamed_latents = encode_streamed(model, sound)
    what = f"{what}, streamed"
    assert_samples_close(
        streamed_latents, latents, what, tolerance=STREAMING_TOLERANCE * np.ptp(latents)
    )
    assert_encoding_equal(streamed_codes, streamed_latents, theirs, what)


def encode_streamed(
    model: _core.Model, sound: NDArray[np.float32]
) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    """Codes and latents, made of some frames at a time; the last piece is as long as it is."""
    frame = int(model.config["mimi.frame_size"])
    encoder, size = _core.MimiEncoder(model), max(1, STREAMED_SAMPLES // frame) * frame
    parts = [
        encoder.encode(
            sound[begin : begin + size], final=begin + size >= len(sound), return_latents=True
        )
        for begin in range(0, len(sound), size)
    ]
    return np.concatenate([part[0] for part in parts]), np.concatenate([part[1] for part in parts])


def test_the_synthetic_voice_is_like_speech() -> None:
    """As loud as a recording, with pauses, and mostly below 4 kHz."""
    sound = synthetic_voice(RATE, 5)
    assert sound.shape == (5 * RATE,)
    assert 0.3 < np.abs(sound).max() < 1
    assert 0.15 < (sound == 0).mean() < 0.25
    power = np.abs(np.fft.rfft(sound)) ** 2
    assert power[: 5 * 4000].sum() > 0.9 * power.sum()
    assert power[5 * 4000 :].sum() > 0.001 * power.sum()


def test_a_synthetic_voice_streamed(recipe: Recipe, model: Callable[..., _core.Model]) -> None:
    """The latents of encoding at once; codes follow where they are clear."""
    sound = voice_for(recipe)
    codes, latents = _core.MimiEncoder(model(recipe.name)).encode(sound, return_latents=True)
    streamed_codes, streamed = encode_streamed(model(recipe.name), sound)
    tolerance = STREAMING_TOLERANCE * np.ptp(latents)
    assert_samples_close(streamed, latents, recipe.name, tolerance=tolerance)
    assert (streamed_codes == codes).mean() > 0.95


@pytest.mark.parity
def test_a_synthetic_voice(
    recipe: Recipe, model: Callable[..., _core.Model], reference: Callable[[str], Reference]
) -> None:
    sound = voice_for(recipe)
    assert_encoded_like_the_reference(
        model(recipe.name), reference(recipe.name), sound, f"{recipe.name}, synthetic voice"
    )


@pytest.mark.parity
def test_recordings(
    model: Callable[..., _core.Model], reference: Callable[[str], Reference]
) -> None:
    """Real speech through Mimi's own ratios and window, resampled to its rate as everything is."""
    files = recordings()[:MOST_RECORDINGS]
    if not files:
        pytest.skip(
            f"no recordings of speech: set {FOLDER_VARIABLE} to a folder of them, or install the "
            f"Debian package {DEBIAN_PACKAGE}"
        )
    sounds = {path.name: load_audio(path, RATE) for path in files}
    sounds["one after another"] = np.concatenate(list(sounds.values()))
    for name, sound in sounds.items():
        assert_encoded_like_the_reference(model(WIDE.name), reference(WIDE.name), sound, name)
