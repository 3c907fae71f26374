"""The hook that sees all speech before anybody else does: the place for a watermark."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from csm_ggml.audio.audio import Audio

Watermark = Callable[[Audio], npt.ArrayLike]


def apply_watermark(watermark: Watermark, chunk: Audio) -> Audio:
    """The chunk with the samples that the hook makes of it.

    Args:
        watermark: Gets a chunk, returns as many samples; see `CSM.watermark`.
        chunk: What is about to be handed out.

    Raises:
        ValueError: If the hook returns something else than as many finite numbers.
    """
    samples = np.asarray(watermark(chunk), np.float32)
    if samples.shape != chunk.samples.shape:
        raise ValueError(
            f"the watermark hook must return {chunk.samples.shape} samples for a chunk of as many, "
            f"got shape {samples.shape}"
        )
    if not np.isfinite(samples).all():
        raise ValueError("the watermark hook returned samples that are NaN or infinite")
    return replace(chunk, samples=samples)
