"""Reading safetensors files by mapping them.

The library's own numpy reader has no bfloat16 and cannot pick single rows; the format is a length,
a JSON table and the bytes, so the table is read here and checked against the file before anything
is mapped.
"""

from __future__ import annotations

import json
import struct
from math import prod
from pathlib import Path

import numpy as np

from csm_ggml._core import ModelFormatError

from .tensors import Stored

_HEADER_LIMIT = 100_000_000
"""Longest header the format allows, in bytes."""

_TYPES = {"F32": ("f32", 4), "F16": ("f16", 2), "BF16": ("bf16", 2)}
_OTHER_SIZES = {
    "F64": 8,
    "I64": 8,
    "U64": 8,
    "I32": 4,
    "U32": 4,
    "I16": 2,
    "U16": 2,
    "I8": 1,
    "U8": 1,
    "BOOL": 1,
    "F8_E4M3": 1,
    "F8_E5M2": 1,
}


def read_safetensors(path: Path) -> dict[str, Stored]:
    """All tensors of a file by name.

    Raises:
        ModelFormatError: the file is truncated, damaged or not a safetensors file.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        prefix = file.read(8)
        length = struct.unpack("<Q", prefix)[0] if len(prefix) == 8 else -1
        if not 2 <= length <= min(_HEADER_LIMIT, size - 8):
            raise ModelFormatError(
                f"{path}: not a safetensors file, or truncated: "
                f"header of {length} bytes in a file of {size}"
            )
        try:
            table = json.loads(file.read(length))
        except ValueError as error:
            raise ModelFormatError(f"{path}: the safetensors header is not JSON: {error}") from None
    if not isinstance(table, dict):
        raise ModelFormatError(f"{path}: the safetensors header is not a JSON object")
    table.pop("__metadata__", None)
    data = np.memmap(path, np.uint8, "r") if table else np.zeros(0, np.uint8)
    return {name: _entry(path, name, entry, data, 8 + length) for name, entry in table.items()}


def _entry(path: Path, name: str, entry: object, data: np.ndarray, base: int) -> Stored:
    try:
        dtype = entry["dtype"]  # type: ignore[index]
        shape = tuple(entry["shape"])  # type: ignore[index]
        begin, end = entry["data_offsets"]  # type: ignore[index]
        if not all(type(n) is int and n >= 0 for n in (*shape, begin, end)):
            raise ValueError
    except (KeyError, TypeError, ValueError):
        raise ModelFormatError(
            f"{path}: tensor {name!r} has a damaged table entry: {entry!r}"
        ) from None
    kind, width = _TYPES.get(dtype, (str(dtype), _OTHER_SIZES.get(dtype, 0)))
    needed = prod(shape) * width
    if width and end - begin != needed:
        raise ModelFormatError(
            f"{path}: tensor {name!r} of {dtype} {list(shape)} has {end - begin} bytes, "
            f"expected {needed}"
        )
    if begin > end or base + end > len(data):
        raise ModelFormatError(
            f"{path}: tensor {name!r} ends at byte {base + end}, "
            f"but the file has {len(data)}: truncated?"
        )
    rows = prod(shape[:-1])
    raw = data[base + begin : base + end]
    return Stored(
        path, name, shape, kind, raw.reshape(rows, -1) if rows and len(raw) else raw.reshape(0, 0)
    )
