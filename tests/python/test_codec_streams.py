"""Streams side by side in one codec decoder: each sounds as if it were alone."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from csm_ggml import _core
from numpy.typing import NDArray
from reference import engines, scenes
from reference.recipes import PLAIN4, Recipe

Load = Callable[..., _core.Model]

FRAMES = 20


def choir(recipe: Recipe, streams: int) -> NDArray[np.int32]:
    """Codes (streams, frames, codebooks)."""
    return np.stack([scenes.codes(recipe, f"stream {i}", FRAMES) for i in range(streams)])


def alone(model: _core.Model, codes: NDArray[np.int32]) -> NDArray[np.float32]:
    """Each stream in a decoder of its own: (streams, samples)."""
    return np.stack([_core.MimiDecoder(model).decode(own) for own in codes])


@pytest.mark.parametrize("threads", [1, 2])
def test_any_subset_in_any_order(recipe: Recipe, model: Load, threads: int) -> None:
    """Streams join, leave and stand at different positions; the samples are the same bits."""
    codes = choir(recipe, 5)
    decoder = _core.MimiDecoder(model(recipe.name, threads=threads), streams=6)
    random = np.random.default_rng(3)
    heard: list[list[NDArray[np.float32]]] = [[] for _ in codes]
    position = np.zeros(len(codes), int)
    while (open_streams := np.flatnonzero(position < FRAMES)).size:
        chosen = random.permutation(open_streams)[: random.integers(1, open_streams.size + 1)]
        frames = min(random.integers(1, 6), FRAMES - position[chosen].max())
        piece = np.stack([codes[i, position[i] : position[i] + frames] for i in chosen])
        samples = decoder.decode(piece, streams=[int(i) for i in chosen])
        assert samples.shape == (len(chosen), frames * recipe.frame_size)
        assert samples.dtype == np.float32
        for i, own in zip(chosen, samples, strict=True):
            heard[i].append(own)
        position[chosen] += frames
    wanted = alone(model(recipe.name), codes)
    for i, own in enumerate(heard):
        np.testing.assert_array_equal(np.concatenate(own), wanted[i], err_msg=f"stream {i}")


def test_without_streams_it_is_the_first(model: Load) -> None:
    codes = choir(PLAIN4, 2)
    decoder = _core.MimiDecoder(model("plain4"), streams=2)
    assert decoder.streams == 2
    first = decoder.decode(codes[0, :7])
    assert first.shape == (7 * PLAIN4.frame_size,)
    second, middle = decoder.decode(np.stack([codes[1, :3], codes[0, 7:10]]), [1, 0])
    last = decoder.decode(codes[0, 10:])
    wanted = alone(model("plain4"), codes)
    np.testing.assert_array_equal(np.concatenate([first, middle, last]), wanted[0])
    np.testing.assert_array_equal(second, wanted[1][: len(second)])


def test_a_stream_begins_anew(model: Load) -> None:
    codes = choir(PLAIN4, 3)
    wanted = alone(model("plain4"), codes)
    decoder = _core.MimiDecoder(model("plain4"), streams=3)
    half = PLAIN4.frame_size * FRAMES // 2
    first = decoder.decode(codes[:, : FRAMES // 2], [0, 1, 2])
    np.testing.assert_array_equal(first, wanted[:, :half])
    decoder.reset(1)
    np.testing.assert_array_equal(decoder.decode(codes[1:2], [1])[0], wanted[1])
    rest = decoder.decode(codes[::2, FRAMES // 2 :], [0, 2])
    np.testing.assert_array_equal(rest, wanted[::2, half:])
    decoder.reset()
    np.testing.assert_array_equal(decoder.decode(codes, [0, 1, 2]), wanted)


def test_no_streams_no_samples(model: Load) -> None:
    decoder = _core.MimiDecoder(model("plain4"), streams=2)
    assert decoder.decode(np.zeros((0, 3, 4), np.int32), []).shape == (0, 3 * PLAIN4.frame_size)
    assert decoder.decode(np.zeros((2, 0, 4), np.int32), [1, 0]).shape == (2, 0)


@pytest.mark.parametrize(
    ("codes", "streams", "message"),
    [
        (np.zeros((2, 1, 4)), [0, 3], r"no stream 3.* 0 to 2"),
        (np.zeros((1, 1, 4)), [-1], "no stream -1"),
        (np.zeros((2, 1, 4)), [1, 1], "stream 1 stands twice"),
        (np.zeros((2, 1, 4)), [1], "codes are of 2 streams, but 1 streams are named"),
        (np.zeros((2, 1, 4)), None, r"3 dimensions, expected 2: \(frames, codebooks\)"),
        (np.zeros((1, 4)), [1], r"2 dimensions, expected 3: \(streams, frames, codebooks\)"),
        (np.zeros((1, 1, 5)), [1], "5 codes per frame, expected 1 to 4"),
        (np.full((1, 1, 4), 128), [2], "stream 2, frame 0, codebook 0 is 128, expected 0 to 127"),
    ],
)
def test_mistakes_are_errors_and_spoil_nothing(
    model: Load, codes: NDArray[Any], streams: list[int] | None, message: str
) -> None:
    wanted = choir(PLAIN4, 3)
    decoder = _core.MimiDecoder(model("plain4"), streams=3)
    before = decoder.decode(wanted[:, :5], [0, 1, 2])
    with pytest.raises(ValueError, match=message):
        decoder.decode(codes.astype(np.int32), streams)
    after = decoder.decode(wanted[:, 5:], [0, 1, 2])
    np.testing.assert_array_equal(np.hstack([before, after]), alone(model("plain4"), wanted))


def test_numbers_of_streams_are_checked(model: Load) -> None:
    for streams in (0, -1, 10**6):
        with pytest.raises(ValueError, match=f"streams is {streams}, expected 1 to"):
            _core.MimiDecoder(model("plain4"), streams=streams)
    with pytest.raises(ValueError, match="no stream 1"):
        _core.MimiDecoder(model("plain4")).reset(1)


def test_codec_and_engine_at_the_same_time(model: Load) -> None:
    """One thread speaks while another decodes; neither changes what the other computes."""
    loaded = model("plain4", threads=2)
    prompt = scenes.text_prompt(PLAIN4)
    said = engines.speak_alone(loaded, prompt, FRAMES, seed=4)
    codes = choir(PLAIN4, 3)
    wanted = alone(loaded, codes)
    spoken: list[NDArray[np.int32]] = []

    def speak() -> None:
        spoken.extend(engines.speak_alone(loaded, prompt, FRAMES, seed=4) for _ in range(4))

    thread = threading.Thread(target=speak)
    thread.start()
    decoder = _core.MimiDecoder(loaded, streams=3)
    for _ in range(4):
        decoder.reset()
        heard = [decoder.decode(codes[:, f : f + 1], [0, 1, 2]) for f in range(FRAMES)]
        np.testing.assert_array_equal(np.hstack(heard), wanted)
    thread.join(timeout=120)
    assert not thread.is_alive(), "the engine hangs"
    assert len(spoken) == 4
    for codes_said in spoken:
        np.testing.assert_array_equal(codes_said, said)
