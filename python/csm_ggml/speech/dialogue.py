"""What a slot's KV cache holds, and what it lacks: the conditioning, then one turn after another.

The cache follows the list of segments lazily: whoever drops or adds a segment only says so, and the
rows that the cache lacks are evaluated when the next turn begins. The row that ends a segment's
audio is counted with what follows it, because a turn that was cut has none yet.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from csm_ggml.speech.engine import Costs, Engine
from csm_ggml.speech.prefix import KVPrefix
from csm_ggml.speech.request import Conditioning
from csm_ggml.text.turns import Turn
from csm_ggml.voices.prompt import EncodedSegment, PromptBuilder, Rows, concatenate

# Segments said before are forgotten, oldest first, when fewer rows than this share of the context
# are left for a turn's speech; then so many that half of the context is free, because those kept
# have to be evaluated again, which should be rare.
ROOM_PER_TURN = 4
ROOM_AFTER_FORGETTING = 2


@dataclass(frozen=True, eq=False)
class _Part:
    """Rows to evaluate; with `keeps`, what they left in the cache is then kept as that prefix."""

    rows: Rows
    keeps: KVPrefix | None = None


class Prompt:
    """Rows that a slot is given piece by piece.

    Attributes:
        rows: All of them, given or not.
    """

    def __init__(self, parts: Sequence[_Part]) -> None:
        self.rows = sum(len(part.rows) for part in parts)
        self._parts = deque(part for part in parts if len(part.rows))
        self._done = 0  # rows of the first part

    @property
    def complete(self) -> bool:
        """Whether all rows have been given."""
        return not self._parts

    def advance(self, engine: Engine, slot: int, rows: int, costs: Costs) -> int:
        """Give the slot at most so many rows; return how many it got."""
        started, given = time.perf_counter(), 0
        while self._parts and given < rows:
            piece = self.piece(rows - given)
            engine.append(slot, piece.text, piece.audio)
            self.gave(engine, slot, len(piece))
            given += len(piece)
        costs.prefill_rows += given
        costs.prefill_seconds += time.perf_counter() - started
        return given

    def piece(self, rows: int) -> Rows:
        """The next rows, at most so many; perhaps fewer, although there are more."""
        return self._parts[0].rows[self._done : self._done + rows]

    def gave(self, engine: Engine, slot: int, rows: int) -> None:
        """Take note that the slot has been given so many rows, of one piece."""
        part = self._parts[0]
        self._done += rows
        if self._done == len(part.rows):
            if part.keeps is not None:
                part.keeps.data = engine.save_prefix(slot)
            self._parts.popleft()
            self._done = 0


class Dialogue:
    """One cache and the segments in it. It may have a slot, or be parked without one.

    Attributes:
        segments: What was said and is remembered, oldest first, without the conditioning.
        slot: The slot that holds the cache; None while it has none.
        parked: The saved cache while it has no slot; None if there is nothing to take up again.
    """

    def __init__(self, prompts: PromptBuilder, conditioning: Conditioning) -> None:
        self.segments: list[EncodedSegment] = []
        self.slot: int | None = None
        self.parked: bytes | None = None
        self._prompts = prompts
        self._prefix = conditioning.prefix
        self._context = conditioning.context
        # Those that are no prefix: with voice match, each turn begins with its speaker's.
        self._voices = () if conditioning.prefix else conditioning.voices
        self._before: tuple[EncodedSegment, ...] = self._voices
        self._fixed = prompts.context_rows((*self._before, *self._context))
        # Whether the turn that was begun is one segment with a voice.
        self._matched = False
        # Rows in the cache after the fixed part, and after each segment, each without the row that
        # ends its audio; empty as long as the fixed part is not in the cache.
        self._marks: list[int] = []
        # Whether the cache ends with the row that ends an audio.
        self._ended = False

    # The slot

    def take(self, engine: Engine, slot: int) -> None:
        """Move into an open slot, with what was parked."""
        self.slot = slot
        if self.parked is not None:
            engine.load_slot(slot, self.parked)
            self.parked = None

    def park(self, engine: Engine) -> int:
        """Save the cache and leave the slot, which is returned."""
        assert self.slot is not None
        self.parked = engine.save_slot(self.slot)
        return self._leave()

    def _leave(self) -> int:
        assert self.slot is not None
        slot, self.slot = self.slot, None
        return slot

    def lose(self) -> None:
        """Take note that the cache is gone; segments will be evaluated again."""
        self.slot = self.parked = None
        self._marks = []
        self._ended = False

    # Turns

    def align(self, engine: Engine, history: Sequence[EncodedSegment]) -> None:
        """Let the cache follow another list of segments; what both begin with is kept."""
        kept = 0
        for ours, theirs in zip(self.segments, history, strict=False):
            if ours is not theirs:
                break
            kept += 1
        self.segments = list(history)
        if self._marks:
            del self._marks[kept + 1 :]
            if engine.position(self._slot) > self._marks[-1]:
                self.cancel(engine)

    def begin(self, engine: Engine, turn: Turn, length: int) -> Prompt:
        """What the backbone has to be given before a turn's speech.

        Args:
            engine: Whose slot it has.
            turn: Who speaks next, and what.
            length: Frames that the turn may become.
        """
        text = self._open(engine, turn)
        wanted = len(text) + min(length, engine.context // ROOM_PER_TURN)
        if self._rows() + wanted > engine.context:
            self._forget(engine, wanted)
        parts: list[_Part] = []
        rows: list[Rows] = []
        if not self._marks:
            parts, rows = self._enter(engine)
            self._marks = [max(0, self._fixed_rows() - 1)]
        elif not self._ended and self._marks[-1] > 0:
            rows.append(self._prompts.end_of_audio())
        at = engine.position(self._slot) + sum(len(part.rows) for part in parts)
        at += sum(map(len, rows))
        for segment in self.segments[len(self._marks) - 1 :]:
            added = self._prompts.context_rows([segment])
            rows.append(added)
            at += len(added)
            self._marks.append(at - 1)
        self._ended = False
        return Prompt([*parts, _Part(concatenate([*rows, text]))])

    def _open(self, engine: Engine, turn: Turn) -> Rows:
        """The turn's own rows; the fixed part becomes that of its speaker."""
        before, rows = self._prompts.opening(self._voices, turn)
        self._matched = len(before) < len(self._voices)
        if before != self._before:
            self._before = before
            self._fixed = self._prompts.context_rows((*before, *self._context))
            if self._marks:
                self.empty(engine)
        return rows

    def prefix_alone(self, engine: Engine) -> Prompt:
        """What has to be evaluated so that the KV prefix is known, and nothing else."""
        return Prompt(self._enter(engine)[0])

    def room(self, engine: Engine) -> int:
        """Frames that fit after the prompt that was given."""
        return engine.context - engine.position(self._slot)

    def end(self, engine: Engine, turn: Turn, codes: npt.NDArray[np.int32], *, eos: bool) -> None:
        """Remember the turn that was begun, as the engine has just spoken it.

        Args:
            engine: Whose slot it has.
            turn: As in `begin`.
            codes: (frames, codebooks).
            eos: Whether the model ended the turn itself.
        """
        self.segments.append(EncodedSegment(turn, codes))
        if self._matched:
            # The next turn hears this one as a segment of its own.
            self.cancel(engine)
            return
        self._marks.append(engine.position(self._slot) - (1 if eos else 0))
        self._ended = eos

    def cancel(self, engine: Engine) -> None:
        """Undo `begin` and what was spoken after it; the prompt must have been given whole."""
        self._ended = False
        engine.rewind(self._slot, self._marks[-1])

    def empty(self, engine: Engine) -> None:
        """Drop all rows, for example amid a prompt; segments will be evaluated again."""
        engine.rewind(self._slot, 0)
        self._marks = []
        self._ended = False

    @property
    def _slot(self) -> int:
        assert self.slot is not None
        return self.slot

    def _rows(self) -> int:
        """Rows of everything before the next turn."""
        return self._fixed_rows() + sum(map(self._prompts.segment_rows, self.segments))

    def _fixed_rows(self) -> int:
        return len(self._fixed) + (len(self._prefix.rows) if self._prefix else 0)

    def _forget(self, engine: Engine, wanted: int) -> None:
        if not self.segments:
            return
        wanted = max(wanted, engine.context // ROOM_AFTER_FORGETTING)
        while self.segments and self._rows() + wanted > engine.context:
            del self.segments[0]
        if self._marks:
            del self._marks[1:]
            self.cancel(engine)

    def _enter(self, engine: Engine) -> tuple[list[_Part], list[Rows]]:
        """Load or plan the prefix; also the rows of the fixed part that follow it."""
        prefix = self._prefix
        if prefix is None:
            return [], [self._fixed]
        if prefix.data is None:
            return [_Part(prefix.rows, keeps=prefix)], [self._fixed]
        engine.load_prefix(self._slot, prefix.data)
        return [], [prefix.rows[-1:], self._fixed]
