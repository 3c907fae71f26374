"""Sound into a file of M4B, MP3, Opus or FLAC, block by block; by FFmpeg, through PyAV."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
import numpy.typing as npt

from csm_ggml.books.extras import import_av
from csm_ggml.errors import AudioFileError
from csm_ggml.files import Completed

# Extension: FFmpeg's names of container and encoder, bits per second unless asked for otherwise.
FORMATS = {
    ".m4b": ("ipod", "aac", 64_000),
    ".m4a": ("ipod", "aac", 64_000),
    ".mp3": ("mp3", "libmp3lame", 64_000),
    ".opus": ("ogg", "libopus", 32_000),
    ".flac": ("flac", "flac", 0),
}
_BLOCK = 1 << 15


@dataclass(frozen=True)
class Mark:
    """Where a chapter lies in a file.

    Attributes:
        title: Of the chapter.
        start: Its first sample.
        end: The sample after its last.
    """

    title: str
    start: int
    end: int


def check_format(path: str | os.PathLike[str]) -> str:
    """The extension of a file that can be written.

    Raises:
        AudioFileError: If there is no such format.
    """
    extension = os.path.splitext(os.fsdecode(path))[1].lower()
    if extension not in FORMATS:
        raise AudioFileError(
            f"{os.fsdecode(path)}: no format of audiobooks for the extension {extension!r}, "
            f"expected one of {', '.join(FORMATS)}"
        )
    return extension


class BookEncoder(Completed):
    """16-bit mono sound on its way into a file. Use it in a `with` block."""

    def __init__(
        self,
        path: str | os.PathLike[str],
        extension: str,
        sample_rate: int,
        *,
        marks: Sequence[Mark] = (),
        bit_rate: int | None = None,
    ) -> None:
        """Begin the file; one that was there is overwritten.

        Args:
            path: A name of any kind.
            extension: One of `FORMATS`.
            sample_rate: Samples per second.
            marks: Chapters, which M4B keeps in the container.
            bit_rate: Bits per second; None for the usual.

        Raises:
            ImportError: If the package `av` is not installed.
            OSError: If the file cannot be written.
        """
        self._av = import_av()
        container, codec, usual = FORMATS[extension]
        # Without random numbers and dates, so that equal sound gives equal files.
        self._container: Any = self._av.open(
            os.fspath(path), "w", format=container, options={"fflags": "+bitexact"}
        )
        self._stream: Any = self._container.add_stream(codec, rate=sample_rate)
        self._stream.layout = "mono"
        self._stream.format = {"aac": "fltp", "libmp3lame": "s16p"}.get(codec, "s16")
        if usual:
            self._stream.bit_rate = bit_rate or usual
        self._rate = sample_rate
        self._at = 0
        if marks and container == "ipod":
            base = Fraction(1, sample_rate)
            self._container.set_chapters(
                [
                    {
                        "id": number,
                        "start": mark.start,
                        "end": mark.end,
                        "time_base": base,
                        "metadata": {"title": mark.title},
                    }
                    for number, mark in enumerate(marks)
                ]
            )

    def write(self, samples: npt.NDArray[np.int16]) -> None:
        """Append (n,) samples.

        Raises:
            OSError: If the file cannot be written.
        """
        for start in range(0, len(samples), _BLOCK):
            part = np.ascontiguousarray(samples[np.newaxis, start : start + _BLOCK])
            frame = self._av.AudioFrame.from_ndarray(part, format="s16", layout="mono")
            frame.sample_rate = self._rate
            frame.time_base = Fraction(1, self._rate)
            frame.pts = self._at
            self._at += part.shape[1]
            self._container.mux(self._stream.encode(frame))

    def close(self) -> None:
        """Complete the file.

        Raises:
            OSError: If it cannot be written.
        """
        try:
            self._container.mux(self._stream.encode(None))
        finally:
            self._container.close()

    def discard(self) -> None:
        """Let go of the file, which stays as it is."""
        self._container.close()
