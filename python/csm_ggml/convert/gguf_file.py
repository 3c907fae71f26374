"""Reading GGUF files by mapping them, with every length checked before it is used."""

from __future__ import annotations

import mmap
import struct
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from csm_ggml._core import ModelFormatError

from . import types
from .tensors import Stored

_SCALARS = {
    0: "B",
    1: "b",
    2: "H",
    3: "h",
    4: "I",
    5: "i",
    6: "f",
    7: "?",
    10: "Q",
    11: "q",
    12: "d",
}
_STRING, _ARRAY = 8, 9


class _Cursor:
    """A position in the mapped header."""

    def __init__(self, path: Path, data: mmap.mmap | bytes):
        self.path, self.data, self.at = path, data, 0

    def take(self, count: int) -> bytes:
        if count > len(self.data) - self.at:
            raise ModelFormatError(
                f"{self.path}: truncated: {count} bytes wanted at {self.at}, "
                f"the file has {len(self.data)}"
            )
        self.at += count
        return self.data[self.at - count : self.at]

    def scalar(self, code: str) -> Any:
        return struct.unpack("<" + code, self.take(struct.calcsize(code)))[0]

    def string(self) -> str:
        # names and tokens are UTF-8; a byte that is not must survive to be named in a later message
        return self.take(self.scalar("Q")).decode("utf-8", "surrogateescape")

    def value(self, kind: int) -> Any:
        if kind == _STRING:
            return self.string()
        if kind == _ARRAY:
            item, count = self.scalar("I"), self.scalar("Q")
            if item == _STRING:
                # an entry takes 8 bytes at least: a count beyond that is damage, not a reason to
                # allocate
                if count > (len(self.data) - self.at) // 8:
                    self.take(count * 8)
                return [self.string() for _ in range(count)]
            if item in _SCALARS:
                code = _SCALARS[item]
                return list(
                    struct.unpack(f"<{count}{code}", self.take(count * struct.calcsize(code)))
                )
            raise ModelFormatError(
                f"{self.path}: array of unknown GGUF type {item} at byte {self.at}"
            )
        if kind not in _SCALARS:
            raise ModelFormatError(f"{self.path}: unknown GGUF type {kind} at byte {self.at}")
        return self.scalar(_SCALARS[kind])


def read_gguf(path: Path) -> tuple[dict[str, Any], dict[str, Stored]]:
    """Keys and tensors of a GGUF file; shapes in numpy order.

    Raises:
        ModelFormatError: the file is truncated, damaged or not a little-endian GGUF of version 2
            or 3.
    """
    if path.stat().st_size == 0:
        raise ModelFormatError(f"{path}: the file is empty")
    data = np.memmap(path, np.uint8, "r")
    cursor = _Cursor(path, data._mmap)  # type: ignore[attr-defined]
    magic = cursor.take(4)
    version = cursor.scalar("I")
    if magic != b"GGUF" or version not in (2, 3):
        raise ModelFormatError(
            f"{path}: not a GGUF file: magic {magic!r} version {version}, "
            "expected b'GGUF' version 2 or 3"
        )
    tensor_count, key_count = cursor.scalar("Q"), cursor.scalar("Q")
    metadata: dict[str, Any] = {}
    for _ in range(key_count):
        key = cursor.string()
        metadata[key] = cursor.value(cursor.scalar("I"))
    infos = []
    for _ in range(tensor_count):
        name, dimensions = cursor.string(), cursor.scalar("I")
        if not 1 <= dimensions <= 4:
            raise ModelFormatError(
                f"{path}: tensor {name!r} has {dimensions} dimensions, expected 1 to 4"
            )
        shape = tuple(cursor.scalar("Q") for _ in range(dimensions))[::-1]
        infos.append((name, shape, cursor.scalar("I"), cursor.scalar("Q")))
    alignment = metadata.get("general.alignment", 32)
    if not isinstance(alignment, int) or alignment < 1:
        raise ModelFormatError(
            f"{path}: general.alignment is {alignment!r}, expected a positive number"
        )
    base = -(-cursor.at // alignment) * alignment
    tensors: dict[str, Stored] = {}
    for name, shape, kind, offset in infos:
        if name in tensors:
            raise ModelFormatError(f"{path}: tensor {name!r} occurs twice")
        tensors[name] = _map(path, data, name, shape, kind, base + offset)
    return metadata, tensors


def _map(
    path: Path, data: np.ndarray, name: str, shape: tuple[int, ...], kind: int, at: int
) -> Stored:
    if kind not in types.TYPE_NAMES:
        raise ModelFormatError(
            f"{path}: tensor {name!r} is of ggml type {kind}; expected one of "
            f"{', '.join(types.WEIGHT_TYPES)}"
        )
    type_name = types.TYPE_NAMES[kind]
    if prod(shape) == 0 or shape[-1] % types.block_length(type_name):
        raise ModelFormatError(
            f"{path}: tensor {name!r} has shape {list(shape)}, which {type_name} cannot hold"
        )
    width = types.row_bytes(type_name, shape[-1])
    end = at + prod(shape[:-1]) * width
    if end > len(data):
        raise ModelFormatError(
            f"{path}: tensor {name!r} ends at byte {end}, but the file has {len(data)}: truncated?"
        )
    return Stored(path, name, shape, type_name, data[at:end].reshape(-1, width))
