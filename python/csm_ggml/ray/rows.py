"""Rows of a data set: what is said of each, with which seed, and what comes of it."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from csm_ggml.audio.audio import Audio
from csm_ggml.audio.encoders import FORMATS, encode_whole

# Samples instead of a file, as Ray's `read_audio` has them.
AMPLITUDE = "amplitude"
OUTPUTS = (*FORMATS, AMPLITUDE)
# A row whose finish_reason is this has an error instead of speech.
FAILED = "error"

# Seeds of 48 bits are exact as 64-bit integers, in JSON and as floats.
_SEED_BYTES = 6


@dataclass(frozen=True)
class Row:
    """What is to be said.

    Attributes:
        text: As it was given; not yet known to be a text.
        seed: Its own.
        voice: Its own; None for the voice of all.
    """

    text: Any
    seed: int
    voice: Any = None


def row_seed(seed: int, id: object) -> int:
    """The seed of a row: that of the whole mixed with the row's id, wherever the row stands.

    Args:
        seed: Of the whole, 0 to 2**64 - 1.
        id: A string, or a whole number, which is the same as its digits.
    """
    digest = hashlib.sha256(f"{seed}:{id}".encode("utf-8", "surrogatepass")).digest()
    return int.from_bytes(digest[:_SEED_BYTES], "big")


def check_columns(batch: object) -> dict[str, Any]:
    """The columns of a batch, by their names.

    Raises:
        TypeError: If it is something else than a mapping of columns.
        ValueError: If the columns are not equally long.
    """
    if not isinstance(batch, Mapping):
        raise TypeError(
            f"a batch must be a mapping of columns, got {type(batch).__name__}; map_batches gives "
            'them with batch_format="numpy"'
        )
    columns = {str(name): column for name, column in batch.items()}
    lengths = {name: len(column) for name, column in columns.items()}
    if len(set(lengths.values())) > 1:
        raise ValueError(f"the columns of a batch must be equally long, got {lengths}")
    return columns


def plain(value: object) -> Any:
    """A value of a column as Python has it."""
    return value.item() if isinstance(value, np.generic) else value


def spoken_columns(audio: Audio, seed: int, output: str) -> dict[str, Any]:
    """The columns of a row that was spoken, each with one value.

    Args:
        audio: Its speech.
        seed: The row's.
        output: One of `OUTPUTS`.
    """
    return {
        **_sound(output, audio.samples, audio.sample_rate),
        **_facts(audio.duration, len(audio.codes), audio.finish_reason or "", seed, ""),
    }


def failed_columns(error: Exception, seed: int, output: str, sample_rate: int) -> dict[str, Any]:
    """The same columns, of the same types, of a row that could not be spoken.

    Args:
        error: Why.
        seed: The row's.
        output: One of `OUTPUTS`.
        sample_rate: The model's.
    """
    message = " ".join(str(error).split()) or type(error).__name__
    sound = (
        _sound(output, np.zeros(0, np.float32), sample_rate)
        if output == AMPLITUDE
        else {"audio": _objects(b"")}
    )
    return {**sound, **_facts(0.0, 0, FAILED, seed, message)}


def _sound(output: str, samples: npt.NDArray[np.float32], sample_rate: int) -> dict[str, Any]:
    if output == AMPLITUDE:
        return {AMPLITUDE: samples[None, None, :], "sample_rate": np.array([sample_rate], np.int64)}
    return {"audio": _objects(encode_whole(output, samples, sample_rate))}


def _facts(
    duration: float, frames: int, finish_reason: str, seed: int, error: str
) -> dict[str, Any]:
    return {
        "duration": np.array([duration], np.float64),
        "frames": np.array([frames], np.int64),
        "finish_reason": _objects(finish_reason),
        "seed": np.array([seed], np.int64),
        "error": _objects(error),
    }


def _objects(value: object) -> npt.NDArray[Any]:
    """(1,) of any object: as bytes and str of numpy's own, trailing zeros would be lost."""
    column = np.empty(1, dtype=object)
    column[0] = value
    return column
