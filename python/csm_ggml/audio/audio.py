"""The value that speech comes as, and how it gets into files."""

from __future__ import annotations

import io
import os
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from csm_ggml.audio.encoder import Encoder
from csm_ggml.audio.stats import Stats
from csm_ggml.errors import AudioFileError
from csm_ggml.files import OutputFile, Writable

# File extension -> format and subtype of libsndfile.
_FORMATS = {
    ".wav": ("WAV", "PCM_16"),
    ".flac": ("FLAC", "PCM_16"),
    ".ogg": ("OGG", "VORBIS"),
}


@dataclass(frozen=True)
class TurnSpan:
    """Where a turn lies in an `Audio`.

    Attributes:
        index: Number of the turn in the request, from 0.
        speaker: Who speaks.
        text: What is said, normalised.
        start: First frame of the turn in this Audio.
        frames: Frames of the turn in this Audio.
        finish_reason: "eos" if the model ended the turn; "empty" if it did so without a frame,
            "short" after too few for the text; "max_frames", "silence" or "loop" for the rule that
            ended it; None if it goes on in the next chunk of a stream.
        seed: What makes it again: the request's, and the piece's in a long text.
        sample_start: First sample of the turn in this Audio, after the pause before it.
        samples: Samples of the turn in this Audio.
        attempt: Which go at the turn was kept, from 0, where turns are drawn again.
    """

    index: int
    speaker: int
    text: str
    start: int
    frames: int
    finish_reason: str | None
    seed: int
    sample_start: int = 0
    samples: int = 0
    attempt: int = 0


@dataclass(frozen=True, eq=False, repr=False)
class Audio:
    """Speech.

    Attributes:
        samples: (n,) float32, mono, full scale is 1; the codec may exceed it slightly.
        sample_rate: Samples per second, 24000 for Mimi.
        codes: (frames, codebooks) int32, what the samples were decoded from.
        finish_reason: "eos" if the model ended every turn itself, else the worst of how its turns
            ended: "silence", "max_frames", "loop", "short" or "empty"; None for a chunk of a stream
            that is not the last.
        seed: What makes the same speech again, with the same options.
        turns: Who said what, and where.
        stats: What it cost.
    """

    samples: npt.NDArray[np.float32]
    sample_rate: int
    codes: npt.NDArray[np.int32]
    finish_reason: str | None
    seed: int
    turns: tuple[TurnSpan, ...]
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

        The file appears when it is complete: until then, and after any error, one that was there
        before is kept. Equal sounds give equal files, byte by byte.

        Args:
            path: Where to. The extension picks the format: .wav, .flac, .ogg (Vorbis). Or
                an open binary file.
            format: libsndfile's name of the format, e.g. "WAV"; needed for open files and other
                extensions.
            subtype: libsndfile's name of the sample format, e.g. "FLOAT"; default 16-bit PCM,
                Vorbis for OGG.

        Raises:
            AudioFileError: If the extension is unknown, or libsndfile cannot write it.
            OSError: If the file cannot be written.
        """
        save_samples(path, self.samples, self.sample_rate, format=format, subtype=subtype)

    @classmethod
    def concatenate(cls, chunks: Iterable[Audio]) -> Audio:
        """Join the chunks of one stream, in order, into what `CSM.generate` would have returned.

        Several utterances can be joined, too: a turn that ended is not continued by the next chunk.

        Raises:
            ValueError: If there are none.
            TypeError: If one is no Audio.
        """
        chunks = list(chunks)
        if not chunks:
            raise ValueError("no chunks to join")
        for chunk in chunks:
            if not isinstance(chunk, Audio):
                raise TypeError(f"chunks must be Audio, got {chunk!r}")
        turns: list[TurnSpan] = []
        offset, sample_offset = 0, 0
        for chunk in chunks:
            for turn in chunk.turns:
                goes_on = bool(turns) and turns[-1].finish_reason is None
                if goes_on and turns[-1].index == turn.index:
                    turns[-1] = replace(
                        turns[-1],
                        frames=turns[-1].frames + turn.frames,
                        samples=turns[-1].samples + turn.samples,
                        finish_reason=turn.finish_reason,
                    )
                else:
                    turns.append(
                        replace(
                            turn,
                            start=offset + turn.start,
                            sample_start=sample_offset + turn.sample_start,
                        )
                    )
            offset += len(chunk.codes)
            sample_offset += len(chunk.samples)
        return replace(
            chunks[-1],
            samples=np.concatenate([chunk.samples for chunk in chunks]),
            codes=np.concatenate([chunk.codes for chunk in chunks]),
            turns=tuple(turns),
        )

    def turn(self, number: int) -> Audio:
        """The speech of one turn alone, without the pause before it.

        Args:
            number: Which of `turns`.

        Raises:
            IndexError: If there is no such turn.
        """
        turn = self.turns[number]
        first, last = turn.sample_start, turn.sample_start + turn.samples
        return replace(
            self,
            samples=self.samples[first:last],
            codes=self.codes[turn.start : turn.start + turn.frames],
            finish_reason=turn.finish_reason,
            turns=(replace(turn, start=0, sample_start=0),),
        )

    def __repr__(self) -> str:
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

    for name, value in (("format", format), ("subtype", subtype)):
        if value is not None and not isinstance(value, str):
            raise TypeError(f"{name} must be a str, got {value!r}")
    if not hasattr(path, "write") and not isinstance(path, str | os.PathLike):
        raise TypeError(f"path must be a file name or an open binary file, got {path!r}")
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
        with OutputFile(path, "audio") as file:
            if not file.direct:
                _encode(file, data, sample_rate, format, subtype)
            else:
                file.write(_encoded(data, sample_rate, format, subtype))
    else:
        path.write(_encoded(data, sample_rate, format, subtype))


def _encode(
    file: Writable, data: npt.NDArray[Any], sample_rate: int, format: str, subtype: str
) -> None:
    with Encoder(file, sample_rate, format, subtype) as encoder:
        encoder.write(data)


def _encoded(data: npt.NDArray[Any], sample_rate: int, format: str, subtype: str) -> bytes:
    """The whole file in memory, for what cannot seek."""
    file = io.BytesIO()
    _encode(file, data, sample_rate, format, subtype)
    return file.getvalue()
