"""Frames to sound while they are made: the primitive under `CSM.generate` and its relatives.

The codec decodes each frame as soon as it exists, whatever the size of the chunks handed out. So a
stream is, sample for sample, what `generate` returns, and no size of chunk costs another rounding.
"""

from __future__ import annotations

import time
from collections.abc import Generator, Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import numpy.typing as npt

from csm_ggml.audio import Audio, SpokenTurn
from csm_ggml.dialogue import Dialogue
from csm_ggml.engine import Costs, Engine
from csm_ggml.generation import Request, Step, generate_frames
from csm_ggml.pool import Pool
from csm_ggml.prompt import PromptBuilder
from csm_ggml.stats import Stats
from csm_ggml.stop import level_db, worst
from csm_ggml.watermark import Watermark, apply_watermark


class Decoder(Protocol):
    """The part of `_core.MimiDecoder` that is used here."""

    def decode(self, codes: npt.NDArray[np.int32]) -> npt.NDArray[np.float32]: ...  # noqa: D102
    def reset(self) -> None: ...  # noqa: D102


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
        decoders: One is lent for each request while it is spoken.
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

        def numbered() -> Iterator[Request]:
            for number, request in enumerate(requests):
                streams[number] = _Stream(
                    request,
                    stack,
                    decoders,
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
            listen=lambda number, first, codes: streams[number].listen(first, codes),
            dialogue=dialogue,
        )
        stack.callback(frames.close)
        for step in frames:
            if (chunk := streams[step.request].accept(step)) is None:
                continue
            if chunk.finish_reason is not None:
                streams.pop(step.request).close()
            yield step.request, chunk if watermark is None else apply_watermark(watermark, chunk)


class _Stream:
    """The sound of one request on its way out."""

    def __init__(
        self,
        request: Request,
        stack: ExitStack,
        decoders: Pool[Decoder],
        *,
        sample_rate: int,
        codebooks: int,
        chunks: ChunkSizes,
    ) -> None:
        # The decoder goes back when the request is done, or when all are given up.
        self._lent = stack.enter_context(ExitStack())
        self._decoder = self._lent.enter_context(decoders.borrow())
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

    def close(self) -> None:
        self._lent.close()

    def listen(self, first: bool, codes: npt.NDArray[np.int32]) -> float:
        """Decode a frame; return its level in dB."""
        started = time.perf_counter()
        if first:
            # Every turn starts from silence, as it would if its codes were decoded alone.
            self._decoder.reset()
        samples = self._decoder.decode(codes[np.newaxis])
        now = time.perf_counter()
        self._codec_seconds += now - started
        if self._first_audio is None:
            self._first_audio = now - self._request.asked
        self._sound.codes.append(codes)
        self._sound.samples.append(samples)
        return level_db(samples)

    def accept(self, step: Step) -> Audio | None:
        """Take a step whose frame was listened to; return a chunk if one is complete."""
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
