"""Several requests through the scheduler, a bounded number of them at a time."""

from __future__ import annotations

import queue
from collections.abc import Iterable, Iterator
from typing import Any

from csm_ggml.errors import QueueFull
from csm_ggml.speech.job import Job
from csm_ggml.speech.request import Request
from csm_ggml.speech.scheduler import Scheduler

# How often Ctrl-C is looked for where a wait does not notice it.
_WAIT_SECONDS = 0.1


def as_done(
    scheduler: Scheduler, requests: Iterable[Request], size: int, **options: Any
) -> Iterator[tuple[int, Job]]:
    """The number and the job of each request, in the order in which they end.

    When the iterator is closed or fails, what is under way is cancelled.

    Args:
        scheduler: Speaks them.
        requests: Each is asked for when there is room for it.
        size: Requests that are under way at most.
        **options: As for `Scheduler.submit`.

    Raises:
        QueueFull: If the scheduler's queue is full of other callers' requests.
    """
    waiting = enumerate(requests)
    under_way: dict[int, Job] = {}
    done: queue.SimpleQueue[int] = queue.SimpleQueue()
    held: tuple[int, Request] | None = None
    try:
        while True:
            while len(under_way) < size:
                following = held or next(waiting, None)
                if following is None:
                    break
                number, request = following
                try:
                    job = scheduler.submit(request, **options)
                except QueueFull:
                    if not under_way:
                        raise
                    held = following
                    break
                held = None
                under_way[number] = job
                job.add_done_callback(lambda _, number=number: done.put(number))  # type: ignore[misc]
            if not under_way:
                return
            number = _next(scheduler, done)
            yield number, under_way.pop(number)
    finally:
        for job in under_way.values():
            job.cancel()


def _next(scheduler: Scheduler, done: queue.SimpleQueue[int]) -> int:
    scheduler.check_caller()
    while True:
        try:
            return done.get(block=False)
        except queue.Empty:
            pass
        if scheduler.pump():
            try:
                return done.get(timeout=_WAIT_SECONDS)
            except queue.Empty:
                pass
