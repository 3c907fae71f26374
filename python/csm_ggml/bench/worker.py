"""The process that measures one configuration once: `python -m csm_ggml.bench.worker`.

It reads a job from standard input and writes lines of JSON to standard output. Between its timings
it asks the process that started it to measure memory and arithmetic, or to keep a core busy, and
waits for the answer: a buffer of its own for that would count into its peak of memory.
"""

from __future__ import annotations

import json
import signal
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from csm_ggml.bench.arrivals import compare_with_static
from csm_ggml.bench.floor import frame_bytes, frame_products
from csm_ggml.bench.machine import peak_memory
from csm_ggml.bench.session import Samples, Session

_CODEC_CHUNKS = 4


@dataclass(frozen=True)
class Job:
    """What to measure.

    Attributes:
        files: Of the model.
        device: As `csm-ggml doctor` lists it, or "auto".
        threads: CPU threads.
        batch: Utterances side by side.
        frames: To time.
        contention: Whether to time as many again while another process keeps a core busy.
        arrivals: Seed of requests that come and go, which are timed, too; None for none.
        types: Number formats of the backbone's and the depth decoder's matrices.
        instruction_set: For the package's own kernels; None for the best.
    """

    files: list[str]
    device: str
    threads: int
    batch: int
    frames: int
    contention: bool
    arrivals: int | None
    types: tuple[str, str]
    instruction_set: str | None


@dataclass(frozen=True)
class Result:
    """What was measured.

    Attributes:
        device: Its name.
        on_cpu: Whether it is the CPU, so that the speed of main memory bounds it.
        threads: CPU threads that computed.
        codebooks: Codes in a frame.
        frame_rate: Frames per second of speech.
        frame_bytes: Bytes of weights that a frame reads.
        frame_products: Multiply-adds with the weights of backbone and depth decoder that a frame
            of one utterance takes.
        instruction_set: That the package's own kernels used; None for a build without them.
        peak_bytes: The most memory that loading, prompting and speaking took; None if unknown.
        samples: The timings.
    """

    device: str
    on_cpu: bool
    threads: int
    codebooks: int
    frame_rate: float
    frame_bytes: int
    frame_products: tuple[int, int]
    instruction_set: str | None
    peak_bytes: int | None
    samples: Samples


def main() -> None:
    """Measure, and report the result or the error."""
    # Ctrl-C reaches the whole group; the process that started this one ends it.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        job = Job(**json.loads(sys.stdin.readline()))
        _say(result=asdict(_measure(job)))
    except Exception as error:
        _say(error=f"{type(error).__name__}: {error}")


def _measure(job: Job) -> Result:
    from csm_ggml import _core

    files = [Path(path) for path in job.files]
    session = Session(files, device=job.device, threads=job.threads, batch=job.batch)
    model = session.model
    types = {device["name"]: device["type"] for device in _core.devices()}
    half = (job.frames + 1) // 2
    _ask("limits")
    session.speak(half)
    session.read_context()
    _ask("limits")
    if job.frames > half:
        session.speak(job.frames - half)
    peak = peak_memory()
    session.decode_chunks(_CODEC_CHUNKS)
    session.encode_chunks(_CODEC_CHUNKS)
    _ask("limits")
    if job.contention:
        _ask("busy")
        session.speak(job.frames, contended=True)
        _ask("quiet")
    if job.arrivals is not None:
        compare_with_static(session, job.frames, job.arrivals)
    return Result(
        device=model.device,
        on_cpu=types.get(model.device) == "cpu",
        threads=model.threads,
        codebooks=session.codebooks,
        frame_rate=session.frame_rate,
        frame_bytes=frame_bytes(files, session.codebooks),
        frame_products=frame_products(files, session.codebooks),
        instruction_set=_core.instruction_set(),
        peak_bytes=peak,
        samples=session.samples,
    )


def _ask(what: str) -> None:
    _say(ask=what)
    if not sys.stdin.readline():
        # Who asked for the result has gone.
        sys.exit(1)


def _say(**message: Any) -> None:
    print(json.dumps(message), flush=True)


if __name__ == "__main__":
    main()
