"""The sampler: its rules on ties and limits, its noise, and the distribution of what it draws."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from csm_ggml import _core
from numpy.typing import NDArray
from reference import draws, engines, scenes
from reference.philox import philox4x32_10
from reference.recipes import PLAIN4
from reference.statistics import assert_drawn_from, processed

# Temperature, top-k, top-p.
SETTINGS = [
    (1.0, 0, 1.0),
    (0.9, 50, 1.0),
    (0.9, 7, 1.0),
    (0.6, 0, 0.8),
    (1.3, 40, 0.6),
    (2.0, 1000, 0.95),
    (0.3, 3, 0.5),
]
DRAWS = 100_000


def sample(
    logits: NDArray[np.float32] | list[float],
    uniforms: NDArray[np.float32] | list[float],
    temperature: float = 1.0,
    top_k: int = 0,
    top_p: float = 1.0,
) -> list[int]:
    """What is drawn from one row of logits with each of some uniform numbers."""
    u = np.asarray(uniforms, np.float32)
    rows = np.broadcast_to(np.asarray(logits, np.float32), (len(u), len(logits)))
    codes = _core.sample(
        np.ascontiguousarray(rows), u, temperature=temperature, top_k=top_k, top_p=top_p
    )
    assert codes.dtype == np.int32 and codes.shape == u.shape
    return [int(code) for code in codes]


GRID = np.linspace(0, 1, 200, endpoint=False, dtype=np.float32)


# Noise


def test_philox_known_answers() -> None:
    """The vectors published with Random123 (kat_vectors, philox4x32 with 10 rounds)."""
    ones = 0xFFFFFFFF
    assert philox4x32_10((0, 0, 0, 0), (0, 0)) == (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)
    assert philox4x32_10((ones,) * 4, (ones, ones)) == (
        0x408F276D,
        0x41C83B0E,
        0xA20BC7C6,
        0x6D5451FD,
    )
    assert philox4x32_10(
        (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344), (0xA4093822, 0x299F31D0)
    ) == (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1)


@pytest.mark.parametrize("seed", [0, 1, 7, 2**32 - 1, 2**32, 0x243F6A8885A308D3, 2**64 - 1])
def test_uniforms_are_philox(seed: int) -> None:
    """Word 0 of counter (codebook, frame, 0, 0), key seed (low word first), its top 24 bits."""
    first, frames, codebooks = 5, 4, 33
    ours = _core.uniforms(seed, first, frames, codebooks)
    assert ours.shape == (frames, codebooks) and ours.dtype == np.float32
    key = (seed & 0xFFFFFFFF, seed >> 32)
    for frame in range(frames):
        for codebook in range(codebooks):
            word = philox4x32_10((codebook, first + frame, 0, 0), key)[0]
            assert ours[frame, codebook] == (word >> 8) * 2.0**-24


def test_uniforms_do_not_depend_on_the_range_asked_for() -> None:
    whole = _core.uniforms(3, 0, 50, 32)
    np.testing.assert_array_equal(_core.uniforms(3, 17, 9, 32), whole[17:26])
    np.testing.assert_array_equal(_core.uniforms(3, 0, 50, 8), whole[:, :8])
    assert ((whole >= 0) & (whole < 1)).all() and len(np.unique(whole)) > 0.999 * whole.size


# Rules


@pytest.mark.parametrize(
    "settings", [(0.0, 0, 1.0), (0.0, 50, 0.5), (1.0, 1, 1.0), (1.0, 0, 1e-6), (5.0, 9, 1e-6)]
)
def test_greedy(settings: tuple[float, int, float]) -> None:
    """Temperature 0, top_k 1, a vanishing top_p: the largest logit, the lower code on ties."""
    assert set(sample([0.5, 2.0, -1.0, 2.0, 1.9], GRID, *settings)) == {1}
    assert set(sample([1.0] * 9, GRID, *settings)) == {0}
    assert set(sample([-3.0, -2.0], GRID, *settings)) == {1}


def test_top_k_breaks_ties_by_lower_code() -> None:
    """Three codes tie for places two and three; the lower two of them stay."""
    assert set(sample([1.0, 3.0, 1.0, 1.0, 0.0], GRID, top_k=3)) == {0, 1, 2}
    assert set(sample([1.0] * 10, GRID, top_k=4)) == {0, 1, 2, 3}


def test_top_k_beyond_the_codes_keeps_all() -> None:
    logits = [0.3, 0.1, 0.2, 0.0]
    assert sample(logits, GRID, top_k=4) == sample(logits, GRID, top_k=0)
    assert sample(logits, GRID, top_k=10_000) == sample(logits, GRID, top_k=0)
    assert set(sample(logits, GRID)) == {0, 1, 2, 3}


def test_top_p_keeps_the_code_that_reaches_it() -> None:
    """Probabilities 1/2, 1/4, 1/8, 1/8: 0.5 is reached by one code, more takes another."""
    logits = np.log(np.array([0.125, 0.5, 0.125, 0.25], np.float32)) + 3
    assert set(sample(list(logits), GRID, top_p=0.49)) == {1}
    assert set(sample(list(logits), GRID, top_p=0.51)) == {1, 3}
    assert set(sample(list(logits), GRID, top_p=0.74)) == {1, 3}
    # of two equally likely codes the lower one comes first
    assert set(sample(list(logits), GRID, top_p=0.8)) == {0, 1, 3}
    assert set(sample(list(logits), GRID, top_p=1.0)) == {0, 1, 2, 3}


def test_top_p_counts_what_top_k_left() -> None:
    """0.4, 0.3, 0.2, 0.1; of the first two, 0.57 is the first one's share."""
    logits = list(np.log(np.array([0.4, 0.3, 0.2, 0.1], np.float32)))
    assert set(sample(logits, GRID, top_k=2, top_p=0.56)) == {0}
    assert set(sample(logits, GRID, top_k=2, top_p=0.59)) == {0, 1}


def test_draw_is_the_inverse_of_the_cumulated_mass() -> None:
    """From the likeliest code downwards, lower codes first on ties; the ends of [0, 1) included."""
    logits = list(np.log(np.array([0.25, 0.5, 0.25], np.float32)))
    last = float(np.nextafter(np.float32(1), np.float32(0)))
    drawn = sample(logits, [0.0, 0.49, 0.51, 0.74, 0.76, last])
    assert drawn == [1, 1, 0, 0, 2, 2]


def test_hopeless_codes_are_never_drawn() -> None:
    """Minus infinity and logits that are no number have no share."""
    for nothing in (-np.inf, np.nan):
        assert set(sample([nothing, 0.0, nothing, 0.0, nothing], GRID)) == {1, 3}
    last = float(np.nextafter(np.float32(1), np.float32(0)))
    assert sample([0.0, -1e30, -np.inf], [last, 0.0]) == [0, 0]


def test_huge_logits_do_not_overflow() -> None:
    assert set(sample([3e38, -3e38, 0.0], GRID, temperature=0.01)) == {0}
    assert set(sample([1e4, 1e4, 0.0], GRID)) == {0, 1}


# Distributions


@pytest.mark.parametrize(
    ("codes", "temperature", "top_k", "top_p"),
    # sorting 2048 codes 100,000 times takes a while: the default settings have to do
    [(131, *settings) for settings in SETTINGS] + [(2048, *SETTINGS[1])],
)
def test_distribution(codes: int, temperature: float, top_k: int, top_p: float) -> None:
    """100,000 draws against the softmax of the processed logits."""
    logits = draws.centred(1, f"logits {codes}", (codes,)) * np.float32(2)
    uniforms = _core.uniforms(99, 0, DRAWS, 1)[:, 0]
    counts = np.zeros(codes, np.int64)
    for part in np.array_split(uniforms, 20):
        drawn = sample(logits, part, temperature, top_k, top_p)
        counts += np.bincount(drawn, minlength=codes)
    what = f"T={temperature}, top_k={top_k}, top_p={top_p}"
    assert_drawn_from(counts, processed(logits, temperature, top_k, top_p), what)


@pytest.mark.parity
@pytest.mark.parametrize(("temperature", "top_k", "top_p"), SETTINGS)
def test_processed_logits_are_those_of_transformers(
    temperature: float, top_k: int, top_p: float
) -> None:
    """Temperature, then top-k, then top-p, as transformers' generation applies them."""
    import torch
    from transformers import TemperatureLogitsWarper, TopKLogitsWarper, TopPLogitsWarper

    logits = draws.centred(1, "logits 2048", (2048,)) * np.float32(2)
    scores = TemperatureLogitsWarper(temperature)(None, torch.from_numpy(logits)[None])
    if top_k:
        scores = TopKLogitsWarper(top_k)(None, scores)
    if top_p < 1:
        scores = TopPLogitsWarper(top_p)(None, scores)
    theirs = np.asarray(torch.softmax(scores, dim=-1)[0])
    np.testing.assert_allclose(processed(logits, temperature, top_k, top_p), theirs, atol=1e-6)
    np.testing.assert_array_equal(processed(logits, temperature, top_k, top_p) > 0, theirs > 0)


@pytest.mark.parametrize("codebook", range(PLAIN4.codebooks))
def test_distribution_of_steps(model: Callable[..., _core.Model], codebook: int) -> None:
    """The same of codes drawn inside the frame graph, given the codes before them in the frame.

    Backbone and depth decoder have settings of their own. The frame is made again and again from
    the same rows with the earlier codes forced; only the noise differs, by seed and by frame.
    """
    backbone = {"temperature": 0.9, "top_k": 50, "top_p": 1.0}
    depth = {"temperature": 1.2, "top_k": 0, "top_p": 0.9}
    slots, seeds, steps = 16, 4, 200
    prompt = scenes.text_prompt(PLAIN4)
    engine = _core.Engine(model("plain4"), slots=slots, context=64)
    settings = backbone | {f"depth_{name}": value for name, value in depth.items()}
    taken = [engines.open_slot(engine, prompt, **settings) for _ in range(slots)]
    rows = len(prompt.text)

    forced = np.repeat(scenes.forced_codes(PLAIN4)[:1], slots, axis=0)
    forced[:, codebook:] = -1
    counts = np.zeros(PLAIN4.codebook_size, np.int64)
    logits = None
    for seed in range(seeds):
        for slot in taken:
            engine.reseed(slot, seed=1000 * codebook + 100 * seed + slot, **settings)
        for _ in range(steps):
            codes, step_logits = engine.step(taken, forced=forced, return_logits=logits is None)
            logits = (
                step_logits[0, codebook] if logits is None and step_logits is not None else logits
            )
            np.add.at(counts, codes[:, codebook], 1)
            for slot in taken:
                engine.rewind(slot, rows - 1)
                engine.append(slot, prompt.text[-1:], prompt.audio[-1:])
    assert logits is not None
    wanted = processed(logits, **(backbone if codebook == 0 else depth))
    assert_drawn_from(counts, wanted, f"codebook {codebook}")
