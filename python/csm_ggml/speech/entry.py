"""Jobs as the scheduler's loop holds them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from csm_ggml.audio.watermark import Watermark
from csm_ggml.speech.dialogue import Dialogue
from csm_ggml.speech.job import Outbox
from csm_ggml.speech.request import Request
from csm_ggml.speech.utterance import Attempt, ChunkSizes, Utterance

PRIORITIES = ("live", "bulk")


@dataclass(eq=False)
class Entry:
    """A job inside the scheduler.

    Attributes:
        request: What is said.
        outbox: Where its speech goes.
        chunks: Sizes of the chunks.
        live: Whether somebody listens while it is spoken; else it is bulk work.
        number: Jobs are numbered as they come.
        deadline: When it fails, in seconds of time.perf_counter(); None for never.
        watermark: Sees each chunk first.
        lease: The dialogue of a conversation; None if it has one of its own.
        utterance: Once it has been admitted.
        admitted: When, in seconds of time.perf_counter().
        idle_since: Since when its caller has not read enough; None while it may speak.
        stream: The codec's state while it is parked.
    """

    request: Request
    outbox: Outbox
    chunks: ChunkSizes
    live: bool
    number: int
    deadline: float | None = None
    watermark: Watermark | None = None
    lease: Dialogue | None = None
    utterance: Utterance | None = None
    admitted: float = 0.0
    idle_since: float | None = None
    stream: bytes | None = None

    @property
    def rank(self) -> tuple[bool, int]:
        """Who comes first: live before bulk, then age."""
        return (not self.live, self.number)

    @property
    def speaker(self) -> Utterance:
        """The utterance of an admitted job."""
        assert self.utterance is not None
        return self.utterance

    @property
    def slot(self) -> int:
        """The slot of an admitted job."""
        assert self.speaker.dialogue.slot is not None
        return self.speaker.dialogue.slot


@dataclass(eq=False)
class Frame:
    """A frame that is to be heard, and the codec's stream that it belongs to."""

    entry: Entry
    attempt: Attempt
    codes: npt.NDArray[np.int32]
    stream: int
