"""The loop that makes frames: prompts into slots, one step a frame for all slots, stop rules.

It knows nothing of sound. An utterance ends when all codes of a frame are zero; that frame is
dropped, but its row stays in the cache as the end-of-audio row that the next turn expects. A turn
that was cut gets that row appended.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Generator, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from csm_ggml.errors import ContextLengthError
from csm_ggml.options import Length, Sampling
from csm_ggml.prompt import PromptBuilder, Rows, SpokenSegment, concatenate
from csm_ggml.text import Turn

# Rows given to the backbone in one call: between calls Ctrl-C is noticed.
PREFILL_ROWS = 256
# Turns spoken before are forgotten, oldest first, when fewer frames than this share of the context
# are left.
ROOM_PER_TURN = 4


class Engine(Protocol):
    """The part of `_core.Engine` that is used here."""

    @property
    def slots(self) -> int: ...  # noqa: D102
    @property
    def context(self) -> int: ...  # noqa: D102
    def open(  # noqa: D102
        self,
        *,
        seed: int,
        temperature: float,
        top_k: int,
        top_p: float,
        depth_temperature: float,
        depth_top_k: int,
        depth_top_p: float,
    ) -> int: ...
    def close(self, slot: int) -> None: ...  # noqa: D102
    def append(  # noqa: D102
        self, slot: int, text: npt.NDArray[np.int32], audio: npt.NDArray[np.int32]
    ) -> Any: ...
    def step(self, slots: Sequence[int]) -> tuple[npt.NDArray[np.int32], Any]: ...  # noqa: D102
    def position(self, slot: int) -> int: ...  # noqa: D102
    def rewind(self, slot: int, rows: int) -> None: ...  # noqa: D102


@dataclass(frozen=True, eq=False)
class Request:
    """One thing to say, with nothing left to default.

    Attributes:
        turns: Spoken one after another, each conditioned on those before.
        context: What was spoken before them; never forgotten.
        sampling: How codes are drawn.
        seed: Key of the noise; the noise runs on from turn to turn.
        length: How long a turn may become.
        asked: When it was asked for, in seconds of time.perf_counter().
    """

    turns: tuple[Turn, ...]
    context: tuple[SpokenSegment, ...]
    sampling: Sampling
    seed: int
    length: Length
    asked: float = field(default_factory=time.perf_counter)


@dataclass
class Costs:
    """What a request has cost so far; see `Stats` for the fields."""

    frames: int = 0
    prefill_rows: int = 0
    prefill_seconds: float = 0.0
    lm_seconds: float = 0.0


@dataclass(frozen=True, eq=False)
class Step:
    """What one step brought for one request.

    Attributes:
        request: Number of the request.
        turn: Number of the turn within it.
        codes: (codebooks,) int32; None if the model ended the turn instead.
        finish_reason: "eos" or "max_frames" if the turn is over with this step, else None.
        costs: Of the request so far.
    """

    request: int
    turn: int
    codes: npt.NDArray[np.int32] | None
    finish_reason: str | None
    costs: Costs


def check_fits(request: Request, prompts: PromptBuilder, context_length: int) -> None:
    """Make sure that every turn fits into the model's context, with one frame of speech.

    Earlier turns may be forgotten to make room, the segments of the request's context may not.

    Raises:
        ContextLengthError: If one does not.
    """
    for number, turn in enumerate(request.turns, start=1):
        text_rows = len(prompts.text_rows(turn))
        needed = len(prompts.prompt(request.context, turn)) + 1
        if needed > context_length:
            which = (
                f"turn {number} of {len(request.turns)}" if len(request.turns) > 1 else "the text"
            )
            raise ContextLengthError(
                f"{which} needs {needed} rows ({text_rows} of text, {needed - text_rows - 1} of "
                "context segments, "
                f"at least 1 of speech), but the model's context has {context_length}; "
                "shorten or split the text, or use less context",
                needed=needed,
                available=context_length,
            )


def generate_frames(
    engine: Engine, prompts: PromptBuilder, requests: Sequence[Request], *, frame_rate: float
) -> Generator[Step, None, None]:
    """Speak requests side by side, as many at a time as the engine has slots.

    Slots are freed when the iterator ends, fails, is interrupted or is closed.

    Args:
        engine: Used by nobody else in the meantime.
        prompts: Builds the rows.
        requests: Checked by `check_fits`.
        frame_rate: Frames per second.

    Yields:
        Steps, of each request in order, of different requests interleaved.
    """
    waiting = deque(enumerate(requests))
    active: dict[int, _Utterance] = {}
    try:
        while waiting or active:
            while waiting and len(active) < engine.slots:
                index, request = waiting.popleft()
                utterance = _Utterance(engine, prompts, index, request, frame_rate)
                active[utterance.slot] = utterance
                utterance.begin_turn()
            slots = list(active)
            started = time.perf_counter()
            codes, _ = engine.step(slots)
            seconds = time.perf_counter() - started
            for slot, frame in zip(slots, codes, strict=True):
                step = active[slot].accept(frame, seconds)
                yield step
                if step.finish_reason is None:
                    continue
                if active[slot].has_next_turn():
                    active[slot].begin_turn()
                else:
                    del active[slot]
                    engine.close(slot)
    finally:
        for slot in active:
            engine.close(slot)


class _Utterance:
    """A request in its slot."""

    def __init__(
        self,
        engine: Engine,
        prompts: PromptBuilder,
        index: int,
        request: Request,
        frame_rate: float,
    ) -> None:
        self._engine = engine
        self._prompts = prompts
        self._index = index
        self._request = request
        self._frame_rate = frame_rate
        self._turn = -1
        self._limit = 0
        self._frames: list[npt.NDArray[np.int32]] = []
        self._spoken: list[SpokenSegment] = []
        self._cut = False
        self._costs = Costs()
        self.slot = engine.open(seed=request.seed, **request.sampling.as_dict())

    def has_next_turn(self) -> bool:
        return self._turn + 1 < len(self._request.turns)

    def begin_turn(self) -> None:
        """Give the next turn's text to the backbone, and first what it does not know yet."""
        self._turn += 1
        self._frames = []
        turn = self._request.turns[self._turn]
        length = self._request.length.frames(turn, self._frame_rate)
        context = self._engine.context
        wanted = min(length, context // ROOM_PER_TURN)
        if self._turn == 0:
            rows = self._prompts.prompt(self._request.context, turn)
        else:
            rows = self._prompts.text_rows(turn)
            if self._cut:
                rows = concatenate([self._prompts.end_of_audio(), rows])
            if self._engine.position(self.slot) + len(rows) + wanted > context:
                rows = self._forget(turn, context - wanted)
        self._prefill(rows)
        self._limit = min(length, context - self._engine.position(self.slot))

    def _forget(self, turn: Turn, available: int) -> Rows:
        """Empty the slot; drop the oldest turns until the prompt has at most `available` rows."""
        while True:
            rows = self._prompts.prompt([*self._request.context, *self._spoken], turn)
            if len(rows) <= available or not self._spoken:
                self._engine.rewind(self.slot, 0)
                return rows
            del self._spoken[0]

    def _prefill(self, rows: Rows) -> None:
        started = time.perf_counter()
        for start in range(0, len(rows), PREFILL_ROWS):
            part = slice(start, start + PREFILL_ROWS)
            self._engine.append(self.slot, rows.text[part], rows.audio[part])
        self._costs.prefill_seconds += time.perf_counter() - started
        self._costs.prefill_rows += len(rows)

    def accept(self, frame: npt.NDArray[np.int32], seconds: float) -> Step:
        """Take the codes of a step that lasted so long; apply the stop rules."""
        self._costs.lm_seconds += seconds
        codes: npt.NDArray[np.int32] | None = None
        finish_reason = None
        if not frame.any():
            finish_reason = "eos"
        else:
            codes = frame.copy()
            self._frames.append(codes)
            self._costs.frames += 1
            if len(self._frames) >= self._limit:
                finish_reason = "max_frames"
        if finish_reason is not None:
            self._cut = finish_reason != "eos"
            if self.has_next_turn():
                spoken = np.array(self._frames, np.int32).reshape(-1, len(frame))
                self._spoken.append(SpokenSegment(self._request.turns[self._turn], spoken))
        return Step(self._index, self._turn, codes, finish_reason, self._costs)
