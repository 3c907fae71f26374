"""What a caller holds of a request that is being spoken."""

from __future__ import annotations

import asyncio
import contextlib
import sys
import threading
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Protocol

from csm_ggml.audio.audio import Audio
from csm_ggml.audio.stats import Stats
from csm_ggml.errors import JobCancelled
from csm_ggml.speech.request import Request
from csm_ggml.voices.prompt import EncodedSegment

# Windows does not interrupt a wait for a lock, so that Ctrl-C has to be looked for.
_WAIT_SECONDS = 0.1 if sys.platform == "win32" else threading.TIMEOUT_MAX


class Driver(Protocol):
    """The part of the scheduler that a job needs."""

    def wake(self) -> None:
        """Take note that a job has been cancelled, or may go on."""

    def pump(self) -> bool:
        """Do some work where no thread does it; returns whether the caller has to wait itself."""

    def check_caller(self) -> None:
        """Refuse to wait in the thread that the work is done in."""

    @property
    def forked(self) -> bool:
        """Whether this is a fork of the process that the work is done in."""


class Outbox:
    """The speech of one job between the scheduler, which fills it, and the caller.

    Attributes:
        watermark: Sees each chunk before it is handed out.
    """

    def __init__(self, frames: int | None) -> None:
        """Start empty.

        Args:
            frames: Unread frames after which the job is full; None for no limit.
        """
        # A plain lock: Ctrl-C cannot strike between its release and the end of a `with`, as it can
        # in threading's classes that are written in Python.
        self.lock = threading.RLock()
        self.stats: Stats | None = None
        self.segments: tuple[EncodedSegment, ...] = ()
        self.error: BaseException | None = None
        self.done = False
        self.cancelled = False
        self.state = "queued"
        self._limit = frames
        self._chunks: deque[Audio] = deque()
        self._unread = 0
        self._callbacks: list[Callable[[], None]] = []
        self._wakers: list[Callable[[], None]] = []

    # The scheduler

    @property
    def full(self) -> bool:
        """Whether the caller has to read before more is spoken."""
        return self._limit is not None and self._unread >= self._limit

    def put(self, chunk: Audio) -> None:
        """Hand out a chunk."""
        with self.lock:
            self._chunks.append(chunk)
            self._unread += len(chunk.codes)
            self.stats = chunk.stats
            wakers = self._notify()
        for waker in wakers:
            waker()

    def finish(
        self, error: BaseException | None = None, segments: tuple[EncodedSegment, ...] = ()
    ) -> None:
        """Say that there is no further chunk."""
        with self.lock:
            if self.done:
                return
            self.done, self.error, self.segments = True, error, segments
            self.state = "done" if error is None else "failed"
            callbacks, self._callbacks = self._callbacks, []
            wakers = self._notify()
        for call in (*wakers, *callbacks):
            call()

    # The caller, who holds the lock

    def take(self) -> Audio | None:
        """The next chunk, if there is one."""
        if not self._chunks:
            return None
        chunk = self._chunks.popleft()
        self._unread -= len(chunk.codes)
        return chunk

    def lift_limit(self) -> None:
        """Let the job run to its end: somebody waits for all of it."""
        self._limit = None

    def call_when_done(self, callback: Callable[[], None]) -> None:
        """Call it when the job is done, at once if it is."""
        with self.lock:
            if not self.done:
                self._callbacks.append(callback)
                return
        callback()

    def call_when_news(self, waker: Callable[[], None]) -> None:
        """Call it once, when there is a chunk or the end."""
        self._wakers.append(waker)

    def call_no_more(self, waker: Callable[[], None]) -> None:
        """Forget a waker, if it has not been called."""
        with contextlib.suppress(ValueError):
            self._wakers.remove(waker)

    def _notify(self) -> list[Callable[[], None]]:
        """What to call when the lock is free again.

        An event loop that is woken under the lock takes up the thread of this one to wait for it.
        """
        wakers, self._wakers = self._wakers, []
        return wakers


class Job:
    """Speech that has been asked for: iterate over its chunks, or ask for the whole result.

    Made by `CSM.submit`. A job is read by one reader, and either iterated (also `async for`) or
    asked for its result. Its methods may be called from any thread.
    """

    def __init__(self, driver: Driver, outbox: Outbox, request: Request) -> None:
        self._driver = driver
        self._outbox = outbox
        self._request = request
        self._iterated = False
        self._result: Audio | None = None

    @property
    def seed(self) -> int:
        """The seed that makes the same speech again, with the same options."""
        return self._request.seed

    @property
    def state(self) -> str:
        """Where it is: "queued", "prefilling", "speaking", "paused", "parked", "done" or "failed".

        "paused": the caller has not read what is there; "parked": the same, and without a slot.
        A cancelled job is "failed".
        """
        return self._outbox.state

    @property
    def segments(self) -> tuple[EncodedSegment, ...]:
        """What its dialogue remembers, oldest first; empty until it is done."""
        return self._outbox.segments

    @property
    def stats(self) -> Stats | None:
        """What it has cost up to the last chunk that was made; None before the first."""
        return self._outbox.stats

    def done(self) -> bool:
        """Whether it has ended: spoken, failed or cancelled."""
        return self._outbox.done

    def cancel(self) -> bool:
        """End it; its slot is free within two frames. Returns False if it had ended before.

        Who reads it gets the chunks that are there, and then `JobCancelled`.
        """
        if self._driver.forked:
            return False  # another thread may have held the lock when the process was forked
        with self._outbox.lock:
            if self._outbox.done:
                return False
            self._outbox.cancelled = True
        self._driver.wake()
        return True

    def add_done_callback(self, callback: Callable[[Job], object]) -> None:
        """Call a function with this job when it has ended; at once if it has.

        It is called in the scheduler's thread, between two frames: it must return quickly, and may
        not wait for other jobs. What it raises is ignored, and logged.
        """

        def call() -> None:
            try:
                callback(self)
            except Exception:
                from csm_ggml.log import logger

                logger.exception("a done callback of a job failed")

        self._outbox.call_when_done(call)

    def result(self, timeout: float | None = None) -> Audio:
        """Wait for all of the speech.

        Args:
            timeout: Seconds to wait at most; None for no limit.

        Raises:
            TimeoutError: If it takes longer; the job goes on.
            JobCancelled: If it was cancelled.
            DeadlineExceeded: If its deadline passed.
            RuntimeError: If its chunks have been iterated over.
        """
        if self._result is not None:
            return self._result
        if self._iterated:
            raise RuntimeError(
                "the chunks of this job have been iterated over, so there is no whole result; join "
                "them with Audio.concatenate"
            )
        self.wait(timeout)
        with self._outbox.lock:
            if self._result is None:
                self._raise_error()
                chunks = []
                while (chunk := self._outbox.take()) is not None:
                    chunks.append(chunk)
                self._result = Audio.concatenate(chunks)
        return self._result

    def wait(self, timeout: float | None = None) -> None:
        """Wait until it has ended, however it has; nothing is raised if it failed.

        Args:
            timeout: Seconds to wait at most; None for no limit.

        Raises:
            TimeoutError: If it takes longer; the job goes on.
        """
        self._driver.check_caller()
        with self._outbox.lock:
            self._outbox.lift_limit()
        self._driver.wake()
        deadline = None if timeout is None else time.monotonic() + timeout
        self._wait_for(lambda: self._outbox.done, deadline)

    def check(self) -> None:
        """Raise what it failed with, if it has."""
        with self._outbox.lock:
            self._raise_error()

    def __iter__(self) -> Iterator[Audio]:
        """The chunks; see `CSM.stream`."""
        self._iterated = True
        return self

    def __next__(self) -> Audio:
        """The next chunk, when it is there.

        Raises:
            StopIteration: After the last one.
            JobCancelled: If it was cancelled.
            DeadlineExceeded: If its deadline passed.
        """
        self._driver.check_caller()
        self._iterated = True
        outbox = self._outbox
        self._wait_for(lambda: outbox.done or bool(outbox._chunks), None)
        with outbox.lock:
            was_full = outbox.full
            chunk = outbox.take()
            if chunk is None:
                self._raise_error()
                raise StopIteration
        if was_full:
            self._driver.wake()
        return chunk

    def __aiter__(self) -> AsyncIterator[Audio]:
        """The chunks, for `async for`."""
        self._iterated = True
        return self

    async def __anext__(self) -> Audio:
        """The next chunk; see `__next__`."""
        self._iterated = True
        outbox = self._outbox
        while True:
            with outbox.lock:
                was_full = outbox.full
                chunk = outbox.take()
                if chunk is None:
                    if outbox.done:
                        self._raise_error()
                        raise StopAsyncIteration
                    news = self._news()
            if chunk is not None:
                if was_full:
                    self._driver.wake()
                return chunk
            await news

    def __repr__(self) -> str:
        return f"<Job {self.state}, seed {self.seed}>"

    def _news(self) -> asyncio.Future[None]:
        """A future of the running loop that is done when there is a chunk or the end."""
        loop = asyncio.get_running_loop()
        news: asyncio.Future[None] = loop.create_future()

        def tell() -> None:
            if not news.done():
                news.set_result(None)

        def wake() -> None:
            # A loop that was closed meanwhile has nobody who waits.
            if not loop.is_closed():
                loop.call_soon_threadsafe(tell)

        self._outbox.call_when_news(wake)
        return news

    def _wait_for(self, there: Callable[[], bool], deadline: float | None) -> None:
        outbox = self._outbox
        while True:
            left = _WAIT_SECONDS if deadline is None else deadline - time.monotonic()
            with outbox.lock:
                if there():
                    return
                if left <= 0:
                    raise TimeoutError("the job is not done yet")
            if self._driver.pump():
                # Released by whoever has news.
                news = threading.Lock()
                news.acquire()
                with outbox.lock:
                    if there():
                        return
                    outbox.call_when_news(news.release)
                if not news.acquire(timeout=min(left, _WAIT_SECONDS)):
                    with outbox.lock:
                        outbox.call_no_more(news.release)

    def _raise_error(self) -> None:
        error = self._outbox.error
        if error is None:
            return
        # A raised exception grows a traceback; each reader gets its own.
        if isinstance(error, JobCancelled):
            raise JobCancelled(str(error))
        raise error
