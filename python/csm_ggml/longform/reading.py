"""Long texts: a chapter in pieces, spoken side by side or in a chain, joined without seams."""

from __future__ import annotations

import time
import warnings
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from csm_ggml.audio.audio import Audio
from csm_ggml.audio.stats import Stats
from csm_ggml.audio.watermark import Watermark
from csm_ggml.errors import ContextLengthError
from csm_ggml.limits import SEED_LIMIT, check_count, number
from csm_ggml.longform.pieces import Piece, split_pieces
from csm_ggml.speech.request import Request
from csm_ggml.speech.resolve import Known, Resolver, speakers_of
from csm_ggml.speech.scheduler import Scheduler
from csm_ggml.speech.stop import FINISH_REASONS, UNFIT, worst
from csm_ggml.speech.window import as_done
from csm_ggml.text.reading import Text
from csm_ggml.voices.prompt import EncodedSegment
from csm_ggml.voices.voice import Voice

MODES = ("batch", "chain")
# Below this the ends of a piece are silence. Some of it stays: breath and the end of a last sound.
TRIM_DB = -50.0
TRIM_WINDOW_SECONDS = 0.01
TRIM_KEEP_SECONDS = 0.04
# Who speaks without a voice sounds like the longest of so many pieces at the beginning that ends
# well; only so many are tried.
ANCHOR_PIECES = 8
ANCHOR_TRIES = 3
# A piece has at most so many characters where neither caller nor model file say.
PIECE_CHARACTERS = 200
# Nobody listens while a book is spoken: pieces that the model does not end are drawn again.
RETRIES = 2


@dataclass(frozen=True)
class LongForm:
    """How a long text is spoken.

    Attributes:
        mode: "batch": pieces side by side, each conditioned on the voices alone, which is fastest;
            "chain": one after another, each conditioned on the one before, too, for its prosody.
        pause: Seconds of silence between pieces, and between speakers.
        paragraph_pause: Seconds of silence between paragraphs.
        piece_characters: A piece has at most so many characters; only whole sentences, if they are
            not longer. None: what the model file says, else 200.
        batch_size: Pieces side by side, in the mode "batch".
    """

    mode: str = "batch"
    pause: float = 0.3
    paragraph_pause: float = 0.7
    piece_characters: int | None = None
    batch_size: int = 8

    def __post_init__(self) -> None:
        """Check the settings.

        Raises:
            ValueError: If one is out of range.
            TypeError: If one is no number.
        """
        if self.mode not in MODES:
            raise ValueError(f"long_form must be one of {', '.join(MODES)}, got {self.mode!r}")
        for name in ("pause", "paragraph_pause"):
            if not 0 <= number(name, getattr(self, name)) <= 60:
                raise ValueError(f"{name} must be 0 to 60 seconds, got {getattr(self, name)}")
        if self.piece_characters is not None:
            check_count("piece_characters", self.piece_characters, least=20)
        check_count("batch_size", self.batch_size)

    def characters(self, config: Mapping[str, Any]) -> int:
        """Of a piece at most, for a model with these hyper-parameters."""
        if self.piece_characters is not None:
            return self.piece_characters
        return int(config.get("csm.generation.piece_characters", PIECE_CHARACTERS))


def as_long_form(value: str | LongForm) -> LongForm:
    """The settings that a `long_form` argument asks for.

    Raises:
        ValueError: If it names no mode.
    """
    return value if isinstance(value, LongForm) else LongForm(mode=value)


def trim_silence(samples: npt.NDArray[np.float32], sample_rate: int) -> npt.NDArray[np.float32]:
    """Without the silence at both ends; (n,) to (m,) samples, m <= n.

    A sound of the first window alone, silence after it, is a codec that begins from nothing (its
    convolutions see zeros where silence would have left other states), not speech: it goes, too.
    """
    window = max(1, round(TRIM_WINDOW_SECONDS * sample_rate))
    whole = len(samples) // window
    power = np.mean(np.square(samples[: whole * window].reshape(whole, window)), axis=1)
    heard = power > 10 ** (TRIM_DB / 10)
    first = int(whole > 1 and heard[0] and not heard[1])
    loud = first + np.flatnonzero(heard[first:])
    if not len(loud):
        return samples[:0]
    keep = round(TRIM_KEEP_SECONDS * sample_rate)
    start = max(first * window, int(loud[0]) * window - keep)
    return samples[start : (int(loud[-1]) + 1) * window + keep]


def pieces_of(
    resolver: Resolver,
    text: Text,
    long_form: LongForm,
    options: Mapping[str, Any],
    voices: Sequence[Voice],
) -> list[Piece]:
    """What a long text is spoken in.

    Args:
        resolver: Knows the model.
        text: What to say.
        long_form: How it is spoken.
        options: As for `CSM.generate`.
        voices: Of its speakers.

    Raises:
        As `csm_ggml.longform.pieces.split_pieces`.
    """
    return split_pieces(
        text,
        speaker=resolver.speaker(options, voices),
        characters=long_form.characters(resolver.config),
        speakers=speakers_of(voices, options.get("context")),
        **resolver.reading_options(options),
    )


class LongReading:
    """One long text on its way to speech.

    Attributes:
        pieces: What is spoken, in order.
        seed: Of the first piece; each piece gets one more than the piece before.
        form: How it is spoken.
        anchors: Pieces whose voice the others get, one for each speaker of whom nothing is known
            otherwise; complete when the first piece is handed out.
    """

    def __init__(
        self,
        scheduler: Scheduler,
        resolver: Resolver,
        text: Text,
        *,
        seed: int,
        long_form: LongForm,
        options: Mapping[str, Any],
        priority: str = "bulk",
        watermark: Watermark | None = None,
    ) -> None:
        """Take the text apart and check everything.

        Args:
            scheduler: Speaks the pieces.
            resolver: Makes requests of them.
            text: What to say.
            seed: Of the first piece.
            long_form: How it is spoken.
            options: As for `CSM.generate`.
            priority: "live" or "bulk".
            watermark: Gets each piece before it is handed out, and returns its samples.

        Raises:
            As `CSM.generate`.
        """
        self._scheduler = scheduler
        self._resolver = resolver
        self._how: dict[str, Any] = {"priority": priority, "watermark": watermark}
        self.form = long_form
        self.seed = seed
        self.anchors: set[int] = set()
        settings = resolver.settings(options)
        if options.get("retries") is None:
            settings = replace(settings, retries=RETRIES)
        self._settings = settings
        known = Known()
        voices = resolver.voices(options.get("voice"), known)
        self.pieces = pieces_of(resolver, text, long_form, options, voices)
        known.spoken(voices, {piece.turn.speaker for piece in self.pieces})
        known.warn_of_unused_voices()
        # Voices and context, which each prompt begins with.
        self._conditioning = resolver.conditioning(voices, options.get("context"), known)
        for index in range(len(self.pieces)):
            resolver.checked(self.request(index))

    def speak(
        self,
        start: int = 0,
        before: tuple[npt.NDArray[np.int32], str] | None = None,
        anchors: Mapping[int, npt.NDArray[np.int32]] | None = None,
    ) -> Generator[Audio, None, None]:
        """Speak the pieces from one on.

        Args:
            start: The first piece that is not spoken yet.
            before: The codes of the piece before it, and how that ended.
            anchors: The codes of the anchors before it.

        Yields:
            One Audio for each piece, in order, its silent ends trimmed and the pause before it
            added. The last one has finish_reason; stats are of all pieces so far.
        """
        totals = _Totals()
        spoken: dict[int, Audio] = {}
        voices: dict[int, EncodedSegment] = {}
        for candidates in self._candidates():
            known = next((index for index in candidates if index in (anchors or {})), None)
            if anchors and known is not None:
                voices[known] = EncodedSegment(self.pieces[known].turn, anchors[known])
            elif (found := self._anchor(candidates, start, tuple(voices.values()))) is not None:
                index, audio = found
                spoken[index] = audio
                voices[index] = EncodedSegment(self.pieces[index].turn, audio.codes)
        self.anchors = set(voices)
        context = tuple(voices.values())
        if self.form.mode == "chain":
            pieces = self._chain(start, context, spoken, before)
        else:
            pieces = self._batch(start, context, spoken)
        following = start
        for index, audio in pieces:
            spoken[index] = audio
            while following in spoken:
                yield self._join(following, spoken.pop(following), totals)
                following += 1

    def _candidates(self) -> list[list[int]]:
        """Pieces of each speaker of whom nothing is known, in the order in which they are tried."""
        known = {segment.turn.speaker for segment in self._conditioning.segments}
        own: dict[int, list[int]] = {}
        for index, piece in enumerate(self.pieces):
            if piece.turn.speaker not in known:
                own.setdefault(piece.turn.speaker, []).append(index)
        return [
            sorted(
                indices[:ANCHOR_PIECES],
                key=lambda index: len(self.pieces[index].turn.text),
                reverse=True,
            )[:ANCHOR_TRIES]
            for indices in own.values()
        ]

    def _anchor(
        self, candidates: Sequence[int], start: int, voices: tuple[EncodedSegment, ...]
    ) -> tuple[int, Audio] | None:
        """The candidate whose voice its speaker gets: what went wrong must not sound on.

        Those before `start` were tried when they were spoken, and are not that. The others that are
        not taken are spoken again, in the voice of the one that is.
        """
        tried: list[tuple[int, Audio]] = []
        cut_on_purpose = self._settings.length.max_frames is not None
        for index in candidates:
            if index < start:
                continue
            audio = self._say(self._after(index, voices))
            if audio.finish_reason == "eos" or (
                cut_on_purpose and audio.finish_reason == "max_frames"
            ):
                return index, audio
            if audio.finish_reason not in UNFIT:
                tried.append((index, audio))
        return min(tried, key=lambda one: _order(one[1]), default=None)

    def speak_again(
        self,
        index: int,
        seed: int,
        before: tuple[npt.NDArray[np.int32], str] | None = None,
        anchors: Mapping[int, npt.NDArray[np.int32]] | None = None,
    ) -> Audio:
        """One piece with another seed, as `speak` would hand it out.

        Args:
            index: Of the piece.
            seed: In place of its own.
            before: The codes of the piece before it, and how that ended.
            anchors: The codes of the anchors.
        """
        voices = tuple(
            EncodedSegment(self.pieces[number].turn, codes)
            for number, codes in (anchors or {}).items()
            if number != index
        )
        previous: tuple[EncodedSegment, ...] = ()
        is_after = (
            before is not None and before[1] not in UNFIT and index - 1 not in (anchors or {})
        )
        if self.form.mode == "chain" and before is not None and is_after:
            previous = (EncodedSegment(self.pieces[index - 1].turn, before[0]),)
        request = replace(self._after(index, voices, previous), seed=seed % SEED_LIMIT)
        return self._join(index, self._say(request), _Totals())

    def _batch(
        self,
        start: int,
        context: tuple[EncodedSegment, ...],
        spoken: Mapping[int, Audio],
    ) -> Iterator[tuple[int, Audio]]:
        rest = [i for i in range(start, len(self.pieces)) if i not in spoken]
        yield from list(spoken.items())
        requests = (self._after(index, context) for index in rest)
        jobs = as_done(self._scheduler, requests, self.form.batch_size, **self._how)
        with closing(jobs):  # type: ignore[type-var]
            for at, job in jobs:
                yield rest[at], job.result()

    def _chain(
        self,
        start: int,
        context: tuple[EncodedSegment, ...],
        spoken: Mapping[int, Audio],
        before: tuple[npt.NDArray[np.int32], str] | None,
    ) -> Iterator[tuple[int, Audio]]:
        early = dict(spoken)
        for index in range(start, len(self.pieces)):
            if index in early:
                audio = early[index]
            else:
                previous: tuple[EncodedSegment, ...] = ()
                if before is not None and before[1] not in UNFIT and index - 1 not in self.anchors:
                    previous = (EncodedSegment(self.pieces[index - 1].turn, before[0]),)
                audio = self._say(self._after(index, context, previous))
            before = audio.codes, audio.finish_reason or "eos"
            yield index, audio

    def request(self, index: int) -> Request:
        """A piece as if it were spoken alone."""
        seed = (self.seed + index) % SEED_LIMIT
        return Request((self.pieces[index].turn,), seed, self._settings, self._conditioning)

    def _say(self, request: Request) -> Audio:
        job = self._scheduler.submit(request, **self._how)
        try:
            return job.result()
        finally:
            job.cancel()

    def _after(
        self,
        index: int,
        anchors: tuple[EncodedSegment, ...],
        previous: tuple[EncodedSegment, ...] = (),
    ) -> Request:
        """A piece's request; what was spoken before is left out where it does not fit."""
        request = self.request(index)
        fixed = (*self._conditioning.segments, *anchors)
        for more in (previous, ()):
            try:
                if not anchors:
                    # A voice's own prefix serves all.
                    kept = self._conditioning
                    return self._resolver.checked(
                        replace(request, conditioning=replace(kept, context=(*kept.context, *more)))
                    )
                return self._resolver.with_context(request, fixed, more)
            except ContextLengthError:
                continue
        return request

    def _join(self, index: int, audio: Audio, totals: _Totals) -> Audio:
        rate = audio.sample_rate
        samples = trim_silence(audio.samples, rate)
        piece, form = self.pieces[index], self.form
        pause = piece.pause
        if pause is None and index and len(samples):
            pause = form.paragraph_pause if piece.paragraph else form.pause
        silence = np.zeros(round((pause or 0.0) * rate), np.float32)
        if audio.finish_reason in ("short", "empty"):
            empty = audio.finish_reason == "empty"
            warnings.warn(
                f"piece {index + 1} of {len(self.pieces)} "
                f"{'has no speech' if empty else 'is too short for its text'} in any of "
                f"{self._settings.retries + 1} attempts: {piece.turn.text[:60]!r}",
                stacklevel=2,
            )
        [turn] = audio.turns
        turn = replace(turn, index=index, sample_start=len(silence), samples=len(samples))
        samples = np.concatenate([silence, samples])
        totals.add(audio, len(samples) / rate)
        last = index == len(self.pieces) - 1
        return replace(
            audio,
            samples=samples,
            turns=(turn,),
            seed=self.seed,
            finish_reason=worst([*totals.reasons]) if last else None,
            stats=totals.stats(),
        )


def _order(audio: Audio) -> int:
    return FINISH_REASONS.index(audio.finish_reason or "eos")


class _Totals:
    """Stats of a reading so far."""

    def __init__(self) -> None:
        self._started = time.perf_counter()
        self._parts = Stats(0, 0, 0.0, 0, 0.0, 0.0, 0.0, None, 0.0)
        self.reasons: set[str] = set()

    def add(self, audio: Audio, seconds: float) -> None:
        sum_, part = self._parts, audio.stats
        now = time.perf_counter() - self._started
        first = sum_.time_to_first_audio
        self._parts = Stats(
            frames=sum_.frames + part.frames,
            codebooks=part.codebooks,
            audio_seconds=sum_.audio_seconds + seconds,
            prefill_rows=sum_.prefill_rows + part.prefill_rows,
            prefill_seconds=sum_.prefill_seconds + part.prefill_seconds,
            lm_seconds=sum_.lm_seconds + part.lm_seconds,
            codec_seconds=sum_.codec_seconds + part.codec_seconds,
            time_to_first_audio=now if first is None and seconds else first,
            total_seconds=now,
        )
        self.reasons.add(audio.finish_reason or "eos")

    def stats(self) -> Stats:
        return self._parts
