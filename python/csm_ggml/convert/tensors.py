"""Tensors that are read a few rows at a time.

`Stored` is a tensor as it lies in a file; `Rows` is one that is ready to be written, perhaps with
its rows reordered, cut out of a larger one or transposed. Both look at the last dimension as a
row, so that a table of hundreds of megabytes passes through memory in slices. Shapes are in numpy
order.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from csm_ggml._core import ModelFormatError

from . import types

Shape = tuple[int, ...]
Index = slice | NDArray[np.intp]

ROUGH_CHUNK = 1 << 21
"""Values that one thread holds as float32: 8 MiB."""


class FileRows:
    """Rows of bytes in a file, read when they are asked for.

    A file that has shrunk meanwhile is an error; where it were mapped, it would end the process.
    """

    def __init__(self, path: Path, start: int, rows: int, width: int) -> None:
        """Take the place.

        Args:
            path: the file.
            start: where the rows begin in it.
            rows: how many there are.
            width: bytes of a row.
        """
        self._path, self._start, self._rows, self._width = path, start, rows, width

    def __getitem__(self, index: Index) -> NDArray[np.uint8]:
        """The chosen rows, (rows, bytes per row).

        Raises:
            ModelFormatError: the file does not hold them any more.
        """
        if isinstance(index, slice):
            first, last, _ = index.indices(self._rows)
            return self._read(first, max(first, last))
        if not len(index):
            return self._read(0, 0)
        first = int(index.min())
        return self._read(first, int(index.max()) + 1)[index - first]

    def _read(self, first: int, last: int) -> NDArray[np.uint8]:
        wanted = (last - first) * self._width
        with self._path.open("rb") as file:
            file.seek(self._start + first * self._width)
            data = file.read(wanted)
        if len(data) != wanted:
            raise ModelFormatError(f"{self._path}: the file has been truncated while it was read")
        return np.frombuffer(data, np.uint8).reshape(last - first, self._width)


class RowSource(Protocol):
    """Rows of bytes that are there when they are asked for."""

    def __getitem__(self, index: Index) -> NDArray[np.uint8]:
        """The chosen rows, (rows, bytes per row)."""
        ...


@dataclass(frozen=True)
class Stored:
    """A tensor in a file.

    Attributes:
        file: where it lies.
        name: its name there.
        shape: numpy order.
        type: ggml name of its number format, or another name that the file uses and that cannot be
            read as a weight.
        data: (rows, bytes per row), in the file, or made of what is there.
    """

    file: Path
    name: str
    shape: Shape
    type: str
    data: RowSource

    def values(self, index: Index = slice(None)) -> NDArray[np.float32]:
        """The chosen rows as float32, (rows, columns).

        Raises:
            ModelFormatError: the number format is not one of weights.
        """
        if self.type not in types.TYPE_IDS:
            raise ModelFormatError(
                f"{self.file}: tensor {self.name!r} is of type {self.type}; expected one of "
                f"{', '.join(types.WEIGHT_TYPES)}"
            )
        return types.decode(self.data[index], self.type, self.shape[-1] if self.shape else 1)


@dataclass(frozen=True)
class Rows:
    """A tensor to be written.

    Attributes:
        shape: numpy order.
        read: rows (start, stop) as float32, (stop - start, columns).
        type: ggml type of the bytes that `raw` gives, if it is given.
        raw: rows (start, stop) as the source's own bytes; lets a tensor that keeps its type pass
            through untouched.
    """

    shape: Shape
    read: Callable[[int, int], NDArray[np.float32]]
    type: str | None = None
    raw: Callable[[int, int], NDArray[np.uint8]] | None = None

    @property
    def count(self) -> int:
        """How many rows there are."""
        return prod(self.shape[:-1])

    @property
    def columns(self) -> int:
        """Values in a row."""
        return self.shape[-1]

    def slices(self) -> list[tuple[int, int]]:
        """Row ranges (start, stop) that cover the tensor, each of about `ROUGH_CHUNK` values."""
        step = max(1, ROUGH_CHUNK // max(1, self.columns))
        return [(start, min(start + step, self.count)) for start in range(0, self.count, step)]


def expect_shape(stored: Stored, expected: Shape) -> None:
    """Raise ModelFormatError unless the tensor has this shape."""
    if stored.shape != expected:
        raise ModelFormatError(
            f"{stored.file}: tensor {stored.name!r} has shape {list(stored.shape)}, "
            f"expected {list(expected)}"
        )


def constant(values: NDArray[np.float32]) -> Rows:
    """A tensor that is computed, not read."""
    table = np.ascontiguousarray(values, dtype=np.float32)
    flat = table.reshape(-1, table.shape[-1])
    return Rows(table.shape, lambda start, stop: flat[start:stop])


def plain(stored: Stored, shape: Shape) -> Rows:
    """The tensor as it is, its dimensions of length one dropped or added to give `shape`."""
    if [n for n in stored.shape if n != 1] != [n for n in shape if n != 1]:
        expect_shape(stored, shape)
    if (stored.shape[-1] if stored.shape else 1) != shape[-1]:
        # a trailing 1 moves the row's border; only small tensors (biases, 1x1 convolutions) come
        # like this
        return Rows(shape, lambda start, stop: stored.values().reshape(-1, shape[-1])[start:stop])
    return row_range(stored, shape, 0)


def row_range(stored: Stored, shape: Shape, first: int) -> Rows:
    """The rows of `shape` that begin at row `first` of the stored tensor."""
    return Rows(
        shape,
        lambda start, stop: stored.values(slice(first + start, first + stop)),
        stored.type,
        lambda start, stop: stored.data[first + start : first + stop],
    )


def interleaved(stored: Stored, shape: Shape, heads: int, first: int = 0) -> Rows:
    """Rows of a q or k projection from half-split to neighbouring rotary pairs.

    In each head the source holds the first members of all pairs, then the second ones; row `2 j +
    s` of the result is row `s * head_dim / 2 + j` of the source.
    """
    rows = shape[0]
    order = np.arange(rows).reshape(heads, 2, -1).swapaxes(1, 2).reshape(rows) + first
    return Rows(
        shape,
        lambda start, stop: stored.values(order[start:stop]),
        stored.type,
        lambda start, stop: stored.data[order[start:stop]],
    )


def transposed_pages(stored: Stored, shape: Shape) -> Rows:
    """(pages, in, out) to (pages, out, in)."""
    pages, rows, columns = shape
    expect_shape(stored, (pages, columns, rows))

    def read(start: int, stop: int) -> NDArray[np.float32]:
        parts = []
        while start < stop:
            page, row = divmod(start, rows)
            end = min(rows, row + stop - start)
            whole = stored.values(slice(page * columns, (page + 1) * columns))
            parts.append(whole[:, row:end].T)
            start += end - row
        return np.concatenate(parts)

    return Rows(shape, read)


def normalized_codebook(embed_sum: Stored, usage: Stored, shape: Shape) -> Rows:
    """Codebook vectors from the running sums and counts that training leaves: (codes, width)."""
    expect_shape(embed_sum, shape)
    expect_shape(usage, shape[:1])

    def read(start: int, stop: int) -> NDArray[np.float32]:
        counts = np.maximum(usage.values()[0, start:stop], np.float32(1e-5))
        vectors: NDArray[np.float32] = embed_sum.values(slice(start, stop)) / counts[:, None]
        return vectors

    return Rows(shape, read)


def same_values(a: Stored, b: Stored) -> bool:
    """Whether two tensors of one shape hold equal numbers."""
    rows = Rows(a.shape, lambda start, stop: a.values(slice(start, stop)))
    return all(
        np.array_equal(a.values(slice(start, stop)), b.values(slice(start, stop)))
        for start, stop in rows.slices()
    )
