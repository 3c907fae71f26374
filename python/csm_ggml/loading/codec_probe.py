"""What tells one codec from another: how it sounds when it is given the same codes.

Codes mean nothing without their codec: a voice of another one is noise, and nothing in it says so.
Files cannot be compared, as the same codec comes in several layouts and number formats. So a voice
keeps some samples of what its codec made of a few fixed frames. The same codec in another number
format gives nearly the same; another one gives something unrelated.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

_FRAMES = 4
_VALUES = 32
# Of unrelated sounds it is about 0; of the same codec in F16 and F32 above 0.999.
_LEAST_CORRELATION = 0.9


def probe(
    decode: Callable[[npt.NDArray[np.int32]], npt.NDArray[np.float32]],
    codebooks: int,
    codebook_size: int,
) -> tuple[float, ...]:
    """The codec's answer: some samples of fixed frames, scaled to a mean square of one.

    Args:
        decode: (frames, codebooks) codes to samples, from a fresh state.
        codebooks: Codes in a frame.
        codebook_size: Entries of a codebook.
    """
    frame, codebook = np.indices((_FRAMES, codebooks))
    samples = decode(((17 + 101 * frame + 37 * codebook) % codebook_size).astype(np.int32))
    picked = samples[np.linspace(0, len(samples) - 1, _VALUES).astype(int)].astype(np.float64)
    scale = float(np.sqrt(np.mean(picked**2)))
    return tuple(round(float(value) / scale, 3) if scale else 0.0 for value in picked)


def same_codec(one: Sequence[float], other: Sequence[float]) -> bool:
    """Whether two answers are of the same codec."""
    if len(one) != len(other):
        return False
    a, b = np.array(one), np.array(other)
    both = np.sqrt((a @ a) * (b @ b))
    return bool(a @ b >= _LEAST_CORRELATION * both) if both else bool((a == b).all())
