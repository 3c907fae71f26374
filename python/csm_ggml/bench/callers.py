"""Many callers of one model: what the scheduler makes of threads that each ask for speech.

Everything goes through `CSM`, as programs use it. Compared are, in turns in one process: callers
that each call `stream`, against one `generate_batch` of as many texts; requests that come and go,
against the same; one caller, against the engine driven by hand.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from csm_ggml.bench.arrivals import draw_arrivals
from csm_ggml.csm import CSM
from csm_ggml.loading.model import Model
from csm_ggml.speech.options import Sampling
from csm_ggml.voices.segment import Segment

TEXT = "[0]Hello there, how are you today?"
# A reference voice of ten seconds.
VOICE_SECONDS = 10
# Streams that a newcomer, or a long prompt, meets.
BUSY = 3
# Random weights may repeat themselves, or be silent.
OPTIONS: dict[str, Any] = {"silence_seconds": 0, "loop_seconds": 0}


@dataclass
class CallerSamples:
    """What was measured, one value a turn.

    Attributes:
        batch_rate: Codes per second of `generate_batch`.
        callers_rate: Codes per second of as many threads that each call `stream`.
        arrivals_rate: Codes per second while requests of 1 to 6 seconds join and leave.
        newcomer_frames: Steps of three busy streams from a newcomer's prompt to its first sound.
        newcomer_ms: The same in milliseconds.
        gap: The longest gap between frames of three streams while a prompt of ten seconds of
            reference voice is evaluated, in frames of 80 ms.
        quiet_gap: The longest gap beside that, in frames.
        engine_ms: One frame of one utterance, engine and codec driven by hand, one after another.
        alone_ms: One frame of one utterance through `stream`.
        overhead_us: The scheduler's own microseconds for one utterance and frame.
    """

    batch_rate: list[float] = field(default_factory=list)
    callers_rate: list[float] = field(default_factory=list)
    arrivals_rate: list[float] = field(default_factory=list)
    newcomer_frames: list[float] = field(default_factory=list)
    newcomer_ms: list[float] = field(default_factory=list)
    gap: list[float] = field(default_factory=list)
    quiet_gap: list[float] = field(default_factory=list)
    engine_ms: list[float] = field(default_factory=list)
    alone_ms: list[float] = field(default_factory=list)
    overhead_us: list[float] = field(default_factory=list)

    def row(self, callers: int) -> dict[str, Any]:
        """Medians, and ratios of the values of one turn."""
        row: dict[str, Any] = {"callers": callers}
        row |= {name: median(values) for name, values in vars(self).items() if values}
        for name, one, other in (
            ("callers_ratio", self.callers_rate, self.batch_rate),
            ("arrivals_ratio", self.arrivals_rate, self.batch_rate),
            ("alone_ratio", self.alone_ms, self.engine_ms),
        ):
            pairs = zip(one, other, strict=True)
            row[name] = median(a / b for a, b in pairs)
        return row


def measure_callers(
    files: Sequence[Path],
    *,
    device: str,
    threads: int,
    callers: int,
    frames: int,
    rounds: int,
    on_start: Callable[[int], None] = lambda turn: None,
) -> dict[str, Any]:
    """Measure in so many turns; see `CallerSamples`.

    Args:
        files: Of the model.
        device: As `csm-ggml doctor` lists it, or "auto".
        threads: CPU threads.
        callers: Threads that ask for speech.
        frames: That each asks for.
        rounds: Turns.
        on_start: Called with the number of each turn.
    """
    samples = CallerSamples()
    slots = max(callers, BUSY + 1)
    with CSM(
        Model.load([str(f) for f in files], device=device, threads=threads), slots=slots
    ) as csm:
        _batch(csm, callers, 4)
        _callers(csm, callers, 4)
        _long_prompt(csm)
        for turn in range(rounds):
            on_start(turn)
            samples.batch_rate.append(_batch(csm, callers, frames))
            samples.callers_rate.append(_callers(csm, callers, frames))
            samples.arrivals_rate.append(_arrivals(csm, callers, samples.batch_rate[-1], turn))
            steps, seconds = _newcomer(csm)
            samples.newcomer_frames.append(steps)
            samples.newcomer_ms.append(1e3 * seconds)
            quiet, gap = _long_prompt(csm)
            samples.quiet_gap.append(quiet * csm.frame_rate)
            samples.gap.append(gap * csm.frame_rate)
            for _ in range(2):
                samples.engine_ms.append(1e3 * _engine(csm, frames))
                samples.alone_ms.append(1e3 * _alone(csm, frames))
        samples.overhead_us.append(1e6 * csm.scheduler.stats().overhead_seconds)
    return samples.row(callers)


def _batch(csm: CSM, callers: int, frames: int) -> float:
    started = time.perf_counter()
    csm.generate_batch([TEXT] * callers, seed=0, max_frames=frames, **OPTIONS)
    return callers * frames * csm.codebooks / (time.perf_counter() - started)


def _callers(csm: CSM, callers: int, frames: int) -> float:
    def call(seed: int) -> None:
        for _ in csm.stream(TEXT, seed=seed, max_frames=frames, **OPTIONS):
            pass

    started = time.perf_counter()
    threads = [threading.Thread(target=call, args=(seed,)) for seed in range(callers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return callers * frames * csm.codebooks / (time.perf_counter() - started)


def _arrivals(csm: CSM, slots: int, rate: float, seed: int) -> float:
    """Codes per second from the first request until the last one has been admitted."""
    frame_seconds = slots * csm.codebooks / rate
    arrivals = draw_arrivals(slots, csm.frame_rate, frame_seconds, seed)
    before = csm.scheduler.frames
    started = time.perf_counter()
    jobs = []
    for number, arrival in enumerate(arrivals):
        time.sleep(max(0.0, arrival.after - (time.perf_counter() - started)))
        jobs.append(
            csm.submit(TEXT, seed=number, max_frames=arrival.frames, buffer=None, **OPTIONS)
        )
    while csm.scheduler.stats().queued:
        time.sleep(0.01)
    made = (csm.scheduler.frames - before) * csm.codebooks / (time.perf_counter() - started)
    for job in jobs:
        job.cancel()
        job.wait()
    return made


def _newcomer(csm: CSM) -> tuple[int, float]:
    """Steps and seconds from asking until the first sound, beside busy streams."""
    busy = [
        csm.submit(TEXT, seed=seed, max_frames=200, chunk_frames=1, buffer=None, **OPTIONS)
        for seed in range(BUSY)
    ]
    for job in busy:
        next(job)
    before = csm.scheduler.steps
    started = time.perf_counter()
    late = csm.submit(TEXT, seed=9, max_frames=2, chunk_frames=1, **OPTIONS)
    next(late)
    seconds = time.perf_counter() - started
    steps = csm.scheduler.steps - before
    for job in [*busy, late]:
        job.cancel()
        job.wait()
    return steps, seconds


def _long_prompt(csm: CSM) -> tuple[float, float]:
    """The longest gap between frames of busy streams, before and while a long prompt comes."""
    count = round(VOICE_SECONDS * csm.frame_rate)
    codes = np.random.default_rng(0).integers(
        0, int(csm.config["csm.codes"]) - 1, (count, csm.codebooks), np.int32
    )
    context = [Segment(0, "What was said in ten seconds of a recording.", codes=codes)]
    times: list[list[float]] = [[] for _ in range(BUSY)]
    jobs = [
        csm.submit(TEXT, seed=seed, max_frames=300, chunk_frames=1, buffer=None, **OPTIONS)
        for seed in range(BUSY)
    ]

    def listen(number: int) -> None:
        try:
            for _ in jobs[number]:
                times[number].append(time.perf_counter())
        except RuntimeError:  # cancelled
            pass

    threads = [threading.Thread(target=listen, args=(number,)) for number in range(BUSY)]
    for thread in threads:
        thread.start()
    while min(map(len, times)) < 12:
        time.sleep(0.01)
    asked = time.perf_counter()
    newcomer = csm.submit(TEXT, context=context, seed=9, max_frames=1, **OPTIONS)
    newcomer.result()
    done = time.perf_counter()
    while min(own[-1] for own in times) < done:
        time.sleep(0.01)
    for job in jobs:
        job.cancel()
    for thread in threads:
        thread.join()
    quiet, during = 0.0, 0.0
    for own in times:
        # The first frames come while the others are prompted.
        for before, after in pairwise(own[3:]):
            if after < asked:
                quiet = max(quiet, after - before)
            elif before < done:
                during = max(during, after - before)
    return quiet, during


def _alone(csm: CSM, frames: int) -> float:
    """Seconds for a frame of one stream, after its first."""
    stream = csm.stream(TEXT, seed=0, max_frames=frames, chunk_frames=1, **OPTIONS)
    next(stream)
    started = time.perf_counter()
    for _ in stream:
        pass
    return (time.perf_counter() - started) / (frames - 1)


def _engine(csm: CSM, frames: int) -> float:
    """The same without the scheduler: a step in this thread, then its sound."""
    from csm_ggml import _core

    engine, decoder = _core.Engine(csm.model.core, slots=1), _core.MimiDecoder(csm.model.core)
    slot = engine.open(seed=0, **Sampling().as_dict())
    ids = np.array(csm.tokenize(TEXT), np.int32)
    engine.append(slot, ids, np.zeros((len(ids), csm.codebooks), np.int32))
    for frame in range(frames):
        codes, _ = engine.step([slot])
        decoder.decode(codes)
        if frame == 0:
            started = time.perf_counter()
    return (time.perf_counter() - started) / (frames - 1)
