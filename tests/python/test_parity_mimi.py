"""The codec equals the reference: decoding offline and streamed, encoding, lengths."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np
import pytest
from csm_ggml import _core
from numpy.typing import NDArray
from reference import scenes
from reference.compare import (
    SAMPLES_TOLERANCE,
    STREAMING_TOLERANCE,
    assert_encoding_equal,
    assert_samples_close,
)
from reference.expected import Expected
from reference.recipes import Recipe

Load = Callable[..., _core.Model]


def decode(
    model: _core.Model, codes: NDArray[np.int32], chunks: Iterable[int]
) -> NDArray[np.float32]:
    """Decode codes in chunks of so many frames, the last one being repeated until all are done."""
    decoder, parts, begin, size = _core.MimiDecoder(model), [], 0, 1
    sizes = iter(chunks)
    while begin < len(codes):
        size = next(sizes, size)
        parts.append(decoder.decode(codes[begin : begin + size]))
        begin += size
    return np.concatenate(parts)


@pytest.mark.parametrize("chunk", [10**6, 1], ids=["offline", "frame by frame"])
def test_decode(recipe: Recipe, expected: Expected, model: Load, chunk: int) -> None:
    """More frames than the attention window holds."""
    codes = scenes.decode_codes(recipe)
    assert 2 * len(codes) > recipe.codec["sliding_window"]
    ours = decode(model(recipe.name), codes, [chunk]).reshape(len(codes), recipe.frame_size)
    assert 0.05 < expected.samples.std() < 0.5, "full scale is 1"
    assert_samples_close(
        ours[expected.frames],
        expected.samples,
        f"{recipe.name}, {chunk} frames a call",
        SAMPLES_TOLERANCE,
    )


@pytest.mark.parametrize("chunks", [[1], [2], [3], [7], [1, 2, 3, 5, 8, 13, 1], [64]], ids=str)
def test_streaming_equals_offline(recipe: Recipe, model: Load, chunks: list[int]) -> None:
    codes = scenes.decode_codes(recipe)
    whole = decode(model(recipe.name), codes, [len(codes)])
    streamed = decode(model(recipe.name), codes, chunks)
    assert_samples_close(streamed, whole, f"{recipe.name}, chunks {chunks}", STREAMING_TOLERANCE)


def test_decode_is_causal(recipe: Recipe, model: Load) -> None:
    """Another frame changes nothing before it, and something at once."""
    codes = scenes.decode_codes(recipe)[:12]
    other = codes.copy()
    other[7] = (other[7] + 1) % recipe.codebook_size
    whole, changed = (decode(model(recipe.name), c, [len(c)]) for c in (codes, other))
    begin = 7 * recipe.frame_size
    assert_samples_close(changed[:begin], whole[:begin], recipe.name, STREAMING_TOLERANCE)
    assert (
        np.abs(
            changed[begin : begin + recipe.frame_size] - whole[begin:][: recipe.frame_size]
        ).max()
        > 1e-3
    )


def test_decoder_reset(recipe: Recipe, model: Load) -> None:
    """After reset a decoder knows nothing of what it has decoded."""
    codes = scenes.decode_codes(recipe)[:10]
    decoder = _core.MimiDecoder(model(recipe.name))
    first = decoder.decode(codes)
    assert not np.allclose(decoder.decode(codes), first)
    decoder.reset()
    np.testing.assert_array_equal(decoder.decode(codes), first)


@pytest.mark.parity
@pytest.mark.parametrize("part", [0.25, 0.5])
def test_decode_of_fewer_codebooks(
    recipe: Recipe, reference: Callable[..., object], model: Load, part: float
) -> None:
    """The first codebooks alone decode to the reference's coarser sound."""
    codebooks = max(int(recipe.codebooks * part), recipe.codec["num_semantic_quantizers"])
    codes = np.ascontiguousarray(scenes.decode_codes(recipe)[:8, :codebooks])
    theirs = reference(recipe.name).decode(codes)  # type: ignore[attr-defined]
    ours = decode(model(recipe.name), codes, [8])
    assert_samples_close(ours, theirs, f"{codebooks} codebooks", SAMPLES_TOLERANCE)


def test_encode(recipe: Recipe, expected: Expected, model: Load) -> None:
    """Waveforms shorter than a frame, of odd lengths and longer than the window."""
    encoder = _core.MimiEncoder(model(recipe.name))
    for length in scenes.encode_lengths(recipe):
        encoder.reset()
        sound = scenes.waveform(recipe, length)
        codes, latents = encoder.encode(sound, return_latents=True)
        theirs = expected.encoded[length]
        compared = assert_encoding_equal(codes, latents, theirs, f"{recipe.name}, {length} samples")
        assert compared > 0.95, f"only {compared:.0%} of the codes could be compared"


@pytest.mark.parametrize("frames", [1, 2, 5])
def test_streamed_encoding_equals_offline(recipe: Recipe, model: Load, frames: int) -> None:
    """The latents do; codes follow where they are clear. The last piece is no whole frame."""
    length = (recipe.codec["sliding_window"] // 2 + 3) * recipe.frame_size + 5
    sound = scenes.waveform(recipe, length)
    encoder = _core.MimiEncoder(model(recipe.name))
    codes, whole = encoder.encode(sound, return_latents=True)
    encoder.reset()
    step, parts = frames * recipe.frame_size, []
    for begin in range(0, length, step):
        piece = sound[begin : begin + step]
        parts.append(encoder.encode(piece, final=begin + step >= length, return_latents=True))
    streamed = np.concatenate([latents for _, latents in parts])
    assert_samples_close(
        streamed,
        whole,
        f"{recipe.name}, {frames} frames a call",
        STREAMING_TOLERANCE * np.ptp(whole),
    )
    streamed_codes = np.concatenate([piece_codes for piece_codes, _ in parts])
    assert (streamed_codes == codes).mean() > 0.95


def test_number_of_frames(recipe: Recipe, model: Load) -> None:
    """ceil(samples / frame size), always."""
    encoder = _core.MimiEncoder(model(recipe.name))
    sound = scenes.waveform(recipe, 3 * recipe.frame_size + 1)
    step = max(recipe.frame_size // 12, 1)
    lengths = {
        *range(1, len(sound), step),
        *(n * recipe.frame_size + d for n in (1, 2, 3) for d in (-1, 0, 1)),
    }
    for length in sorted(lengths):
        encoder.reset()
        codes = encoder.encode(sound[:length])
        assert codes.shape == (-(-length // recipe.frame_size), recipe.codebooks), length
        assert codes.min() >= 0 and codes.max() < recipe.codebook_size
