"""How many live streams the machine keeps up with, from what steps were measured to take."""

from __future__ import annotations

import asyncio

from csm_ggml.csm import CSM

# The share of a frame that a step of live requests may take, unless the model was loaded with one.
REALTIME = 0.9
MOST_CHUNK_FRAMES = 12
_WARM_UP_TEXT = "This is to warm up."
_WARM_UP_SECONDS = 0.5


def promised(csm: CSM) -> int:
    """Live streams that can be spoken side by side without a gap.

    The greatest batch whose measured step takes less than its share of a frame; batches that were
    not measured are not promised.
    """
    stats = csm.scheduler.stats()
    limit = REALTIME * csm.frame_size / csm.sample_rate
    kept = 0
    for batch, seconds in sorted(stats.step_seconds.items()):
        if seconds > limit:
            break
        kept = min(batch, stats.slots)
    return kept


def chunk_frames(csm: CSM) -> int:
    """Frames that the parts of a live stream have after the first.

    As many as take half the time that one frame lasts, when all slots speak: a listener who began
    with the first frame waits for nothing, and a fast model is not slowed down by handing out.
    """
    step = max(csm.scheduler.stats().step_seconds.values(), default=0.0)
    frame = csm.frame_size / csm.sample_rate
    return max(1, min(MOST_CHUNK_FRAMES, int(frame / 2 / step))) if step else 1


async def warm_up(csm: CSM) -> None:
    """Speak a little in batches of 1, 2, 4, ..., so that step times are known."""
    batch = 1
    slots = csm.scheduler.stats().slots
    while True:
        await asyncio.gather(
            *(
                csm.agenerate(
                    _WARM_UP_TEXT, seed=number, max_seconds=_WARM_UP_SECONDS, priority="bulk"
                )
                for number in range(batch)
            )
        )
        if batch >= slots:
            return
        batch = min(2 * batch, slots)
