"""Sound in: the one reader of recordings, and what makes them fit for the codec."""

from __future__ import annotations

import math
import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from csm_ggml.audio.containers import mended, other_container
from csm_ggml.audio.recording import check_sound, to_one_channel
from csm_ggml.errors import AudioFileError
from csm_ggml.inputs import named

# Rates of sound in Hz: below, there is no speech; above, no device. Outside, resampling takes
# gigabytes or forever.
LEAST_RATE = 1_000
MOST_RATE = 768_000
_READ_FRAMES = 1 << 18


class SoundReader:
    """An audio file that is read block by block, whatever its header claims.

    Attributes:
        rate: Samples per second.
        channels: Samples side by side.
    """

    def __init__(self, rate: int, channels: int, blocks: Iterator[npt.NDArray[np.float32]]) -> None:
        """Take what was opened; see `open_sound`."""
        self.rate = rate
        self.channels = channels
        self._blocks = blocks

    def __iter__(self) -> Iterator[npt.NDArray[np.float32]]:
        """The samples, (n, channels) at a time."""
        return self._blocks

    def read(self, most: int | None = None) -> npt.NDArray[np.float32]:
        """All samples, (n, channels); reading ends when there are more than `most`."""
        blocks = [np.zeros((0, self.channels), np.float32)]
        count = 0
        for block in self:
            blocks.append(block)
            count += len(block)
            if most is not None and count > most:
                break
        return np.concatenate(blocks)


@contextmanager
def open_sound(file: IO[bytes], native: str | bytes | None = None) -> Iterator[SoundReader]:
    """Open an audio file that libsndfile reads, else one that FFmpeg does, if PyAV is there.

    Args:
        file: Open for reading, can seek.
        native: Its name, where libsndfile may open it itself.

    Raises:
        AudioFileError: If it is no audio file that can be read; when it is opened, or in its block.
    """
    import soundfile

    name = other_container(file)
    if name is not None:
        with _open_other(file, name) as reader:
            yield reader
        return
    source: Any = mended(file)
    if source is None:
        file.seek(0)
        source = file if native is None else native
    try:
        with soundfile.SoundFile(source) as sound:
            yield SoundReader(sound.samplerate, sound.channels, _blocks(sound))
    except (soundfile.SoundFileError, MemoryError) as error:
        raise AudioFileError(f"not an audio file that libsndfile can read: {error}") from None


def _blocks(sound: Any) -> Iterator[npt.NDArray[np.float32]]:
    # Into a buffer of ours: soundfile's own would be as large as the header claims.
    buffer = np.empty((_READ_FRAMES // sound.channels + 1, sound.channels), np.float32)
    while len(block := sound.read(out=buffer)):
        yield block.copy()


@contextmanager
def _open_other(file: IO[bytes], name: str) -> Iterator[SoundReader]:
    try:
        import av
    except ImportError:
        raise AudioFileError(
            f"{name} files are read with PyAV, which is not installed: pip install "
            "'csm-ggml[av]', or convert the file: ffmpeg -i FILE recording.wav"
        ) from None
    file.seek(0)
    try:
        # The format by name, from an open file: what the file says makes nothing else be opened.
        with av.open(file, format=name.lower()) as container:
            if not container.streams.audio:
                raise AudioFileError("there is no sound in it")
            stream = container.streams.audio[0]
            rate, channels = int(stream.rate or 0), int(stream.channels or 0)
            if not channels:
                raise AudioFileError("there is no sound in it")
            resampler = av.AudioResampler(format="fltp", layout=stream.layout, rate=rate)

            def blocks() -> Iterator[npt.NDArray[np.float32]]:
                for frame in container.decode(stream):
                    for part in resampler.resample(frame):
                        yield part.to_ndarray().T.astype(np.float32)
                for part in resampler.resample(None):
                    yield part.to_ndarray().T.astype(np.float32)

            yield SoundReader(rate, channels, blocks())
    except (av.error.FFmpegError, MemoryError) as error:
        raise AudioFileError(f"not a {name} file that FFmpeg can read: {error}") from None


def load_audio(
    path: str | os.PathLike[str],
    sample_rate: int,
    *,
    speech: bool = False,
    most_seconds: float | None = None,
) -> npt.NDArray[np.float32]:
    """Read an audio file as (n,) mono float32 samples at the given rate.

    What libsndfile reads, WAV files with wrong sizes in their headers included; with PyAV also MP4,
    M4A, AAC, WebM, Matroska and WMA. Resampling is soxr's VHQ; the gain stays as it is.

    Args:
        path: The file.
        sample_rate: To be resampled to.
        speech: As in `to_mono`.
        most_seconds: Reading ends beyond so much sound, for callers that then refuse it.

    Raises:
        FileNotFoundError: If there is no such file.
        AudioFileError: If it is no audio file, empty, or as `to_mono`.
    """
    if not isinstance(path, str | os.PathLike):
        raise TypeError(f"the path of an audio file must be a str or a Path, got {path!r}")
    name = os.fsdecode(path)
    if "\0" in name or not os.path.isfile(name):
        raise FileNotFoundError(f"{name}: no such audio file")
    # As bytes where names are bytes: they need not be UTF-8.
    native = name if sys.platform == "win32" else os.fsencode(name)
    try:
        with named(name), open(native, "rb") as file, open_sound(file, native) as reader:
            rate = check_rate(reader.rate)
            most = None if most_seconds is None else math.ceil(most_seconds * rate) + 1
            samples = reader.read(most)
        return to_mono(samples, rate, sample_rate, speech=speech, name=name)
    except ValueError as error:
        raise AudioFileError(f"{name}: {error}") from None


def check_rate(rate: float) -> float:
    """A sample rate, as it was given.

    Raises:
        ValueError: If it is no rate of sound.
        TypeError: If it is no number.
    """
    if isinstance(rate, str | bytes | bool) or not hasattr(rate, "__float__"):
        raise TypeError(f"sample_rate must be a number, got {rate!r}")
    try:
        value = float(rate)
    except OverflowError:
        value = math.inf
    if not LEAST_RATE <= value <= MOST_RATE:
        raise ValueError(
            f"sample_rate must be {LEAST_RATE} to {MOST_RATE} Hz, got {str(rate)[:40]}"
        )
    return rate


def to_mono(
    samples: npt.ArrayLike,
    rate: float,
    target_rate: int,
    *,
    speech: bool = False,
    name: str = "the recording",
) -> npt.NDArray[np.float32]:
    """Bring samples into the form that the codec takes.

    Args:
        samples: (n,) or (n, channels); float with full scale 1, or integers scaled by their type's
            full scale.
        rate: Their rate in Hz, 1 kHz to 768 kHz.
        target_rate: The rate to resample to, in Hz.
        speech: Whether it is to be somebody's speech: silence is refused then, and what spoils the
            sound is told by warnings.
        name: For warnings.

    Returns:
        (m,) float32; channels are averaged, without empty ones; where they cancel each other, the
        loudest is taken. Both are told by warnings.

    Raises:
        ValueError: If there are no samples, one is NaN or infinite, or shape, type or rate is not
            right; if it is silence and was to be speech.
        TypeError: If the rate is no number.
    """
    rate = check_rate(rate)
    array = np.asarray(samples)
    if array.ndim not in (1, 2):
        raise ValueError(f"samples must have shape (n,) or (n, channels), got {array.shape}")
    if array.size == 0:
        raise ValueError("there are no samples")
    if array.ndim == 2 and array.shape[1] > array.shape[0]:
        raise ValueError(
            f"samples must have shape (n,) or (n, channels), got {array.shape}; is it transposed?"
        )
    if array.dtype.kind == "i":
        array = array / -float(np.iinfo(array.dtype).min)
    elif array.dtype.kind != "f":
        raise ValueError(f"samples must be float or signed integers, got {array.dtype}")
    if not np.isfinite(array).all():
        raise ValueError("some samples are NaN or infinite")
    mono, notes = to_one_channel(array)
    if speech:
        notes += check_sound(array, mono)
    for note in notes:
        warnings.warn(f"{name}: {note}", stacklevel=2)
    mono = np.ascontiguousarray(mono, dtype=np.float32)
    if rate != target_rate:
        import soxr

        mono = soxr.resample(mono, rate, target_rate, quality="VHQ")
        if not len(mono):
            raise ValueError("the audio is too short to be resampled")
    return mono
