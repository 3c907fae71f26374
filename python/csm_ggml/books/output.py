"""An audiobook that is spoken, into files that players know."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from csm_ggml.audio.audio import to_pcm16
from csm_ggml.books.encode import BookEncoder, Mark, check_format
from csm_ggml.books.extras import import_av, import_mutagen
from csm_ggml.books.job import Audiobook
from csm_ggml.books.loudness import gain_for, limited
from csm_ggml.books.plan import PlannedChapter
from csm_ggml.books.subtitles import KINDS as SUBTITLES
from csm_ggml.books.subtitles import Cue, subtitles
from csm_ggml.books.survey import Survey, survey
from csm_ggml.books.tags import Tags, write_tags
from csm_ggml.files import OutputFile, check_output, write_file
from csm_ggml.limits import number

CHAPTER_PAUSE = 2.0
LOUDNESS = -18.0
# Books are between these; quieter is noise, louder is flat.
LEAST_LUFS, MOST_LUFS = -40.0, -9.0
_COPY_BYTES = 1 << 20


@dataclass(frozen=True)
class SavedBook:
    """Files of an audiobook.

    Attributes:
        paths: The audio files.
        subtitles: The files of subtitles.
        duration: Seconds of audio.
        marks: Where the chapters lie, in samples of the whole.
        loudness: In LUFS before the gain; None if it was not measured.
        gain_db: What was added to it.
        survey: What is in them.
    """

    paths: Sequence[Path]
    subtitles: Sequence[Path]
    duration: float
    marks: Sequence[Mark]
    loudness: float | None
    gain_db: float
    survey: Survey


def check_save(
    path: str | os.PathLike[str],
    *,
    subtitles: str | None = None,
    loudness: float | None = LOUDNESS,
    inputs: Sequence[str | os.PathLike[str]] = (),
) -> None:
    """Find out before the work whether a book can be saved; see `save_book`.

    Raises:
        As `save_book`.
    """
    check_format(path)
    if subtitles not in (None, *SUBTITLES):
        raise ValueError(f"subtitles must be {' or '.join(SUBTITLES)}, got {subtitles!r}")
    if loudness is not None and not LEAST_LUFS <= number("loudness", loudness) <= MOST_LUFS:
        raise ValueError(f"loudness must be {LEAST_LUFS:g} to {MOST_LUFS:g} LUFS, got {loudness}")
    import_mutagen("mutagen")
    import_av()
    check_output(path, inputs=inputs)


def save_book(
    audiobook: Audiobook,
    path: str | os.PathLike[str],
    *,
    split: bool = False,
    subtitles: str | None = None,
    loudness: float | None = LOUDNESS,
    bit_rate: int | None = None,
    chapter_pause: float = CHAPTER_PAUSE,
    wave: bool = False,
    progress: Callable[[float], None] | None = None,
) -> SavedBook:
    """Write the files of a book that is spoken; memory does not grow with it.

    The files appear when they are complete. Equal speech gives equal files, byte by byte.

    Args:
        audiobook: All of its chapters must be spoken.
        path: .m4b, .mp3, .opus or .flac.
        split: One file for each chapter: `book.mp3` becomes book-01.mp3, book-02.mp3, ...
        subtitles: "srt" or "vtt": also write a file of these beside each audio file.
        loudness: Integrated loudness in LUFS to bring the book to, with a true peak below -1 dB of
            full scale; None leaves the sound as it is.
        bit_rate: Bits per second; None for 64,000, in Opus 32,000. FLAC has none.
        chapter_pause: Seconds of silence after each chapter but the last.
        wave: Also draw the sound, for a report.
        progress: Called with the share that is written, 0 to 1.

    Raises:
        AudioFileError: If there is no such format.
        ImportError: If the packages of the extra `books` are not installed.
        ValueError: If a chapter was not spoken to its end, or an option is out of range.
        OSError: If a file cannot be written.
    """
    check_save(path, subtitles=subtitles, loudness=loudness)
    if not 0 <= number("chapter_pause", chapter_pause) <= 60:
        raise ValueError(f"chapter_pause must be 0 to 60 seconds, got {chapter_pause}")
    found = survey(
        audiobook,
        chapter_pause=chapter_pause,
        loudness=loudness is not None,
        cues=subtitles is not None,
        wave=wave,
    )
    gain = 1.0
    if loudness is not None and found.loudness is not None:
        gain = gain_for(found.loudness, loudness)
    writer = _Writer(audiobook, found, gain, bit_rate, progress)
    target = Path(path)
    names = [target]
    if split:
        digits = max(2, len(str(len(audiobook.plan))))
        names = [
            target.with_name(f"{target.stem}-{p.chapter.number:0{digits}}{target.suffix}")
            for p in audiobook.planned
        ]
    said: list[Path] = []
    for at, name in enumerate(names):
        chapters = range(at, at + 1) if split else range(len(found.chapters))
        writer.write(name, chapters, split)
        if subtitles is not None:
            said.append(name.with_suffix(f".{subtitles}"))
            write_file(said[-1], _subtitles(found, chapters, subtitles).encode())
    return SavedBook(
        names,
        said,
        found.duration,
        found.marks,
        found.loudness,
        float(20 * np.log10(gain)),
        found,
    )


class _Writer:
    def __init__(
        self,
        audiobook: Audiobook,
        found: Survey,
        gain: float,
        bit_rate: int | None,
        progress: Callable[[float], None] | None,
    ) -> None:
        self._audiobook = audiobook
        self._found = found
        self._gain = gain
        self._bit_rate = bit_rate
        self._progress = progress
        self._written = 0

    def write(self, path: Path, chapters: range, split: bool) -> None:
        """Write one file, which appears when it is complete."""
        extension = check_format(path)
        rate = self._found.sample_rate
        marks = [] if split else self._found.marks
        # Made in the job's folder, where encoder and tags may seek as they like.
        draft = self._audiobook.folder.path / f"output{extension}"
        try:
            with BookEncoder(
                draft, extension, rate, marks=marks, bit_rate=self._bit_rate
            ) as encoder:
                for chapter in chapters:
                    with closing(self._sound(chapter)) as blocks:
                        for block in blocks:
                            encoder.write(block)
                            self._tell(len(block))
            write_tags(draft, extension, self._tags(chapters, marks, split), rate)
            with draft.open("rb") as made, OutputFile(path) as file:
                shutil.copyfileobj(made, file, _COPY_BYTES)
        finally:
            draft.unlink(missing_ok=True)

    def _sound(self, number: int) -> Generator[npt.NDArray[np.int16], None, None]:
        planned = self._audiobook.planned[number]
        for piece in self._audiobook.pieces(planned):
            yield self._levelled(piece.record.samples)
        if number < len(self._found.chapters) - 1:
            yield np.zeros(self._found.chapter_pause, np.int16)

    def _levelled(self, samples: npt.NDArray[np.int16]) -> npt.NDArray[np.int16]:
        if self._gain == 1.0:
            return samples
        louder = samples.astype(np.float32) * np.float32(self._gain / 32767.0)
        return to_pcm16(limited(louder, self._found.sample_rate))

    def _tags(self, chapters: range, marks: Sequence[Mark], split: bool) -> Tags:
        book = self._audiobook.book
        planned: PlannedChapter = self._audiobook.planned[chapters[0]]
        return Tags(
            title=planned.chapter.label if split else book.title,
            album=book.title,
            author=book.author,
            cover=book.cover,
            marks=marks,
            track=(planned.chapter.number, len(self._audiobook.plan)) if split else None,
        )

    def _tell(self, samples: int) -> None:
        self._written += samples
        if self._progress is not None:
            self._progress(min(1.0, self._written / max(1, self._found.samples)))


def _subtitles(found: Survey, chapters: range, kind: str) -> str:
    cues: list[Cue] = []
    at = 0.0
    for chapter in chapters:
        own = found.chapters[chapter]
        cues += (Cue(at + cue.start, at + cue.end, cue.text) for cue in own.cues)
        at += own.samples / found.sample_rate
    return subtitles(cues, kind)
