"""A book on its way to speech: chapter after chapter, in a folder that survives anything."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from csm_ggml.audio.audio import Audio
from csm_ggml.books.book import Book, Chapter
from csm_ggml.books.folder import JobFolder
from csm_ggml.books.plan import PlannedChapter, check_numbers, plan_book
from csm_ggml.csm import CSM
from csm_ggml.errors import NoSpeechError
from csm_ggml.limits import SEED_LIMIT, number
from csm_ggml.longform.journal import Journal, Record
from csm_ggml.longform.pieces import Piece
from csm_ggml.longform.reading import LongForm, LongReading, as_long_form
from csm_ggml.longform.recording import as_record, hook_digest, job_digest, spoken
from csm_ggml.speech.options import resolve_seed
from csm_ggml.speech.stop import FINISH_REASONS
from csm_ggml.text.turns import Turn
from csm_ggml.voices.voice import Voice, VoiceLike

TITLE_PAUSE = 1.2
# Seeds of a chapter's pieces follow one another; chapters lie so far apart that none meet.
_CHAPTER_SEEDS = 1_000_000
# Who has no voice gets that of one of so many pieces at the beginning, drawn so often at most.
_VOICE_PIECES = 8
_VOICE_RETRIES = 4
_VOICE_TRIES = 3


@dataclass(frozen=True)
class BookProgress:
    """How far a book is.

    Attributes:
        chapter: That is spoken.
        chapter_characters: Spoken of the chapter so far.
        chapter_total: Characters of the chapter.
        characters: Spoken so far of all chapters that are wanted.
        total_characters: Of all chapters that are wanted.
        pieces: Spoken so far.
        total_pieces: Of all chapters that are wanted.
        audio_seconds: Of the speech so far.
        elapsed: Seconds since this run began.
        chapter_remaining: Seconds that the rest of the chapter will take; None before the first
            piece of this run.
        remaining: The same of all chapters.
    """

    chapter: Chapter
    chapter_characters: int
    chapter_total: int
    characters: int
    total_characters: int
    pieces: int
    total_pieces: int
    audio_seconds: float
    elapsed: float
    chapter_remaining: float | None
    remaining: float | None


@dataclass(frozen=True)
class SpokenPiece:
    """A piece that is on the disk.

    Attributes:
        number: In the book, from 1.
        chapter: That it belongs to.
        piece: What is said.
        record: How it sounds.
        drawn_again: How often it was drawn before this attempt was kept.
    """

    number: int
    chapter: Chapter
    piece: Piece
    record: Record
    drawn_again: int

    @property
    def speech_start(self) -> int:
        """The first sample after the pause before it, which is silence throughout."""
        heard = np.flatnonzero(self.record.samples)
        return int(heard[0]) if len(heard) else len(self.record.samples)


class Audiobook:
    """A book, a model, and the folder in which the speech is gathered. Use it in a `with` block.

    Attributes:
        book: What is spoken.
        seed: Of the whole book.
        chapters: Those that are wanted.
    """

    def __init__(
        self,
        csm: CSM,
        book: Book,
        folder: str | os.PathLike[str],
        *,
        seed: int | None = None,
        long_form: str | LongForm = "batch",
        chapters: Iterable[int] | None = None,
        voice: VoiceLike | Sequence[VoiceLike] | None = None,
        voice_map: Mapping[int, VoiceLike] | None = None,
        tags: bool | None = False,
        title_pause: float = TITLE_PAUSE,
        **options: Any,
    ) -> None:
        """Take up the job of the folder, or begin one.

        Args:
            csm: Speaks.
            book: Of `read_book`.
            folder: Made if need be; its parent must exist. It may already hold this very job.
            seed: As for `CSM.generate`; a job that goes on keeps its own.
            long_form: As for `CSM.generate_to_file`.
            chapters: Numbers of those that are wanted; None for all.
            voice: As for `CSM.generate`: of the narrator, or one for each speaker.
            voice_map: Voices by the numbers of the speakers; the voices need not have these.
            tags: Whether numbers in brackets are speaker tags, as for `CSM.generate`.
            title_pause: Seconds of silence after a chapter's title.
            **options: As for `CSM.generate`; retries is 2 if left out.

        Raises:
            ValueError: If an option is out of range, or the folder is that of another job.
            BlockingIOError: If another process works in the folder.
            As `CSM.generate`.
        """
        self._csm = csm
        self.book = book
        self._form = as_long_form(long_form)
        if not 0 <= number("title_pause", title_pause) <= 60:
            raise ValueError(f"title_pause must be 0 to 60 seconds, got {title_pause}")
        if options.get("context") is not None:
            raise ValueError("context is not for books: give a voice")
        self._options: dict[str, Any] = {**options, "tags": tags}
        self._voices = _voices(voice, voice_map)
        if self._voices:
            self._options.setdefault("speaker", self._voices[0].speaker)
        split = partial(
            csm.pieces, long_form=self._form, voice=self._voices or None, **self._options
        )
        self.plan = plan_book(book, split, title_pause=title_pause)
        wanted = range(1, len(self.plan) + 1) if chapters is None else chapters
        self.chapters = check_numbers(wanted, len(self.plan), "chapters")
        self.folder = JobFolder(folder)
        try:
            self.seed = self.folder.begin(self._settings(), seed, resolve_seed(seed))
        except BaseException:
            self.folder.close()
            raise

    @property
    def sample_rate(self) -> int:
        """Samples per second."""
        return self._csm.sample_rate

    @property
    def planned(self) -> list[PlannedChapter]:
        """The chapters that are wanted."""
        return [self.plan[chapter - 1] for chapter in self.chapters]

    def speak(self, progress: Callable[[BookProgress], None] | None = None) -> int:
        """Speak what is not spoken yet; memory does not grow with the book.

        Args:
            progress: Called after each piece that was spoken now.

        Returns:
            How many pieces were spoken now; the others were there before.

        Raises:
            OSError: If a journal cannot be written; what was spoken before stays.
            As `CSM.generate`.
        """
        meter = _Meter(self.planned)
        for planned in self.planned:
            self._speak(planned, meter, progress)
        return meter.spoken

    def _speak(
        self,
        planned: PlannedChapter,
        meter: _Meter,
        progress: Callable[[BookProgress], None] | None,
    ) -> None:
        chapter = planned.chapter.number
        reading = self._reading(planned)
        started = time.perf_counter()
        audio = 0.0
        with Journal(self.folder.journal(chapter)) as journal:
            pieces = spoken(reading, journal, job=self._digest(reading))
            try:
                with closing(pieces):
                    for piece, is_old in pieces:
                        seconds = len(piece.samples) / self.sample_rate
                        state = meter.add(planned, seconds, is_old)
                        if is_old:
                            started = time.perf_counter()
                            continue
                        audio += seconds
                        if progress is not None:
                            progress(state)
            finally:
                if audio:
                    self.folder.add_time(chapter, time.perf_counter() - started, audio)

    def redo(self, numbers: Iterable[int]) -> list[SpokenPiece]:
        """Speak single pieces again, each with the seed after that of the attempt that was kept.

        All other pieces stay as they are, sample by sample.

        Args:
            numbers: Of the pieces in the book, from 1.

        Returns:
            What they are now.

        Raises:
            ValueError: If there is no such piece, or it was not spoken yet.
        """
        last = self.plan[-1]
        wanted = check_numbers(numbers, last.first + len(last.pieces) - 1, "pieces")
        changed: list[SpokenPiece] = []
        for planned in self.plan:
            own = [n for n in wanted if 0 <= n - planned.first < len(planned.pieces)]
            if own:
                changed += self._redo(planned, own)
        return changed

    def _redo(self, planned: PlannedChapter, numbers: Sequence[int]) -> list[SpokenPiece]:
        reading = self._reading(planned)
        with Journal(self.folder.journal(planned.chapter.number)) as journal:
            reading.seed = journal.begin(self._digest(reading), reading.seed)
            indices = [n - planned.first for n in numbers]
            seeds: dict[int, int] = {}
            before: dict[int, tuple[npt.NDArray[np.int32], str]] = {}
            for at, record in enumerate(journal.records()):
                if at in indices:
                    seeds[at] = record.seed
                if at + 1 in indices:
                    before[at + 1] = record.codes, record.finish_reason
            for at in indices:
                if at not in seeds:
                    raise ValueError(
                        f"piece {planned.first + at} was not spoken yet; speak the book first"
                    )
            changed: dict[int, Record] = {}
            for at in indices:
                record = as_record(reading.speak_again(at, seeds[at] + 1, before.get(at)))
                changed[at] = record
                before[at + 1] = record.codes, record.finish_reason
            journal.replace(changed)
        return [self._piece(planned, at, record) for at, record in changed.items()]

    def pieces(self, planned: PlannedChapter) -> Iterator[SpokenPiece]:
        """What is spoken of a chapter, one piece at a time.

        Raises:
            ValueError: If it was not spoken to its end.
        """
        path = self.folder.journal(planned.chapter.number)
        count = 0
        if path.exists():
            reading = self._reading(planned)
            with Journal(path) as journal:
                journal.begin(self._digest(reading), reading.seed)
                for record in journal.records():
                    yield self._piece(planned, count, record)
                    count += 1
        if count < len(planned.pieces):
            raise ValueError(
                f"chapter {planned.chapter.number} was not spoken to its end: {count} of "
                f"{len(planned.pieces)} pieces; speak the book first"
            )

    def close(self) -> None:
        """Let the next process have the folder."""
        self.folder.close()

    def __enter__(self) -> Audiobook:
        """The audiobook."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close it."""
        self.close()

    def _piece(self, planned: PlannedChapter, index: int, record: Record) -> SpokenPiece:
        first = (self._chapter_seed(planned) + index) % SEED_LIMIT
        return SpokenPiece(
            planned.first + index,
            planned.chapter,
            planned.pieces[index],
            record,
            (record.seed - first) % SEED_LIMIT,
        )

    def _chapter_seed(self, planned: PlannedChapter) -> int:
        return (self.seed + planned.chapter.number * _CHAPTER_SEEDS) % SEED_LIMIT

    def _reading(self, planned: PlannedChapter) -> LongReading:
        return self._csm.reading(
            planned.text,
            seed=self._chapter_seed(planned),
            long_form=self._form,
            voice=self._voices_of(planned),
            **self._options,
        )

    def _digest(self, reading: LongReading) -> str:
        return job_digest(reading, self._csm.fingerprint, self._csm.watermark)

    def _voices_of(self, planned: PlannedChapter) -> list[Voice]:
        """One for each speaker of a chapter."""
        known = {voice.speaker: voice for voice in self._voices}
        speakers = sorted({piece.turn.speaker for piece in planned.pieces})
        for speaker in speakers:
            if speaker not in known:
                known[speaker] = self._own_voice(speaker)
                self._voices.append(known[speaker])
        return [known[speaker] for speaker in speakers]

    def _own_voice(self, speaker: int) -> Voice:
        """The voice of somebody who was given none: that of a piece at the beginning."""
        path = self.folder.voice(speaker)
        if path.exists():
            return Voice.load(path)
        pieces = [
            piece.turn.text
            for chapter in self.plan
            for piece in chapter.pieces
            if piece.turn.speaker == speaker
        ][:_VOICE_PIECES]
        texts = sorted(pieces, key=len, reverse=True)[:_VOICE_TRIES]
        options = {
            **self._options,
            "speaker": speaker,
            "retries": _VOICE_RETRIES,
            "normalize": None,
            "lexicon": None,
        }
        cut_on_purpose = any(self._options.get(name) for name in ("max_frames", "max_seconds"))
        best: tuple[int, str, Audio] | None = None
        for text in texts:
            try:
                audio = self._csm.generate([Turn(speaker, text)], seed=self.seed, **options)
            except NoSpeechError:
                continue
            order = FINISH_REASONS.index(audio.finish_reason or "eos")
            if best is None or order < best[0]:
                best = order, text, audio
            # What went wrong must not sound on through the book.
            if order == 0 or cut_on_purpose:
                break
        if best is None:
            raise NoSpeechError.of(texts)
        voice = self._csm.create_voice(best[2], best[1], speaker, tags=False)
        voice.save(path)
        return voice

    def _settings(self) -> dict[str, str]:
        """What the sound depends on, beside the text of a chapter."""
        form = self._form
        hook = self._csm.watermark
        options = {
            name: repr(value)
            for name, value in self._options.items()
            # The lexicon's words are those of the pieces.
            if name != "lexicon" and value is not None
        }
        voices = (f"[{v.speaker}] {_digest(v.codes.tobytes())}" for v in self._voices)
        return {
            "book": self.book.source or self.book.title,
            "model": self._csm.fingerprint,
            "voices": ", ".join(voices),
            "long_form": form.mode,
            "pause": f"{form.pause:g}",
            "paragraph_pause": f"{form.paragraph_pause:g}",
            "piece_characters": str(form.characters(self._csm.config)),
            "watermark": "" if hook is None else hook_digest(hook),
            **options,
        }


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:16]


class _Meter:
    """Counts what is spoken."""

    def __init__(self, chapters: Sequence[PlannedChapter]) -> None:
        self._started = time.perf_counter()
        self._total = sum(chapter.characters for chapter in chapters)
        self._pieces = sum(len(chapter.pieces) for chapter in chapters)
        self._chapter: PlannedChapter | None = None
        self._of_chapter = self._at_piece = 0
        self._characters = self._done = self._now = 0
        self._seconds = 0.0
        self.spoken = 0

    def add(self, planned: PlannedChapter, seconds: float, is_old: bool) -> BookProgress:
        if planned is not self._chapter:
            self._chapter, self._of_chapter, self._at_piece = planned, 0, 0
        characters = len(planned.pieces[self._at_piece].turn.text)
        self._at_piece += 1
        self._done += 1
        self._of_chapter += characters
        self._characters += characters
        self._seconds += seconds
        if not is_old:
            self._now += characters
            self.spoken += 1
        elapsed = time.perf_counter() - self._started
        pace = elapsed / self._now if self._now else None
        return BookProgress(
            chapter=planned.chapter,
            chapter_characters=self._of_chapter,
            chapter_total=planned.characters,
            characters=self._characters,
            total_characters=self._total,
            pieces=self._done,
            total_pieces=self._pieces,
            audio_seconds=self._seconds,
            elapsed=elapsed,
            chapter_remaining=None
            if pace is None
            else pace * (planned.characters - self._of_chapter),
            remaining=None if pace is None else pace * (self._total - self._characters),
        )


def _voices(
    voice: VoiceLike | Sequence[VoiceLike] | None, voice_map: Mapping[int, VoiceLike] | None
) -> list[Voice]:
    if voice is not None and voice_map:
        raise ValueError("give voice or voice_map, not both")
    if voice_map:
        return [_loaded(own).with_speaker(speaker) for speaker, own in sorted(voice_map.items())]
    if voice is None:
        return []
    several = [voice] if isinstance(voice, Voice | str | os.PathLike) else voice
    return [_loaded(own) for own in several]


def _loaded(voice: VoiceLike) -> Voice:
    return voice if isinstance(voice, Voice) else Voice.load(voice)
