"""A GGUF file taken apart and put together again, so that it can be put together wrongly."""

from __future__ import annotations

import struct
from dataclasses import dataclass, field

# Bytes of a scalar value by its type number; 8 is a string, 9 an array.
SCALARS = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}
STRING, ARRAY, U32, F32 = 8, 9, 4, 6


@dataclass
class Key:
    """A key of the header; value as its bytes."""

    name: bytes
    type: int
    value: bytes


@dataclass
class Tensor:
    """An entry of the tensor table."""

    name: bytes
    shape: list[int]
    type: int
    offset: int


@dataclass
class Number:
    """An integer of the header that the format depends on: its place and its size in bytes."""

    at: int
    size: int
    what: str


@dataclass
class Document:
    """A whole file.

    Attributes:
        keys: The metadata.
        tensors: The tensor table.
        data: The tensors' bytes.
        numbers: Integers of the header at their places in the original file.
        header_size: Bytes before the data, padding included.
    """

    keys: list[Key]
    tensors: list[Tensor]
    data: bytes
    numbers: list[Number] = field(default_factory=list)
    header_size: int = 0
    magic: bytes = b"GGUF"
    version: int = 3

    def build(self, *, tensor_count: int | None = None, key_count: int | None = None) -> bytes:
        """The file's bytes; counts other than the true ones may be claimed."""
        parts = [
            self.magic,
            struct.pack("<I", self.version),
            struct.pack("<Q", len(self.tensors) if tensor_count is None else tensor_count),
            struct.pack("<Q", len(self.keys) if key_count is None else key_count),
        ]
        for key in self.keys:
            parts += [_text(key.name), struct.pack("<I", key.type), key.value]
        for tensor in self.tensors:
            parts += [_text(tensor.name), struct.pack("<I", len(tensor.shape))]
            parts += [struct.pack("<Q", size % 2**64) for size in tensor.shape]
            parts += [struct.pack("<IQ", tensor.type % 2**32, tensor.offset % 2**64)]
        header = b"".join(parts)
        return header + bytes(-len(header) % 32) + self.data


def _text(text: bytes) -> bytes:
    return struct.pack("<Q", len(text)) + text


def parse(data: bytes) -> Document:
    """Take a valid little-endian GGUF file of alignment 32 apart."""
    document = Document([], [], b"")
    at = 8

    def number(size: int, what: str) -> int:
        nonlocal at
        document.numbers.append(Number(at, size, what))
        value = int.from_bytes(data[at : at + size], "little")
        at += size
        return value

    def text(what: str) -> bytes:
        nonlocal at
        size = number(8, f"length of {what}")
        at += size
        return data[at - size : at]

    def value(type: int) -> None:
        nonlocal at
        if type == STRING:
            text("a string")
        elif type == ARRAY:
            element, count = number(4, "an array's type"), number(8, "an array's length")
            if element == STRING:
                for _ in range(count):
                    size = int.from_bytes(data[at : at + 8], "little")
                    at += 8 + size
            else:
                at += count * SCALARS[element]
        else:
            number(SCALARS[type], "a value")

    document.numbers.append(Number(4, 4, "the version"))
    tensor_count, key_count = number(8, "the tensor count"), number(8, "the key count")
    for _ in range(key_count):
        name, type = text("a key"), number(4, "a value's type")
        begin = at
        value(type)
        document.keys.append(Key(name, type, data[begin:at]))
    for _ in range(tensor_count):
        name = text("a tensor's name")
        shape = [number(8, "a dimension") for _ in range(number(4, "a number of dimensions"))]
        document.tensors.append(
            Tensor(name, shape, number(4, "a tensor's type"), number(8, "an offset"))
        )
    document.header_size = -(-at // 32) * 32
    document.data = data[document.header_size :]
    return document
