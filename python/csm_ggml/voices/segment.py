"""Speech that was there before: what a new utterance takes its voices and its manner from."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from csm_ggml.audio.audio import Audio
from csm_ggml.text.turns import Turn, parse_turns
from csm_ggml.voices.prompt import EncodedSegment, PromptBuilder

AudioLike: TypeAlias = (
    Audio | str | os.PathLike[str] | npt.NDArray[np.float32] | tuple[npt.NDArray[np.float32], int]
)


@dataclass(frozen=True, eq=False)
class Segment:
    """One speaker's words and how they sounded.

    Attributes:
        speaker: The speaker's number, 0 to 9999.
        text: What is said, without a tag; it must match the sound.
        audio: How it sounded: an `Audio` (its codes are used as they are), a path to an audio
            file, (n,) samples at the model's rate, or a pair (samples, sample_rate). May be left
            out if codes are given.
        codes: (frames, codebooks) Mimi codes of the audio. Encoded from the audio when left out.
        tags: Whether a number in brackets in the text is a speaker tag, which may only repeat the
            speaker; None: where it looks like one.
    """

    speaker: int
    text: str
    audio: AudioLike | None = None
    codes: npt.NDArray[np.int32] | None = None
    tags: bool | None = None

    def __post_init__(self) -> None:
        """Check what can be checked without a model.

        Raises:
            ValueError: If the text is empty or of somebody else, the speaker out of range, or
                there is neither audio nor codes.
        """
        self.turn()
        if self.audio is None and self.codes is None:
            raise ValueError(
                f"a segment needs audio or codes; the one of speaker {self.speaker} has neither"
            )

    def turn(self) -> Turn:
        """Speaker and normalised text; a tag in the text may only repeat the speaker."""
        turns = parse_turns(self.text, speaker=self.speaker, tags=self.tags)
        if len(turns) != 1 or turns[0].speaker != self.speaker:
            raise ValueError(
                f"a segment is one turn of speaker {self.speaker}, but its text has the tags of "
                f"{', '.join(f'[{turn.speaker}]' for turn in turns)}; make a Segment of each turn"
            )
        return turns[0]

    def encoded(
        self, prompts: PromptBuilder, encode: Callable[..., npt.NDArray[np.int32]]
    ) -> EncodedSegment:
        """The segment as prompts are built of it.

        Args:
            prompts: Of the model that is to speak; checks the codes.
            encode: Makes codes of the sound, and of its rate if there is one; called where there
                are no codes yet.

        Raises:
            ValueError: If the codes are not of this model, or the audio cannot be encoded.
        """
        codes: npt.ArrayLike
        if self.codes is not None:
            codes = self.codes
        elif isinstance(self.audio, Audio):
            codes = self.audio.codes
        elif isinstance(self.audio, tuple):
            codes = encode(*self.audio)
        else:
            codes = encode(self.audio)
        what = f"the codes of the segment of speaker {self.speaker}"
        return EncodedSegment(self.turn(), prompts.check_codes(codes, what=what))
