"""When a turn is over although the model does not say so.

CSM sometimes never emits the frame that ends an utterance; it then keeps silent, or repeats
itself, until its limit. Each rule looks only at what the turn itself has said, so a turn ends at
the same frame whatever runs beside it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from csm_ggml.limits import number

# Longer than a pause within a sentence; the codec's own silence lies between -60 and -80 dB.
SILENCE_SECONDS = 3.0
SILENCE_DB = -55.0
# A pattern in the first codebook that fills this time, in at least three rounds.
LOOP_SECONDS = 3.0
LOOP_ROUNDS = 3
# Letters and digits a second; the fastest speech that can be understood has about 30.
MAX_CHARACTERS_PER_SECOND = 40.0

# How a turn may end, from the best to the worst: with words that are missing.
FINISH_REASONS = ("eos", "silence", "max_frames", "loop", "short", "empty")
# The model itself has ended it.
ENDED = frozenset(("eos", "short", "empty"))
# No example of how to go on: whoever speaks after it would loop, or leave words out, too.
UNFIT = frozenset(("loop", "short", "empty"))


def worst(reasons: Sequence[str]) -> str:
    """The reason that says most about a whole of several turns: "eos" if all of them ended so."""
    return max(reasons, key=FINISH_REASONS.index)


@dataclass(frozen=True)
class StopRules:
    """The rules of one request, in frames; None switches one off.

    Attributes:
        silence_frames: Stop after so many frames in a row below `silence_db`.
        silence_db: Root mean square of a frame's samples, in dB of full scale.
        loop_frames: Stop when the first codebook repeats a pattern for so many frames.
        frame_characters: Letters and digits for each frame beyond which a turn that the model has
            ended is too short for its text.
    """

    silence_frames: int | None = None
    silence_db: float = SILENCE_DB
    loop_frames: int | None = None
    frame_characters: float | None = None

    def judge_end(self, text: str, frames: int) -> str:
        """How a turn has ended that the model ends after so many frames of a text."""
        if frames == 0:
            return "empty"
        most = self.frame_characters
        if most is not None and sum(map(str.isalnum, text)) > most * frames:
            return "short"
        return "eos"


def resolve_stop_rules(options: Mapping[str, Any], *, greedy: bool, frame_rate: float) -> StopRules:
    """Complete a caller's stop options.

    Args:
        options: The caller's; None counts as left out. Other keys are ignored.
        greedy: Whether codes are not drawn. Greedy codes are what implementations are compared by,
            so rules that were not asked for are off.
        frame_rate: Frames per second.

    Raises:
        ValueError: If a number is out of range.
        TypeError: If a value is not a number.
    """
    silence = _seconds("silence_seconds", options, 0.0 if greedy else SILENCE_SECONDS)
    loop = _seconds("loop_seconds", options, 0.0 if greedy else LOOP_SECONDS)
    rate = options.get("max_characters_per_second")
    if rate is None:
        rate = 0.0 if greedy else MAX_CHARACTERS_PER_SECOND
    else:
        rate = number("max_characters_per_second", rate)
    level = options.get("silence_db")
    level = SILENCE_DB if level is None else number("silence_db", level)
    if not -math.inf < level <= 0:
        raise ValueError(f"silence_db must be finite and at most 0 (full scale), got {level}")
    return StopRules(
        silence_frames=max(1, round(silence * frame_rate)) if silence else None,
        silence_db=level,
        loop_frames=max(LOOP_ROUNDS, round(loop * frame_rate)) if loop else None,
        frame_characters=rate / frame_rate if rate else None,
    )


class StopDetector:
    """The rules at work on one turn."""

    def __init__(self, rules: StopRules, max_frames: int) -> None:
        """Start with nothing said.

        Args:
            rules: What to look for besides the limit.
            max_frames: The limit.
        """
        self._rules = rules
        self._max_frames = max_frames
        self._frames = 0
        self._silent = 0
        self._recent: list[int] = []
        periods = (rules.loop_frames or 0) // LOOP_ROUNDS
        # Codes in a row that equal the one a period before, for each period: 1, 2, ...
        self._matches = [0] * periods

    def accept(self, codes: npt.NDArray[np.int32], level: float) -> str | None:
        """Take the next frame.

        Args:
            codes: (codebooks,) of a frame that is not the end of the turn.
            level: Of the samples of the frame before it, in dB of full scale: its own are not
                made yet. +inf for the first frame, or if nobody listens.

        Returns:
            The finish reason if the turn is over with this frame.
        """
        self._frames += 1
        self._silent = self._silent + 1 if level < self._rules.silence_db else 0
        if self._silent == self._rules.silence_frames:
            return "silence"
        length = self._rules.loop_frames
        if length is not None and self._repeats(int(codes[0]), length):
            return "loop"
        return "max_frames" if self._frames >= self._max_frames else None

    def _repeats(self, code: int, length: int) -> bool:
        looping = False
        if code in self._recent:
            for i, before in enumerate(reversed(self._recent)):
                self._matches[i] = self._matches[i] + 1 if before == code else 0
                looping |= self._matches[i] + i + 1 >= length
        else:  # as in most frames
            self._matches = [0] * len(self._matches)
        self._recent.append(code)
        if len(self._recent) > len(self._matches):
            del self._recent[0]
        return looping


def level_db(samples: npt.NDArray[np.float32]) -> float:
    """Root mean square in dB of full scale; -inf for digital silence."""
    power = float(samples @ samples) / len(samples)
    return 10 * math.log10(power) if power > 0 else -math.inf


def _seconds(name: str, options: Mapping[str, Any], default: float) -> float:
    value = options.get(name)
    if value is None:
        return default
    seconds = number(name, value)
    if not 0 <= seconds < math.inf:
        raise ValueError(f"{name} must be at least 0 (0 = never) and finite, got {seconds}")
    return seconds
