"""Numbers drawn from a seed that are the same on every machine and with every version of numpy.

numpy promises the raw stream of a bit generator for good, but not how its distributions use that
stream; so everything here is made from raw 64-bit words by arithmetic that rounds the same way
everywhere.
"""

from __future__ import annotations

import zlib

import numpy as np
from numpy.typing import NDArray


def _bits(seed: int, label: str) -> np.random.PCG64:
    """A stream of its own for each (seed, label), so that adding a tensor moves no other."""
    return np.random.PCG64(np.random.SeedSequence([seed, zlib.crc32(label.encode())]))


def centred(seed: int, label: str, shape: tuple[int, ...]) -> NDArray[np.float32]:
    """Uniform float32 numbers of zero mean and unit variance."""
    count = int(np.prod(shape))
    words = _bits(seed, label).random_raw((count + 1) // 2)
    halves = words.view(np.uint32)[:count]
    # 24 bits: the integer and the halves around it are exact in float32
    unit = (halves >> np.uint32(8)).astype(np.float32) + np.float32(0.5)
    unit = unit * np.float32(2.0**-23) - np.float32(1.0)
    return (unit * np.float32(3.0**0.5)).reshape(shape)


def integers(seed: int, label: str, shape: tuple[int, ...], high: int) -> NDArray[np.int32]:
    """Integers in [0, high), evenly enough for test data."""
    count = int(np.prod(shape))
    words = _bits(seed, label).random_raw(max(count, 1))[:count]
    return (words % np.uint64(high)).astype(np.int32).reshape(shape)
