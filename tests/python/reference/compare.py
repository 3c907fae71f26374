"""How near is near enough: the promises of exactness as checks that say where they fail."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from .expected import Encoded, Logits

# Largest difference of a logit, as part of the range of that position's logits.
LOGITS_TOLERANCE = 2e-4
# Largest difference of a sample; full scale is 1.
SAMPLES_TOLERANCE = 1e-4
# Largest difference between streamed and offline samples.
STREAMING_TOLERANCE = 1e-5
# Largest difference of a latent, as part of the range of the latents.
LATENTS_TOLERANCE = 1e-4
# Two codebook entries are as good as equally near if their squared distances differ by less than
# this part of the squared length of what is quantized: float32 sums over a codebook entry and
# latents equal to 1e-5 leave no more doubt than that.
NEAREST_DOUBT = 1e-3
# A greedy code may be another one where its logit is behind by no more than this part of the
# standard deviation of the logits. With F32 weights sums in another order leave no more doubt than
# the first; F16 weights flipped codes at gaps of up to 7e-4 in full-size random checkpoints.
GREEDY_DOUBT = {"f32": 1e-4, "f16": 2e-3}


def assert_logits_close(ours: NDArray[np.float32], theirs: Logits, what: str) -> float:
    """Compare logits (all positions, ..., all codes) with the reference's.

    Returns:
        The largest difference found, as part of the range.
    """
    picked = ours[theirs.positions][..., theirs.codes]
    if picked.shape != theirs.values.shape:
        raise AssertionError(f"{what}: shape {picked.shape}, expected {theirs.values.shape}")
    error = np.abs(picked - theirs.values).max(axis=-1) / theirs.spread
    worst = np.unravel_index(np.nanargmax(error) if np.isfinite(error).any() else 0, error.shape)
    if not np.isfinite(error).all() or error[worst] > LOGITS_TOLERANCE:
        bad = np.argwhere(~(error <= LOGITS_TOLERANCE))
        where = (int(theirs.positions[bad[0][0]]), *(int(i) for i in bad[0][1:]))
        raise AssertionError(
            f"{what}: logits differ by up to {error[worst]:.2e} of their range "
            f"(allowed {LOGITS_TOLERANCE:.0e}); {len(bad)} of {error.size} positions are off, "
            f"the first is {where}"
        )
    return float(error[worst])


def assert_codes_equal(ours: NDArray[np.int32], theirs: NDArray[np.int32], what: str) -> None:
    """Compare codes (frames, codebooks); the message names the first code that differs."""
    if ours.shape != theirs.shape:
        raise AssertionError(f"{what}: shape {ours.shape}, expected {theirs.shape}")
    differ = np.argwhere(ours != theirs)
    if len(differ):
        frame, codebook = differ[0]
        raise AssertionError(
            f"{what}: the first difference is in frame {frame}, codebook {codebook}: "
            f"{ours[frame, codebook]}, expected {theirs[frame, codebook]}"
        )


def assert_greedy(
    logits: NDArray[np.float32], codes: NDArray[np.int32], doubt: float, what: str
) -> int:
    """Compare logits (frames, codebooks, codes), while codes were forced, with greedy codes.

    Returns:
        How many codes are not ours, within the doubt.
    """
    if logits.shape[:2] != codes.shape:
        raise AssertionError(f"{what}: shape {logits.shape[:2]}, expected {codes.shape}")
    theirs = np.take_along_axis(logits, codes[..., np.newaxis], axis=-1)[..., 0]
    gap = (logits.max(axis=-1) - theirs) / logits.std(axis=-1)
    if not (gap <= doubt).all():
        frame, codebook = np.argwhere(~(gap <= doubt))[0]
        raise AssertionError(
            f"{what}: frame {frame}, codebook {codebook}: {logits[frame, codebook].argmax()}, "
            f"expected {codes[frame, codebook]}, whose logit is behind by "
            f"{gap[frame, codebook]:.1e} of the logits' deviation (allowed {doubt:.0e})"
        )
    return int((gap > 0).sum())


def assert_samples_close(
    ours: NDArray[np.float32], theirs: NDArray[np.float32], what: str, tolerance: float
) -> float:
    """Compare samples of any shape; returns the largest difference."""
    if ours.shape != theirs.shape:
        raise AssertionError(f"{what}: shape {ours.shape}, expected {theirs.shape}")
    error = np.abs(ours - theirs)
    if not (error <= tolerance).all():
        first = np.unravel_index(np.argmax(~(error <= tolerance)), error.shape)
        raise AssertionError(
            f"{what}: samples differ by up to {np.nanmax(error):.2e} (allowed {tolerance:.0e}), "
            f"first at {tuple(int(i) for i in first)}"
        )
    return float(error.max())


def assert_encoding_equal(
    codes: NDArray[np.int32], latents: NDArray[np.float32], theirs: Encoded, what: str
) -> float:
    """Compare an encoding with the reference's.

    A code may differ only where two codebook entries are as good as equally near; what follows it
    in the same residual quantizer is another residual and is not compared.

    Returns:
        The part of all codes that was compared.
    """
    if latents.shape != theirs.latents.shape:
        raise AssertionError(
            f"{what}: latents of shape {latents.shape}, expected {theirs.latents.shape}"
        )
    error = np.abs(latents - theirs.latents).max() / np.ptp(theirs.latents)
    if not error <= LATENTS_TOLERANCE:
        frame = int(np.argmax(np.abs(latents - theirs.latents).max(axis=1)))
        raise AssertionError(
            f"{what}: latents differ by up to {error:.2e} of their range "
            f"(allowed {LATENTS_TOLERANCE:.0e}), most in frame {frame} of {len(latents)}"
        )
    if codes.shape != theirs.codes.shape:
        raise AssertionError(f"{what}: codes of shape {codes.shape}, expected {theirs.codes.shape}")
    compared = 0
    for frame, (mine, wanted, gaps) in enumerate(
        zip(codes, theirs.codes, theirs.gaps, strict=True)
    ):
        for codebook, (a, b, gap) in enumerate(zip(mine, wanted, gaps, strict=True)):
            if a != b:
                if gap > NEAREST_DOUBT:
                    raise AssertionError(
                        f"{what}: frame {frame}, codebook {codebook} is {a}, "
                        f"expected {b}, which is nearer by {gap:.1e}"
                    )
                break
            compared += 1
    return compared / codes.size
