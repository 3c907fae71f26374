"""Sound in and out: the value that speech comes as, and the one reader of audio files."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from csm_ggml.errors import AudioFileError

if TYPE_CHECKING:
    from csm_ggml.audio.stats import Stats

# File extension -> format and subtype of libsndfile.
_FORMATS = {
    ".wav": ("WAV", "PCM_16"),
    ".flac": ("FLAC", "PCM_16"),
    ".ogg": ("OGG", "VORBIS"),
}
# libsndfile's Vorbis encoder keeps a whole write on the stack; large ones overflow it.
_WRITE_BLOCK = 1 << 16


@dataclass(frozen=True)
class SpokenTurn:
    """Where a turn lies in an `Audio`.

    Attributes:
        index: Number of the turn in the request, from 0.
        speaker: Who speaks.
        text: What is said, normalised.
        start: First frame of the turn in this Audio.
        frames: Frames of the turn in this Audio.
        finish_reason: "eos" if the model ended the turn; else "max_frames", "silence" or "loop",
            for the rule that did; None if it goes on in the next chunk of a stream.
        seed: Of the attempt that was kept, where turns are drawn again; else the request's.
    """

    index: int
    speaker: int
    text: str
    start: int
    frames: int
    finish_reason: str | None
    seed: int


@dataclass(frozen=True, eq=False, repr=False)
class Audio:
    """Speech.

    Attributes:
        samples: (n,) float32, mono, full scale is 1; the codec may exceed it slightly.
        sample_rate: Samples per second, 24000 for Mimi.
        codes: (frames, codebooks) int32, what the samples were decoded from.
        finish_reason: "eos" if the model ended every turn itself, else the worst of how its turns
            ended: "silence", "max_frames" or "loop"; None for a chunk of a stream that is not the
            last.
        seed: What makes the same speech again, with the same options.
        turns: Who said what, and where.
        stats: What it cost.
    """

    samples: npt.NDArray[np.float32]
    sample_rate: int
    codes: npt.NDArray[np.int32]
    finish_reason: str | None
    seed: int
    turns: tuple[SpokenTurn, ...]
    stats: Stats

    @property
    def duration(self) -> float:
        """Seconds."""
        return len(self.samples) / self.sample_rate

    def pcm16(self) -> npt.NDArray[np.int16]:
        """The samples as (n,) int16, clipped at full scale."""
        return to_pcm16(self.samples)

    def save(
        self,
        path: str | os.PathLike[str] | IO[bytes],
        *,
        format: str | None = None,
        subtype: str | None = None,
    ) -> None:
        """Write an audio file. Samples beyond full scale are clipped unless stored as floats.

        Args:
            path: Where to. The extension picks the format: .wav, .flac, .ogg (Vorbis). Or
                an open binary file that can seek.
            format: libsndfile's name of the format, e.g. "WAV"; needed for open files and other
                extensions.
            subtype: libsndfile's name of the sample format, e.g. "FLOAT"; default 16-bit PCM,
                Vorbis for OGG.

        Raises:
            AudioFileError: If the extension is unknown, or libsndfile cannot write it.
            OSError: If the file cannot be created.
        """
        save_samples(path, self.samples, self.sample_rate, format=format, subtype=subtype)

    @classmethod
    def concatenate(cls, chunks: Iterable[Audio]) -> Audio:
        """Join the chunks of one stream, in order, into what `CSM.generate` would have returned.

        Raises:
            ValueError: If there are none.
        """
        chunks = list(chunks)
        if not chunks:
            raise ValueError("no chunks to join")
        turns: list[SpokenTurn] = []
        offset = 0
        for chunk in chunks:
            for turn in chunk.turns:
                if turns and turns[-1].index == turn.index:
                    turns[-1] = replace(
                        turns[-1],
                        frames=turns[-1].frames + turn.frames,
                        finish_reason=turn.finish_reason,
                    )
                else:
                    turns.append(replace(turn, start=offset + turn.start))
            offset += len(chunk.codes)
        return replace(
            chunks[-1],
            samples=np.concatenate([chunk.samples for chunk in chunks]),
            codes=np.concatenate([chunk.codes for chunk in chunks]),
            turns=tuple(turns),
        )

    def __repr__(self) -> str:
        """One line for people."""
        return (
            f"Audio({self.duration:.2f} s at {self.sample_rate} Hz, {len(self.codes)} frames, "
            f"finish_reason={self.finish_reason!r}, seed={self.seed})"
        )


def to_pcm16(samples: npt.NDArray[np.float32]) -> npt.NDArray[np.int16]:
    """(n,) float samples as int16: full scale is 32767, what exceeds it is clipped."""
    return np.round(np.clip(samples, -1.0, 1.0) * 32767.0).astype(np.int16)


def output_format(path: str | os.PathLike[str]) -> tuple[str, str]:
    """Format and subtype of libsndfile that a file name asks for.

    Raises:
        AudioFileError: If its extension is none that this package writes.
    """
    extension = Path(path).suffix.lower()
    if extension not in _FORMATS:
        raise AudioFileError(
            f"{os.fspath(path)}: no audio format for the extension {extension!r}, "
            f"expected one of {', '.join(_FORMATS)}"
        )
    return _FORMATS[extension]


def save_samples(
    path: str | os.PathLike[str] | IO[bytes],
    samples: npt.NDArray[np.float32],
    sample_rate: int,
    *,
    format: str | None = None,
    subtype: str | None = None,
) -> None:
    """Write (n,) mono samples; see `Audio.save`."""
    import soundfile

    if format is None:
        if not isinstance(path, str | os.PathLike):
            raise AudioFileError('writing to an open file needs a format, e.g. format="WAV"')
        format, default_subtype = output_format(path)
    else:
        default_subtype = "VORBIS" if format.upper() == "OGG" else "PCM_16"
    subtype = (subtype or default_subtype).upper()
    if not soundfile.check_format(format, subtype):
        raise AudioFileError(f"libsndfile cannot write {subtype} samples into a {format} file")
    if not len(samples) and format.upper() == "FLAC":
        raise AudioFileError("there are no samples, and a FLAC file cannot be empty; save as WAV")
    data: npt.NDArray[Any] = samples
    if subtype == "PCM_16":
        data = to_pcm16(samples)
    elif subtype not in ("FLOAT", "DOUBLE"):
        data = np.clip(samples, -1.0, 1.0)
    if isinstance(path, str | os.PathLike):
        # soundfile reports a missing folder or missing rights as "System error"; opening it here
        # names the reason.
        with open(path, "wb") as file:
            _write(file, data, sample_rate, format, subtype)
    else:
        _write(path, data, sample_rate, format, subtype)


def _write(
    file: IO[bytes], data: npt.NDArray[Any], sample_rate: int, format: str, subtype: str
) -> None:
    import soundfile

    try:
        with soundfile.SoundFile(
            file, "w", samplerate=sample_rate, channels=1, format=format, subtype=subtype
        ) as sound:
            for start in range(0, len(data), _WRITE_BLOCK):
                sound.write(data[start : start + _WRITE_BLOCK])
    except soundfile.LibsndfileError as error:
        raise AudioFileError(
            f"{getattr(file, 'name', 'audio')}: cannot be written: {error}"
        ) from None


def load_audio(path: str | os.PathLike[str], sample_rate: int) -> npt.NDArray[np.float32]:
    """Read any audio file that libsndfile reads as (n,) mono float32 samples at the given rate.

    Channels are averaged; resampling is soxr's VHQ; the gain stays as it is.

    Raises:
        FileNotFoundError: If there is no such file.
        AudioFileError: If it is no audio file, empty, or holds NaN or infinite samples.
    """
    import soundfile

    name = os.fspath(path)
    if not os.path.isfile(name):
        raise FileNotFoundError(f"{name}: no such audio file")
    try:
        samples, rate = soundfile.read(name, dtype="float32", always_2d=True)
    except soundfile.LibsndfileError as error:
        raise AudioFileError(
            f"{name}: not an audio file that libsndfile can read: {error}"
        ) from None
    try:
        return to_mono(samples, rate, sample_rate)
    except ValueError as error:
        raise AudioFileError(f"{name}: {error}") from None


def to_mono(samples: npt.ArrayLike, rate: int, target_rate: int) -> npt.NDArray[np.float32]:
    """Bring samples into the form that the codec takes.

    Args:
        samples: (n,) or (n, channels); float with full scale 1, or integers scaled by their type's
            full scale.
        rate: Their rate in Hz.
        target_rate: The rate to resample to, in Hz.

    Returns:
        (m,) float32, channels averaged.

    Raises:
        ValueError: If there are no samples, one is NaN or infinite, or shape, type or rate is not
            right.
    """
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
    if rate <= 0:
        raise ValueError(f"sample rate must be positive, got {rate}")
    mono = array if array.ndim == 1 else array.mean(axis=1)
    mono = np.ascontiguousarray(mono, dtype=np.float32)
    if rate != target_rate:
        import soxr

        mono = soxr.resample(mono, rate, target_rate, quality="VHQ")
        if not len(mono):
            raise ValueError("the audio is too short to be resampled")
    return mono
