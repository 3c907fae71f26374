"""What became of the words: a command does not end well when some were lost in silence."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from csm_ggml.audio.audio import Audio


@dataclass
class _Turn:
    text: str
    frames: int = 0
    finish_reason: str | None = None


class Said:
    """Takes note of the turns that are spoken."""

    def __init__(self) -> None:
        """Begin with none."""
        self._turns: dict[int, _Turn] = {}

    def take(self, chunk: Audio) -> None:
        """Take note of a chunk of a stream, or of all of the speech."""
        for span in chunk.turns:
            turn = self._turns.setdefault(span.index, _Turn(span.text))
            turn.frames += span.frames
            turn.finish_reason = span.finish_reason

    def check(self, *, warn: bool = True) -> None:
        """Say what is missing.

        Args:
            warn: Whether to warn of turns that are empty or too short for their text.

        Raises:
            NoSpeechError: If there is nothing at all.
        """
        from csm_ggml.errors import NoSpeechError

        turns = self._turns
        if turns and not any(turn.frames for turn in turns.values()):
            raise NoSpeechError.of([turn.text for turn in turns.values()])
        for index, turn in turns.items():
            if warn and turn.finish_reason in ("empty", "short"):
                what = "has no speech" if turn.finish_reason == "empty" else "is too short"
                warnings.warn(
                    f"turn {index + 1} of {len(turns)} {what} (finish reason "
                    f"{turn.finish_reason}; --retries draws it again): {turn.text[:60]!r}",
                    stacklevel=2,
                )
