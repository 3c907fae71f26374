"""How many live streams the machine keeps up with, from what it was measured to do."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping

from csm_ggml.csm import CSM

# The share of a frame's duration that making it may take: the rest is for prompts of others.
REALTIME = 0.9
# Parts of a live stream that are made in this share of a frame's duration keep nobody waiting.
_CHUNK_SHARE = 0.5
MOST_CHUNK_FRAMES = 12
_WARM_UP_TEXT = "This is to warm up."
_WARM_UP_FRAMES = 6


async def warm_up(csm: CSM) -> dict[int, float]:
    """Speak a little in batches of 1, 2, 4, ..., up to all slots.

    Returns:
        Seconds from one frame to the next, by the number of utterances side by side.
    """
    slots = csm.scheduler.slots
    batches = [1 << n for n in range(slots.bit_length()) if 1 << n < slots]
    # The first one loads what is loaded late, and is not what the others are.
    await _frame_seconds(csm, 1)
    return {batch: await _frame_seconds(csm, batch) for batch in [*batches, slots]}


async def _frame_seconds(csm: CSM, batch: int) -> float:
    async def speak(seed: int) -> tuple[float, float, int]:
        times = []
        job = csm.submit(
            _WARM_UP_TEXT,
            seed=seed,
            max_frames=_WARM_UP_FRAMES,
            chunk_frames=1,
            priority="bulk",
        )
        async for chunk in job:
            if len(chunk.codes):
                times.append(time.perf_counter())
        return (times[0], times[-1], len(times)) if times else (0.0, 0.0, 0)

    spoken = [one for one in await asyncio.gather(*map(speak, range(batch))) if one[2] > 1]
    if not spoken:
        return 0.0
    return max((last - first) / (frames - 1) for first, last, frames in spoken)


def promised(csm: CSM, measured: Mapping[int, float]) -> int:
    """Live streams that can be spoken side by side without a gap.

    The greatest batch that was measured to keep up, at the start and in its latest steps; batches
    that were not measured are not promised.

    Args:
        csm: The model.
        measured: Of `warm_up`.
    """
    stats = csm.scheduler.stats()
    limit = REALTIME * csm.frame_size / csm.sample_rate
    kept = 0
    for batch in sorted({*measured, *stats.step_seconds}):
        if max(measured.get(batch, 0.0), stats.step_seconds.get(batch, 0.0)) > limit:
            break
        kept = batch
    return min(kept, stats.slots)


def chunk_frames(csm: CSM, measured: Mapping[int, float]) -> int:
    """Frames that the parts of a live stream have after the first.

    As many as take half the time that one frame lasts, when all slots speak: a listener who began
    with the first frame waits for nothing, and a fast model is not slowed down by handing out.

    Args:
        csm: The model.
        measured: Of `warm_up`.
    """
    slowest = max(measured.values(), default=0.0)
    if not slowest:
        return 1
    frame = csm.frame_size / csm.sample_rate
    return max(1, min(MOST_CHUNK_FRAMES, int(_CHUNK_SHARE * frame / slowest)))
