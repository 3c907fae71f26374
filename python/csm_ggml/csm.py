"""`CSM`, the class that people use: a loaded checkpoint that reads, speaks, encodes and decodes."""

from __future__ import annotations

import asyncio
import os
import sys
import threading
from collections.abc import (
    AsyncGenerator,
    Callable,
    Generator,
    Iterable,
    Iterator,
    Mapping,
    Sequence,
)
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from csm_ggml import _core
from csm_ggml.audio.audio import Audio, output_format
from csm_ggml.audio.watermark import Watermark
from csm_ggml.conversation import Conversation
from csm_ggml.limits import check_count, number
from csm_ggml.loading import hub
from csm_ggml.loading.model import Model
from csm_ggml.loading.threads import default_threads
from csm_ggml.longform.pieces import Piece
from csm_ggml.longform.reading import LongForm, LongReading, as_long_form, pieces_of
from csm_ggml.longform.recording import Progress, Recording, job_digest, record
from csm_ggml.speech.batch import batch_options, batch_seeds
from csm_ggml.speech.job import Job
from csm_ggml.speech.options import GenerateOptions, resolve_seed
from csm_ggml.speech.request import Conditioning, Request
from csm_ggml.speech.resolve import Known, Resolver
from csm_ggml.speech.scheduler import QUEUE, SLOTS, Scheduler
from csm_ggml.speech.utterance import WHOLE, ChunkSizes
from csm_ggml.speech.window import as_done
from csm_ggml.text.reading import Text
from csm_ggml.text.turns import parse_turns
from csm_ggml.voices.segment import AudioLike, Segment
from csm_ggml.voices.voice import Voice, VoiceLike, VoicePrefix

if sys.version_info >= (3, 11):
    from typing import Unpack
else:
    from typing_extensions import Unpack

# Utterances of a batch that are under way at a time unless asked for otherwise.
BATCH_SIZE = 16
# Unread speech after which a stream pauses.
BUFFER_SECONDS = 60.0
# What of the options says how a request is scheduled, not how it sounds.
_HOW = ("priority", "deadline", "buffer")


class CSM:
    """A checkpoint, loaded. May be used from several threads at once, whose requests share batches.

    Attributes:
        model: Weights, hyper-parameters, tokenizer and codec.
        scheduler: Speaks the requests of all callers; `scheduler.stats()` tells what it is doing.
        watermark: A function that sees each chunk of speech before it is handed out, and returns
            its samples, as many as it got; None for none. It runs in the scheduler's thread, so it
            should be quick; what it raises ends its own request. Chunks of one request come in
            order; a chunk's last turn has a finish_reason when the turn is complete, the chunk one
            when the request is. With a hook whose result depends on where chunks begin, `stream`
            and `generate` differ. What later turns are conditioned on are codes, before the hook.
    """

    watermark: Watermark | None = None

    def __init__(
        self,
        model: Model,
        *,
        slots: int = SLOTS,
        queue: int = QUEUE,
        realtime: float | None = None,
    ) -> None:
        """Wrap a loaded model; `CSM.from_pretrained` is the usual way.

        Args:
            model: Of `Model.load`.
            slots: As in `from_pretrained`.
            queue: As in `from_pretrained`.
            realtime: As in `from_pretrained`.

        Raises:
            TypeError: If model is a name: names go to `from_pretrained`.
        """
        if not isinstance(model, Model):
            raise TypeError(
                f"CSM() takes a loaded model, got {model!r}; to load one, call "
                f"CSM.from_pretrained({model!r})"
            )
        self.model = model
        self._settings: dict[str, Any] = {
            "slots": check_count("slots", slots),
            "queue": check_count("queue", queue, least=0),
            "realtime": realtime,
        }
        if realtime is not None and not 0 < number("realtime", realtime) <= 1:
            raise ValueError(
                f"realtime must be above 0 and at most 1 (a share of a frame), got {realtime}"
            )
        self._origin: dict[str, Any] | None = None
        self._lock = threading.RLock()
        self._scheduler: Scheduler | None = None
        self._resolving: Resolver | None = None

    @classmethod
    def from_pretrained(
        cls,
        name_or_path: str | os.PathLike[str] | Sequence[str | os.PathLike[str]] = hub.DEMO,
        *,
        preset: str | None = None,
        device: str = "auto",
        threads: int | None = None,
        revision: str | None = None,
        local_files_only: bool = False,
        cache_dir: str | os.PathLike[str] | None = None,
        token: str | bool | None = None,
        slots: int = SLOTS,
        queue: int = QUEUE,
        realtime: float | None = None,
    ) -> CSM:
        """Load a checkpoint.

        Args:
            name_or_path: "demo"; "csm-1b" (fetched from ggml-org/sesame-csm-1b-GGUF); a hub
                repository "owner/name", or a file of one, "owner/name/file.gguf"; a folder; a
                .gguf file; or the three files of a llama.cpp conversion (one of them is enough if
                the others lie beside it). With a preset also "miso-tts", "marvis-250m", and PyTorch
                weights: a folder, file or repository, a fine-tune or an adapter.
            preset: "fast", "balanced", "high" or "exact": the number formats of
                docs/QUANTIZATION.md. The model is converted once, into this package's cache (with a
                progress bar where stderr is a terminal), and loaded from there at once from then
                on. None: as it is.
            device: "auto" takes a GPU if there is one, else the CPU; or the name of a device as
                `csm-ggml doctor` lists it.
            threads: CPU threads; default is the physical cores that this process may use.
            revision: Branch, tag or commit of a hub repository.
            local_files_only: Never use the network.
            cache_dir: The hub cache; default is huggingface_hub's.
            token: Hub access token; default is the one of `hf auth login`.
            slots: Utterances that are spoken side by side at most; further ones wait.
            queue: Requests that may wait; beyond that `QueueFull` is raised.
            realtime: Share of a frame (80 ms) that one step may last while "live" requests are
                spoken: a further one is admitted only if the step then stays below it, and "bulk"
                requests take what is left. None: a request waits for a free slot only.

        Raises:
            ModelNotFoundError: If there is no such model, or it cannot be fetched.
            ModelFormatError: If a file is damaged, incomplete or of another kind.
            ValueError: If the preset is unknown.
            OSError: If the cache of converted models cannot be written.
            BackendError: If the device cannot be used or has too little memory.
        """
        threads = default_threads() if threads is None else check_count("threads", threads)
        where: dict[str, Any] = {
            "revision": revision,
            "local_files_only": local_files_only,
            "cache_dir": cache_dir,
        }
        model = Model.load(
            name_or_path, device=device, threads=threads, preset=preset, token=token, **where
        )
        csm = cls(model, slots=slots, queue=queue, realtime=realtime)
        csm._origin = {
            "name_or_path": _absolute(name_or_path),
            "preset": preset,
            "device": device,
            "threads": threads,
            **where,
            **csm._settings,
        }
        return csm

    # What it is

    @property
    def name(self) -> str:
        """What it was loaded as."""
        return self.model.name

    @property
    def config(self) -> dict[str, Any]:
        """Hyper-parameters under the names of docs/GGUF.md."""
        return dict(self.model.config)

    @property
    def device(self) -> str:
        """The device that computes."""
        return self.model.core.device

    @property
    def threads(self) -> int:
        """CPU threads that compute."""
        return self.model.core.threads

    @property
    def sample_rate(self) -> int:
        """Samples per second."""
        return self.model.geometry.sample_rate

    @property
    def frame_size(self) -> int:
        """Samples in a frame."""
        return self.model.geometry.frame_size

    @property
    def frame_rate(self) -> float:
        """Frames per second."""
        return self.model.geometry.frame_rate

    @property
    def codebooks(self) -> int:
        """Codes in a frame."""
        return self.model.geometry.codebooks

    @property
    def context_length(self) -> int:
        """Rows that the backbone can attend to, text and speech together."""
        return self.model.geometry.context_length

    @property
    def fingerprint(self) -> str:
        """32 hexadecimal digits that tell this model, in this number format, from all others."""
        return self.model.fingerprint

    def __repr__(self) -> str:
        return (
            f"CSM({self.name!r}, device={self.device!r}, threads={self.threads}, "
            f"{self.model.core.weight_bytes / 1e6:.0f} MB of weights)"
        )

    # Text to speech

    def generate(
        self,
        text: Text,
        *,
        seed: int | None = None,
        long_form: str | LongForm | None = None,
        **options: Unpack[GenerateOptions],
    ) -> Audio:
        """Speak.

        Args:
            text: What to say, with speaker tags or as a list of `Turn`: `"[0]Hello. [1]Hi!"` is two
                turns, spoken one after another, each conditioned on those before. Text before a
                first tag gets `speaker`. Blank lines and headings part turns with a pause between;
                other line breaks count as spaces.
            seed: The same seed gives the same speech, whatever the batch, the threads and the
                other requests. If omitted, a random seed is chosen and reported in `Audio.seed`.
            long_form: For texts of any length: "batch" or "chain", or all settings as a
                `LongForm`. The text is cut into pieces, which are spoken with the same voice and
                joined without their silent ends; `codes` do not match `samples` then.
            **options: See `GenerateOptions`: temperature, top_k, top_p, depth_temperature,
                depth_top_k, depth_top_p, max_seconds, max_frames, silence_seconds, silence_db,
                loop_seconds, retries, voice, context, speaker, tags, normalize, lexicon.
                temperature=0 is greedy.

        Returns:
            The speech. A turn whose first frame already says "end" has no samples. If fewer frames
            than asked for fit into the model's context, the turn is cut there; earlier turns are
            forgotten, oldest first, when less than a quarter of the context would remain for a
            turn (or less than its limit, if that is smaller).

        Raises:
            ContextLengthError: If text and context segments leave no room for one frame.
            QueueFull: If too many requests wait already.
            ValueError: If the text is empty or an option is out of range.
            TypeError: If an option is unknown or of the wrong type.
        """
        if long_form is not None:
            return Audio.concatenate(self._reading(text, seed, long_form, options).speak())
        return self._result(self._resolver.request(text, seed, options))

    def stream(
        self,
        text: Text,
        *,
        seed: int | None = None,
        long_form: str | LongForm | None = None,
        first_chunk_frames: int = 1,
        chunk_frames: int = 6,
        **options: Unpack[GenerateOptions],
    ) -> Generator[Audio, None, None]:
        """Speak, and hand out the speech while it is being made.

        Joined (`Audio.concatenate`), the chunks are exactly what `generate` returns. Speaking
        begins with the first chunk that is asked for, and goes on ahead of the caller by a minute
        of speech at most. Closing the iterator, or dropping it, stops it.

        Args:
            text: As in `generate`.
            seed: As in `generate`.
            long_form: As in `generate`; a chunk is a whole piece then.
            first_chunk_frames: Frames in the first chunk; few, so that the sound starts early.
            chunk_frames: Frames in each chunk after it. With `retries`, chunks are whole turns
                instead: what was handed out cannot be drawn again.
            **options: As in `generate`.

        Returns:
            An iterator of chunks. A chunk belongs to one turn; the last one of a turn tells in
            `turns[0].finish_reason` how the turn ended, and may be empty; the last one of all has
            `finish_reason`.

        Raises:
            As `generate`, and at once, not at the first chunk.
        """
        chunks = _chunk_sizes(first_chunk_frames, chunk_frames)
        if long_form is not None:
            return self._reading(text, seed, long_form, options).speak()
        request = self._resolver.request(text, seed, options)

        def stream() -> Generator[Audio, None, None]:
            job = self._submit(request, chunks=chunks, buffer=BUFFER_SECONDS)
            try:
                yield from job
            finally:
                job.cancel()

        return stream()

    def submit(
        self,
        text: Text,
        *,
        seed: int | None = None,
        first_chunk_frames: int = 1,
        chunk_frames: int = 6,
        priority: str = "live",
        deadline: float | None = None,
        buffer: float | None = BUFFER_SECONDS,
        **options: Unpack[GenerateOptions],
    ) -> Job:
        """Have a text spoken, and go on: the job is iterated over, awaited or asked for its result.

        Args:
            text: As in `generate`.
            seed: As in `generate`.
            first_chunk_frames: As in `stream`.
            chunk_frames: As in `stream`.
            priority: "live" requests go before "bulk" ones.
            deadline: Seconds from now after which the job fails with `DeadlineExceeded`.
            buffer: Seconds of unread speech after which this job alone pauses until it is read;
                None for no limit.
            **options: As in `generate`.

        Raises:
            QueueFull: If too many requests wait already.
            As `generate`.
        """
        chunks = _chunk_sizes(first_chunk_frames, chunk_frames)
        request = self._resolver.request(text, seed, options)
        return self._submit(
            request, chunks=chunks, priority=priority, deadline=deadline, buffer=buffer
        )

    async def agenerate(
        self,
        text: Text,
        *,
        seed: int | None = None,
        long_form: str | LongForm | None = None,
        **options: Any,
    ) -> Audio:
        """As `generate`, for `await`. Cancelling the task stops it.

        Args:
            text: As in `generate`.
            seed: As in `generate`.
            long_form: As in `generate`.
            **options: As in `generate`; and priority and deadline as in `submit`.
        """
        stream = self._astream(text, seed, long_form, WHOLE, options)
        try:
            return Audio.concatenate([chunk async for chunk in stream])
        finally:
            await stream.aclose()

    async def astream(
        self,
        text: Text,
        *,
        seed: int | None = None,
        long_form: str | LongForm | None = None,
        first_chunk_frames: int = 1,
        chunk_frames: int = 6,
        **options: Any,
    ) -> AsyncGenerator[Audio, None]:
        """As `stream`, for `async for`. Closing the generator, or cancelling the task, stops it.

        Args:
            text: As in `stream`.
            seed: As in `stream`.
            long_form: As in `stream`.
            first_chunk_frames: As in `stream`.
            chunk_frames: As in `stream`.
            **options: As in `generate`; and priority, deadline and buffer as in `submit`.
        """
        chunks = _chunk_sizes(first_chunk_frames, chunk_frames)
        stream = self._astream(text, seed, long_form, chunks, options)
        try:
            async for chunk in stream:
                yield chunk
        finally:
            await stream.aclose()

    def generate_codes(
        self, text: Text, *, seed: int | None = None, **options: Unpack[GenerateOptions]
    ) -> npt.NDArray[np.int32]:
        """The codes of `generate` without their sound: (frames, codebooks) int32."""
        return self._result(self._resolver.request(text, seed, options, sound=False)).codes

    def generate_batch(
        self,
        texts: Iterable[Text],
        *,
        seed: int | Sequence[int] | None = None,
        batch_size: int = BATCH_SIZE,
        **options: Any,
    ) -> list[Audio]:
        """Speak several texts side by side, which costs far less than one after another.

        Each result is what `generate` returns for its text, seed and options alone.

        Args:
            texts: What to say; each as in `generate`.
            seed: One for each text; or a number that the first text gets, the next text one more,
                and so on.
            batch_size: At most so many at a time; the others wait. No more than the model's slots
                are spoken at once.
            **options: As in `generate`, for all texts; or a list with one value (or None) for each
                text. A voice's or a context's own value is a list then: `voice=[a, b]` are two
                speakers of every text, `voice=[[a], [b]]` is a voice for each of two texts.

        Raises:
            ValueError: If there is more or less than one seed or option for each text, and as
                `generate`; the message names the number of the text.
        """
        numbered = dict(self.as_completed(texts, seed=seed, batch_size=batch_size, **options))
        return [numbered[number] for number in range(len(numbered))]

    def as_completed(
        self,
        texts: Iterable[Text],
        *,
        seed: int | Sequence[int] | None = None,
        batch_size: int = BATCH_SIZE,
        return_exceptions: bool = False,
        **options: Any,
    ) -> Iterator[tuple[int, Audio | Any]]:
        """As `generate_batch`, but each result as soon as it is there.

        Args:
            texts: As in `generate_batch`.
            seed: As in `generate_batch`.
            batch_size: As in `generate_batch`.
            return_exceptions: Whether a text that cannot be spoken has its exception for a result,
                and the others are spoken all the same.
            **options: As in `generate_batch`.

        Returns:
            An iterator of pairs: the number of a text, and its speech (or its exception). Closing
            it stops the rest.

        Raises:
            As `generate_batch`, and at once, not at the first result.
        """
        if isinstance(texts, str | bytes):
            raise TypeError("texts must be a sequence of str; for one text use generate()")
        texts = list(texts)
        batch_size = check_count("batch_size", batch_size)
        seeds = batch_seeds(seed, len(texts))
        per_text = batch_options(options, len(texts))
        known = Known()
        asked: list[int] = []
        failed: list[tuple[int, Exception]] = []

        def resolved() -> Iterator[Request]:
            for index, (text, own_seed, own) in enumerate(zip(texts, seeds, per_text, strict=True)):
                try:
                    request = self._resolver.request(text, own_seed, own, known)
                except (ValueError, TypeError, OSError) as error:
                    if return_exceptions:
                        failed.append((index, error))
                        continue
                    if not isinstance(error, OSError):
                        error.args = (f"text {index}: {error}",)
                    raise
                asked.append(index)
                yield request
            known.warn_of_unused_voices()

        # A mistake in any of them is told before the first is spoken, unless it is a result.
        requests = resolved() if return_exceptions else list(resolved())

        def results() -> Iterator[tuple[int, Audio | Exception]]:
            jobs = as_done(
                self.scheduler, requests, batch_size, priority="bulk", watermark=self.watermark
            )
            with closing(jobs):  # type: ignore[type-var]
                for number, job in jobs:
                    result: Audio | Exception
                    try:
                        result = job.result()
                    except Exception as error:
                        if not return_exceptions:
                            raise
                        result = error
                    yield asked[number], result
                    while failed:
                        yield failed.pop()
            yield from failed

        return results()

    # Long texts

    def generate_to_file(
        self,
        text: Text,
        path: str | os.PathLike[str],
        *,
        long_form: str | LongForm = "batch",
        seed: int | None = None,
        resume: bool = True,
        progress: Callable[[Progress], None] | None = None,
        **options: Unpack[GenerateOptions],
    ) -> Recording:
        """Speak a long text, such as a chapter, into an audio file.

        Memory does not grow with the text. The file appears when it is complete; what is spoken is
        noted in a file beside it, `path` + ".progress", until all is done: after an interruption
        the same call goes on where it was, and gives the same file. An interrupted run of another
        text, model, watermark, option or seed is kept as `path` + ".progress.1" (or .2, ...), with
        a warning, until its own call comes back. FIFOs and devices get what is spoken at once.

        Args:
            text: What to say; blank lines separate paragraphs. See `LongForm` for how it is taken
                apart and joined.
            path: .wav, .flac, .ogg, .mp3 or .opus, 16 bits.
            long_form: "batch", "chain", or all settings as a `LongForm`.
            seed: Of the first piece; each further piece gets one more. If omitted, a random seed
                is chosen and reported in the result.
            resume: Whether to go on with an interrupted run of the same text, model and options;
                else it starts anew.
            progress: Called after each piece.
            **options: As in `generate`, for each piece; retries is 2 if left out.

        Raises:
            AudioFileError: If the extension is unknown.
            BlockingIOError: If another process records into the file.
            As `generate`, and OSError.
        """
        output_format(path)
        reading = self._reading(text, seed, long_form, options)
        return record(
            reading,
            path,
            job=job_digest(reading, self.fingerprint, self.watermark),
            seed_given=seed is not None,
            sample_rate=self.sample_rate,
            resume=resume,
            progress=progress,
        )

    def reading(
        self,
        text: Text,
        *,
        seed: int | None = None,
        long_form: str | LongForm = "batch",
        **options: Any,
    ) -> LongReading:
        """A long text taken apart and checked, to be spoken piece by piece.

        Args:
            text: As in `generate_to_file`.
            seed: As there.
            long_form: As there.
            **options: As there.

        Raises:
            As `generate`.
        """
        return self._reading(text, seed, long_form, options)

    def pieces(
        self, text: Text, *, long_form: str | LongForm = "batch", **options: Any
    ) -> list[Piece]:
        """What a long text would be spoken in; nothing is spoken.

        Args:
            text: As in `generate_to_file`.
            long_form: As there.
            **options: As there.

        Raises:
            As `generate`.
        """
        voices = self._resolver.voices(options.get("voice"))
        return pieces_of(self._resolver, text, as_long_form(long_form), options, voices)

    # Voices and conversations

    def create_voice(
        self,
        audio: AudioLike,
        transcript: str,
        speaker: int = 0,
        *,
        prefix: bool = False,
        tags: bool | None = None,
    ) -> Voice:
        """Make a voice of a recording, to be given as `voice=`.

        Args:
            audio: A path to an audio file, (n,) samples at the model's rate, a pair (samples,
                sample_rate), or an `Audio`. Ten seconds of clear speech are a good length.
            transcript: What is said in it, word for word.
            speaker: The number that the voice will speak as.
            prefix: Also compute the KV cache of the voice, so that the first utterance starts as
                quickly as the later ones. It is saved with the voice, makes the file large (32 kB
                a row for CSM-1B), and binds it to this very model.
            tags: Whether a number in brackets in the transcript is a speaker tag, which may only
                repeat the speaker; None: where it looks like one.

        Raises:
            ContextLengthError: If the recording leaves no room for speech.
            ValueError: If the transcript is empty, the audio cannot be encoded, or a prefix is
                asked for of a model with voice match.
            AudioFileError: The same for a file.
            ModelFormatError: If the model file has no encoder.
        """
        voice = self._resolver.new_voice(Segment(speaker, transcript, audio, tags=tags))
        return self._with_prefix(voice) if prefix else voice

    def check_voice(self, voice: Voice) -> None:
        """Make sure that this model can speak with a voice.

        Raises:
            ValueError: If it is not of this kind of model, was made with another codec, or its
                cached KV prefix with another model.
        """
        self._resolver.conditioning([voice], None)

    def conversation(
        self,
        *,
        voice: VoiceLike | Sequence[VoiceLike] | None = None,
        context: Sequence[Segment] | None = None,
        seed: int | None = None,
        **options: Any,
    ) -> Conversation:
        """Begin a conversation: each utterance continues from the KV cache of those before.

        Args:
            voice: As in `GenerateOptions`: one for each speaker.
            context: What was said before; never forgotten.
            seed: Of the first utterance; the next one gets one more, and so on. If omitted, a
                random seed is chosen.
            **options: As in `generate`, for all utterances.

        Raises:
            As `generate`.
        """
        return Conversation(
            self.scheduler,
            self._resolver,
            watermark=lambda: self.watermark,
            seed=seed,
            options={**options, "voice": voice, "context": context},
        )

    # Text and codec alone

    def tokenize(self, text: str, *, speaker: int = 0, tags: bool | None = None) -> list[int]:
        """Text ids as the model gets them: BOS, `[speaker]text`, EOS for each turn."""
        turns = parse_turns(text, speaker=speaker, tags=tags)
        tokenizer = self.model.tokenizer
        return [i for t in turns for i in tokenizer.encode_turn(t.speaker, t.text)]

    def decode(self, codes: npt.ArrayLike) -> npt.NDArray[np.float32]:
        """Codes to sound.

        Args:
            codes: (frames, q) whole numbers, with 1 <= q <= codebooks: fewer codebooks give
                rougher sound.

        Returns:
            (frames * frame_size,) float32 samples.

        Raises:
            ValueError: If shape, type or a value is not right.
        """
        return self.model.codec.decode(codes)

    def encode(
        self, samples: npt.ArrayLike | str | os.PathLike[str], sample_rate: int | None = None
    ) -> npt.NDArray[np.int32]:
        """Sound to codes.

        Args:
            samples: (n,) or (n, channels), float with full scale 1 or signed integers; or a path
                to an audio file. Channels are averaged; the gain stays as it is.
            sample_rate: Rate of the samples; default is the model's. Other rates are resampled.

        Returns:
            (ceil(n / frame_size), codebooks) int32, n counted at the model's rate.

        Raises:
            ValueError: If the samples are empty, not finite, or not shaped like sound.
            AudioFileError: The same for a file.
            ModelFormatError: If the model file has no encoder.
        """
        return self.model.codec.encode(samples, sample_rate)

    # Life

    @property
    def scheduler(self) -> Scheduler:
        """Speaks the requests of all callers; starts with the first of them."""
        with self._lock:
            if self._scheduler is None:
                core = self.model.core
                self._scheduler = Scheduler(
                    lambda slots: _core.Engine(core, slots=slots),
                    lambda streams: _core.MimiDecoder(core, streams),
                    self._resolver.prompts,
                    self.model.geometry,
                    **self._settings,
                )
            return self._scheduler

    def close(self, *, drain: bool = False) -> None:
        """Stop speaking, and free the engine; it cannot speak any more, but encode and decode.

        Args:
            drain: Wait until all requests are spoken; else they end with `JobCancelled`.
        """
        self.scheduler.close(drain=drain)

    def __enter__(self) -> CSM:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickled by what it was loaded from: unpickling loads it again."""
        if self._origin is None:
            raise TypeError("only a CSM of CSM.from_pretrained can be pickled")
        return _load_again, (type(self), self._origin, self.watermark)

    # Inside

    @property
    def _resolver(self) -> Resolver:
        with self._lock:
            if self._resolving is None:
                self._resolving = Resolver(self.model)
            return self._resolving

    def _submit(self, request: Request, **how: Any) -> Job:
        return self.scheduler.submit(request, watermark=self.watermark, **how)

    async def _astream(
        self,
        text: Text,
        seed: int | None,
        long_form: str | LongForm | None,
        chunks: ChunkSizes,
        options: dict[str, Any],
    ) -> AsyncGenerator[Audio, None]:
        how = {name: options.pop(name) for name in _HOW if name in options}
        # Voices and context may have to be read and encoded, which is no work for the event loop.
        if long_form is not None:
            priority = how.get("priority", "live")
            reading = await asyncio.to_thread(
                self._reading, text, seed, long_form, options, priority
            )
            pieces = reading.speak()
            try:
                while (piece := await asyncio.to_thread(next, pieces, None)) is not None:
                    yield piece
            finally:
                await asyncio.to_thread(pieces.close)
            return
        request = await asyncio.to_thread(self._resolver.request, text, seed, options)
        job = self._submit(request, chunks=chunks, **{"buffer": BUFFER_SECONDS, **how})
        try:
            async for chunk in job:
                yield chunk
        finally:
            job.cancel()

    def _result(self, request: Request) -> Audio:
        job = self._submit(request)
        try:
            return job.result()
        finally:
            job.cancel()

    def _reading(
        self,
        text: Text,
        seed: int | None,
        long_form: str | LongForm,
        options: Mapping[str, Any],
        priority: str = "bulk",
    ) -> LongReading:
        return LongReading(
            self.scheduler,
            self._resolver,
            text,
            seed=resolve_seed(seed),
            long_form=as_long_form(long_form),
            options=options,
            priority=priority,
            watermark=self.watermark,
        )

    def _with_prefix(self, voice: Voice) -> Voice:
        conditioning = self._resolver.conditioning([voice], None)
        if conditioning.prefix is None:
            raise ValueError(
                f"{self.model.label} reads a voice and the new words as one segment (voice match), "
                "so that there is no KV cache of the voice alone to keep; leave out prefix=True"
            )
        if conditioning.prefix.data is None:
            alone = Conditioning(conditioning.voices, (), conditioning.prefix)
            job = self._submit(Request(turns=(), seed=0, conditioning=alone))
            try:
                job.wait()
            finally:
                job.cancel()
            job.check()
        assert conditioning.prefix.data is not None
        made = VoicePrefix(self.model.label, self.fingerprint, conditioning.prefix.data)
        return replace(voice, prefix=made)


def _chunk_sizes(first: int, later: int) -> ChunkSizes:
    return ChunkSizes(
        first=check_count("first_chunk_frames", first), later=check_count("chunk_frames", later)
    )


def _absolute(name: Any) -> Any:
    """Names of the hub stay, files and folders get their whole path."""
    if isinstance(name, str | os.PathLike):
        return str(Path(name).resolve()) if Path(name).exists() else os.fspath(name)
    return [_absolute(part) for part in name]


def _load_again(kind: type[CSM], origin: dict[str, Any], watermark: Watermark | None) -> CSM:
    csm = kind.from_pretrained(**origin)
    csm.watermark = watermark
    return csm
