"""The value that speech comes as, and how it gets into files."""

from __future__ import annotations

import base64
import html
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
    ".mp3": ("MP3", "MPEG_LAYER_III"),
    ".opus": ("OGG", "OPUS"),
}
EXTENSIONS = ", ".join(_FORMATS)
# How samples may be stored in WAV and FLAC: bits, or floating point numbers (in WAV alone).
SUBTYPES = {"16": "PCM_16", "24": "PCM_24", "float": "FLOAT"}
# Longer speech is shown in a notebook as MP3, which takes a fifth of the space.
_PLAYER_SECONDS = 30


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
            path: Where to. The extension picks the format: .wav, .flac, .ogg (Vorbis), .mp3, .opus.
                Or an open binary file.
            format: libsndfile's name of the format, e.g. "WAV"; needed for open files and other
                extensions.
            subtype: libsndfile's name of the sample format, e.g. "PCM_24" or "FLOAT"; default
                16-bit PCM, Vorbis for OGG.

        Raises:
            AudioFileError: If the extension is unknown, or libsndfile cannot write it.
            OSError: If the file cannot be written.
        """
        save_samples(path, self.samples, self.sample_rate, format=format, subtype=subtype)

    def to_bytes(self, format: str = "wav", *, subtype: str | None = None) -> bytes:
        """The content of the file that `save` writes.

        Args:
            format: Its extension, without a dot: "wav", "flac", "ogg", "mp3", "opus"; or "pcm":
                16-bit little-endian samples alone.
            subtype: As in `save`.

        Raises:
            AudioFileError: If there is no such format, or libsndfile cannot write it.
        """
        if format == "pcm" and subtype is None:
            return self.pcm16().astype("<i2", copy=False).tobytes()
        name, default = output_format(f"speech.{format}")
        file = io.BytesIO()
        self.save(file, format=name, subtype=subtype or default)
        return file.getvalue()

    def resample(self, sample_rate: int) -> Audio:
        """The same speech at another rate, by soxr at its best quality; codes stay as they are.

        Args:
            sample_rate: Samples per second, 1 kHz to 768 kHz.

        Raises:
            ValueError: If it is no rate of sound.
            TypeError: If it is no whole number.
        """
        from csm_ggml.audio.load import check_rate

        if isinstance(sample_rate, bool) or not hasattr(sample_rate, "__index__"):
            raise TypeError(f"sample_rate must be an int, got {sample_rate!r}")
        sample_rate = int(check_rate(sample_rate))
        if sample_rate == self.sample_rate:
            return self
        import soxr

        samples = self.samples
        if len(samples):
            samples = soxr.resample(samples, self.sample_rate, sample_rate, quality="VHQ")

        def moved(at: int) -> int:
            return min(len(samples), round(at * sample_rate / self.sample_rate))

        turns = []
        for turn in self.turns:
            start, end = moved(turn.sample_start), moved(turn.sample_start + turn.samples)
            turns.append(replace(turn, sample_start=start, samples=end - start))
        return replace(self, samples=samples, sample_rate=sample_rate, turns=tuple(turns))

    @classmethod
    def concatenate(cls, chunks: Iterable[Audio]) -> Audio:
        """Join the chunks of one stream, in order, into what `CSM.generate` would have returned.

        Several utterances can be joined, too: a turn that ended is not continued by the next chunk.

        Raises:
            ValueError: If there are none, or their sample rates differ.
            TypeError: If one is no Audio.
        """
        chunks = list(chunks)
        if not chunks:
            raise ValueError("no chunks to join")
        for chunk in chunks:
            if not isinstance(chunk, Audio):
                raise TypeError(f"chunks must be Audio, got {chunk!r}")
        if len(rates := {chunk.sample_rate for chunk in chunks}) > 1:
            raise ValueError(
                f"chunks of one sample rate can be joined, got {sorted(rates)} Hz; use resample()"
            )
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

    def _repr_html_(self) -> str:
        """A player, where a notebook shows the value."""
        kind = "wav" if self.duration <= _PLAYER_SECONDS else "mp3"
        try:
            data = self.to_bytes(kind)
        except AudioFileError:  # an older libsndfile
            kind, data = "wav", self.to_bytes("wav")
        media = {"wav": "audio/wav", "mp3": "audio/mpeg"}[kind]
        source = f"data:{media};base64,{base64.b64encode(data).decode()}"
        return f'<audio controls src="{source}"></audio><br>{html.escape(repr(self))}'

    def __repr__(self) -> str:
        return (
            f"Audio({self.duration:.2f} s at {self.sample_rate} Hz, {len(self.codes)} frames, "
            f"finish_reason={self.finish_reason!r}, seed={self.seed})"
        )


def to_pcm16(samples: npt.NDArray[np.float32]) -> npt.NDArray[np.int16]:
    """(n,) float samples as int16: full scale is 32767, what exceeds it is clipped."""
    return np.round(np.clip(samples, -1.0, 1.0) * 32767.0).astype(np.int16)


def output_format(path: str | os.PathLike[str], samples: str = "16") -> tuple[str, str]:
    """Format and subtype of libsndfile that a file name asks for.

    Args:
        path: The name.
        samples: Of `SUBTYPES`, for formats without loss.

    Raises:
        AudioFileError: If its extension is none that this package writes, or libsndfile cannot
            write it, or not with such samples.
    """
    import soundfile

    extension = Path(path).suffix.lower()
    if extension not in _FORMATS:
        raise AudioFileError(
            f"{os.fspath(path)}: no audio format for the extension {extension!r}, "
            f"expected one of {EXTENSIONS}"
        )
    format, subtype = _FORMATS[extension]
    if samples != "16":
        lossless = subtype == "PCM_16"
        subtype = SUBTYPES[samples]
        if not lossless or not soundfile.check_format(format, subtype):
            what = "floating point numbers" if samples == "float" else f"{samples} bits"
            fit = "WAV" if samples == "float" else "WAV and FLAC"
            raise AudioFileError(f"{os.fspath(path)}: only {fit} files have samples of {what}")
    if not soundfile.check_format(format, subtype):
        raise AudioFileError(
            f"{os.fspath(path)}: this libsndfile ({soundfile.__libsndfile_version__}) cannot write "
            f"{extension} files"
        )
    return format, subtype


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
        lossy = {"OGG": "VORBIS", "MP3": "MPEG_LAYER_III"}
        default_subtype = lossy.get(format.upper(), "PCM_16")
    subtype = (subtype or default_subtype).upper()
    if not soundfile.check_format(format, subtype):
        raise AudioFileError(f"libsndfile cannot write {subtype} samples into a {format} file")
    kind = subtype if subtype == "OPUS" else format.upper()
    if not len(samples) and kind in ("FLAC", "MP3", "OPUS"):
        raise AudioFileError(
            f"there are no samples, and a {kind} file cannot be empty; save as WAV"
        )
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
