"""Text into one stream of speech: short text as one utterance, long or growing text piece by piece.

A piece is some whole sentences. Pieces are spoken by the same voice: the given one, or that of the
first piece that went well. While one is being spoken the next one is already asked for, so that the
stream goes on where a piece ends. One piece alone is, sample for sample, what `CSM.generate` makes
of it.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from csm_ggml.audio.audio import Audio
from csm_ggml.audio.stats import Stats
from csm_ggml.csm import CSM
from csm_ggml.errors import NoSpeechError, QueueFull
from csm_ggml.limits import SEED_LIMIT
from csm_ggml.longform.reading import TRIM_DB, TRIM_KEEP_SECONDS, TRIM_WINDOW_SECONDS, LongForm
from csm_ggml.speech.job import Job
from csm_ggml.speech.stop import UNFIT, worst
from csm_ggml.text.characters import clean, has_sound, one_line
from csm_ggml.text.sentences import group, split_sentences
from csm_ggml.voices.voice import Voice

# A text is cut if it is longer than this: more than one utterance of CSM should hold.
LONG_TEXT_CHARACTERS = 600
# Sentences are joined until a piece has so many characters; it never has more than a piece of a
# long text, so that longer sentences are cut. The first piece is one sentence, so that the sound
# starts early.
PIECE_CHARACTERS = 60
PAUSE_SECONDS = LongForm().pause
# Pieces asked for at a time: the one that is heard and the one after it.
AHEAD = 2


@dataclass(frozen=True)
class Manner:
    """How a text is to be spoken.

    Attributes:
        seed: Of the first piece; each further piece gets one more.
        options: Of `CSM.submit`, without seed and voice.
        voices: Whose voices; empty for the model's own.
    """

    seed: int
    options: Mapping[str, Any] = field(default_factory=dict)
    voices: tuple[Voice, ...] = ()


class SentenceReader:
    """Cuts text that comes bit by bit into pieces; the same pieces however it comes."""

    def __init__(self, config: Mapping[str, Any] | None = None) -> None:
        """Begin with no text; the hyper-parameters of the model may say how long sentences are."""
        self._most = LongForm().characters(config or {})
        self._text = ""
        self._sentences: list[str] = []
        self._first = True

    def add(self, text: str) -> list[str]:
        """The pieces that are complete after more text."""
        self._text += text
        # The last sentence may go on, and what ends one is known by what follows.
        *complete, rest = split_sentences(one_line(clean(self._text))) or [""]
        if complete:
            self._text = rest + (" " if self._text[-1:].isspace() else "")
        return self._pieces(complete)

    def finish(self) -> list[str]:
        """The pieces that are left."""
        pieces = self._pieces(split_sentences(one_line(clean(self._text))))
        if self._sentences:
            pieces.append(" ".join(self._sentences))
        self._text, self._sentences, self._first = "", [], True
        return pieces

    def _pieces(self, sentences: list[str]) -> list[str]:
        pieces = []
        for sentence in sentences:
            for part in group([sentence], self._most):
                if not has_sound(part):
                    continue
                if self._sentences and len(" ".join([*self._sentences, part])) > self._most:
                    pieces.append(" ".join(self._sentences))
                    self._sentences, self._first = [], False
                self._sentences.append(part)
                piece = " ".join(self._sentences)
                if self._first or len(piece) >= PIECE_CHARACTERS:
                    pieces.append(piece)
                    self._sentences, self._first = [], False
        return pieces


async def pieces_of(
    text: str, *, whole: bool, config: Mapping[str, Any] | None = None
) -> AsyncGenerator[str, None]:
    """The pieces of a complete text.

    Args:
        text: What to say.
        whole: Whether it is one piece, however long.
        config: As in `SentenceReader`.
    """
    if whole or len(text) <= LONG_TEXT_CHARACTERS:
        yield text
        return
    reader = SentenceReader(config)
    for piece in [*reader.add(text), *reader.finish()]:
        yield piece


@dataclass(frozen=True)
class Sound:
    """A part of a stream.

    Attributes:
        samples: (n,) float32.
        piece: Number of the piece it is of.
        text: That piece.
        frames: Frames of it.
        finish_reason: How the piece ended, if this is its last part.
        stats: Of the piece so far; None for the pause before it.
        waited: In the first part of a piece: the seconds until it, less the work for it.
        known: In the first part of a piece with a voice: whether that was evaluated before.
    """

    samples: npt.NDArray[np.float32]
    piece: int
    text: str
    frames: int = 0
    finish_reason: str | None = None
    stats: Stats | None = None
    waited: float | None = None
    known: bool | None = None


class Flow:
    """One stream of speech.

    Attributes:
        frames: Frames spoken so far.
        finish_reason: The worst of how a piece ended; None before one did.
    """

    def __init__(self, csm: CSM, manner: Manner, *, patient: bool = False) -> None:
        """Take the model and how to speak.

        Args:
            csm: The model.
            manner: How to speak.
            patient: Whether the first piece, too, waits for room in the queue.
        """
        self._patient = patient
        self.frames = 0
        self._csm = csm
        self._manner = manner
        self._reasons: list[str] = []
        # Of later pieces, once it is known; until then each waits for the one before.
        self._voices = manner.voices
        self._over = 0
        self._news = asyncio.Condition()

    @property
    def finish_reason(self) -> str | None:
        """As above."""
        return worst(self._reasons) if self._reasons else None

    async def sound(self, pieces: AsyncGenerator[str, None]) -> AsyncGenerator[Sound, None]:
        """Speak; closing the generator cancels what is asked for.

        Args:
            pieces: What to say.

        Raises:
            NoSpeechError: If the model says nothing of it.
            As `CSM.submit`, and what its job raises.
        """
        jobs: asyncio.Queue[tuple[str, tuple[Voice, ...], Job] | None] = asyncio.Queue()
        open_jobs: list[Job] = []
        ahead = asyncio.Semaphore(AHEAD)
        feeder = asyncio.create_task(self._feed(pieces, jobs, open_jobs, ahead))
        feeder.add_done_callback(lambda _: jobs.put_nowait(None))
        joint = _Joint(self._csm.sample_rate)
        number = 0
        texts: list[str] = []
        # What comes before the first sample: none may ever come.
        held: list[Sound] | None = []
        try:
            while (following := await jobs.get()) is not None:
                text, voices, job = following
                begins = True
                texts.append(text)
                if held is None and len(pause := joint.pause()):
                    yield Sound(pause, number, text)
                spoken: list[Audio] = []
                async for chunk in job:
                    if not self._voices:
                        spoken.append(chunk)
                    self.frames += len(chunk.codes)
                    last = chunk.finish_reason is not None
                    samples = joint.take(chunk.samples, last=last)
                    if last:
                        self._reasons.append(str(chunk.finish_reason))
                    if last or len(samples):
                        part = _sound(chunk, samples, number, text, begins=begins, voices=voices)
                        begins = False
                        if held is None:
                            yield part
                            continue
                        held.append(part)
                        if len(samples):
                            for part in held:
                                yield part
                            held = None
                open_jobs.remove(job)
                if spoken:
                    self._voices = _voice_of(spoken, self._csm)
                async with self._news:
                    self._over += 1
                    self._news.notify_all()
                ahead.release()
                number += 1
            await feeder
            if texts and not self.frames:
                raise NoSpeechError.of(texts)
            for part in held or ():
                yield part
        finally:
            feeder.cancel()
            for job in open_jobs:
                job.cancel()

    async def _feed(
        self,
        pieces: AsyncGenerator[str, None],
        jobs: asyncio.Queue[tuple[str, tuple[Voice, ...], Job] | None],
        open_jobs: list[Job],
        ahead: asyncio.Semaphore,
    ) -> None:
        number = 0
        async with aclosing(pieces):
            async for text in pieces:
                await ahead.acquire()
                options = dict(self._manner.options)
                if not self._voices:
                    async with self._news:
                        await self._news.wait_for(lambda: self._voices or self._over >= number)  # noqa: B023
                voices = self._voices
                if voices:
                    options["voice"] = list(voices)
                job = await self._submit(text, number, options)
                open_jobs.append(job)
                jobs.put_nowait((text, voices, job))
                number += 1

    async def _submit(self, text: str, number: int, options: Mapping[str, Any]) -> Job:
        seed = (self._manner.seed + number) % SEED_LIMIT
        while True:
            try:
                return self._csm.submit(text, seed=seed, **options)
            except QueueFull as full:
                if number == 0 and not self._patient:
                    raise
                # A stream that has begun waits for its turn.
                await asyncio.sleep(max(0.05, full.retry_after))


def _sound(
    chunk: Audio,
    samples: npt.NDArray[np.float32],
    number: int,
    text: str,
    *,
    begins: bool,
    voices: tuple[Voice, ...],
) -> Sound:
    stats = chunk.stats
    waited = known = None
    if begins:
        work = stats.prefill_seconds + stats.lm_seconds + stats.codec_seconds
        waited = max(0.0, stats.total_seconds - work)
        if voices:
            known = stats.prefill_rows < sum(len(voice.codes) for voice in voices)
    return Sound(samples, number, text, len(chunk.codes), chunk.finish_reason, stats, waited, known)


def _voice_of(spoken: list[Audio], csm: CSM) -> tuple[Voice, ...]:
    """What was spoken as the voice of what follows; none if it went wrong."""
    audio = Audio.concatenate(spoken)
    if audio.finish_reason in UNFIT:
        return ()
    speaker = audio.turns[0].speaker
    voice = Voice(speaker, audio.turns[0].text, audio.codes, csm.sample_rate, csm.frame_size)
    return (voice,)


class _Joint:
    """Puts pieces one after another, with a pause between where they bring none themselves."""

    def __init__(self, sample_rate: int) -> None:
        self._window = max(1, round(TRIM_WINDOW_SECONDS * sample_rate))
        self._keep = round(TRIM_KEEP_SECONDS * sample_rate)
        self._pause = round(PAUSE_SECONDS * sample_rate)
        # The end of what was handed out, as long as a pause.
        self._tail = np.zeros(0, np.float32)
        # The beginning of a later piece, as long as nothing of it was heard.
        self._begin: npt.NDArray[np.float32] | None = None

    def pause(self) -> npt.NDArray[np.float32]:
        """What is missing for a pause before the next piece; a player has it while that begins."""
        loud = self._loud(self._tail)
        quiet = len(self._tail) - (loud[1] if loud is not None else 0)
        return np.zeros(max(0, self._pause - quiet - self._keep), np.float32)

    def take(self, samples: npt.NDArray[np.float32], *, last: bool) -> npt.NDArray[np.float32]:
        """What follows of a piece, `last` at its end."""
        if self._begin is not None:
            samples = np.concatenate([self._begin, samples])
            loud = self._loud(samples)
            if loud is None:
                # Its beginning is dropped, except for the breath before the first sound.
                self._begin = None if last else samples
                samples = samples[:0]
            else:
                samples = samples[max(0, loud[0] - self._keep) :]
                self._begin = None
        if len(samples):
            self._tail = np.concatenate([self._tail, samples])[-self._pause :]
        if last:
            self._begin = np.zeros(0, np.float32)
        return samples

    def _loud(self, samples: npt.NDArray[np.float32]) -> tuple[int, int] | None:
        """Where the first loud window begins, and where the last one ends."""
        count = len(samples) // self._window
        windows = samples[: count * self._window].reshape(count, self._window)
        [loud] = np.nonzero(np.mean(np.square(windows), axis=1) > 10 ** (TRIM_DB / 10))
        if not len(loud):
            return None
        return int(loud[0]) * self._window, (int(loud[-1]) + 1) * self._window
