"""Measuring configurations in turns, each time in a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from csm_ggml.bench.session import Samples
from csm_ggml.bench.worker import Job, Result
from csm_ggml.loading.backends import load_backends

# Many times the size of any processor's caches, so that memory is read and nothing else.
BANDWIDTH_BYTES = 512 << 20
_LIMIT_ROUNDS = 3

_INSTRUCTION_SET = "CSM_GGML_ISA"

# Ends with the process that started it, however that ends.
_BUSY = """
import os
parent = os.getppid()
print(flush=True)
while os.getppid() == parent:
    sum(range(100_000))
"""


class BenchmarkError(RuntimeError):
    """A configuration could not be measured."""


@dataclass(frozen=True)
class Configuration:
    """One row of the results.

    Attributes:
        files: Of the model.
        type: Of the backbone's matrices.
        depth_type: Of the depth decoder's.
        batch: Utterances side by side.
        instruction_set: For the package's own kernels; None for the one in use.
    """

    files: tuple[Path, ...]
    type: str
    depth_type: str
    batch: int
    instruction_set: str | None = None

    def __str__(self) -> str:
        """For messages."""
        mixed = f" with {self.depth_type} depth decoder" if self.depth_type != self.type else ""
        kernels = f", {self.instruction_set}" if self.instruction_set else ""
        return f"{self.type}{mixed}{kernels}, batch {self.batch}"


@dataclass
class Limits:
    """What the machine does at best, measured between the timings.

    Attributes:
        bandwidth: Bytes per second that are read from memory.
        peaks: Multiply-adds per second, with the instructions for products with the backbone's
            and with the depth decoder's type; none in a build without kernels of its own.
    """

    bandwidth: list[float] = field(default_factory=list)
    peaks: list[tuple[float, float]] = field(default_factory=list)


@dataclass
class Measured:
    """All rounds of a configuration.

    Attributes:
        configuration: What was measured.
        result: Of the last round, with the samples of all.
        limits: What the machine did at best between the timings.
    """

    configuration: Configuration
    result: Result
    limits: Limits = field(default_factory=Limits)


def measure(
    configurations: Sequence[Configuration],
    *,
    device: str,
    threads: int,
    frames: int,
    rounds: int,
    contention: bool = False,
    arrivals: bool = False,
    on_start: Callable[[int, Configuration], None] = lambda number, configuration: None,
) -> list[Measured]:
    """Time configurations in `rounds` turns, every other turn in reverse.

    Args:
        configurations: What to measure.
        device: As `csm-ggml doctor` lists it, or "auto".
        threads: CPU threads.
        frames: To time for each configuration, in all turns together.
        rounds: Turns; no more than there are frames are taken.
        contention: Whether to time as many frames again while a process keeps a core busy.
        arrivals: Whether to time requests that come and go, too; each turn has others.
        on_start: Called with the number of the turn and what is measured next.

    Returns:
        In the order of the configurations.

    Raises:
        BenchmarkError: If a configuration cannot be measured.
    """
    rounds = min(rounds, frames)
    measured: dict[int, Measured] = {}
    for turn in range(rounds):
        share = frames * (turn + 1) // rounds - frames * turn // rounds
        order = list(enumerate(configurations))
        for number, configuration in order if turn % 2 == 0 else reversed(order):
            on_start(turn, configuration)
            job = Job(
                files=[str(path) for path in configuration.files],
                device=device,
                threads=threads,
                batch=configuration.batch,
                frames=share,
                contention=contention,
                arrivals=turn if arrivals else None,
                types=(configuration.type, configuration.depth_type),
                instruction_set=configuration.instruction_set,
            )
            try:
                result, limits = _run(job)
            except BenchmarkError as error:
                raise BenchmarkError(f"{configuration}: {error}") from None
            if number not in measured:
                measured[number] = Measured(configuration, result, limits)
            else:
                _add(measured[number], result, limits)
    return [measured[number] for number in range(len(configurations))]


def _add(so_far: Measured, result: Result, limits: Limits) -> None:
    samples = so_far.result.samples
    samples.extend(result.samples)
    peaks = [p for p in (so_far.result.peak_bytes, result.peak_bytes) if p is not None]
    so_far.result = Result(
        **{**vars(result), "samples": samples, "peak_bytes": max(peaks, default=None)}
    )
    so_far.limits.bandwidth += limits.bandwidth
    so_far.limits.peaks += limits.peaks


def _run(job: Job) -> tuple[Result, Limits]:
    """Run a job in a process; answer what it asks."""
    limits = Limits()
    busy: subprocess.Popen[bytes] | None = None
    worker = subprocess.Popen(
        [sys.executable, "-m", "csm_ggml.bench.worker"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | ({_INSTRUCTION_SET: job.instruction_set} if job.instruction_set else {}),
    )
    assert worker.stdout is not None
    try:
        _send(worker, json.dumps(asdict(job)))
        for line in worker.stdout:
            message = json.loads(line)
            if "error" in message:
                raise BenchmarkError(message["error"])
            if "result" in message:
                return _as_result(message["result"]), limits
            if message["ask"] == "limits":
                _measure_limits(job, limits)
            elif message["ask"] == "busy":
                busy = _start_busy_process()
            elif busy is not None:
                _end(busy)
            _send(worker, "")
        raise BenchmarkError(
            f"the process that measured it ended with exit code {worker.wait()} (a negative one "
            "is a signal: -9 may mean that memory ran out)"
        )
    finally:
        for process in (worker, busy):
            if process is not None:
                _end(process)


def _measure_limits(job: Job, limits: Limits) -> None:
    core = load_backends()
    limits.bandwidth.append(core.read_bandwidth(job.threads, BANDWIDTH_BYTES, _LIMIT_ROUNDS))
    instruction_set = job.instruction_set or core.instruction_set()
    if instruction_set is None:
        return
    peaks = {
        type: core.multiply_add_peak(type, job.threads, _LIMIT_ROUNDS, instruction_set)
        for type in set(job.types)
    }
    backbone, depth = job.types
    limits.peaks.append((peaks[backbone], peaks[depth]))


def _send(worker: subprocess.Popen[str], line: str) -> None:
    assert worker.stdin is not None
    # A process that has ended is noticed when it is read from.
    with suppress(BrokenPipeError):
        print(line, file=worker.stdin, flush=True)


def _start_busy_process() -> subprocess.Popen[bytes]:
    """Keep one core busy, the same one throughout where the system allows to say so."""
    process = subprocess.Popen([sys.executable, "-c", _BUSY], stdout=subprocess.PIPE)
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(process.pid, {min(os.sched_getaffinity(0))})
    assert process.stdout is not None
    process.stdout.readline()
    return process


def _end(process: subprocess.Popen[Any]) -> None:
    process.kill()
    process.wait()
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            # A pipe that nobody reads any more may hold an unsent line.
            with suppress(BrokenPipeError):
                pipe.close()


def _as_result(message: dict[str, Any]) -> Result:
    return Result(**{**message, "samples": Samples(**message["samples"])})
