"""What is wrong with a recording: found before it becomes somebody's voice, and said.

Each function returns what is to be told, in words that follow the recording's name.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

# In dB of full scale, root mean square: below, there is nothing; below, it is faint.
SILENCE_DB = -80.0
FAINT_DB = -45.0
# A channel is empty that is so far below the loudest; channels cancel each other whose average is.
_EMPTY_DB = -60.0
_CANCELLED_DB = -10.0
# Samples beyond this are not what a codec's rounding leaves.
_BEYOND = 1.2
# Pairs of equal samples in a row near the greatest value, at least so many.
_CLIPPED_NEAR = 0.98
_CLIPPED_LEAST = 0.5
_CLIPPED_PAIRS = 10
# Letters and digits a second of a transcript; speech has 8 to 20, in scripts of syllables 4.
_MOST_RATE = 40.0
_LEAST_RATE = 1.5

Samples = npt.NDArray[Any]


def to_one_channel(array: Samples) -> tuple[Samples, list[str]]:
    """(n,) samples of (n,) or (n, channels) ones, and what is to be told of it."""
    if array.ndim == 1 or array.shape[1] == 1:
        return array.reshape(-1), []
    powers = np.array([_power(array[:, channel]) for channel in range(array.shape[1])])
    count, loudest = len(powers), int(powers.argmax())
    if not powers[loudest]:
        return array.mean(axis=1), []
    [full] = np.nonzero(powers >= powers[loudest] * 10 ** (_EMPTY_DB / 10))
    mono = array[:, full].mean(axis=1)
    if _power(mono) < powers[loudest] * 10 ** (_CANCELLED_DB / 10):
        return array[:, loudest], [
            f"its {count} channels cancel each other out, so that only the loudest is taken, "
            f"channel {loudest + 1}"
        ]
    if len(full) < count:
        empty = sorted({*range(1, count + 1)} - {int(channel) + 1 for channel in full})
        plural = "s" if len(empty) > 1 else ""
        numbers = ", ".join(map(str, empty))
        return mono, [f"channel{plural} {numbers} of {count} left out, being empty"]
    return mono, []


def check_sound(array: Samples, mono: Samples) -> list[str]:
    """What spoils a recording of speech.

    Args:
        array: (n,) or (n, channels) as recorded, full scale 1.
        mono: (n,) of them.

    Raises:
        ValueError: If there is no sound.
    """
    level = 10 * math.log10(max(_power(mono), 1e-30))
    if level < SILENCE_DB:
        raise ValueError(
            "there is no sound in it, only silence; was the right input recorded, and not muted?"
        )
    peak = float(np.abs(array).max())
    notes = []
    if peak > _BEYOND:
        notes.append(
            f"it has samples of up to {peak:.4g}, but full scale is 1: divide them by the greatest "
            "value of their kind, such as 32768"
        )
    elif level < FAINT_DB:
        notes.append(f"it is faint ({level:.0f} dB of full scale); record it louder")
    if _is_clipped(array, peak):
        notes.append("it is clipped: record it less loud, the voice is distorted")
    return notes


def check_words(text: str, seconds: float) -> list[str]:
    """Whether a transcript can be all that is said in so many seconds."""
    count = sum(map(str.isalnum, text))
    rate = count / seconds
    if _LEAST_RATE <= rate <= _MOST_RATE:
        return []
    what = "more" if rate > _MOST_RATE else "less"
    return [
        f"the transcript has {count} letters for {seconds:.1f} s of sound, {what} than anybody "
        "says: it must be what is said, word for word, from the beginning to the end"
    ]


def _power(samples: Samples) -> float:
    wide = samples.astype(np.float64, copy=False)
    return float(wide @ wide) / len(wide)


def _is_clipped(array: Samples, peak: float) -> bool:
    if peak < _CLIPPED_LEAST:
        return False
    near = np.abs(array) >= _CLIPPED_NEAR * peak
    flat = near[1:] & (array[1:] == array[:-1])
    return int(np.count_nonzero(flat)) >= _CLIPPED_PAIRS
