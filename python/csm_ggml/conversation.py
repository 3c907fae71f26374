"""A conversation: utterances asked for one by one, each continuing from the cache of the last."""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager
from typing import Any

from csm_ggml.audio.audio import Audio
from csm_ggml.audio.watermark import Watermark
from csm_ggml.speech.dialogue import Dialogue
from csm_ggml.speech.engine import Engine
from csm_ggml.speech.generation import Request
from csm_ggml.speech.options import SEED_LIMIT, Sampling, check_count, resolve_seed
from csm_ggml.speech.pool import Pool
from csm_ggml.speech.requests import RequestBuilder, check_options
from csm_ggml.speech.synthesis import WHOLE, ChunkSizes, Decoder, synthesize
from csm_ggml.voices.prompt import SpokenSegment
from csm_ggml.voices.segment import Segment


class Conversation:
    """Several speakers, turn by turn; made by `CSM.conversation`.

    It keeps an engine with one slot for itself until it is closed: use it in a `with` block, or
    call `close`. When its context is full, the oldest turns are forgotten, whole ones, and those
    that remain are evaluated again; voices and the context given at the beginning never are.
    One utterance at a time: it may be used from several threads, but they wait for each other.
    """

    def __init__(
        self,
        engines: Pool[Engine],
        requests: RequestBuilder,
        decoders: Pool[Decoder],
        *,
        sample_rate: int,
        frame_size: int,
        codebooks: int,
        watermark: Callable[[], Watermark | None],
        seed: int | None,
        options: Mapping[str, Any],
    ) -> None:
        """See `CSM.conversation`."""
        self._engines = engines
        self._requests = requests
        self._decoders = decoders
        self._sizes = {
            "sample_rate": sample_rate,
            "frame_size": frame_size,
            "codebooks": codebooks,
        }
        self._watermark = watermark
        self._seed = resolve_seed(seed)
        self._options = dict(options)
        check_options(self._options)
        # What every utterance has in common; also finds wrong options now and not at the first.
        self._first = requests.request("a", self._seed, self._options)
        self._known = {
            id(segment): spoken
            for segment, spoken in zip(
                options.get("context") or (),
                self._first.context[self._first.voices :],
                strict=True,
            )
        }
        self._lock = threading.Lock()
        self._owner: int | None = None
        self._lent = ExitStack()
        self._engine: Engine | None = None
        self._dialogue: Dialogue | None = None
        self._segments: list[SpokenSegment] = []
        self._closed = False

    @property
    def turns(self) -> tuple[Segment, ...]:
        """What was said and is remembered, oldest first, without the voices and the context."""
        return tuple(
            Segment(spoken.turn.speaker, spoken.turn.text, codes=spoken.codes)
            for spoken in self._segments
        )

    def say(self, text: str, *, seed: int | None = None, **options: Any) -> Audio:
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
        text: str,
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
        [spoken] = self._requests.context([segment], {})
        with self._alone():
            self._segments.append(spoken)
            if self._dialogue is not None:
                self._dialogue.segments.append(spoken)

    def close(self) -> None:
        """Give the engine back; nothing can be said any more."""
        with self._alone():
            self._closed = True
            self._engine = self._dialogue = None
            self._lent.close()

    def __enter__(self) -> Conversation:
        """The conversation."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close it."""
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

    def _request(self, text: str, seed: int | None, options: Mapping[str, Any]) -> Request:
        if own := sorted({"voice", "context"} & set(options)):
            raise TypeError(f"{own[0]} belongs to the whole conversation, not to one utterance")
        if seed is None:
            seed, self._seed = self._seed, (self._seed + 1) % SEED_LIMIT
        return self._requests.request(text, seed, {**self._options, **options}, self._known)

    def _speak(self, request: Request, chunks: ChunkSizes) -> Generator[Audio, None, None]:
        with self._alone():
            if self._closed:
                raise RuntimeError("the conversation is closed")
            engine, dialogue = self._place()
            before = list(self._segments)
            try:
                speech = synthesize(
                    engine,
                    self._requests.prompts,
                    self._decoders,
                    [request],
                    chunks=chunks,
                    dialogue=dialogue,
                    watermark=self._watermark(),
                    **self._sizes,
                )
                with closing(speech):
                    for _, chunk in speech:
                        if chunk.finish_reason is not None:
                            # The last chunk: who takes it need not ask for another.
                            self._segments = list(dialogue.segments)
                        yield chunk
            except GeneratorExit:
                if self._segments == before:
                    dialogue.restore(before)
                raise
            except BaseException as error:
                self._segments = before
                self._engine = self._dialogue = None
                # Nobody knows what state the engine was left in: the pool drops it.
                self._lent.__exit__(type(error), error, error.__traceback__)
                raise

    def _place(self) -> tuple[Engine, Dialogue]:
        """The engine and the slot; both anew at the beginning and after an error."""
        if self._engine is None or self._dialogue is None:
            self._engine, slot = self._lent.enter_context(_borrow_slot(self._engines))
            self._dialogue = Dialogue(
                self._engine,
                slot,
                self._requests.prompts,
                context=self._first.context[self._first.voices :],
                prefix=self._first.prefix,
                segments=self._segments,
            )
        return self._engine, self._dialogue


@contextmanager
def _borrow_slot(engines: Pool[Engine]) -> Iterator[tuple[Engine, int]]:
    """An engine and a slot of it, freed when the block ends or its owner is garbage."""
    with engines.borrow() as engine:
        slot = engine.open(seed=0, **Sampling().as_dict())
        try:
            yield engine, slot
        except GeneratorExit:
            engine.close(slot)
            raise
        else:
            engine.close(slot)
