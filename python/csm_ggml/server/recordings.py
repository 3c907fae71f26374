"""Uploaded recordings, read with suspicion: what the file claims is not believed."""

from __future__ import annotations

import io

import numpy as np
import numpy.typing as npt

from csm_ggml.audio.load import open_sound
from csm_ggml.errors import AudioFileError
from csm_ggml.server.problems import ApiError

MAX_SECONDS = 60
MAX_CHANNELS = 2
LOWEST_RATE, HIGHEST_RATE = 8_000, 192_000


def read_recording(data: bytes) -> tuple[npt.NDArray[np.float32], int]:
    """Samples and rate of an uploaded audio file.

    It is decoded in blocks, so that a small file that unpacks to a large one ends at the limit.

    Returns:
        (n, channels) float32 samples, and their rate in Hz.

    Raises:
        ApiError: If it is no audio file, too long, too short, or of an odd kind.
    """

    def refuse(why: str) -> ApiError:
        return ApiError(400, f"audio_sample: {why}", param="audio_sample")

    try:
        with open_sound(io.BytesIO(data)) as reader:
            rate, channels = reader.rate, reader.channels
            if not LOWEST_RATE <= rate <= HIGHEST_RATE:
                raise refuse(f"the sample rate must be {LOWEST_RATE} to {HIGHEST_RATE}, got {rate}")
            if channels > MAX_CHANNELS:
                raise refuse(f"it may have {MAX_CHANNELS} channels at most, got {channels}")
            samples = reader.read(MAX_SECONDS * rate)
    except (AudioFileError, RuntimeError, ValueError, OverflowError, MemoryError):
        raise refuse(
            "it is no audio file that can be read; send WAV, FLAC, OGG, MP3, M4A or WebM"
        ) from None
    if len(samples) > MAX_SECONDS * rate:
        raise refuse(f"it may be {MAX_SECONDS} seconds long at most")
    if len(samples) < rate // 2:
        raise refuse("it must be half a second long at least")
    if not np.isfinite(samples).all():
        raise refuse("some samples are NaN or infinite")
    return samples, rate
