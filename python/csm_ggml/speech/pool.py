"""Engines and codecs serve one thread at a time and are costly to make: keep some, lend them."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Generic, TypeVar

T = TypeVar("T")


class Pool(Generic[T]):
    """Lends objects of a kind and size to one borrower each; makes one when none is idle."""

    def __init__(self, make: Callable[[int], T], *, keep: int) -> None:
        """Start empty.

        Args:
            make: Makes an object of a size.
            keep: At most this many stay idle; the one idle for the longest goes first.
        """
        self._make = make
        self._keep = keep
        self._idle: list[tuple[int, T]] = []
        self._lock = threading.Lock()

    @contextmanager
    def borrow(self, size: int = 1) -> Iterator[T]:
        """An object of this size for the duration of a with block.

        It comes back when the block ends, or the generator around the block is closed. After an
        error or Ctrl-C it is dropped: nobody knows what state it was left in.
        """
        item = self._take(size)
        try:
            yield item
        except GeneratorExit:
            self._put(size, item)
            raise
        else:
            self._put(size, item)

    def _take(self, size: int) -> T:
        with self._lock:
            for position in reversed(range(len(self._idle))):
                if self._idle[position][0] == size:
                    return self._idle.pop(position)[1]
        return self._make(size)

    def _put(self, size: int, item: T) -> None:
        with self._lock:
            self._idle.append((size, item))
            del self._idle[: max(0, len(self._idle) - self._keep)]
