"""A slot of the engine as a dialogue: what it was given before, what was said since, what is next.

The cache follows the list of segments lazily: whoever drops or adds a segment only says so, and the
rows that the cache lacks are evaluated when the next turn begins. The row that ends a segment's
audio is counted with what follows it, because a turn that was cut has none yet.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from csm_ggml.speech.engine import Costs, Engine, prefill
from csm_ggml.speech.prefix import Prefix
from csm_ggml.text.turns import Turn
from csm_ggml.voices.prompt import PromptBuilder, Rows, SpokenSegment, concatenate

# Segments said before are forgotten, oldest first, when fewer rows than this share of the context
# are left for a turn's speech; then so many that half of the context is free, because those kept
# have to be evaluated again, which should be rare.
ROOM_PER_TURN = 4
ROOM_AFTER_FORGETTING = 2


class Dialogue:
    """One slot and what is in it.

    Attributes:
        slot: Its number.
        segments: What was said and is remembered, oldest first.
    """

    def __init__(
        self,
        engine: Engine,
        slot: int,
        prompts: PromptBuilder,
        *,
        context: Sequence[SpokenSegment] = (),
        prefix: Prefix | None = None,
        segments: Sequence[SpokenSegment] = (),
    ) -> None:
        """Begin with an empty slot.

        Args:
            engine: Used by nobody else at the same time.
            slot: An open slot with nothing in it.
            prompts: Builds the rows.
            context: What goes before everything and is never forgotten; without the prefix.
            prefix: What goes before the context.
            segments: What was said before.
        """
        self.slot = slot
        self.segments = list(segments)
        self._engine = engine
        self._prompts = prompts
        self._prefix = prefix
        self._fixed = prompts.context_rows(context)
        # Rows in the cache after the fixed part, and after each segment, each without the row that
        # ends its audio; empty as long as the fixed part is not in the cache.
        self._marks: list[int] = []
        # Whether the cache ends with the row that ends an audio.
        self._ended = False

    def begin(self, turn: Turn, length: int, costs: Costs) -> int:
        """Give the backbone all that goes before a turn's speech.

        Args:
            turn: Who speaks next, and what.
            length: Frames that the turn may become.
            costs: Where the work is added.

        Returns:
            Frames that the turn may become and that fit; at least one if `check_fits` found so.
        """
        text = self._prompts.text_rows(turn)
        context = self._engine.context
        wanted = len(text) + min(length, context // ROOM_PER_TURN)
        if self._rows() + wanted > context:
            self._forget(wanted, context)
        parts: list[Rows] = []
        if not self._marks:
            parts += self._enter(costs)
            self._marks = [max(0, self._fixed_rows() - 1)]
        elif not self._ended and self._marks[-1] > 0:
            parts.append(self._prompts.end_of_audio())
        at = self._engine.position(self.slot) + sum(map(len, parts))
        for segment in self.segments[len(self._marks) - 1 :]:
            rows = self._prompts.context_rows([segment])
            parts.append(rows)
            at += len(rows)
            self._marks.append(at - 1)
        self._ended = False
        prefill(self._engine, self.slot, concatenate([*parts, text]), costs)
        return min(length, context - self._engine.position(self.slot))

    def end(self, turn: Turn, codes: npt.NDArray[np.int32], *, eos: bool) -> None:
        """Remember the turn that was begun, as the engine has just spoken it.

        Args:
            turn: As in `begin`.
            codes: (frames, codebooks).
            eos: Whether the model said itself that it is over.
        """
        self.segments.append(SpokenSegment(turn, codes))
        self._marks.append(self._engine.position(self.slot) - (1 if eos else 0))
        self._ended = eos

    def cancel(self) -> None:
        """Undo `begin` and what was spoken after it."""
        self._ended = False
        self._engine.rewind(self.slot, self._marks[-1])

    def restore(self, segments: Sequence[SpokenSegment]) -> None:
        """Go back to what was remembered at some time before; also from amidst a turn."""
        kept = 0
        for ours, theirs in zip(self.segments, segments, strict=False):
            if ours is not theirs:
                break
            kept += 1
        self.segments = list(segments)
        if self._marks:
            del self._marks[kept + 1 :]
            if self._engine.position(self.slot) > self._marks[-1]:
                self.cancel()

    def _rows(self) -> int:
        """Rows of everything before the next turn."""
        return self._fixed_rows() + sum(map(self._prompts.segment_rows, self.segments))

    def _fixed_rows(self) -> int:
        return len(self._fixed) + (len(self._prefix.rows) if self._prefix else 0)

    def _forget(self, wanted: int, context: int) -> None:
        if not self.segments:
            return
        wanted = max(wanted, context // ROOM_AFTER_FORGETTING)
        while self.segments and self._rows() + wanted > context:
            del self.segments[0]
        if self._marks:
            del self._marks[1:]
            self.cancel()

    def _enter(self, costs: Costs) -> list[Rows]:
        """Load or evaluate the prefix; return the rows of the fixed part that remain."""
        if self._prefix is None:
            return [self._fixed]
        if self._prefix.data is None:
            prefill(self._engine, self.slot, self._prefix.rows, costs)
            self._prefix.data = self._engine.save_prefix(self.slot)
            return [self._fixed]
        self._engine.load_prefix(self.slot, self._prefix.data)
        return [self._prefix.rows[-1:], self._fixed]
