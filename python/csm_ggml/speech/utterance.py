"""A request while it is spoken: prompt, frames, attempts, sound, chunks.

A turn ends when all codes of a frame are zero; that frame is dropped, but its row stays in the
cache as the end-of-audio row that the next turn expects. A turn that was cut gets that row
appended. A turn that is to be drawn again goes back to its beginning in the same slot; what it
draws then is keyed by the number of the go, so that no other seed has the same noise. A turn of
which nothing was said is not remembered: who follows it would say nothing either.

Frames become sound while the next step runs. What a frame sounds like is therefore known to the
stop rules one frame later, and a turn's last chunk is ready one step after its last frame.
"""

from __future__ import annotations

import math
import time
from collections import deque
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from csm_ggml.audio.audio import Audio, TurnSpan
from csm_ggml.audio.stats import Stats
from csm_ggml.loading.geometry import Geometry
from csm_ggml.speech.dialogue import Dialogue, Prompt
from csm_ggml.speech.engine import Costs, Engine, SlotRows
from csm_ggml.speech.request import Request
from csm_ggml.speech.stop import ENDED, FINISH_REASONS, StopDetector, level_db, worst
from csm_ggml.voices.prompt import EncodedSegment


@dataclass(frozen=True)
class ChunkSizes:
    """Frames in a request's first chunk and in later ones; a turn's last may be shorter."""

    first: int
    later: int


# One chunk a turn.
WHOLE = ChunkSizes(1 << 31, 1 << 31)


@dataclass(eq=False)
class Attempt:
    """One go at a turn.

    Attributes:
        number: Of the go at this turn, from 0.
        codes: Its frames, each (codebooks,) int32, without the one that ended it.
        samples: The frames that were heard, each (frame_size,) float32.
        heard: How many frames were heard.
        level: Of the last frame heard, in dB of full scale; +inf before the first, and where no
            rule asks for it.
        finish_reason: How it ended; None while it goes on.
    """

    number: int = 0
    codes: list[npt.NDArray[np.int32]] = field(default_factory=list)
    samples: list[npt.NDArray[np.float32]] = field(default_factory=list)
    heard: int = 0
    level: float = math.inf
    finish_reason: str | None = None


@dataclass(eq=False)
class _Turn:
    """A turn of which not all chunks have been handed out."""

    index: int
    attempts: list[Attempt] = field(default_factory=list)
    kept: Attempt | None = None  # when the turn is over
    sent: int = 0  # frames that were handed out
    begun: bool = False  # whether a chunk was, with the pause before the turn


class Utterance:
    """A request in its slot.

    Attributes:
        request: What is said.
        dialogue: The cache that it is spoken in.
        finished: Whether the engine has nothing more to do for it.
    """

    def __init__(
        self, request: Request, dialogue: Dialogue, geometry: Geometry, chunks: ChunkSizes
    ) -> None:
        self.request = request
        self.dialogue = dialogue
        self.finished = False
        self._geometry = geometry
        # What was handed out cannot be drawn again.
        self._chunks = WHOLE if request.settings.retries else chunks
        self._drawn_again = 0  # in all turns: keys the noise, besides the seed
        self._prompt: Prompt | None = None
        self._began = False
        self._turns: deque[_Turn] = deque()
        self._turn = _Turn(0)
        self._detector: StopDetector | None = None
        self._costs = Costs()
        self._chunks_out = 0
        self._samples_out = 0
        self._first_audio: float | None = None
        self._reasons: list[str] = []

    @property
    def ready(self) -> bool:
        """Whether the next step may make a frame of it."""
        return self._detector is not None and not self.finished

    @property
    def attempt(self) -> Attempt:
        """The attempt that the next frame belongs to."""
        return self._turn.attempts[-1]

    @property
    def drained(self) -> bool:
        """Whether it is finished and all its sound has been handed out."""
        return self.finished and not self._turns

    # The engine is idle

    def enter(self, engine: Engine) -> None:
        """Begin, in the slot that the dialogue has."""
        assert self.dialogue.slot is not None
        self._reseed(engine)
        self.dialogue.align(engine, self.request.history)
        if self.request.turns:
            self._begin_turn(0)

    def prefill(self, engine: Engine, rows: int, short: int = 0) -> int:
        """Give the slot at most so many rows of the prompt; return how many it got.

        A prompt that has no more than `short` rows in all is given whole.
        """
        assert self.dialogue.slot is not None
        prompt = self._begun_prompt(engine)
        if prompt.rows <= short:
            rows = max(rows, prompt.rows)
        given = prompt.advance(engine, self.dialogue.slot, rows, self._costs)
        self._end_prompt(engine)
        return given

    def piece(self, engine: Engine, rows: int, short: int) -> SlotRows | None:
        """At most so many rows, for the slot to be given in a step of others; then call `gave`.

        None if the prompt has no more than `short` rows in all, or `rows` is 0.
        """
        assert self.dialogue.slot is not None
        prompt = self._begun_prompt(engine)
        if prompt.rows <= short or rows == 0 or prompt.complete:
            return None
        piece = prompt.piece(rows)
        return self.dialogue.slot, piece.text, piece.audio

    def gave(self, engine: Engine, rows: int, seconds: float) -> None:
        """Take note that a step that lasted so long gave the slot its piece."""
        assert self.dialogue.slot is not None
        assert self._prompt is not None
        self._prompt.gave(engine, self.dialogue.slot, rows)
        self._costs.prefill_rows += rows
        self._costs.prefill_seconds += seconds
        self._end_prompt(engine)

    def accept(
        self, engine: Engine, frame: npt.NDArray[np.int32], seconds: float
    ) -> Attempt | None:
        """Take the codes of a step that lasted so long, and apply the stop rules.

        Returns:
            The attempt that the frame belongs to, if it is to be heard: not the frame that ends a
            turn.
        """
        assert self._detector is not None
        self._costs.lm_seconds += seconds
        attempt = self.attempt
        ends = not any(frame.tolist())  # a tenth of what frame.any() takes
        if ends:
            text = self.request.turns[self._turn.index].text
            attempt.finish_reason = self.request.settings.stop.judge_end(text, len(attempt.codes))
        else:
            level = attempt.level if attempt.codes else math.inf
            attempt.codes.append(frame)
            self._costs.frames += 1
            attempt.finish_reason = self._detector.accept(frame, level)
        if attempt.finish_reason is not None:
            if (
                attempt.finish_reason == "eos"
                or len(self._turn.attempts) > self.request.settings.retries
            ):
                self._end_turn(engine)
            else:
                self._draw_again(engine)
        return None if ends or not self.request.needs_sound else attempt

    def abandon(self, engine: Engine) -> None:
        """Give up; the cache goes back to what was remembered before the present turn."""
        self.finished = True
        if self.dialogue.slot is None:
            return
        if self._prompt is not None:
            self.dialogue.empty(engine)
        elif self._detector is not None:
            self.dialogue.cancel(engine)

    # The sound

    def hear(self, attempt: Attempt, samples: npt.NDArray[np.float32], seconds: float) -> None:
        """Take the (frame_size,) samples of an attempt's next frame, and what decoding cost."""
        attempt.heard += 1
        if self.request.settings.stop.silence_frames is not None:
            attempt.level = level_db(samples)
        self._costs.codec_seconds += seconds
        if self._first_audio is None:
            self._first_audio = time.perf_counter() - self.request.asked
        # A view would keep the samples of the whole batch, for as long as nothing is handed out.
        attempt.samples.append(samples.copy() if self._chunks is WHOLE else samples)

    def chunks(self) -> list[Audio]:
        """What can be handed out now."""
        ready: list[Audio] = []
        while self._turns:
            turn = self._turns[0]
            attempt = turn.kept or turn.attempts[-1]
            known = attempt.heard if self.request.needs_sound else len(attempt.codes)
            if turn.kept is None:
                wanted = self._chunks.later if self._chunks_out else self._chunks.first
                if known - turn.sent < wanted:
                    break
                ready.append(self._chunk(turn, attempt, turn.sent + wanted))
            elif known < len(attempt.codes):
                break
            else:
                ready.append(self._chunk(turn, attempt, len(attempt.codes)))
                self._turns.popleft()
        return ready

    # Inside

    def _length(self) -> int:
        turn = self.request.turns[self._turn.index]
        return self.request.settings.length.frames(turn, self._geometry.frame_rate)

    def _begun_prompt(self, engine: Engine) -> Prompt:
        if self._prompt is None:
            if not self.request.turns:
                self._prompt = self.dialogue.prefix_alone(engine)
            else:
                turn = self.request.turns[self._turn.index]
                self._prompt = self.dialogue.begin(engine, turn, self._length())
        return self._prompt

    def _end_prompt(self, engine: Engine) -> None:
        """Be ready to speak if the whole prompt has been given."""
        if self._prompt is None or not self._prompt.complete:
            return
        self._prompt = None
        if not self.request.turns:
            self.finished = True
            return
        limit = min(self._length(), self.dialogue.room(engine))
        self._detector = StopDetector(self.request.settings.stop, limit)

    def _begin_turn(self, index: int) -> None:
        self._turn = _Turn(index, [Attempt()])
        self._turns.append(self._turn)
        self._detector = None

    def _draw_again(self, engine: Engine) -> None:
        self._costs.frames -= len(self.attempt.codes)
        self._drawn_again += 1
        self._turn.attempts.append(Attempt(len(self._turn.attempts)))
        self._detector = None
        self.dialogue.cancel(engine)
        self._reseed(engine)

    def _reseed(self, engine: Engine) -> None:
        assert self.dialogue.slot is not None
        engine.reseed(
            self.dialogue.slot,
            seed=self.request.seed,
            attempt=self._drawn_again,
            **self.request.settings.sampling.as_dict(),
        )

    def _end_turn(self, engine: Engine) -> None:
        """Keep the attempt that ended best, and go on to the next turn."""
        attempts = self._turn.attempts
        kept = min(attempts, key=_badness)
        self._turn.kept = kept
        self._reasons.append(kept.finish_reason or "")
        turn = self.request.turns[self._turn.index]
        said = self._codes(kept.codes)
        if kept is attempts[-1] and len(said):
            self.dialogue.end(engine, turn, said, eos=kept.finish_reason in ENDED)
        else:
            self._costs.frames += len(kept.codes) - len(attempts[-1].codes)
            self.dialogue.cancel(engine)
            if len(said):
                self.dialogue.segments.append(EncodedSegment(turn, said))
        following = self._turn.index + 1
        self.finished = following == len(self.request.turns)
        if not self.finished:
            self._begin_turn(following)

    def _codes(self, frames: list[npt.NDArray[np.int32]]) -> npt.NDArray[np.int32]:
        none = np.zeros(0, np.int32)
        return np.concatenate([none, *frames]).reshape(-1, self._geometry.codebooks)

    def _chunk(self, turn: _Turn, attempt: Attempt, end: int) -> Audio:
        start, turn.sent = turn.sent, end
        begins, turn.begun = not turn.begun, True
        over = turn.kept is not None
        last = over and turn.index == len(self.request.turns) - 1
        text = self.request.turns[turn.index]
        pause = 0
        if begins and self.request.sound:
            pause = round(text.pause * self._geometry.sample_rate)
        parts: list[npt.NDArray[np.float32]] = [np.zeros(pause, np.float32)]
        if self.request.sound:
            parts += attempt.samples[: end - start]
        del attempt.samples[: end - start]
        samples = np.concatenate(parts)
        spoken = TurnSpan(
            index=turn.index,
            speaker=text.speaker,
            text=text.text,
            start=0,
            frames=end - start,
            finish_reason=attempt.finish_reason if over else None,
            seed=self.request.seed,
            attempt=attempt.number,
            sample_start=pause,
            samples=len(samples) - pause,
        )
        self._samples_out += len(samples)
        self._chunks_out += 1
        return Audio(
            samples=samples,
            sample_rate=self._geometry.sample_rate,
            codes=self._codes(attempt.codes[start:end]),
            finish_reason=worst(self._reasons) if last else None,
            seed=self.request.seed,
            turns=(spoken,),
            stats=self._stats(),
        )

    def _stats(self) -> Stats:
        return Stats(
            frames=self._costs.frames,
            codebooks=self._geometry.codebooks,
            audio_seconds=self._samples_out / self._geometry.sample_rate,
            prefill_rows=self._costs.prefill_rows,
            prefill_seconds=self._costs.prefill_seconds,
            lm_seconds=self._costs.lm_seconds,
            codec_seconds=self._costs.codec_seconds,
            time_to_first_audio=self._first_audio if self._samples_out else None,
            total_seconds=time.perf_counter() - self.request.asked,
        )


def _badness(attempt: Attempt) -> tuple[int, int]:
    """Orders attempts from the best; among those that are too short the longest is."""
    reason = attempt.finish_reason or ""
    return FINISH_REASONS.index(reason), -len(attempt.codes) if reason == "short" else 0
