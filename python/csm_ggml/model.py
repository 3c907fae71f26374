"""`CSM`, the class that people use: a loaded checkpoint that reads, speaks, encodes and decodes."""

from __future__ import annotations

import os
import time
from collections.abc import Generator, Iterable, Mapping, Sequence
from contextlib import closing
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from csm_ggml import _core, hub
from csm_ggml.audio import Audio
from csm_ggml.backends import load_backends
from csm_ggml.batch import batch_options, batch_seeds
from csm_ggml.codec import Codec
from csm_ggml.generation import Engine, Request, check_fits, generate_frames
from csm_ggml.options import (
    GenerateOptions,
    check_count,
    resolve_length,
    resolve_sampling,
    resolve_seed,
)
from csm_ggml.pool import Pool
from csm_ggml.prompt import PromptBuilder, SpokenSegment
from csm_ggml.segment import Segment
from csm_ggml.synthesis import ChunkSizes, synthesize
from csm_ggml.text import check_speaker, parse_turns
from csm_ggml.threads import default_threads
from csm_ggml.tokenizer import TextTokenizer

if TYPE_CHECKING:
    from typing_extensions import Unpack

# Frames per call when codes are decoded, and samples are encoded, that exist already: memory stays
# flat.
DECODE_FRAMES = 25
ENCODE_FRAMES = 250
# Utterances that run side by side in a batch unless asked for otherwise.
BATCH_SIZE = 16
# Idle engines that a model keeps for the next call.
IDLE_ENGINES = 2

_OPTIONS = frozenset(GenerateOptions.__annotations__)


class CSM:
    """A checkpoint, loaded. May be used from several threads at once."""

    def __init__(self, model: _core.Model, *, name: str = "csm") -> None:
        """Wrap a loaded core model; `from_pretrained` is the usual way.

        Args:
            model: The weights.
            name: What to call it in messages.

        Raises:
            ModelFormatError: If its tokenizer cannot be run.
        """
        self._model = model
        self._name = name
        self._config = dict(model.config)
        self._tokenizer = TextTokenizer(model.tokenizer) if model.tokenizer else None
        self._engines: Pool[Engine] = Pool(
            lambda slots: _core.Engine(model, slots=slots), keep=IDLE_ENGINES
        )
        self._codec = Codec(model)

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
        return cls(model, name=files.name)

    # What it is

    @property
    def name(self) -> str:
        """What it was loaded as."""
        return self._name

    @property
    def config(self) -> dict[str, Any]:
        """Hyper-parameters under the names of docs/GGUF.md."""
        return dict(self._config)

    @property
    def device(self) -> str:
        """The device that computes."""
        return self._model.device

    @property
    def threads(self) -> int:
        """CPU threads that compute."""
        return self._model.threads

    @property
    def sample_rate(self) -> int:
        """Samples per second."""
        return int(self._config["mimi.sample_rate"])

    @property
    def frame_size(self) -> int:
        """Samples in a frame."""
        return int(self._config["mimi.frame_size"])

    @property
    def frame_rate(self) -> float:
        """Frames per second."""
        return self.sample_rate / self.frame_size

    @property
    def codebooks(self) -> int:
        """Codes in a frame."""
        return int(self._config["csm.codebooks"])

    @property
    def context_length(self) -> int:
        """Rows that the backbone can attend to, text and speech together."""
        return int(self._config["csm.context_length"])

    def __repr__(self) -> str:
        """One line for people."""
        return (
            f"CSM({self._name!r}, device={self.device!r}, threads={self.threads}, "
            f"{self._model.weight_bytes / 1e6:.0f} MB of weights)"
        )

    # Text to speech

    def generate(
        self, text: str, *, seed: int | None = None, **options: Unpack[GenerateOptions]
    ) -> Audio:
        """Speak.

        Args:
            text: What to say, with speaker tags: `"[0]Hello. [1]Hi!"` is two turns, spoken one
                after another, each conditioned on those before. Text before a first tag gets
                speaker 0. Line breaks count as spaces.
            seed: The same seed gives the same speech, whatever the batch, the threads and the
                neighbours. Drawn, and told in `Audio.seed`, if left out.
            **options: See `GenerateOptions`: temperature, top_k, top_p, depth_temperature,
                depth_top_k, depth_top_p, max_seconds, max_frames, context, speaker. temperature=0
                is greedy.

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
        request = self._request(text, seed, options)
        return Audio.concatenate(audio for _, audio in self._synthesize([request]))

    def stream(
        self,
        text: str,
        *,
        seed: int | None = None,
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
            first_chunk_frames: Frames in the first chunk; few, so that the sound starts early.
            chunk_frames: Frames in each chunk after it.
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
        request = self._request(text, seed, options)

        def stream() -> Generator[Audio, None, None]:
            with closing(self._synthesize([request], chunks=chunks)) as parts:
                for _, audio in parts:
                    yield audio

        return stream()

    def generate_codes(
        self, text: str, *, seed: int | None = None, **options: Unpack[GenerateOptions]
    ) -> npt.NDArray[np.int32]:
        """The codes of `generate` without their sound: (frames, codebooks) int32."""
        request = self._request(text, seed, options)
        with self._engines.borrow() as engine:
            steps = generate_frames(engine, self._prompts(), [request], frame_rate=self.frame_rate)
            frames = [step.codes for step in steps if step.codes is not None]
        return np.array(frames, np.int32).reshape(-1, self.codebooks)

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
                requests.append(self._request(text, own_seed, own, known))
            except (ValueError, TypeError) as error:
                error.args = (f"text {number}: {error}",)
                raise
        chunks: list[list[Audio]] = [[] for _ in requests]
        slots = max(1, min(batch_size, len(requests)))
        for number, audio in self._synthesize(requests, slots=slots):
            chunks[number].append(audio)
        return [Audio.concatenate(own) for own in chunks]

    def tokenize(self, text: str, *, speaker: int = 0) -> list[int]:
        """Text ids as the model gets them: BOS, `[speaker]text`, EOS for each turn."""
        turns = parse_turns(text, speaker=speaker)
        tokenizer = self._text_tokenizer()
        return [i for turn in turns for i in tokenizer.encode_turn(turn.speaker, turn.text)]

    # Mimi alone

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
        return self._codec.decode(codes)

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
        return self._codec.encode(samples, sample_rate)

    # Inside

    def _text_tokenizer(self) -> TextTokenizer:
        return self._tokenizer or TextTokenizer({})

    def _prompts(self) -> PromptBuilder:
        return PromptBuilder(
            self._text_tokenizer(),
            codebooks=self.codebooks,
            audio_vocab_size=int(self._config["csm.audio_vocab_size"]),
        )

    def _request(
        self,
        text: str,
        seed: int | None,
        options: Mapping[str, Any],
        known: dict[int, SpokenSegment] | None = None,
    ) -> Request:
        """Check and complete; segments in `known`, by id, were read for an earlier request."""
        asked = time.perf_counter()
        if unknown := sorted(set(options) - _OPTIONS):
            raise TypeError(
                f"unknown option {unknown[0]!r}, expected one of {', '.join(sorted(_OPTIONS))}"
            )
        speaker = options.get("speaker")
        request = Request(
            turns=tuple(
                parse_turns(text, speaker=0 if speaker is None else check_speaker(speaker))
            ),
            context=self._context(options.get("context"), {} if known is None else known),
            sampling=resolve_sampling(self._config, options),
            seed=resolve_seed(seed),
            length=resolve_length(
                options.get("max_seconds"), options.get("max_frames"), self.frame_rate
            ),
            asked=asked,
        )
        check_fits(request, self._prompts(), self.context_length)
        return request

    def _context(
        self, segments: Sequence[Segment] | None, known: dict[int, SpokenSegment]
    ) -> tuple[SpokenSegment, ...]:
        if segments is None:
            return ()
        if isinstance(segments, Segment) or not all(isinstance(s, Segment) for s in segments):
            raise TypeError("context must be a list of Segment")
        for segment in segments:
            if id(segment) not in known:
                known[id(segment)] = segment.spoken(self._prompts(), self.encode)
        return tuple(known[id(segment)] for segment in segments)

    def _synthesize(
        self, requests: Sequence[Request], *, slots: int = 1, chunks: ChunkSizes | None = None
    ) -> Generator[tuple[int, Audio], None, None]:
        with self._engines.borrow(slots) as engine:
            yield from synthesize(
                engine,
                self._prompts(),
                self._codec.decoders,
                requests,
                sample_rate=self.sample_rate,
                frame_size=self.frame_size,
                codebooks=self.codebooks,
                **({} if chunks is None else {"chunks": chunks}),
            )
