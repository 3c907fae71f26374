"""The scheduler: the thread around the loop, and all that callers see of it.

One thread, one engine with slots and one codec with streams serve all callers of a loaded model, so
that they share each reading of the weights. The thread and the engine's worker are daemons that are
stopped and joined when the interpreter exits, before it is taken down; where the system gives no
thread (any more), those who wait for their jobs do the work.
"""

from __future__ import annotations

import atexit
import contextlib
import math
import os
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable
from functools import partial
from queue import Empty, SimpleQueue
from typing import Any

from csm_ggml.audio.watermark import Watermark
from csm_ggml.errors import BackendError, JobCancelled, QueueFull
from csm_ggml.limits import number
from csm_ggml.loading.geometry import Geometry
from csm_ggml.log import logger
from csm_ggml.speech.daemon import Daemon
from csm_ggml.speech.dialogue import Dialogue
from csm_ggml.speech.engine import Decoder, Engine
from csm_ggml.speech.entry import PRIORITIES, Entry
from csm_ggml.speech.job import Job, Outbox
from csm_ggml.speech.loop import Loop, LoopSettings
from csm_ggml.speech.meter import SchedulerStats
from csm_ggml.speech.request import Conditioning, Request
from csm_ggml.speech.utterance import WHOLE, ChunkSizes
from csm_ggml.speech.worker import Worker
from csm_ggml.voices.prompt import PromptBuilder

SLOTS = 16
QUEUE = 256
# After so long without work, memory is given back.
IDLE_SECONDS = 30.0
FORKED = (
    "the model was loaded before a fork of the process, and threads do not survive one; load it in "
    "the child, or start the child with multiprocessing's method 'spawn'"
)


class _Runner:
    """What the thread needs; it does not know the `Scheduler`, so that this can be collected."""

    def __init__(self, loop: Loop, worker: Worker) -> None:
        self.loop = loop
        self.worker = worker
        # Of arrivals, inbox, threads and closing. A collected object may release a lease while it
        # is held.
        self.lock = threading.RLock()
        self.arrivals: deque[Entry] = deque()
        self.inbox: deque[Callable[[], None]] = deque()  # what else is to be done
        # Something to look at; Ctrl-C cannot strike inside of it, as it can in an Event.
        self.news: SimpleQueue[None] = SimpleQueue()
        self.daemon = Daemon("csm-scheduler")
        self.closing: str | None = None  # "drain" or "cancel"
        self.threadless = False
        self.retired = False
        self.ticking = threading.RLock()
        self.pid = os.getpid()

    def post(self, command: Callable[[], None]) -> None:
        """Have something done between two ticks."""
        with self.lock:
            self.inbox.append(command)
        self.wake()

    def wake(self) -> None:
        """Have the thread look at what there is."""
        # One is enough: the thread takes it before it looks.
        if self.news.empty():
            self.news.put(None)

    def sleep(self, seconds: float | None) -> bool:
        """Wait until there may be something to do; returns whether there was within the time."""
        try:
            self.news.get(timeout=seconds)
        except Empty:
            return False
        return True

    def next_command(self) -> Callable[[], None] | None:
        """What was posted: jobs first, as what is released after a job must not come before it."""
        with self.lock:
            if self.arrivals:
                return partial(self.loop.add, self.arrivals.popleft())
            return self.inbox.popleft() if self.inbox else None

    def start(self) -> None:
        """Start the threads, unless they run or cannot be had."""
        with self.lock:
            if self.daemon.thread is not None or self.threadless:
                return
            try:
                self.worker.start()
                self.daemon.start(self.run)
            except RuntimeError:
                self.worker.stop()
                self.threadless = True

    def run(self) -> None:
        """The thread."""
        while True:
            while not self.news.empty():
                self.news.get()
            if self.retired:
                with self.ticking:
                    self.worker.stop()
                return
            busy = self.once()
            if self.closing is not None and (self.closing == "cancel" or not self.loop.busy):
                self.end()
                return
            if not busy:
                alarm = self.loop.alarm()
                if not self.sleep(IDLE_SECONDS if alarm is None else alarm) and alarm is None:
                    with self.ticking:
                        self.loop.rest()
                    self.sleep(None)

    def once(self) -> bool:
        """Carry out what was posted, and one tick."""
        with self.ticking:
            while (command := self.next_command()) is not None:
                command()
            try:
                return self.loop.tick()
            except Exception as error:
                # A fault of ours must not leave callers waiting for ever.
                logger.exception("the scheduler failed")
                self.loop.fail_all(error)
                self.loop.drop_engine()
                return True

    def end(self) -> None:
        """Tell those who still wait, and free everything."""
        with self.ticking:
            while (command := self.next_command()) is not None:
                command()
            self.loop.fail_all(JobCancelled("the model was closed"))
            self.loop.drop_engine()
            self.worker.stop()

    def stop(self, how: str, *, wait: bool = True) -> None:
        """End the thread: at once ("cancel"), or when all jobs are done ("drain")."""
        if self.pid != os.getpid():
            return
        with self.lock:
            self.closing = how if self.closing != "cancel" else "cancel"
            thread = self.daemon.close()
        self.wake()
        if thread is None:
            while how == "drain" and self.once():
                pass
            self.end()
        elif wait and thread is not threading.current_thread():
            thread.join()

    def retire(self) -> None:
        """End the threads, but not the jobs, as the interpreter is about to exit.

        Threads that still wait for a job are daemons, which wait until the process has ended. Exit
        handlers that come later may speak: who waits does the work.
        """
        if self.pid != os.getpid():
            return
        with self.lock:
            thread = self.daemon.take()
            self.retired = self.threadless = True
        self.wake()
        if thread is not None:
            thread.join()


_RUNNERS: weakref.WeakSet[_Runner] = weakref.WeakSet()


def _retire_all() -> None:
    for runner in list(_RUNNERS):
        runner.retire()


# Exit handlers run in the reverse order: those that were registered after this still have threads.
atexit.register(_retire_all)


class Scheduler:
    """Speaks the requests of all callers of one loaded model; `CSM.scheduler`."""

    def __init__(
        self,
        make_engine: Callable[[int], Engine],
        make_decoder: Callable[[int], Decoder],
        prompts: PromptBuilder,
        geometry: Geometry,
        *,
        slots: int = SLOTS,
        queue: int = QUEUE,
        realtime: float | None = None,
        prefill_rows: int | None = None,
        threads: bool = True,
    ) -> None:
        """Take what it needs; threads, engine and codec start with the first job.

        Args:
            make_engine: Makes an engine with so many slots.
            make_decoder: Makes a decoder with so many streams.
            prompts: Builds the model's prompt rows.
            geometry: Of the model.
            slots: Utterances that are spoken side by side at most.
            queue: Jobs that may wait for a slot.
            realtime: Share of a frame that a step with live jobs may last; None for no limit.
            prefill_rows: Rows of prompts between two steps; None to choose by measured times.
            threads: False has those who wait for jobs do the work.
        """
        self._prompts = prompts
        self._geometry = geometry
        self._slots = slots
        self._queue = queue
        self._numbers = 0
        worker = Worker()
        loop = Loop(
            make_engine,
            make_decoder,
            lambda request: Dialogue(prompts, request.conditioning),
            geometry,
            LoopSettings(slots, realtime, prefill_rows),
            worker,
        )
        self._runner = _Runner(loop, worker)
        self._runner.threadless = not threads
        _RUNNERS.add(self._runner)
        self._finalizer = weakref.finalize(self, self._runner.stop, "cancel", wait=False)
        self._finalizer.atexit = False

    @property
    def slots(self) -> int:
        """Utterances that are spoken side by side at most."""
        return self._slots

    @property
    def steps(self) -> int:
        """Steps of the engine since the model was loaded."""
        return self._runner.loop.meter.steps

    @property
    def frames(self) -> int:
        """Frames of all utterances since the model was loaded."""
        return self._runner.loop.meter.frames

    def submit(
        self,
        request: Request,
        *,
        chunks: ChunkSizes = WHOLE,
        priority: str = "live",
        deadline: float | None = None,
        buffer: float | None = None,
        watermark: Watermark | None = None,
        lease: Dialogue | None = None,
    ) -> Job:
        """Have a request spoken; see `CSM.submit`.

        Args:
            request: Checked by `check_fits`.
            chunks: Sizes of the chunks; a request with retries hands out whole turns instead.
            priority: "live" or "bulk".
            deadline: Seconds from now.
            buffer: Seconds of unread speech after which the job pauses; None for no limit.
            watermark: Gets each chunk before it is handed out, and returns its samples.
            lease: The dialogue that it is spoken in, of `lease`.

        Raises:
            QueueFull: If too many jobs wait.
            RuntimeError: If the model was closed.
            BackendError: If the model was loaded before a fork.
        """
        if priority not in PRIORITIES:
            raise ValueError(f"priority must be one of {', '.join(PRIORITIES)}, got {priority!r}")
        frames = None
        if buffer is not None:
            frames = max(1, round(_positive("buffer", buffer) * self._geometry.frame_rate))
        until = None
        if deadline is not None:
            until = time.perf_counter() + _positive("deadline", deadline)
        runner = self._runner
        self._check_usable()
        outbox = Outbox(frames)
        entry = Entry(request, outbox, chunks, priority == "live", 0, until, watermark, lease)
        with runner.lock:
            waiting = len(runner.arrivals) + runner.loop.queued
            # What finds a free slot does not wait.
            waiting -= runner.loop.free
            if waiting >= self._queue:
                raise self._queue_full(waiting)
            self._numbers += 1
            entry.number = self._numbers
            runner.arrivals.append(entry)
        runner.wake()
        runner.start()
        return Job(self, outbox, request)

    def lease(self, conditioning: Conditioning) -> Dialogue:
        """A dialogue that jobs can be spoken in, one after another; see `release`."""
        return Dialogue(self._prompts, conditioning)

    def release(self, dialogue: Dialogue) -> None:
        """Free what a dialogue holds, when the last job in it has ended."""
        _release(weakref.ref(self._runner), dialogue)

    def release_with(self, owner: object, dialogue: Dialogue) -> None:
        """Free what a dialogue holds when its owner is garbage, at the latest."""
        ending = weakref.finalize(owner, _release, weakref.ref(self._runner), dialogue)
        ending.atexit = False

    def stats(self) -> SchedulerStats:
        """What it is doing now."""
        loop = self._runner.loop
        frames, rows = loop.meter.rates()
        counts: dict[str, Any] = loop.count()
        counts["queued"] += len(self._runner.arrivals)
        return SchedulerStats(
            slots=self._slots,
            **counts,
            step_seconds=loop.times.seconds(),
            frames_per_second=frames,
            rows_per_second=rows,
            overhead_seconds=loop.meter.overhead,
        )

    def close(self, *, drain: bool = False) -> None:
        """Stop, and free engine and codec. Jobs that are not done are cancelled.

        Args:
            drain: Wait until all jobs are done instead; no new one is taken meanwhile.
        """
        self.check_caller()
        self._runner.stop("drain" if drain else "cancel")

    # For jobs

    def wake(self) -> None:
        """See `Driver`."""
        self._runner.wake()

    def pump(self) -> bool:
        """See `Driver`."""
        runner = self._runner
        if not runner.threadless or (runner.retired and not _is_main()):
            return True
        if runner.once():
            return False
        if (alarm := runner.loop.alarm()) is None:
            return True
        time.sleep(min(alarm, 0.01))
        return False

    def check_caller(self) -> None:
        """See `Driver`.

        Raises:
            RuntimeError: In the scheduler's own thread, such as in a watermark hook.
            BackendError: If the model was loaded before a fork.
        """
        self._check_process()
        if threading.current_thread() is self._runner.daemon.thread:
            raise RuntimeError(
                "a watermark hook or a done callback cannot wait for speech of the same model: it "
                "runs in the thread that makes it"
            )

    # Inside

    @property
    def forked(self) -> bool:
        """See `Driver`."""
        return self._runner.pid != os.getpid()

    def _check_process(self) -> None:
        if self.forked:
            raise BackendError(FORKED)

    def _check_usable(self) -> None:
        self._check_process()
        runner = self._runner
        if runner.retired and not _is_main():
            raise RuntimeError("the interpreter is exiting")
        if runner.closing is not None:
            raise RuntimeError("the model was closed; load it again")

    def _queue_full(self, waiting: int) -> QueueFull:
        wait = self._runner.loop.meter.job_seconds * (waiting + 1) / self._slots
        return QueueFull(
            f"{waiting} requests wait already, and the queue takes {self._queue}; try again in "
            f"about {math.ceil(wait)} s, or load the model with a longer queue=",
            retry_after=wait,
        )


def _release(runner: weakref.ref[_Runner], dialogue: Dialogue) -> None:
    found = runner()
    if found is not None and found.pid == os.getpid():
        with contextlib.suppress(RuntimeError):
            found.post(lambda: found.loop.release(dialogue))


def _is_main() -> bool:
    return threading.current_thread() is threading.main_thread()


def _positive(name: str, value: float) -> float:
    seconds = number(name, value)
    if not 0 < seconds < math.inf:
        raise ValueError(f"{name} must be a positive number of seconds, got {value}")
    return seconds
