"""What the scheduler counts of its own work."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass

# Rates are of so many seconds, up to now.
WINDOW_SECONDS = 5.0


@dataclass(frozen=True)
class SchedulerStats:
    """What a scheduler is doing; see `CSM.scheduler`.

    Attributes:
        slots: Utterances that can be spoken side by side.
        queued: Jobs that wait for a slot.
        prefilling: Jobs whose prompt is being evaluated.
        speaking: Jobs that are being spoken.
        paused: Jobs whose caller has not read what is there.
        parked: Paused jobs, and bulk jobs that made room, without a slot.
        step_seconds: Median time of the latest steps, by the number of utterances in them: of the
            engine, or of the sound of the step before where that takes longer.
        frames_per_second: Frames of all utterances, over the last five seconds.
        rows_per_second: Prompt rows, over the last five seconds.
        overhead_seconds: CPU time of the scheduler itself for one utterance and frame, without
            engine and codec; the mean since the model was loaded.
    """

    slots: int
    queued: int
    prefilling: int
    speaking: int
    paused: int
    parked: int
    step_seconds: Mapping[int, float]
    frames_per_second: float
    rows_per_second: float
    overhead_seconds: float


class Meter:
    """Counts ticks and jobs.

    Attributes:
        steps: Steps of the engine so far.
        frames: Frames of all utterances so far.
    """

    def __init__(self) -> None:
        self._ticks: deque[tuple[float, int, int]] = deque()
        self.steps = 0
        self.frames = 0
        self._own = 0.0
        self._job_seconds: float | None = None

    def add(self, frames: int, rows: int, own: float) -> None:
        """Take note of a tick: its frames, its prompt rows, and the scheduler's own seconds."""
        now = time.perf_counter()
        self._ticks.append((now, frames, rows))
        self._own += own
        self.frames += frames
        self.steps += frames > 0
        while self._ticks[0][0] < now - WINDOW_SECONDS:
            self._ticks.popleft()

    def ended(self, seconds: float) -> None:
        """Take note of a job that was spoken in so many seconds."""
        before = self._job_seconds
        self._job_seconds = seconds if before is None else 0.8 * before + 0.2 * seconds

    @property
    def job_seconds(self) -> float:
        """How long the latest jobs had a slot; a second before there were any."""
        return 1.0 if self._job_seconds is None else self._job_seconds

    @property
    def overhead(self) -> float:
        """The scheduler's own seconds for one utterance and frame."""
        return self._own / self.frames if self.frames else 0.0

    def rates(self) -> tuple[float, float]:
        """Frames and prompt rows per second."""
        now = time.perf_counter()
        ticks = [tick for tick in list(self._ticks) if tick[0] >= now - WINDOW_SECONDS]
        frames, rows = sum(tick[1] for tick in ticks), sum(tick[2] for tick in ticks)
        return frames / WINDOW_SECONDS, rows / WINDOW_SECONDS
