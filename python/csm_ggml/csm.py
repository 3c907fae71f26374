"""`CSM`, the class that people use: a loaded checkpoint that reads, speaks, encodes and decodes."""

from __future__ import annotations

import os
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from csm_ggml import _core
from csm_ggml.audio.audio import Audio, output_format
from csm_ggml.audio.watermark import Watermark
from csm_ggml.conversation import Conversation
from csm_ggml.loading import hub
from csm_ggml.loading.backends import load_backends
from csm_ggml.loading.loaded import LoadedModel
from csm_ggml.loading.threads import default_threads
from csm_ggml.longform.reading import LongForm, LongReading, as_long_form
from csm_ggml.longform.recording import Progress, Recording, job_digest, record
from csm_ggml.speech.batch import batch_options, batch_seeds
from csm_ggml.speech.generation import Request, generate_frames, spoken_codes
from csm_ggml.speech.options import GenerateOptions, check_count, resolve_seed
from csm_ggml.speech.synthesis import WHOLE, ChunkSizes, synthesize
from csm_ggml.voices.prompt import SpokenSegment
from csm_ggml.voices.segment import AudioLike, Segment
from csm_ggml.voices.voice import Voice, VoiceLike, VoicePrefix

if TYPE_CHECKING:
    from typing_extensions import Unpack

# Utterances that run side by side in a batch unless asked for otherwise.
BATCH_SIZE = 16


class CSM(LoadedModel):
    """A checkpoint, loaded. May be used from several threads at once.

    Attributes:
        watermark: A function that sees each chunk of speech before it is handed out, and returns
            its samples, as many as it got; None for none. Chunks of one request come in order; a
            chunk's last turn has a finish_reason when the turn is complete, the chunk one when the
            request is. With a hook whose result depends on where chunks begin, `stream` and
            `generate` differ. What later turns are conditioned on are codes, before the hook.
    """

    watermark: Watermark | None = None

    @classmethod
    def from_pretrained(
        cls,
        name_or_path: str | os.PathLike[str] | Sequence[str | os.PathLike[str]] = hub.DEMO,
        *,
        device: str = "auto",
        threads: int | None = None,
        revision: str | None = None,
        local_files_only: bool = False,
        cache_dir: str | os.PathLike[str] | None = None,
        token: str | bool | None = None,
    ) -> CSM:
        """Load a checkpoint.

        Args:
            name_or_path: "demo"; "csm-1b" (fetched from ggml-org/sesame-csm-1b-GGUF); a hub
                repository "owner/name", or a file of one, "owner/name/file.gguf"; a folder; a
                .gguf file; or the three files of a llama.cpp conversion (one of them is enough if
                the others lie beside it).
            device: "auto" takes a GPU if there is one, else the CPU; or the name of a device as
                `csm-ggml doctor` lists it.
            threads: CPU threads; default is the physical cores that this process may use.
            revision: Branch, tag or commit of a hub repository.
            local_files_only: Never use the network.
            cache_dir: The hub cache; default is huggingface_hub's.
            token: Hub access token; default is the one of `hf auth login`.

        Raises:
            ModelNotFoundError: If there is no such model, or it cannot be fetched.
            ModelFormatError: If a file is damaged, incomplete or of another kind.
            BackendError: If the device cannot be used or has too little memory.
        """
        threads = default_threads() if threads is None else check_count("threads", threads)
        files = hub.resolve(
            name_or_path,
            revision=revision,
            local_files_only=local_files_only,
            cache_dir=cache_dir,
            token=token,
        )
        load_backends()
        model = _core.Model([str(path) for path in files.paths], device=device, threads=threads)
        return cls(model, name=files.name, files=files.paths)

    # Text to speech

    def generate(
        self,
        text: str,
        *,
        seed: int | None = None,
        long_form: str | LongForm | None = None,
        **options: Unpack[GenerateOptions],
    ) -> Audio:
        """Speak.

        Args:
            text: What to say, with speaker tags: `"[0]Hello. [1]Hi!"` is two turns, spoken one
                after another, each conditioned on those before. Text before a first tag gets
                `speaker`. Line breaks count as spaces.
            seed: The same seed gives the same speech, whatever the batch, the threads and the
                neighbours. Drawn, and told in `Audio.seed`, if left out.
            long_form: For texts of any length: "batch" or "chain", or all settings as a
                `LongForm`. The text is cut into pieces, which are spoken with the same voice and
                joined without their silent ends; `codes` do not match `samples` then.
            **options: See `GenerateOptions`: temperature, top_k, top_p, depth_temperature,
                depth_top_k, depth_top_p, max_seconds, max_frames, silence_seconds, silence_db,
                loop_seconds, retries, voice, context, speaker. temperature=0 is greedy.

        Returns:
            The speech. A turn whose first frame already says "end" has no samples. If fewer frames
            than asked for fit into the model's context, the turn is cut there; earlier turns are
            forgotten, oldest first, when less than a quarter of the context would remain for a
            turn (or less than its limit, if that is smaller).

        Raises:
            ContextLengthError: If text and context segments leave no room for one frame.
            ValueError: If the text is empty or an option is out of range.
            TypeError: If an option is unknown or of the wrong type.
        """
        if long_form is not None:
            return Audio.concatenate(self._reading(text, seed, long_form, options).speak())
        request = self._requests.request(text, seed, options)
        return Audio.concatenate(audio for _, audio in self._synthesize([request]))

    def stream(
        self,
        text: str,
        *,
        seed: int | None = None,
        long_form: str | LongForm | None = None,
        first_chunk_frames: int = 1,
        chunk_frames: int = 6,
        **options: Unpack[GenerateOptions],
    ) -> Generator[Audio, None, None]:
        """Speak, and hand out the speech while it is being made.

        Joined (`Audio.concatenate`), the chunks are exactly what `generate` returns. Closing the
        iterator, or dropping it, stops the computing.

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
        chunks = ChunkSizes(
            first=check_count("first_chunk_frames", first_chunk_frames),
            later=check_count("chunk_frames", chunk_frames),
        )
        if long_form is not None:
            return self._reading(text, seed, long_form, options).speak()
        request = self._requests.request(text, seed, options)

        def stream() -> Generator[Audio, None, None]:
            with closing(self._synthesize([request], chunks=chunks)) as parts:
                for _, audio in parts:
                    yield audio

        return stream()

    def generate_codes(
        self, text: str, *, seed: int | None = None, **options: Unpack[GenerateOptions]
    ) -> npt.NDArray[np.int32]:
        """The codes of `generate` without their sound: (frames, codebooks) int32."""
        request = self._requests.request(text, seed, options)
        if request.stop.silence_frames is not None:
            # That rule goes by the sound.
            return Audio.concatenate(audio for _, audio in self._synthesize([request])).codes
        with self._engines.borrow() as engine:
            steps = generate_frames(engine, self._prompts, [request], frame_rate=self.frame_rate)
            return spoken_codes(steps, self.codebooks)

    def generate_batch(
        self,
        texts: Iterable[str],
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
            batch_size: At most so many at a time; the others wait for a free place.
            **options: As in `generate`; each may also be a list with one value (or None) for each
                text.

        Raises:
            ValueError: If there is more or less than one seed or option for each text, and as
                `generate`; the message names the number of the text.
        """
        if isinstance(texts, str | bytes):
            raise TypeError("texts must be a sequence of str; for one text use generate()")
        texts = list(texts)
        batch_size = check_count("batch_size", batch_size)
        seeds = batch_seeds(seed, len(texts))
        per_text = batch_options(options, len(texts))
        known: dict[int, SpokenSegment] = {}
        requests = []
        for number, (text, own_seed, own) in enumerate(zip(texts, seeds, per_text, strict=True)):
            try:
                requests.append(self._requests.request(text, own_seed, own, known))
            except (ValueError, TypeError) as error:
                error.args = (f"text {number}: {error}",)
                raise
        chunks: list[list[Audio]] = [[] for _ in requests]
        slots = max(1, min(batch_size, len(requests)))
        for number, audio in self._synthesize(requests, slots=slots):
            chunks[number].append(audio)
        return [Audio.concatenate(own) for own in chunks]

    # Long texts

    def generate_to_file(
        self,
        text: str,
        path: str | os.PathLike[str],
        *,
        long_form: str | LongForm = "batch",
        seed: int | None = None,
        resume: bool = True,
        progress: Callable[[Progress], None] | None = None,
        **options: Unpack[GenerateOptions],
    ) -> Recording:
        """Speak a long text, such as a chapter, into an audio file.

        The file is written while the text is spoken, and memory does not grow with the text. What
        is spoken is also noted in a file beside it, `path` + ".progress", until all is done: after
        an interruption the same call goes on where it was, and gives the same file.

        Args:
            text: What to say; blank lines separate paragraphs. See `LongForm` for how it is taken
                apart and joined.
            path: .wav, .flac or .ogg, 16 bits.
            long_form: "batch", "chain", or all settings as a `LongForm`.
            seed: Of the first piece; each further piece gets one more. Drawn if left out.
            resume: Whether to go on with an interrupted run of the same text, model and options;
                else it starts anew.
            progress: Called after each piece.
            **options: As in `generate`, for each piece; retries is 2 if left out.

        Raises:
            AudioFileError: If the extension is unknown.
            As `generate`, and OSError.
        """
        output_format(path)
        reading = self._reading(text, seed, long_form, options)
        return record(
            reading,
            path,
            job=job_digest(reading, self.fingerprint),
            seed_given=seed is not None,
            sample_rate=self.sample_rate,
            resume=resume,
            progress=progress,
        )

    def _reading(
        self,
        text: str,
        seed: int | None,
        long_form: str | LongForm,
        options: Mapping[str, Any],
    ) -> LongReading:
        return LongReading(
            self._requests,
            lambda requests, slots: self._synthesize(requests, slots=slots),
            text,
            seed=resolve_seed(seed),
            long_form=as_long_form(long_form),
            options=options,
        )

    # Voices and conversations

    def create_voice(
        self,
        audio: AudioLike,
        transcript: str,
        speaker: int = 0,
        *,
        prefix: bool = False,
    ) -> Voice:
        """Make a voice of a recording, to be given as `voice=`.

        Args:
            audio: A path to an audio file, (n,) samples at the model's rate, a pair (samples,
                sample_rate), or an `Audio`. Ten seconds of clear speech are a good length.
            transcript: What is said in it, word for word.
            speaker: The number that the voice will speak as.
            prefix: Also compute what this model makes of the voice, so that the first utterance
                starts as quickly as the later ones. It is saved with the voice, makes the file
                large (32 kB a row for CSM-1B), and binds it to this very model.

        Raises:
            ContextLengthError: If the recording leaves no room for speech.
            ValueError: If the transcript is empty, or the audio cannot be encoded.
            AudioFileError: The same for a file.
            ModelFormatError: If the model file has no encoder.
        """
        voice = self._requests.voice(Segment(speaker, transcript, audio))
        return self._with_prefix(voice) if prefix else voice

    def conversation(
        self,
        *,
        voice: VoiceLike | Sequence[VoiceLike] | None = None,
        context: Sequence[Segment] | None = None,
        seed: int | None = None,
        **options: Any,
    ) -> Conversation:
        """Begin a conversation: each utterance continues from what the model still has in mind.

        Args:
            voice: As in `GenerateOptions`: one for each speaker.
            context: What was said before; never forgotten.
            seed: Of the first utterance; the next one gets one more, and so on. Drawn if left out.
            **options: As in `generate`, for all utterances.

        Raises:
            As `generate`.
        """
        return Conversation(
            self._engines,
            self._requests,
            self._codec.decoders,
            sample_rate=self.sample_rate,
            frame_size=self.frame_size,
            codebooks=self.codebooks,
            watermark=lambda: self.watermark,
            seed=seed,
            options={**options, "voice": voice, "context": context},
        )

    # Inside

    def _with_prefix(self, voice: Voice) -> Voice:
        _, prefix = self._requests.voices([voice])
        assert prefix is not None
        if prefix.data is None:
            with self._engines.borrow() as engine:
                prefix.evaluate(engine)
        assert prefix.data is not None
        made = VoicePrefix(self._short_name(), self.fingerprint, prefix.data)
        return replace(voice, prefix=made)

    def _synthesize(
        self,
        requests: Iterable[Request],
        *,
        slots: int = 1,
        chunks: ChunkSizes = WHOLE,
    ) -> Generator[tuple[int, Audio], None, None]:
        with self._engines.borrow(slots) as engine:
            yield from synthesize(
                engine,
                self._prompts,
                self._codec.decoders,
                requests,
                sample_rate=self.sample_rate,
                frame_size=self.frame_size,
                codebooks=self.codebooks,
                chunks=chunks,
                watermark=self.watermark,
            )
