"""A long text into an audio file: written while it is spoken, resumed after an interruption."""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Callable, Generator, Mapping
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from types import CodeType

import numpy as np
import numpy.typing as npt

from csm_ggml.audio.audio import Audio, to_pcm16
from csm_ggml.audio.writer import AudioWriter
from csm_ggml.errors import NoSpeechError
from csm_ggml.files import is_stream
from csm_ggml.longform.journal import Journal, Record, journal_path
from csm_ggml.longform.reading import LongReading
from csm_ggml.speech.prefix import prefix_key
from csm_ggml.speech.stop import worst


@dataclass(frozen=True)
class Progress:
    """How far a recording is.

    Attributes:
        characters: Spoken so far.
        total_characters: Of the whole text.
        pieces: Spoken so far.
        total_pieces: Of the whole text.
        audio_seconds: Of the recording so far.
        elapsed: Seconds since this run began.
        remaining: Seconds that the rest will take, as fast as this run was so far; None before its
            first piece.
    """

    characters: int
    total_characters: int
    pieces: int
    total_pieces: int
    audio_seconds: float
    elapsed: float
    remaining: float | None


@dataclass(frozen=True)
class Recording:
    """A long text that was spoken into a file.

    Attributes:
        path: Name of the file.
        duration: Seconds of audio in the file.
        pieces: Number of parts that the text was spoken in.
        resumed: Number of these parts that came from an interrupted run.
        finish_reasons: Number of pieces for each finish reason.
        seed: The seed that makes the same recording again.
        seconds: Wall-clock seconds of this run.
    """

    path: str
    duration: float
    pieces: int
    resumed: int
    finish_reasons: Mapping[str, int]
    seed: int
    seconds: float

    @property
    def finish_reason(self) -> str:
        """The worst of how a piece ended."""
        return worst([*self.finish_reasons])


def job_digest(
    reading: LongReading, fingerprint: str, watermark: Callable[..., object] | None = None
) -> str:
    """Tells a job from all that would sound otherwise, except by their seed.

    Args:
        reading: The text and how it is read.
        fingerprint: Of the model.
        watermark: The hook that changes the samples; told by its name and its code.
    """
    request = reading.request(0)
    described = {
        "model": fingerprint,
        "pieces": [(p.turn.speaker, p.turn.text, p.paragraph, p.pause) for p in reading.pieces],
        "form": [reading.form.mode, reading.form.pause, reading.form.paragraph_pause],
        "context": prefix_key(request.conditioning.segments),
        "options": repr(request.settings),
        "watermark": None if watermark is None else _described(watermark),
    }
    return hashlib.sha256(json.dumps(described).encode()).hexdigest()


def hook_digest(hook: Callable[..., object]) -> str:
    """Tells a watermark's hook from another one."""
    return hashlib.sha256(json.dumps(_described(hook)).encode()).hexdigest()


def _described(hook: Callable[..., object]) -> list[str]:
    """What tells a hook from another one, in this process and in the next."""
    function = hook if hasattr(hook, "__qualname__") else type(hook)
    code = getattr(hook, "__code__", None) or getattr(type(hook).__call__, "__code__", None)
    name = [str(getattr(function, "__module__", "")), function.__qualname__]
    return name if code is None else [*name, *_parts(code)]


def _parts(code: CodeType) -> list[str]:
    """What a function does, whatever file and line it stands in."""
    parts = [code.co_code.hex(), *code.co_names]
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            parts += _parts(constant)
        elif isinstance(constant, frozenset):
            parts += sorted(map(repr, constant))
        else:
            parts.append(repr(constant))
    return parts


def spoken(
    reading: LongReading,
    journal: Journal | None,
    *,
    job: str,
    seed_given: bool = True,
    resume: bool = True,
) -> Generator[tuple[Record, bool], None, None]:
    """Each piece of a long text: those that a journal has, then those that are spoken now.

    Args:
        reading: The text; its seed becomes that of an interrupted run, if that goes on.
        journal: Has what is spoken, and gets what is spoken now, before it is handed out; None for
            none.
        job: Of `job_digest`.
        seed_given: Whether the reading's seed was asked for, so that a run with another seed does
            not go on.
        resume: Whether to go on with an interrupted run.

    Yields:
        A piece, and whether it was there before.

    Raises:
        OSError: If the journal cannot be written.
    """
    resumed = 0
    last: Record | None = None
    anchors: dict[int, npt.NDArray[np.int32]] = {}
    if journal is not None:
        reading.seed = journal.begin(job, reading.seed, seed_given=seed_given, resume=resume)
        for old in journal.records():
            last = old
            if old.is_voice:
                anchors[resumed] = old.codes
            resumed += 1
            yield old, True
    before = None if last is None else (last.codes, last.finish_reason)
    with closing(reading.speak(resumed, before, anchors)) as speech:
        for audio in speech:
            piece = as_record(audio, is_voice=audio.turns[0].index in reading.anchors)
            if journal is not None:
                journal.add(piece)
            yield piece, False


def as_record(audio: Audio, *, is_voice: bool = False) -> Record:
    """A piece that was spoken, as a journal keeps it."""
    [turn] = audio.turns
    return Record(
        audio.codes,
        to_pcm16(audio.samples),
        turn.finish_reason or "eos",
        is_voice=is_voice,
        seed=turn.seed,
    )


def record(
    reading: LongReading,
    path: str | os.PathLike[str],
    *,
    job: str,
    seed_given: bool,
    sample_rate: int,
    resume: bool,
    progress: Callable[[Progress], None] | None,
) -> Recording:
    """Speak a long text into a file; see `CSM.generate_to_file`.

    Args:
        reading: The text; its seed is that of an interrupted run, if that goes on.
        path: The file.
        job: Of `job_digest`.
        seed_given: Whether the reading's seed was asked for, so that a run with another seed does
            not go on.
        sample_rate: Samples per second.
        resume: Whether to go on with an interrupted run.
        progress: Called after each piece.

    Raises:
        BlockingIOError: If another process records into the file.
        NoSpeechError: If the model says nothing of it.
        OSError: If file or journal cannot be written.
    """
    started = time.perf_counter()
    sizes = [len(piece.turn.text) for piece in reading.pieces]
    reasons: dict[str, int] = {}
    samples = 0
    resumed = 0
    with ExitStack() as stack:
        writer = stack.enter_context(AudioWriter(path, sample_rate))
        # What a pipe has got cannot be gone on with.
        journal = None if is_stream(path) else stack.enter_context(Journal(journal_path(path)))

        state = Progress(0, sum(sizes), 0, len(sizes), 0.0, 0.0, None)
        before = 0
        pieces = spoken(reading, journal, job=job, seed_given=seed_given, resume=resume)
        with closing(pieces):
            for piece, is_old in pieces:
                writer.write(piece.samples)
                samples += len(piece.samples)
                reasons[piece.finish_reason] = reasons.get(piece.finish_reason, 0) + 1
                elapsed = time.perf_counter() - started
                characters = state.characters + sizes[state.pieces]
                rest = state.total_characters - characters
                if is_old:
                    before = characters
                    resumed += 1
                state = replace(
                    state,
                    characters=characters,
                    pieces=state.pieces + 1,
                    audio_seconds=samples / sample_rate,
                    elapsed=elapsed,
                    remaining=None if is_old else rest * elapsed / (characters - before),
                )
                if progress is not None and not is_old:
                    progress(state)
        if set(reasons) <= {"empty"}:
            # The same command would bring the same.
            if journal is not None:
                journal.remove()
            raise NoSpeechError.of([piece.turn.text for piece in reading.pieces])
        writer.close()
        if journal is not None:
            journal.remove()
    return Recording(
        path=os.fspath(path),
        duration=samples / sample_rate,
        pieces=len(sizes),
        resumed=resumed,
        finish_reasons=reasons,
        seed=reading.seed,
        seconds=time.perf_counter() - started,
    )
