"""A conversation: utterances asked for one by one, each continuing from the cache of the last."""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from csm_ggml.audio.audio import Audio
from csm_ggml.audio.watermark import Watermark
from csm_ggml.limits import SEED_LIMIT, check_count
from csm_ggml.speech.options import resolve_seed
from csm_ggml.speech.request import Request
from csm_ggml.speech.resolve import Known, Resolver
from csm_ggml.speech.scheduler import Scheduler
from csm_ggml.speech.utterance import WHOLE, ChunkSizes
from csm_ggml.text.reading import Text
from csm_ggml.text.turns import check_speaker
from csm_ggml.voices.prompt import EncodedSegment
from csm_ggml.voices.segment import Segment

# Unread speech after which a stream pauses.
BUFFER_SECONDS = 60.0


class Conversation:
    """Several speakers, turn by turn; made by `CSM.conversation`.

    It keeps the KV cache of what was said: in a slot of the engine, or, when others need the slot,
    saved beside it, so that any number of conversations may be open. Use it in a `with` block, or
    call `close`. When its context is full, the oldest turns are forgotten, whole ones, and those
    that remain are evaluated again; voices and the context given at the beginning never are.
    One utterance at a time: it may be used from several threads, but they wait for each other.
    """

    def __init__(
        self,
        scheduler: Scheduler,
        resolver: Resolver,
        *,
        watermark: Callable[[], Watermark | None],
        seed: int | None,
        options: Mapping[str, Any],
    ) -> None:
        """See `CSM.conversation`."""
        self._scheduler = scheduler
        self._resolver = resolver
        self._watermark = watermark
        self._seed = resolve_seed(seed)
        self._options = {k: v for k, v in options.items() if k not in ("voice", "context")}
        known = Known()
        voices = resolver.voices(options.get("voice"), known)
        self._conditioning = resolver.conditioning(voices, options.get("context"), known)
        # Who says text without a tag; also finds wrong options now and not at the first utterance.
        self._speaker = resolver.speaker(options, voices)
        resolver.settings(self._options)
        self._lock = threading.Lock()
        self._owner: int | None = None
        self._dialogue = scheduler.lease(self._conditioning)
        scheduler.release_with(self, self._dialogue)
        self._segments: tuple[EncodedSegment, ...] = ()
        self._closed = False

    @property
    def turns(self) -> tuple[Segment, ...]:
        """What was said and is remembered, oldest first, without the voices and the context."""
        return tuple(
            Segment(spoken.turn.speaker, spoken.turn.text, codes=spoken.codes, tags=False)
            for spoken in self._segments
        )

    def say(self, text: Text, *, seed: int | None = None, **options: Any) -> Audio:
        """Speak the next turn, or several.

        An utterance that fails or is interrupted is forgotten, as if it had never been asked for.

        Args:
            text: As in `CSM.generate`.
            seed: Of this utterance; by default the conversation's, counted up.
            **options: As in `CSM.generate`, except voice and context, for this utterance alone.

        Raises:
            As `CSM.generate`; RuntimeError if the conversation is closed, or a stream of it open.
        """
        request = self._request(text, seed, options)
        return Audio.concatenate(self._speak(request, WHOLE))

    def stream(
        self,
        text: Text,
        *,
        seed: int | None = None,
        first_chunk_frames: int = 1,
        chunk_frames: int = 6,
        **options: Any,
    ) -> Generator[Audio, None, None]:
        """Speak the next turn, or several, in chunks as `CSM.stream` does.

        The turn is said when the iterator has ended. Closing it before forgets the turn; another
        thread's utterance waits until either has happened.

        Args:
            text: As in `say`.
            seed: As in `say`.
            first_chunk_frames: Frames in the first chunk.
            chunk_frames: Frames in each chunk after it.
            **options: As in `say`.
        """
        chunks = ChunkSizes(
            first=check_count("first_chunk_frames", first_chunk_frames),
            later=check_count("chunk_frames", chunk_frames),
        )
        return self._speak(self._request(text, seed, options), chunks)

    def listen(self, segment: Segment) -> None:
        """Take in a turn that was spoken by somebody else, such as the user.

        Args:
            segment: Who said what, and how it sounded.

        Raises:
            ValueError: As for `Segment` in `context`.
        """
        spoken = self._resolver.encoded(segment)
        with self._alone():
            self._segments += (spoken,)

    def close(self) -> None:
        """Give the cache up; nothing can be said any more."""
        with self._alone():
            self._closed = True
            self._scheduler.release(self._dialogue)

    def __enter__(self) -> Conversation:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Keep other threads waiting; the same thread would wait for itself forever.

        Raises:
            RuntimeError: If a stream is open that this thread has begun.
        """
        if not self._lock.acquire(blocking=self._owner != threading.get_ident()):
            raise RuntimeError(
                "a stream of this conversation is still open: read it to its end, or close it"
            )
        self._owner = threading.get_ident()
        try:
            yield
        finally:
            self._owner = None
            self._lock.release()

    def _request(self, text: Text, seed: int | None, options: Mapping[str, Any]) -> Request:
        if own := sorted({"voice", "context"} & set(options)):
            raise TypeError(f"{own[0]} belongs to the whole conversation, not to one utterance")
        options = {**self._options, **options}
        speaker = options.get("speaker")
        speaker = self._speaker if speaker is None else check_speaker(speaker)
        before = (*self._conditioning.segments, *self._segments)
        speakers = {segment.turn.speaker for segment in before}
        turns = self._resolver.turns(text, options, speaker=speaker, speakers=speakers)
        settings = self._resolver.settings(options)
        if seed is None:
            seed, self._seed = self._seed, (self._seed + 1) % SEED_LIMIT
        request = Request(turns, resolve_seed(seed), settings, self._conditioning)
        return self._resolver.checked(request)

    def _speak(self, request: Request, chunks: ChunkSizes) -> Generator[Audio, None, None]:
        with self._alone():
            if self._closed:
                raise RuntimeError("the conversation is closed")
            job = self._scheduler.submit(
                replace(request, history=self._segments),
                chunks=chunks,
                buffer=BUFFER_SECONDS,
                watermark=self._watermark(),
                lease=self._dialogue,
            )
            try:
                for chunk in job:
                    if chunk.finish_reason is not None:
                        # The last chunk: who takes it need not ask for another.
                        job.wait()
                        job.check()
                        self._segments = job.segments
                    yield chunk
            finally:
                job.cancel()
