"""A thread of which Ctrl-C cannot lose track."""

from __future__ import annotations

import threading
from collections.abc import Callable


class Daemon:
    """At most one daemon thread.

    `Thread.start` waits until the thread runs, and Ctrl-C ends that wait with an exception: then
    there is a thread, or will be in a moment, of which the caller knows nothing. So the thread
    registers itself before it does anything, and one that comes too late does nothing.

    Attributes:
        thread: The thread, if one is known to run.
    """

    def __init__(self, name: str) -> None:
        self.thread: threading.Thread | None = None
        self._name = name
        self._wanted = False
        # A finalizer, which may run anywhere, may ask for the end while this is held.
        self._lock = threading.RLock()

    def start(self, run: Callable[[], None]) -> None:
        """Have `run` run in the thread, unless there is one.

        Raises:
            RuntimeError: If the system gives none.
        """
        with self._lock:
            if self.thread is not None:
                return
            self._wanted = True
            known: list[threading.Thread] = []
            thread = threading.Thread(
                target=self._enter, args=(run, known), name=self._name, daemon=True
            )
            thread.start()
            self.thread = thread
            known.append(thread)

    def close(self) -> threading.Thread | None:
        """Have no thread begin from now on; returns the one that runs, which is not ended by it."""
        with self._lock:
            self._wanted = False
            return self.thread

    def take(self) -> threading.Thread | None:
        """As `close`, and the thread counts as gone: whoever gets it ends it."""
        with self._lock:
            thread, self.thread = self.close(), None
            return thread

    def _enter(self, run: Callable[[], None], known: list[threading.Thread]) -> None:
        with self._lock:
            if not known:
                if not self._wanted or self.thread is not None:
                    return
                self.thread = threading.current_thread()
        run()
