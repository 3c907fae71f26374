"""Uploaded recordings, read with suspicion: what the file claims is not believed."""

from __future__ import annotations

import io

import numpy as np
import numpy.typing as npt

from csm_ggml.server.problems import ApiError

MAX_SECONDS = 60
MAX_CHANNELS = 2
LOWEST_RATE, HIGHEST_RATE = 8_000, 192_000
_BLOCK = 1 << 15


def read_recording(data: bytes) -> tuple[npt.NDArray[np.float32], int]:
    """Samples and rate of an uploaded audio file.

    It is decoded in blocks, so that a small file that unpacks to a large one ends at the limit.

    Returns:
        (n, channels) float32 samples, and their rate in Hz.

    Raises:
        ApiError: If it is no audio file, too long, too short, or of an odd kind.
    """
    import soundfile

    def refuse(why: str) -> ApiError:
        return ApiError(400, f"audio_sample: {why}", param="audio_sample")

    try:
        with soundfile.SoundFile(io.BytesIO(data)) as file:
            rate, channels = int(file.samplerate), int(file.channels)
            if not LOWEST_RATE <= rate <= HIGHEST_RATE:
                raise refuse(f"the sample rate must be {LOWEST_RATE} to {HIGHEST_RATE}, got {rate}")
            if channels > MAX_CHANNELS:
                raise refuse(f"it may have {MAX_CHANNELS} channels at most, got {channels}")
            blocks = []
            frames = 0
            # Without a buffer of ours, as much would be allocated as the file claims to hold.
            buffer = np.empty((_BLOCK, channels), np.float32)
            while got := len(file.read(out=buffer)):
                frames += got
                if frames > MAX_SECONDS * rate:
                    raise refuse(f"it may be {MAX_SECONDS} seconds long at most")
                blocks.append(buffer[:got].copy())
    except (soundfile.LibsndfileError, RuntimeError, ValueError, OverflowError, MemoryError):
        raise refuse("it is no audio file that can be read; send WAV, FLAC, OGG or MP3") from None
    if frames < rate // 2:
        raise refuse("it must be half a second long at least")
    samples = np.concatenate(blocks)
    if not np.isfinite(samples).all():
        raise refuse("some samples are NaN or infinite")
    return samples, rate
