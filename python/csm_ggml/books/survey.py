"""What is on the disk of an audiobook, gone through once: where it lies, how it sounds."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt

from csm_ggml.books.encode import Mark
from csm_ggml.books.job import Audiobook, SpokenPiece
from csm_ggml.books.loudness import LoudnessMeter
from csm_ggml.books.plan import PlannedChapter
from csm_ggml.books.subtitles import Cue, sentence_spans

# Speech of less is none.
_EMPTY_SECONDS = 0.1
# Time for a character, against the usual one of the book; of short pieces it says little.
_LONG, _SHORT = 1.8, 0.5
_LEAST_CHARACTERS = 25
_WAVE_SECONDS = 0.05


@dataclass(frozen=True)
class PieceFacts:
    """A piece, without its sound.

    Attributes:
        number: In the book, from 1.
        text: What is said.
        start: First sample of its speech in the chapter.
        samples: Of its speech.
        finish_reason: How it ended.
        drawn_again: How often it was drawn before this attempt was kept.
        doubts: Why somebody should listen to it; empty for most.
    """

    number: int
    text: str
    start: int
    samples: int
    finish_reason: str
    drawn_again: int
    doubts: tuple[str, ...] = ()


@dataclass
class ChapterFacts:
    """A chapter, without its sound.

    Attributes:
        planned: What is said.
        samples: Of its sound, pauses and the one after it included.
        pieces: In order.
        cues: Its sentences; times count from the chapter's beginning.
        wave: Highest magnitude in each twentieth of a second, 0 to 1.
    """

    planned: PlannedChapter
    samples: int = 0
    pieces: list[PieceFacts] = field(default_factory=list)
    cues: list[Cue] = field(default_factory=list)
    wave: list[float] = field(default_factory=list)


@dataclass(frozen=True)
class Survey:
    """All chapters.

    Attributes:
        chapters: In order.
        sample_rate: Samples per second.
        loudness: Integrated, in LUFS; None if it was not measured.
        chapter_pause: Samples of silence after each chapter but the last.
    """

    chapters: Sequence[ChapterFacts]
    sample_rate: int
    loudness: float | None
    chapter_pause: int

    @property
    def samples(self) -> int:
        """Of the whole book."""
        return sum(chapter.samples for chapter in self.chapters)

    @property
    def duration(self) -> float:
        """Seconds."""
        return self.samples / self.sample_rate

    @property
    def marks(self) -> list[Mark]:
        """Where the chapters lie in one file of all."""
        marks, at = [], 0
        for chapter in self.chapters:
            end = at + chapter.samples
            marks.append(Mark(chapter.planned.chapter.label, at, end))
            at = end
        return marks

    @property
    def doubtful(self) -> list[PieceFacts]:
        """Pieces to listen to."""
        return [piece for chapter in self.chapters for piece in chapter.pieces if piece.doubts]


def survey(
    audiobook: Audiobook, *, chapter_pause: float, loudness: bool, cues: bool, wave: bool = False
) -> Survey:
    """Go through an audiobook once, piece by piece.

    Args:
        audiobook: All of its chapters must be spoken.
        chapter_pause: Seconds of silence after each chapter but the last.
        loudness: Whether to measure it.
        cues: Whether to find the sentences.
        wave: Whether to draw the sound.

    Raises:
        ValueError: If a chapter was not spoken to its end.
    """
    rate = audiobook.sample_rate
    meter = LoudnessMeter(rate) if loudness else None
    pause = round(chapter_pause * rate)
    chapters = []
    for planned in audiobook.planned:
        facts = ChapterFacts(planned)
        for piece in audiobook.pieces(planned):
            if meter is not None:
                meter.add(piece.record.samples)
            _add(facts, piece, rate, cues, wave)
        if planned is not audiobook.planned[-1]:
            facts.samples += pause
            if meter is not None:
                meter.add(np.zeros(pause, np.int16))
        chapters.append(facts)
    _doubt(chapters, rate)
    measured = None if meter is None else meter.loudness()
    return Survey(chapters, rate, measured, pause)


def _add(facts: ChapterFacts, piece: SpokenPiece, rate: int, cues: bool, wave: bool) -> None:
    samples = piece.record.samples
    first = piece.speech_start
    start = facts.samples + first
    text = piece.piece.turn.text
    facts.pieces.append(
        PieceFacts(
            piece.number,
            text,
            start,
            len(samples) - first,
            piece.record.finish_reason,
            piece.drawn_again,
        )
    )
    if cues and len(samples) > first:
        offset = start / rate
        for sentence, begin, end in sentence_spans(text, samples[first:], rate):
            facts.cues.append(Cue(offset + begin, offset + end, sentence))
    if wave:
        facts.wave += _outline(samples, rate)
    facts.samples += len(samples)


def _outline(samples: npt.NDArray[np.int16], rate: int) -> list[float]:
    step = round(_WAVE_SECONDS * rate)
    whole = -(-len(samples) // step) * step
    padded = np.pad(np.abs(samples.astype(np.float32)), (0, whole - len(samples)))
    highest: list[float] = (padded.reshape(-1, step).max(axis=1) / 32768.0).tolist()
    return highest


def _doubt(chapters: Sequence[ChapterFacts], rate: int) -> None:
    """Find what somebody should listen to."""
    paces = [
        piece.samples / len(piece.text)
        for chapter in chapters
        for piece in chapter.pieces
        if piece.finish_reason == "eos" and len(piece.text) >= _LEAST_CHARACTERS
    ]
    usual = statistics.median(paces) if paces else 0.0
    for chapter in chapters:
        chapter.pieces = [
            replace(piece, doubts=_doubts(piece, usual, rate)) for piece in chapter.pieces
        ]


def _doubts(piece: PieceFacts, usual: float, rate: int) -> tuple[str, ...]:
    if piece.finish_reason == "empty" or piece.samples < _EMPTY_SECONDS * rate:
        return ("empty",)
    found = [] if piece.finish_reason == "eos" else [f"ended by {piece.finish_reason}"]
    if piece.finish_reason == "short":
        found = ["too short for its text"]
    elif usual and len(piece.text) >= _LEAST_CHARACTERS:
        share = piece.samples / (usual * len(piece.text))
        if share > _LONG:
            found.append(f"{share:.1f} times as long as usual")
        elif share < _SHORT:
            found.append(f"only {share:.0%} as long as usual")
    return tuple(found)
