"""Long calls into the compiled core from threads that nobody stops when the interpreter exits.

A daemon thread that comes back from the core after the interpreter has been taken down ends the
process with an abort. So the interpreter waits at its exit for calls that are under way, and holds
back those that would begin then.
"""

from __future__ import annotations

import atexit
import threading
from collections.abc import Iterator
from contextlib import contextmanager

_condition = threading.Condition()
_under_way = 0
_exiting = False


@contextmanager
def core_call() -> Iterator[None]:
    """Around a call into the core that may take long and does not need the interpreter's lock."""
    global _under_way
    if threading.current_thread() is threading.main_thread():
        yield
        return
    with _condition:
        while _exiting:
            _condition.wait()  # until the process has ended
        _under_way += 1
    try:
        yield
    finally:
        with _condition:
            _under_way -= 1
            _condition.notify_all()


def _wait_at_exit() -> None:
    global _exiting
    with _condition:
        _exiting = True
        while _under_way:
            _condition.wait()


atexit.register(_wait_at_exit)
