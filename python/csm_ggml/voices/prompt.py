"""The one place that turns segments into prompt rows.

A segment is `BOS [speaker]text EOS`, then its audio, one row a frame, then a row of all-zero codes
that ends the audio. The text to be spoken comes last and has no audio: the first frame is
predicted at its EOS. A row holds either a text id or the codes of one frame, never both.

A checkpoint with voice match writes the voice of whoever speaks next otherwise: one segment whose
text is that of the voice and the new one, then the voice's audio without the row that ends it; the
first frame is predicted at its last.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from csm_ggml.text.tokenizer import TextTokenizer
from csm_ggml.text.turns import Turn

AUDIO_ROW = -1


@dataclass(frozen=True, eq=False)
class Rows:
    """Prompt rows as the engine takes them.

    Attributes:
        text: (n,) int32; a text id, or -1 where the row holds codes.
        audio: (n, codebooks) int32; the row's codes, 0 in text rows.
    """

    text: npt.NDArray[np.int32]
    audio: npt.NDArray[np.int32]

    def __len__(self) -> int:
        """Number of rows."""
        return len(self.text)

    def __getitem__(self, part: slice) -> Rows:
        """Some of the rows."""
        return Rows(self.text[part], self.audio[part])


@dataclass(frozen=True, eq=False)
class EncodedSegment:
    """A turn together with how it sounded.

    Attributes:
        turn: Who said what.
        codes: (frames, codebooks) int32.
    """

    turn: Turn
    codes: npt.NDArray[np.int32]


class PromptBuilder:
    """Builds rows for one checkpoint.

    Attributes:
        voice_match: Whether a turn is one segment with the voice of its speaker.
    """

    def __init__(
        self,
        tokenizer: TextTokenizer,
        *,
        codebooks: int,
        audio_vocab_size: int,
        voice_match: bool = False,
    ) -> None:
        """Take what the rows depend on.

        Args:
            tokenizer: The checkpoint's tokenizer.
            codebooks: Codes in a frame.
            audio_vocab_size: Codes of one codebook that the model has embeddings for.
            voice_match: As the attribute.
        """
        self.voice_match = voice_match
        self._tokenizer = tokenizer
        self._codebooks = codebooks
        self._audio_vocab_size = audio_vocab_size

    def text_rows(self, turn: Turn) -> Rows:
        """BOS, `[speaker]text`, EOS."""
        ids = np.array(self._tokenizer.encode_turn(turn.speaker, turn.text), np.int32)
        return Rows(ids, np.zeros((len(ids), self._codebooks), np.int32))

    def audio_rows(self, codes: npt.NDArray[np.int32]) -> Rows:
        """(frames, codebooks) codes, one row a frame, without the row that ends them."""
        return Rows(np.full(len(codes), AUDIO_ROW, np.int32), codes)

    def end_of_audio(self) -> Rows:
        """The row of all-zero codes that ends a segment's audio."""
        return self.audio_rows(np.zeros((1, self._codebooks), np.int32))

    def context_rows(self, segments: Iterable[EncodedSegment]) -> Rows:
        """All rows of segments that went before, the end of the last audio included."""
        parts = [self.audio_rows(np.zeros((0, self._codebooks), np.int32))]
        for segment in segments:
            parts += [
                self.text_rows(segment.turn),
                self.audio_rows(segment.codes),
                self.end_of_audio(),
            ]
        return concatenate(parts)

    def segment_rows(self, segment: EncodedSegment) -> int:
        """Number of rows of one segment, the end of its audio included."""
        return len(self.text_rows(segment.turn)) + len(segment.codes) + 1

    def opening(
        self, voices: Sequence[EncodedSegment], turn: Turn
    ) -> tuple[tuple[EncodedSegment, ...], Rows]:
        """How a turn begins.

        Args:
            voices: Of all speakers.
            turn: What is to be said.

        Returns:
            The voices that are segments before it, and the turn's own rows.
        """
        voice = next((v for v in voices if v.turn.speaker == turn.speaker), None)
        if not self.voice_match or voice is None:
            return tuple(voices), self.text_rows(turn)
        whole = replace(turn, text=f"{voice.turn.text} {turn.text}")
        rows = concatenate([self.text_rows(whole), self.audio_rows(voice.codes)])
        return tuple(v for v in voices if v is not voice), rows

    def prompt(self, context: Iterable[EncodedSegment], turn: Turn) -> Rows:
        """All rows of an utterance to generate, after the segments that went before."""
        return concatenate([self.context_rows(context), self.text_rows(turn)])

    def check_codes(self, codes: npt.ArrayLike, *, what: str) -> npt.NDArray[np.int32]:
        """Return codes as int32 (frames, codebooks), all known to this checkpoint.

        Args:
            codes: Array or nested sequence of whole numbers.
            what: Name of the argument, for the message.

        Raises:
            ValueError: If shape, type or a value is not right.
        """
        array = np.asarray(codes)
        if array.ndim != 2 or array.shape[1] != self._codebooks or array.dtype.kind not in "iu":
            raise ValueError(
                f"{what} must be whole numbers of shape (frames, {self._codebooks}), "
                f"got {array.dtype} of shape {array.shape}"
            )
        if array.size and not (array.min() >= 0 and array.max() < self._audio_vocab_size):
            raise ValueError(
                f"{what} must be in 0..{self._audio_vocab_size - 1}, got "
                f"{array.min()}..{array.max()}"
            )
        return array.astype(np.int32, copy=False)


def concatenate(parts: list[Rows]) -> Rows:
    """Rows one after another."""
    return Rows(np.concatenate([p.text for p in parts]), np.concatenate([p.audio for p in parts]))
