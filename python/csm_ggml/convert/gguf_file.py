"""Reading GGUF files, with every length checked before it is used."""

from __future__ import annotations

import struct
from math import prod
from pathlib import Path
from typing import IO, Any

from csm_ggml._core import ModelFormatError

from . import types
from .tensors import FileRows, Stored

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
    """A position in the header."""

    def __init__(self, path: Path, file: IO[bytes], size: int):
        self.path, self.file, self.size, self.at = path, file, size, 0

    def take(self, count: int) -> bytes:
        data = self.file.read(count) if count <= self.size - self.at else b""
        if len(data) < count:
            raise ModelFormatError(
                f"{self.path}: truncated: {count} bytes wanted at {self.at}, "
                f"the file has {self.size}"
            )
        self.at += count
        return data

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
                if count > (self.size - self.at) // 8:
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
    size = path.stat().st_size
    if size == 0:
        raise ModelFormatError(f"{path}: the file is empty")
    with path.open("rb") as file:
        cursor = _Cursor(path, file, size)
        metadata, infos = _read_header(cursor)
    alignment = metadata.get("general.alignment", 32)
    if type(alignment) is not int or not 1 <= alignment <= 1 << 20:
        raise ModelFormatError(
            f"{path}: general.alignment is {alignment!r}, expected a positive number"
        )
    base = -(-cursor.at // alignment) * alignment
    tensors: dict[str, Stored] = {}
    for name, shape, kind, offset in infos:
        if name in tensors:
            raise ModelFormatError(f"{path}: tensor {name!r} occurs twice")
        tensors[name] = _place(path, size, name, shape, kind, base + offset)
    return metadata, tensors


def _read_header(
    cursor: _Cursor,
) -> tuple[dict[str, Any], list[tuple[str, tuple[int, ...], int, int]]]:
    """Keys, and name, shape, type and offset of each tensor."""
    path = cursor.path
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
    return metadata, infos


def _place(path: Path, size: int, name: str, shape: tuple[int, ...], kind: int, at: int) -> Stored:
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
    if end > size:
        raise ModelFormatError(
            f"{path}: tensor {name!r} ends at byte {end}, but the file has {size}: truncated?"
        )
    return Stored(path, name, shape, type_name, FileRows(path, at, prod(shape[:-1]), width))
