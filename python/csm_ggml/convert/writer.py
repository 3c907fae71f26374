"""Writing one of our GGUF files, a slice of a tensor at a time."""

from __future__ import annotations

import errno
import io
import os
import shutil
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from gguf import GGUFValueType, GGUFWriter
from gguf.gguf_writer import WriterState
from numpy.typing import NDArray
from tqdm import tqdm

from csm_ggml._core import ModelFormatError
from csm_ggml.files import OutputFile

from . import types
from .config import ARCHITECTURE
from .layout import Spec
from .policy import TypePolicy
from .tensors import Rows

_MOST_THREADS = 8
"""More would hold more slices in memory than they save time."""

ALIGNMENT = 32
"""Bytes that the data of every tensor is aligned to; GGUF's default."""


@dataclass(frozen=True)
class Planned:
    """A tensor of the file with its final number format.

    Attributes:
        spec: name and shape.
        type: ggml type.
        chunks: makes its bytes, in slices of whole rows.
    """

    spec: Spec
    type: str
    chunks: Callable[[], Iterator[NDArray[np.uint8]]]

    @property
    def bytes(self) -> int:
        """Size of the data."""
        return prod(self.spec.shape[:-1]) * types.row_bytes(self.type, self.spec.shape[-1])


@dataclass(frozen=True)
class Report:
    """What was written.

    Attributes:
        path: the file.
        bytes: its size.
        tensors: how many tensors it holds.
        types: bytes of tensor data by ggml type.
        notes: what a user should know, one sentence each.
    """

    path: Path
    bytes: int
    tensors: int
    types: dict[str, int]
    notes: tuple[str, ...]


def plan(items: Sequence[tuple[Spec, Rows]], policy: TypePolicy) -> tuple[list[Planned], list[str]]:
    """Decide every tensor's format; returns the plan, and notes on what did not fit."""
    planned: list[Planned] = []
    remade: set[str] = set()
    given, notes = policy.assign([spec for spec, _ in items])
    for (spec, rows), chosen in zip(items, given, strict=True):
        if rows.type is not None and rows.type not in (*types.FLOAT_TYPES, chosen):
            remade.add(rows.type)
        planned.append(Planned(spec, chosen, _encoder(spec.name, rows, chosen)))
    if remade:
        kinds = " and ".join(sorted(remade))
        notes.append(f"made from {kinds} weights: their loss stays; a float source gives more")
    return planned, notes


def _encoder(name: str, rows: Rows, chosen: str) -> Callable[[], Iterator[NDArray[np.uint8]]]:
    def encoded(span: tuple[int, int]) -> NDArray[np.uint8]:
        if rows.raw is not None and rows.type == chosen:
            # not decoded and made again, which could change them
            return rows.raw(*span)
        values = rows.read(*span)
        if not np.isfinite(values).all():
            raise ModelFormatError(
                f"{name}: rows {span[0]} to {span[1] - 1} hold values that are not finite numbers"
            )
        return types.encode(values, chosen)

    return lambda: _in_order(encoded, rows.slices())


def _in_order(
    work: Callable[[tuple[int, int]], NDArray[np.uint8]], spans: Sequence[tuple[int, int]]
) -> Iterator[NDArray[np.uint8]]:
    """Results of `work` in the order of the spans, a few of them made at the same time."""
    workers = min(_MOST_THREADS, os.cpu_count() or 1, len(spans))
    with ThreadPoolExecutor(max(1, workers)) as pool:
        ahead: deque[Future[NDArray[np.uint8]]] = deque()
        try:
            for span in spans:
                ahead.append(pool.submit(work, span))
                if len(ahead) > workers:
                    yield ahead.popleft().result()
            while ahead:
                yield ahead.popleft().result()
        finally:
            for future in ahead:
                future.cancel()


def write(
    output: Path,
    metadata: dict[str, Any],
    tensors: Sequence[Planned],
    *,
    notes: Sequence[str] = (),
    inputs: Sequence[Path] = (),
    progress: bool = True,
) -> Report:
    """Write a file; it appears under its name only when it is complete.

    Args:
        output: the file; one that exists is replaced.
        metadata: keys; ints become u32, floats f32, lists of ints u32 arrays (token types i32).
        tensors: in the order of the file.
        notes: handed on into the report.
        inputs: what is read meanwhile; none of them may be the output.
        progress: show a bar while writing, if stderr is a terminal.

    Raises:
        ValueError: the name is that of another kind of file, or of an input.
        OSError: the folder does not exist, or the disk has too little room.
    """
    total = sum(t.bytes for t in tensors)
    with OutputFile(output, "model", inputs=inputs) as file:
        if not file.direct:
            _check_room(output, total)
        with tqdm(
            total=total,
            unit="B",
            unit_scale=True,
            desc=output.name,
            disable=None if progress else True,
        ) as bar:
            size = file.write(_header(metadata, tensors))
            size += _pad(file, size)
            for tensor in tensors:
                written = 0
                for chunk in tensor.chunks():
                    file.write(np.ascontiguousarray(chunk).data)
                    written += chunk.nbytes
                    bar.update(chunk.nbytes)
                if written != tensor.bytes:
                    raise RuntimeError(
                        f"{tensor.spec.name}: {written} bytes made, expected {tensor.bytes}"
                    )
                size += written
                size += _pad(file, size)
    sizes: dict[str, int] = {}
    for tensor in tensors:
        sizes[tensor.type] = sizes.get(tensor.type, 0) + tensor.bytes
    return Report(output, size, len(tensors), sizes, tuple(notes))


def _check_room(output: Path, needed: int) -> None:
    free = shutil.disk_usage(os.path.dirname(os.path.realpath(output))).free
    if free < needed:
        raise OSError(
            errno.ENOSPC, f"needs {needed:,} bytes, the disk has {free:,} free", str(output)
        )


def _pad(file: OutputFile, size: int) -> int:
    return file.write(bytes(-size % ALIGNMENT))


def _header(metadata: dict[str, Any], tensors: Sequence[Planned]) -> bytes:
    """Everything before the data of the tensors."""
    header: Any = io.BytesIO()
    writer = GGUFWriter(None, ARCHITECTURE)
    for key, value in metadata.items():
        writer.add_key_value(key, value, *_value_types(key, value))
    for tensor in tensors:
        writer.add_tensor_info(
            tensor.spec.name,
            tensor.spec.shape,
            np.dtype(np.float32),
            tensor.bytes,
            raw_dtype=types.TYPE_IDS[tensor.type],
        )
    # The writer is told that it has opened its file.
    writer.fout, writer.state = [header], WriterState.EMPTY
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    return bytes(header.getvalue())


def _value_types(key: str, value: Any) -> tuple[GGUFValueType, GGUFValueType | None]:
    if isinstance(value, list):
        if key == "tokenizer.ggml.token_type":
            return GGUFValueType.ARRAY, GGUFValueType.INT32
        text = key.startswith("tokenizer.")
        return GGUFValueType.ARRAY, GGUFValueType.STRING if text else GGUFValueType.UINT32
    if isinstance(value, str):
        return GGUFValueType.STRING, None
    return (GGUFValueType.FLOAT32 if isinstance(value, float) else GGUFValueType.UINT32), None
