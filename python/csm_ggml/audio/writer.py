"""An audio file, or a pipe, that is written while the speech is being made."""

from __future__ import annotations

import os
import struct
from pathlib import Path
from types import TracebackType
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from csm_ggml.audio.audio import output_format, to_pcm16
from csm_ggml.errors import AudioFileError

# libsndfile's Vorbis encoder keeps a whole write on the stack; large ones overflow it.
_WRITE_BLOCK = 1 << 16
# A WAV file whose length is not known yet claims the greatest one.
_UNKNOWN = 0xFFFFFFFF


class AudioWriter:
    """16-bit mono audio into a file, chunk by chunk. Use it in a `with` block.

    The file appears with the first chunk; after an error it ends with the last one.
    """

    def __init__(self, path: str | os.PathLike[str], sample_rate: int) -> None:
        """Take the name.

        Args:
            path: Its extension picks the format: .wav, .flac, .ogg.
            sample_rate: Samples per second.

        Raises:
            AudioFileError: If the extension is unknown.
        """
        self._path = Path(path)
        self._sample_rate = sample_rate
        self._format, self._subtype = output_format(path)
        self._file: IO[bytes] | None = None
        self._sound: Any = None

    def write(self, samples: npt.NDArray[Any]) -> None:
        """Append (n,) float32 or int16 samples.

        Raises:
            AudioFileError: If libsndfile cannot write them.
            OSError: If the file cannot be created.
        """
        import soundfile

        data = samples if samples.dtype == np.int16 else to_pcm16(samples)
        try:
            if self._sound is None:
                self._file = self._path.open("wb")
                self._sound = soundfile.SoundFile(
                    self._file,
                    "w",
                    samplerate=self._sample_rate,
                    channels=1,
                    format=self._format,
                    subtype=self._subtype,
                )
            for start in range(0, len(data), _WRITE_BLOCK):
                self._sound.write(data[start : start + _WRITE_BLOCK])
            self._sound.flush()
        except soundfile.LibsndfileError as error:
            raise AudioFileError(f"{self._path}: cannot be written: {error}") from None

    def close(self) -> None:
        """Complete the file."""
        if self._sound is not None:
            self._sound.close()
        if self._file is not None:
            self._file.close()
        self._sound = self._file = None

    def __enter__(self) -> AudioWriter:
        """The writer."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Complete the file."""
        self.close()


def wav_header(sample_rate: int) -> bytes:
    """The beginning of a 16-bit mono WAV stream of unknown length."""
    form = struct.pack("<IHHIIHH", 16, 1, 1, sample_rate, 2 * sample_rate, 2, 16)
    return (
        b"RIFF"
        + struct.pack("<I", _UNKNOWN)
        + b"WAVEfmt "
        + form
        + b"data"
        + struct.pack("<I", _UNKNOWN)
    )
