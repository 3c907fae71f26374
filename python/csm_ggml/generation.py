"""The loop that makes frames: prompts into slots, one step a frame for all slots, stop rules.

It knows nothing of sound. An utterance ends when all codes of a frame are zero; that frame is
dropped, but its row stays in the cache as the end-of-audio row that the next turn expects. A turn
that was cut gets that row appended. A turn that is to be drawn again goes back to its beginning in
the same slot.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterable
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from csm_ggml.dialogue import Dialogue
from csm_ggml.engine import Costs, Engine
from csm_ggml.errors import ContextLengthError
from csm_ggml.options import SEED_LIMIT, Length, Sampling
from csm_ggml.prefix import Prefix
from csm_ggml.prompt import PromptBuilder, SpokenSegment
from csm_ggml.stop import FINISH_REASONS, StopDetector, StopRules
from csm_ggml.text import Turn


@dataclass(frozen=True, eq=False)
class Request:
    """One thing to say, with nothing left to default.

    Attributes:
        turns: Spoken one after another, each conditioned on those before.
        context: What was spoken before them, voices first; never forgotten.
        sampling: How codes are drawn.
        seed: Key of the noise; the noise runs on from turn to turn.
        length: How long a turn may become.
        stop: When a turn is over besides.
        retries: How often a turn that the model does not end is drawn again, with the next seed.
        voices: How many segments of the context are voices.
        prefix: The rows of the voices, if there are any.
        asked: When it was asked for, in seconds of time.perf_counter().
    """

    turns: tuple[Turn, ...]
    context: tuple[SpokenSegment, ...]
    sampling: Sampling
    seed: int
    length: Length
    stop: StopRules = field(default_factory=StopRules)
    retries: int = 0
    voices: int = 0
    prefix: Prefix | None = None
    asked: float = field(default_factory=time.perf_counter)


@dataclass(frozen=True, eq=False)
class Step:
    """What one step brought for one request.

    Attributes:
        request: Number of the request.
        turn: Number of the turn within it.
        codes: (codebooks,) int32; None if the model ended the turn instead.
        finish_reason: How the turn ended, one of `FINISH_REASONS`, if it is over with this step.
            Of all attempts at the turn, that of the one which was kept.
        again: The turn is not over after all, but starts anew, with its next attempt.
        kept: Number of the attempt at the turn that counts, from 0, if the turn is over.
        seed: That attempt's seed; before, the present one's.
        costs: Of the request so far.
    """

    request: int
    turn: int
    codes: npt.NDArray[np.int32] | None
    finish_reason: str | None
    again: bool
    kept: int
    seed: int
    costs: Costs


# Listens to a frame: request, whether an attempt at a turn begins with it, its (codebooks,) codes.
# Returns the level of its samples in dB of full scale.
Listener = Callable[[int, bool, npt.NDArray[np.int32]], float]


def _deaf(_request: int, _first: bool, _codes: npt.NDArray[np.int32]) -> float:
    return float("inf")


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
    engine: Engine,
    prompts: PromptBuilder,
    requests: Iterable[Request],
    *,
    frame_rate: float,
    listen: Listener = _deaf,
    dialogue: Dialogue | None = None,
) -> Generator[Step, None, None]:
    """Speak requests side by side, as many at a time as the engine has slots.

    Slots are freed when the iterator ends, fails, is interrupted or is closed.

    Args:
        engine: Used by nobody else in the meantime.
        prompts: Builds the rows.
        requests: Checked by `check_fits`; each is asked for when a slot is free for it.
        frame_rate: Frames per second.
        listen: Called with each frame before the stop rules are applied.
        dialogue: Where all the requests are spoken, one after another, instead of in slots of
            their own; their context is the dialogue's. It is left as it is when the iterator does
            not end by itself.

    Yields:
        Steps, of each request in order, of different requests interleaved.
    """
    waiting = enumerate(requests)
    active: dict[int, _Utterance] = {}

    def admit() -> None:
        while len(active) < (engine.slots if dialogue is None else 1):
            if (following := next(waiting, None)) is None:
                return
            index, request = following
            place = dialogue or _open(engine, prompts, request)
            active[place.slot] = utterance = _Utterance(index, request, place, frame_rate, listen)
            if dialogue is not None:
                engine.reseed(place.slot, seed=request.seed, **request.sampling.as_dict())
            utterance.begin_turn()

    try:
        admit()
        while active:
            slots = list(active)
            started = time.perf_counter()
            codes, _ = engine.step(slots)
            seconds = time.perf_counter() - started
            for slot, frame in zip(slots, codes, strict=True):
                utterance = active[slot]
                step = utterance.accept(frame, seconds)
                yield step
                if step.again:
                    seed = utterance.draw_again()
                    engine.reseed(slot, seed=seed, **utterance.request.sampling.as_dict())
                    utterance.begin_attempt()
                elif step.finish_reason is None:
                    continue
                elif utterance.has_next_turn():
                    utterance.begin_turn()
                else:
                    del active[slot]
                    if dialogue is None:
                        engine.close(slot)
            admit()
    finally:
        if dialogue is None:
            for slot in active:
                engine.close(slot)


def spoken_codes(steps: Iterable[Step], codebooks: int) -> npt.NDArray[np.int32]:
    """The codes of one request's steps, of the attempts that count: (frames, codebooks)."""
    spoken: list[npt.NDArray[np.int32]] = []
    attempts: list[list[npt.NDArray[np.int32]]] = [[]]
    for step in steps:
        if step.codes is not None:
            attempts[-1].append(step.codes)
        if step.again:
            attempts.append([])
        elif step.finish_reason is not None:
            spoken += attempts[step.kept]
            attempts = [[]]
    return np.array(spoken, np.int32).reshape(-1, codebooks)


def _open(engine: Engine, prompts: PromptBuilder, request: Request) -> Dialogue:
    slot = engine.open(seed=request.seed, **request.sampling.as_dict())
    context = request.context[request.voices :]
    return Dialogue(engine, slot, prompts, context=context, prefix=request.prefix)


@dataclass(frozen=True, eq=False)
class _Attempt:
    seed: int
    frames: list[npt.NDArray[np.int32]]
    finish_reason: str


class _Utterance:
    """A request in its slot."""

    def __init__(
        self,
        index: int,
        request: Request,
        dialogue: Dialogue,
        frame_rate: float,
        listen: Listener,
    ) -> None:
        self.request = request
        self._index = index
        self._dialogue = dialogue
        self._frame_rate = frame_rate
        self._listen = listen
        self._turn = -1
        self._seed = request.seed
        self._frames: list[npt.NDArray[np.int32]] = []
        self._attempts: list[_Attempt] = []
        self._costs = Costs()
        self._codebooks = 0

    def has_next_turn(self) -> bool:
        return self._turn + 1 < len(self.request.turns)

    def begin_turn(self) -> None:
        """Give the next turn's text to the backbone, and first what it does not know yet."""
        self._turn += 1
        self._attempts = []
        self.begin_attempt()

    def begin_attempt(self) -> None:
        self._frames = []
        turn = self.request.turns[self._turn]
        length = self.request.length.frames(turn, self._frame_rate)
        limit = self._dialogue.begin(turn, length, self._costs)
        self._detector = StopDetector(self.request.stop, limit)

    def draw_again(self) -> int:
        """Forget the attempt that has just failed; return the seed of the next one."""
        self._dialogue.cancel()
        self._costs.frames -= len(self._frames)
        self._seed = (self._seed + 1) % SEED_LIMIT
        return self._seed

    def accept(self, frame: npt.NDArray[np.int32], seconds: float) -> Step:
        """Take the codes of a step that lasted so long; apply the stop rules."""
        self._costs.lm_seconds += seconds
        self._codebooks = len(frame)
        codes: npt.NDArray[np.int32] | None = None
        finish_reason: str | None = None
        if not frame.any():
            finish_reason = "eos"
        else:
            codes = frame.copy()
            level = self._listen(self._index, not self._frames, codes)
            self._frames.append(codes)
            self._costs.frames += 1
            finish_reason = self._detector.accept(codes, level)
        if finish_reason is not None:
            self._attempts.append(_Attempt(self._seed, self._frames, finish_reason))
            if finish_reason == "eos" or len(self._attempts) > self.request.retries:
                return self._finish(codes)
        return Step(
            request=self._index,
            turn=self._turn,
            codes=codes,
            finish_reason=finish_reason,
            again=finish_reason is not None,
            kept=len(self._attempts),
            seed=self._seed,
            costs=self._costs,
        )

    def _finish(self, codes: npt.NDArray[np.int32] | None) -> Step:
        """Keep the attempt that ended best, the first of equals."""
        reasons = [FINISH_REASONS.index(attempt.finish_reason) for attempt in self._attempts]
        kept = reasons.index(min(reasons))
        attempt = self._attempts[kept]
        said = np.array(attempt.frames, np.int32).reshape(-1, self._codebooks)
        turn = self.request.turns[self._turn]
        if kept == len(self._attempts) - 1:
            self._dialogue.end(turn, said, eos=attempt.finish_reason == "eos")
        else:
            self._costs.frames += len(attempt.frames) - len(self._frames)
            self._dialogue.cancel()
            self._dialogue.segments.append(SpokenSegment(turn, said))
        return Step(
            request=self._index,
            turn=self._turn,
            codes=codes,
            finish_reason=attempt.finish_reason,
            again=False,
            kept=kept,
            seed=attempt.seed,
            costs=self._costs,
        )
