"""The command as a process: its descriptors, its signals, and how it ends."""

from __future__ import annotations

import _thread
import contextlib
import io
import os
import signal
import sys
import threading
from collections.abc import Iterator
from types import FrameType
from typing import Any

# What a shell gives a command that a signal has ended.
SIGNAL_EXIT = 128


class Terminated(KeyboardInterrupt):
    """The process was asked to end; whatever cleans up after Ctrl-C does so after this."""


class Interruption:
    """The signal that has come.

    Attributes:
        number: Of the first one; None before it.
    """

    number: int | None = None

    def handle(self, number: int, frame: FrameType | None) -> None:
        """Interrupt the main thread."""
        if self.number is None:
            self.number = number
        if _importing(frame):
            # Modules in C print what interrupts them, and say that they are not there.
            self._come_again()
            return
        raise KeyboardInterrupt if number == signal.SIGINT else Terminated

    def unraisable(self, args: Any) -> None:
        """Interrupt again after an interruption that came where none can be raised."""
        if self.number is None or not issubclass(args.exc_type, KeyboardInterrupt):
            sys.__unraisablehook__(args)
            return
        self._come_again()

    def _come_again(self) -> None:
        timer = threading.Timer(0.05, _thread.interrupt_main, (self.number,))
        timer.daemon = True
        timer.start()


def _importing(frame: FrameType | None) -> bool:
    while frame is not None:
        if frame.f_code.co_filename.startswith("<frozen importlib"):
            return True
        frame = frame.f_back
    return False


@contextlib.contextmanager
def signals() -> Iterator[Interruption]:
    """Have Ctrl-C, a wish to terminate and a lost terminal interrupt the block."""
    interruption = Interruption()
    if threading.current_thread() is not threading.main_thread():
        yield interruption
        return
    before: dict[int, Any] = {}
    hook = sys.unraisablehook
    sys.unraisablehook = interruption.unraisable
    for name in ("SIGINT", "SIGTERM", "SIGHUP"):
        number = getattr(signal, name, None)
        if number is not None and signal.getsignal(number) not in (signal.SIG_IGN, None):
            before[number] = signal.signal(number, interruption.handle)
    try:
        yield interruption
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        sys.unraisablehook = hook


def occupy_standard_descriptors() -> None:
    """Give standard input, output and error that are closed something else to be.

    The next file to be opened would get their numbers, and with them what is printed. What is
    written to a closed standard output is an error, as it is lost; what goes to a closed standard
    error is not.
    """
    for descriptor, mode in ((0, os.O_RDONLY), (1, os.O_RDONLY), (2, os.O_WRONLY)):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, mode)
    if sys.stdout is None:
        sys.stdout = _text(1)
    if sys.stderr is None:
        sys.stderr = _text(2)
    for stream in (sys.stdout, sys.stderr):
        if stream in (sys.__stdout__, sys.__stderr__) and isinstance(stream, io.TextIOWrapper):
            # Names of files need not be text.
            stream.reconfigure(errors="backslashreplace")


def _text(descriptor: int) -> Any:
    return open(descriptor, "w", encoding="utf-8", errors="backslashreplace", closefd=False)


def mute(stream: Any) -> None:
    """Let a stream that cannot be written be, so that it is not flushed again at exit."""
    with contextlib.suppress(OSError, ValueError, AttributeError):
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, stream.fileno())
        os.close(null)
