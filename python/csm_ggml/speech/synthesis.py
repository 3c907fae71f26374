"""Frames to sound while they are made: the primitive under `CSM.generate` and its relatives.

The codec decodes the frames of all requests together as soon as they exist, whatever the size of
the chunks handed out, while the engine already makes the next ones. A stream is, sample for sample,
what `generate` returns.
"""

from __future__ import annotations

import math
import time
from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import numpy.typing as npt

from csm_ggml.audio.audio import Audio, SpokenTurn
from csm_ggml.audio.stats import Stats
from csm_ggml.audio.watermark import Watermark, apply_watermark
from csm_ggml.speech.dialogue import Dialogue
from csm_ggml.speech.engine import Costs, Engine
from csm_ggml.speech.generation import Request, Step, generate_frames
from csm_ggml.speech.pool import Pool
from csm_ggml.speech.stop import level_db, worst
from csm_ggml.voices.prompt import PromptBuilder


class Decoder(Protocol):
    """The part of `_core.MimiDecoder` that is used here."""

    def decode(  # noqa: D102
        self, codes: npt.NDArray[np.int32], streams: Sequence[int]
    ) -> npt.NDArray[np.float32]: ...
    def reset(self, stream: int) -> None: ...  # noqa: D102


@dataclass(frozen=True)
class ChunkSizes:
    """Frames in a request's first chunk and in later ones; a turn's last may be shorter."""

    first: int
    later: int


# One chunk a turn.
WHOLE = ChunkSizes(1 << 31, 1 << 31)


@dataclass
class _Sound:
    """One attempt at a turn, or what of it was not handed out yet."""

    codes: list[npt.NDArray[np.int32]] = field(default_factory=list)
    samples: list[npt.NDArray[np.float32]] = field(default_factory=list)


def synthesize(
    engine: Engine,
    prompts: PromptBuilder,
    decoders: Pool[Decoder],
    requests: Iterable[Request],
    *,
    sample_rate: int,
    frame_size: int,
    codebooks: int,
    chunks: ChunkSizes = WHOLE,
    dialogue: Dialogue | None = None,
    watermark: Watermark | None = None,
) -> Generator[tuple[int, Audio], None, None]:
    """Speak requests side by side, or one after another in a dialogue.

    Args:
        engine: Used by nobody else in the meantime.
        prompts: Builds the rows.
        decoders: Lends one with as many streams as requests are spoken side by side.
        requests: As `generate_frames` takes them.
        sample_rate: Samples per second.
        frame_size: Samples in a frame.
        codebooks: Codes in a frame.
        chunks: Sizes of the chunks; a request with retries hands out whole turns instead.
        dialogue: As `generate_frames` takes it.
        watermark: Gets each chunk before it is handed out, and returns its samples.

    Yields:
        The number of a request and its next chunk. A chunk belongs to one turn. The last chunk of
        a turn says how the turn ended and may be empty; the last of a request has its
        finish_reason.
    """
    streams: dict[int, _Stream] = {}
    with ExitStack() as stack:
        count = engine.slots if dialogue is None else 1
        decoder = stack.enter_context(decoders.borrow(count))
        free = list(reversed(range(count)))

        def numbered() -> Iterator[Request]:
            for number, request in enumerate(requests):
                streams[number] = _Stream(
                    request,
                    number=free.pop(),
                    sample_rate=sample_rate,
                    codebooks=codebooks,
                    chunks=WHOLE if request.retries else chunks,
                )
                yield request

        frames = generate_frames(
            engine,
            prompts,
            numbered(),
            frame_rate=sample_rate / frame_size,
            level=lambda number: streams[number].level,
            dialogue=dialogue,
        )
        stack.callback(frames.close)
        for steps in frames:
            _decode(decoder, [(streams[step.request], step) for step in steps])
            for step in steps:
                stream = streams[step.request]
                if (chunk := stream.accept(step)) is None:
                    continue
                if chunk.finish_reason is not None:
                    free.append(stream.number)
                    del streams[step.request]
                if watermark is not None:
                    chunk = apply_watermark(watermark, chunk)
                yield step.request, chunk


def _decode(decoder: Decoder, steps: Sequence[tuple[_Stream, Step]]) -> None:
    """Turn the frames that steps brought into samples, in one go."""
    heard = [(stream, step.codes) for stream, step in steps if step.codes is not None]
    if not heard:
        return
    started = time.perf_counter()
    for stream, _ in heard:
        if stream.at_rest:
            # Every turn starts from silence, as it would if its codes were decoded alone.
            decoder.reset(stream.number)
    codes = np.stack([codes[np.newaxis] for _, codes in heard])
    samples = decoder.decode(codes, [stream.number for stream, _ in heard])
    seconds = time.perf_counter() - started
    for (stream, own), sound in zip(heard, samples, strict=True):
        # A copy: a view would keep the whole batch's samples.
        stream.hear(own, sound.copy(), seconds)


class _Stream:
    """The sound of one request on its way out.

    Attributes:
        number: Of its stream in the decoder.
        level: Of the last frame heard, in dB of full scale.
        at_rest: Whether the next frame begins an attempt at a turn.
    """

    def __init__(
        self,
        request: Request,
        *,
        number: int,
        sample_rate: int,
        codebooks: int,
        chunks: ChunkSizes,
    ) -> None:
        self.number = number
        self.level = math.inf
        self.at_rest = True
        self._request = request
        self._sample_rate = sample_rate
        self._codebooks = codebooks
        self._chunks = chunks
        self._attempts: list[_Sound] = []
        self._sound = _Sound()
        self._chunks_out = 0
        self._samples_out = 0
        self._codec_seconds = 0.0
        self._first_audio: float | None = None
        self._reasons: list[str] = []

    def hear(
        self, codes: npt.NDArray[np.int32], samples: npt.NDArray[np.float32], seconds: float
    ) -> None:
        """Take a frame and its samples, which took so long to decode."""
        self.at_rest = False
        self.level = level_db(samples)
        self._codec_seconds += seconds
        if self._first_audio is None:
            self._first_audio = time.perf_counter() - self._request.asked
        self._sound.codes.append(codes)
        self._sound.samples.append(samples)

    def accept(self, step: Step) -> Audio | None:
        """Take a step whose frame, if any, was heard; return a chunk if one is complete."""
        self.at_rest |= step.again or step.finish_reason is not None
        if step.again:
            self._attempts.append(self._sound)
            self._sound = _Sound()
            return None
        if step.finish_reason is None:
            wanted = self._chunks.later if self._chunks_out else self._chunks.first
            if len(self._sound.codes) < wanted:
                return None
        else:
            self._reasons.append(step.finish_reason)
            self._sound = [*self._attempts, self._sound][step.kept]
            self._attempts = []
        return self._chunk(step)

    def _chunk(self, step: Step) -> Audio:
        last = step.finish_reason is not None and step.turn == len(self._request.turns) - 1
        turn = self._request.turns[step.turn]
        spoken = SpokenTurn(
            index=step.turn,
            speaker=turn.speaker,
            text=turn.text,
            start=0,
            frames=len(self._sound.codes),
            finish_reason=step.finish_reason,
            seed=step.seed,
        )
        samples = np.concatenate([np.zeros(0, np.float32), *self._sound.samples])
        self._samples_out += len(samples)
        chunk = Audio(
            samples=samples,
            sample_rate=self._sample_rate,
            codes=np.array(self._sound.codes, np.int32).reshape(-1, self._codebooks),
            finish_reason=worst(self._reasons) if last else None,
            seed=self._request.seed,
            turns=(spoken,),
            stats=self._stats(step.costs),
        )
        self._sound = _Sound()
        self._chunks_out += 1
        return chunk

    def _stats(self, costs: Costs) -> Stats:
        return Stats(
            frames=costs.frames,
            codebooks=self._codebooks,
            audio_seconds=self._samples_out / self._sample_rate,
            prefill_rows=costs.prefill_rows,
            prefill_seconds=costs.prefill_seconds,
            lm_seconds=costs.lm_seconds,
            codec_seconds=self._codec_seconds,
            time_to_first_audio=self._first_audio if self._samples_out else None,
            total_seconds=time.perf_counter() - self._request.asked,
        )
