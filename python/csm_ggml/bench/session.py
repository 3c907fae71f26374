"""One loaded model and the timings that can be taken of it, in this process."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt

from csm_ggml import _core
from csm_ggml.loading.backends import core_path, load_backends
from csm_ggml.loading.codec import DECODE_FRAMES
from csm_ggml.speech.options import Sampling

# A short sentence with its tag: "[0]Hello there, how are you today?" and the marks around it.
PROMPT_ROWS = 16
# Speech over which the prompt's time is spread.
UTTERANCE_SECONDS = 10
# Rows of a reference voice, some 40 seconds of it.
CONTEXT_ROWS = 500
# Enough that a new utterance's first graphs are built.
_WARM_UP_FRAMES = 3


@dataclass
class Samples:
    """Seconds, each list in the order of measuring.

    Attributes:
        lm: The language models for one frame of the whole batch.
        mimi: The codec for the same frame, streamed, all utterances at once.
        prompt: A short prompt for each utterance of the batch, evaluated but for its last row.
        first_audio: From giving these prompts until each utterance's first frame is sound.
        context_row: One row of a long prompt of audio.
        mimi_chunk: The codec for one frame, 25 at a time.
        encode: The codec's encoder for one frame, 25 at a time.
        contended: lm + mimi while another process keeps a core busy.
        static_rate: Codes per second, not seconds, of a batch that stays; one for each turn.
        continuous_rate: The same while utterances join and leave at any time.
        occupancy: Mean share of the slots that were taken then.
    """

    lm: list[float] = field(default_factory=list)
    mimi: list[float] = field(default_factory=list)
    prompt: list[float] = field(default_factory=list)
    first_audio: list[float] = field(default_factory=list)
    context_row: list[float] = field(default_factory=list)
    mimi_chunk: list[float] = field(default_factory=list)
    encode: list[float] = field(default_factory=list)
    contended: list[float] = field(default_factory=list)
    static_rate: list[float] = field(default_factory=list)
    continuous_rate: list[float] = field(default_factory=list)
    occupancy: list[float] = field(default_factory=list)

    def extend(self, other: Samples) -> None:
        """Append another's."""
        for name, values in vars(other).items():
            getattr(self, name).extend(values)


class Session:
    """A model with an engine of `batch` slots and as many streaming decoders.

    Attributes:
        model: The loaded weights.
        batch: Utterances that run side by side.
        codebooks: Codes in a frame.
        frame_rate: Frames per second of speech.
        samples: What has been measured.
    """

    def __init__(
        self, files: Sequence[Path], *, device: str = "auto", threads: int, batch: int = 1
    ) -> None:
        """Load, and run everything once untimed: first runs build graphs and touch memory.

        Raises:
            ModelFormatError: If a file is damaged, incomplete or of another kind.
            BackendError: If the device cannot be used or has too little memory.
        """
        load_backends()
        self.model = _core.Model(
            [core_path(path) for path in files], device=device, threads=threads
        )
        config = self.model.config
        self.batch = batch
        self.codebooks = int(config["csm.codebooks"])
        self._codes = int(config["mimi.codebook_size"])
        self._text_vocab = int(config["csm.text_vocab_size"])
        self._frame_size = int(config["mimi.frame_size"])
        self.frame_rate = int(config["mimi.sample_rate"]) / self._frame_size
        self._engine = _core.Engine(self.model, slots=batch)
        self._decoder = _core.MimiDecoder(self.model, streams=batch)
        self._random = np.random.default_rng(0)
        room = self._engine.context - PROMPT_ROWS
        if room < 1:
            raise ValueError(
                f"the model's context of {self._engine.context} rows has no room for a prompt of "
                f"{PROMPT_ROWS} and speech"
            )
        self._utterance_frames = min(round(UTTERANCE_SECONDS * self.frame_rate), room)
        self.samples = Samples()
        self.speak(_WARM_UP_FRAMES)
        self.read_context()
        self.samples = Samples()

    def speak(self, frames: int, *, contended: bool = False) -> None:
        """Time so many frames of the whole batch, each made into sound at once.

        Utterances begin with a short prompt and are replaced after 10 seconds. A frame that says
        "end" does not end one: random weights say that by chance.
        """
        samples = Samples()
        while len(samples.lm) < frames:
            count = min(frames - len(samples.lm), self._utterance_frames)
            self._speak_utterances(count, samples)
        if contended:
            both = zip(samples.lm, samples.mimi, strict=True)
            samples = Samples(contended=[lm + mimi for lm, mimi in both])
        self.samples.extend(samples)

    def _speak_utterances(self, frames: int, samples: Samples) -> None:
        started = time.perf_counter()
        slots = [self.begin(seed) for seed in range(self.batch)]
        prompted = time.perf_counter()
        samples.prompt.append(prompted - started)
        for frame in range(frames):
            before = time.perf_counter()
            codes = self.frame(slots)
            stepped = time.perf_counter()
            self.sound(slots, codes)
            after = time.perf_counter()
            samples.lm.append(stepped - before)
            samples.mimi.append(after - stepped)
            if frame == 0:
                samples.first_audio.append(after - started)
        for slot in slots:
            self.end(slot)

    def begin(self, seed: int) -> int:
        """Give a short prompt to a free slot, and return its number."""
        slot = self._engine.open(seed=seed, **Sampling().as_dict())
        self._decoder.reset(slot)
        self._engine.append(slot, *self._text_rows(PROMPT_ROWS))
        return slot

    def frame(self, slots: list[int]) -> npt.NDArray[np.int32]:
        """The next frame of each of these slots: (slots, codebooks) codes."""
        codes, _ = self._engine.step(slots)
        return codes

    def sound(self, slots: list[int], codes: npt.NDArray[np.int32]) -> None:
        """Decode a frame of each of these slots."""
        self._decoder.decode(codes[:, np.newaxis], slots)

    def end(self, slot: int) -> None:
        """Free a slot."""
        self._engine.close(slot)

    def read_context(self) -> None:
        """Time a long prompt of audio rows, such as a reference voice is."""
        rows = min(CONTEXT_ROWS, self._engine.context)
        text = np.full(rows, -1, np.int32)
        audio = self._draw_codes(rows)
        slot = self._engine.open(**Sampling().as_dict())
        started = time.perf_counter()
        self._engine.append(slot, text, audio)
        # The last row stays pending until a frame is asked for.
        self.samples.context_row.append((time.perf_counter() - started) / (rows - 1))
        self._engine.close(slot)

    def decode_chunks(self, count: int) -> None:
        """Time the codec alone on chunks of 25 frames."""
        decoder = _core.MimiDecoder(self.model)
        for number in range(1 + count):
            codes = self._draw_codes(DECODE_FRAMES)
            started = time.perf_counter()
            decoder.decode(codes)
            if number > 0:
                self.samples.mimi_chunk.append((time.perf_counter() - started) / DECODE_FRAMES)

    def encode_chunks(self, count: int) -> None:
        """Time the codec's encoder on 25 frames at a time, if the model has one."""
        if not self.model.config["mimi.has_encoder"]:
            return
        encoder = _core.MimiEncoder(self.model)
        for number in range(1 + count):
            noise = self._random.standard_normal(DECODE_FRAMES * self._frame_size, np.float32)
            started = time.perf_counter()
            encoder.encode(noise * np.float32(0.1), final=False)
            if number > 0:
                self.samples.encode.append((time.perf_counter() - started) / DECODE_FRAMES)

    def _text_rows(self, rows: int) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int32]]:
        ids = self._random.integers(0, self._text_vocab, rows, np.int32)
        return ids, np.zeros((rows, self.codebooks), np.int32)

    def _draw_codes(self, frames: int) -> npt.NDArray[np.int32]:
        return self._random.integers(0, self._codes, (frames, self.codebooks), np.int32)
