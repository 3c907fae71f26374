"""Reading safetensors files.

The library's own numpy reader has no bfloat16 and cannot pick single rows; the format is a length,
a JSON table and the bytes, so the table is read here and checked against the file before any
tensor is.
"""

from __future__ import annotations

import json
import struct
from math import prod
from pathlib import Path
from typing import TypeGuard

from csm_ggml._core import ModelFormatError

from .tensors import FileRows, Stored

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
        except (ValueError, RecursionError) as error:
            raise ModelFormatError(f"{path}: the safetensors header is not JSON: {error}") from None
    if not isinstance(table, dict):
        raise ModelFormatError(f"{path}: the safetensors header is not a JSON object")
    table.pop("__metadata__", None)
    return {name: _entry(path, name, entry, size, 8 + length) for name, entry in table.items()}


def _entry(path: Path, name: str, entry: object, size: int, base: int) -> Stored:
    """A tensor as the table describes it, `size` bytes of file, data from `base` on."""
    fields = entry if isinstance(entry, dict) else {}
    dtype, shape, offsets = (fields.get(key) for key in ("dtype", "shape", "data_offsets"))
    if not isinstance(dtype, str) or not _sizes(shape) or not _sizes(offsets) or len(offsets) != 2:
        raise ModelFormatError(
            f"{path}: tensor {name[:80]!r} has a damaged table entry: {str(entry)[:200]}"
        )
    begin, end = offsets
    kind, width = _TYPES.get(dtype, (dtype, _OTHER_SIZES.get(dtype, 0)))
    needed = prod(shape) * width
    if width and end - begin != needed:
        raise ModelFormatError(
            f"{path}: tensor {name!r} of {dtype} {list(shape)} has {end - begin} bytes, "
            f"expected {needed}"
        )
    if begin > end or base + end > size:
        raise ModelFormatError(
            f"{path}: tensor {name!r} ends at byte {base + end}, "
            f"but the file has {size}: truncated?"
        )
    # Of a format that is not read, nobody asks for rows.
    return Stored(
        path,
        name,
        tuple(shape),
        kind,
        FileRows(path, base + begin, prod(shape[:-1]), shape[-1] * width if shape else width),
    )


def _sizes(value: object) -> TypeGuard[list[int]]:
    """Whether a value is a list of a few whole numbers from 0 to 2**63."""
    return (
        isinstance(value, list)
        and len(value) <= 8
        and all(type(n) is int and 0 <= n < 1 << 63 for n in value)
    )
