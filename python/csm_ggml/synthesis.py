"""Frames to sound while they are made: the primitive under `CSM.generate` and its relatives.

The codec decodes each frame as soon as it exists, whatever the size of the chunks handed out. So a
stream is, sample for sample, what `generate` returns, and no size of chunk costs another rounding.
"""

from __future__ import annotations

import time
from collections.abc import Generator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from csm_ggml.audio import Audio, SpokenTurn
from csm_ggml.generation import Costs, Engine, Request, Step, generate_frames
from csm_ggml.pool import Pool
from csm_ggml.prompt import PromptBuilder
from csm_ggml.stats import Stats


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


def synthesize(
    engine: Engine,
    prompts: PromptBuilder,
    decoders: Pool[Decoder],
    requests: Sequence[Request],
    *,
    sample_rate: int,
    frame_size: int,
    codebooks: int,
    chunks: ChunkSizes = WHOLE,
) -> Generator[tuple[int, Audio], None, None]:
    """Speak requests side by side.

    Yields:
        The number of a request and its next chunk. A chunk belongs to one turn. The last chunk of
        a turn says how the turn ended and may be empty; the last of a request has its
        finish_reason.
    """
    frames = generate_frames(engine, prompts, requests, frame_rate=sample_rate / frame_size)
    streams: dict[int, _Stream] = {}
    with ExitStack() as stack:
        stack.callback(frames.close)
        for step in frames:
            if step.request not in streams:
                streams[step.request] = _Stream(
                    requests[step.request],
                    stack.enter_context(decoders.borrow()),
                    sample_rate=sample_rate,
                    codebooks=codebooks,
                    chunks=chunks,
                )
            if (chunk := streams[step.request].accept(step)) is not None:
                yield step.request, chunk


class _Stream:
    """The sound of one request on its way out."""

    def __init__(
        self,
        request: Request,
        decoder: Decoder,
        *,
        sample_rate: int,
        codebooks: int,
        chunks: ChunkSizes,
    ) -> None:
        self._request = request
        self._decoder = decoder
        self._sample_rate = sample_rate
        self._codebooks = codebooks
        self._chunks = chunks
        self._turn = -1
        self._codes: list[npt.NDArray[np.int32]] = []
        self._samples: list[npt.NDArray[np.float32]] = []
        self._chunks_out = 0
        self._samples_made = 0
        self._codec_seconds = 0.0
        self._first_audio: float | None = None
        self._any_cut = False

    def accept(self, step: Step) -> Audio | None:
        """Decode a step's frame; return a chunk if one is complete."""
        if step.turn != self._turn:
            # Every turn starts from silence, as it would if its codes were decoded alone.
            self._decoder.reset()
            self._turn = step.turn
        if step.codes is not None:
            self._decode(step.codes)
        wanted = self._chunks.later if self._chunks_out else self._chunks.first
        if step.finish_reason is None and len(self._codes) < wanted:
            return None
        self._any_cut |= step.finish_reason == "max_frames"
        return self._chunk(step)

    def _decode(self, codes: npt.NDArray[np.int32]) -> None:
        started = time.perf_counter()
        samples = self._decoder.decode(codes[np.newaxis])
        now = time.perf_counter()
        self._codec_seconds += now - started
        if self._first_audio is None:
            self._first_audio = now - self._request.asked
        self._samples_made += len(samples)
        self._codes.append(codes)
        self._samples.append(samples)

    def _chunk(self, step: Step) -> Audio:
        last = step.finish_reason is not None and step.turn == len(self._request.turns) - 1
        turn = self._request.turns[step.turn]
        spoken = SpokenTurn(
            index=step.turn,
            speaker=turn.speaker,
            text=turn.text,
            start=0,
            frames=len(self._codes),
            finish_reason=step.finish_reason,
        )
        chunk = Audio(
            samples=np.concatenate([np.zeros(0, np.float32), *self._samples]),
            sample_rate=self._sample_rate,
            codes=np.array(self._codes, np.int32).reshape(-1, self._codebooks),
            finish_reason=("max_frames" if self._any_cut else "eos") if last else None,
            seed=self._request.seed,
            turns=(spoken,),
            stats=self._stats(step.costs),
        )
        self._codes = []
        self._samples = []
        self._chunks_out += 1
        return chunk

    def _stats(self, costs: Costs) -> Stats:
        return Stats(
            frames=costs.frames,
            codebooks=self._codebooks,
            audio_seconds=self._samples_made / self._sample_rate,
            prefill_rows=costs.prefill_rows,
            prefill_seconds=costs.prefill_seconds,
            lm_seconds=costs.lm_seconds,
            codec_seconds=self._codec_seconds,
            time_to_first_audio=self._first_audio,
            total_seconds=time.perf_counter() - self._request.asked,
        )
