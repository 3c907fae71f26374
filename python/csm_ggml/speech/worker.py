"""The engine's share of a tick, which runs while the scheduler makes sound of the step before."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from csm_ggml.speech.daemon import Daemon
from csm_ggml.speech.engine import Engine, SlotRows
from csm_ggml.speech.entry import Entry


@dataclass(eq=False)
class Work:
    """Jobs whose prompts go on, and jobs of which a frame is made.

    Attributes:
        prompts: Oldest first.
        rows: Of prompts, at most, in all.
        short: A prompt of at most so many rows is evaluated whole, although `rows` may be less.
        short_rows: Rows of such prompts, at most, in all.
        speaking: Jobs that are ready, and those of `prompts` that become ready.
        later: Jobs of `prompts` that are to speak from the next step on at the earliest.
        failed: Jobs whose prompt failed, and why.
        codes: (jobs, codebooks) of `speaking`, in order.
        error: Why the step failed.
        prefill_rows: Rows of prompts that were evaluated.
        joined_rows: Those of them that went through the backbone in the step.
        prefill_seconds: What the others took.
        step_seconds: What the step took; 0 if there was none.
    """

    prompts: list[Entry]
    rows: int
    short: int
    short_rows: int
    speaking: list[Entry]
    later: frozenset[Entry] = frozenset()
    failed: list[tuple[Entry, BaseException]] = field(default_factory=list)
    codes: npt.NDArray[np.int32] | None = None
    error: BaseException | None = None
    prefill_rows: int = 0
    joined_rows: int = 0
    prefill_seconds: float = 0.0
    step_seconds: float = 0.0

    def run(self, engine: Engine) -> None:
        """Do it."""
        started = time.perf_counter()
        piece: SlotRows | None = None
        joined: Entry | None = None
        for entry in self.prompts:
            rows = 0 if piece else max(0, self.rows - self.prefill_rows)
            short = self.short if self.prefill_rows + self.short <= self.short_rows else 0
            if not rows and not short:
                break
            try:
                # Beside a step, a long prompt goes with it: the backbone's weights are read once.
                if self.speaking and (piece_of := entry.speaker.piece(engine, rows, short)):
                    piece, joined = piece_of, entry
                    self.joined_rows = len(piece[1])
                    self.prefill_rows += self.joined_rows
                    continue
                self.prefill_rows += entry.speaker.prefill(engine, rows, short)
            except Exception as error:
                self.failed.append((entry, error))
                continue
            if entry.speaker.ready and entry not in self.later:
                self.speaking.append(entry)
        prompted = time.perf_counter()
        self.prefill_seconds = prompted - started
        if not self.speaking:
            return
        try:
            slots = [entry.slot for entry in self.speaking]
            self.codes, _ = engine.step(slots, prompt=piece) if piece else engine.step(slots)
        except Exception as error:
            self.error = error
            return
        self.step_seconds = time.perf_counter() - prompted
        if joined is not None:
            try:
                joined.speaker.gave(engine, self.joined_rows, self.step_seconds)
            except Exception as error:
                self.failed.append((joined, error))


class Worker:
    """A thread that does one piece of work at a time; without the thread, who asks does it."""

    def __init__(self) -> None:
        # Locks that one thread acquires and the other releases: nothing is cheaper to wait for.
        self._wake = threading.Lock()
        self._done = threading.Lock()
        self._wake.acquire()
        self._done.acquire()
        self._work: tuple[Work, Engine] | None = None
        self._handed = False
        self._daemon = Daemon("csm-step")

    def start(self) -> None:
        """Start the thread.

        Raises:
            RuntimeError: If the system gives none.
        """
        self._daemon.start(self._run)

    def begin(self, work: Work, engine: Engine) -> None:
        """Start some work; nobody else may use the engine until `wait` has returned."""
        self._handed = self._daemon.thread is not None
        if self._handed:
            self._work = work, engine
            self._wake.release()
        else:
            work.run(engine)

    def wait(self) -> None:
        """Wait until the work that was begun is done."""
        if self._handed:
            self._done.acquire()

    def stop(self) -> None:
        """End the thread, which is idle."""
        if (thread := self._daemon.take()) is not None:
            self._work = None
            self._wake.release()
            thread.join()

    def _run(self) -> None:
        while True:
            self._wake.acquire()
            job: Any = self._work
            if job is None:
                return
            self._work = None
            work, engine = job
            work.run(engine)
            del job, work, engine
            self._done.release()
