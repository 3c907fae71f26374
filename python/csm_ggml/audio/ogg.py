"""Ogg files of equal sounds are equal, byte by byte.

An Ogg stream has a number that tells it from others in the same file; libsndfile draws it. Here it
is set to a fixed one in all pages, and their checksums with it. A checksum is linear: the change of
the number, followed by as many zero bytes as the page has left, has one of its own, which is added.
"""

from __future__ import annotations

import struct
from functools import cache

from csm_ggml.files import Writable

_NUMBER = 0x63736D31  # "csm1"
_POLYNOMIAL = 0x04C11DB7
# "OggS", version, flags, position, number of the stream, of the page, checksum, segments
_HEADER = struct.Struct("<4sBBqIIIB")
_NUMBER_AT = 14


def number_streams(file: Writable) -> None:
    """Give the stream of a complete Ogg file its fixed number; the position is lost."""
    at = 0
    while True:
        file.seek(at)
        header = file.read(_HEADER.size)
        if len(header) < _HEADER.size or not header.startswith(b"OggS"):
            return
        magic, version, flags, position, number, page, checksum, segments = _HEADER.unpack(header)
        size = _HEADER.size + segments + sum(file.read(segments))
        # The checksum takes the bytes of a number from the lowest, each from its highest bit.
        change = int.from_bytes((number ^ _NUMBER).to_bytes(4, "little"), "big")
        checksum ^= _after_zeros(_after_zeros(change, 4), size - _NUMBER_AT - 4)
        file.seek(at)
        file.write(_HEADER.pack(magic, version, flags, position, _NUMBER, page, checksum, segments))
        at += size


def _after_zeros(state: int, count: int) -> int:
    """A checksum after so many zero bytes."""
    power = 0
    while count:
        if count & 1:
            columns = _zeros(power)
            state = _apply(columns, state)
        count >>= 1
        power += 1
    return state


@cache
def _zeros(power: int) -> tuple[int, ...]:
    """What 2**power zero bytes do to each bit of a checksum."""
    if power:
        half = _zeros(power - 1)
        return tuple(_apply(half, column) for column in half)
    columns = []
    for bit in range(32):
        state = 1 << bit
        for _ in range(8):
            state = (state << 1) & 0xFFFFFFFF ^ (_POLYNOMIAL if state >> 31 else 0)
        columns.append(state)
    return tuple(columns)


def _apply(columns: tuple[int, ...], state: int) -> int:
    result = 0
    for bit, column in enumerate(columns):
        if state >> bit & 1:
            result ^= column
    return result
