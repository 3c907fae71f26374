"""The loop that makes frames: prompts into slots, one step a frame for all slots, stop rules.

While the caller makes sound of one step's frames, the next step already runs in a thread of its
own. What a frame sounds like is therefore known to the stop rules one frame later.

It knows nothing else of sound. An utterance ends when all codes of a frame are zero; that frame is
dropped, but its row stays in the cache as the end-of-audio row that the next turn expects. A turn
that was cut gets that row appended. A turn that is to be drawn again goes back to its beginning in
the same slot.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Generator, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from csm_ggml.errors import ContextLengthError
from csm_ggml.speech.dialogue import Dialogue
from csm_ggml.speech.engine import Costs, Engine
from csm_ggml.speech.options import SEED_LIMIT, Length, Sampling
from csm_ggml.speech.prefix import Prefix
from csm_ggml.speech.stop import FINISH_REASONS, StopDetector, StopRules
from csm_ggml.text.turns import Turn
from csm_ggml.voices.prompt import PromptBuilder, SpokenSegment


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


# The level, in dB of full scale, of the last frame of this number's request.
Level = Callable[[int], float]


def _unheard(_request: int) -> float:
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
    level: Level = _unheard,
    dialogue: Dialogue | None = None,
) -> Generator[list[Step], None, None]:
    """Speak requests side by side, as many at a time as the engine has slots.

    Slots are freed when the iterator ends, fails, is interrupted or is closed.

    Args:
        engine: Used by nobody else in the meantime.
        prompts: Builds the rows.
        requests: Checked by `check_fits`; each is asked for when a slot is free for it.
        frame_rate: Frames per second.
        level: Asked, for the stop rules, when the frame after has been made. The first frame of a
            turn counts as loud.
        dialogue: Where all the requests are spoken, one after another, instead of in slots of
            their own; their context is the dialogue's. It is left as it is when the iterator does
            not end by itself.

    Yields:
        What each step of the engine brought: one Step for each request in a slot.
    """
    waiting = enumerate(requests)
    active: dict[int, _Utterance] = {}

    def admit() -> None:
        while len(active) < (engine.slots if dialogue is None else 1):
            if (following := next(waiting, None)) is None:
                return
            index, request = following
            place = dialogue or _open(engine, prompts, request)
            active[place.slot] = utterance = _Utterance(index, request, place, frame_rate, level)
            if dialogue is not None:
                engine.reseed(place.slot, seed=request.seed, **request.sampling.as_dict())
            utterance.begin_turn()

    def proceed(slot: int, step: Step) -> None:
        utterance = active[slot]
        if step.again:
            seed = utterance.draw_again()
            engine.reseed(slot, seed=seed, **utterance.request.sampling.as_dict())
            utterance.begin_attempt()
        elif step.finish_reason is None:
            return
        elif utterance.has_next_turn():
            utterance.begin_turn()
        else:
            del active[slot]
            if dialogue is None:
                engine.close(slot)

    ahead = _Ahead(engine)
    try:
        admit()
        while active:
            slots = list(active)
            codes, seconds = ahead.step(slots)
            steps = [active[s].accept(c, seconds) for s, c in zip(slots, codes, strict=True)]
            # Prompts would keep the frames waiting that are there: then nothing runs ahead.
            if all(step.finish_reason is None and not step.again for step in steps):
                ahead.begin(slots)
                yield steps
                continue
            yield steps
            for slot, step in zip(slots, steps, strict=True):
                proceed(slot, step)
            admit()
    finally:
        ahead.close()
        if dialogue is None:
            for slot in active:
                engine.close(slot)


class _Ahead:
    """The engine's next step, in a thread of its own."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="csm-step")
        self._next: Future[tuple[npt.NDArray[np.int32], float]] | None = None

    def begin(self, slots: Sequence[int]) -> None:
        """Start the step for these slots; nobody else may use the engine until it is taken."""
        self._next = self._thread.submit(self._run, slots)

    def step(self, slots: Sequence[int]) -> tuple[npt.NDArray[np.int32], float]:
        """The step that was begun, or else one for these slots: codes, and how long it took."""
        if self._next is None:
            self.begin(slots)
        assert self._next is not None
        # It stays the next one until it is there: an interrupted wait does not end the step.
        result = self._next.result()
        self._next = None
        return result

    def close(self) -> None:
        """Wait until the engine is idle; what it did is lost."""
        if self._next is not None:
            wait([self._next])
        self._thread.shutdown()

    def _run(self, slots: Sequence[int]) -> tuple[npt.NDArray[np.int32], float]:
        started = time.perf_counter()
        codes, _ = self._engine.step(slots)
        return codes, time.perf_counter() - started


def spoken_codes(steps: Iterable[Sequence[Step]], codebooks: int) -> npt.NDArray[np.int32]:
    """The codes of a lone request's steps, of the attempts that count: (frames, codebooks)."""
    spoken: list[npt.NDArray[np.int32]] = []
    attempts: list[list[npt.NDArray[np.int32]]] = [[]]
    for [step] in steps:
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
        level: Level,
    ) -> None:
        self.request = request
        self._index = index
        self._dialogue = dialogue
        self._frame_rate = frame_rate
        self._level = level
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
            level = self._level(self._index) if self._frames else math.inf
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
