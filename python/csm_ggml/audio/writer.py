"""An audio file, or a pipe, that is written while the speech is being made."""

from __future__ import annotations

import io
import os
import struct
from collections.abc import Iterable
from typing import Any

import numpy as np
import numpy.typing as npt

from csm_ggml.audio.audio import output_format, to_pcm16
from csm_ggml.audio.encoder import Encoder
from csm_ggml.files import Completed, OutputFile, check_output

# A WAV file whose length is not known yet claims the greatest one.
_UNKNOWN = 0xFFFFFFFF


class AudioWriter(Completed):
    """Mono audio into a file, chunk by chunk. Use it in a `with` block.

    A reader sees the file when it is complete: until then, and after any error, one that was there
    before is kept. Without a sample there is no file. Who wants to listen meanwhile names a FIFO or
    a device: WAV goes there chunk by chunk, with a header of unknown length, other formats at the
    end.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        sample_rate: int,
        *,
        samples: str = "16",
        inputs: Iterable[str | os.PathLike[str]] = (),
    ) -> None:
        """Take the name, and find out whether it can be written.

        Args:
            path: Its extension picks the format; see `Audio.save`.
            sample_rate: Samples per second.
            samples: How they are stored; see `output_format`.
            inputs: Files that it must not replace.

        Raises:
            AudioFileError: If the extension is unknown.
            ValueError: If it is one of the inputs.
            OSError: If it cannot be written.
        """
        self._path = path
        self._inputs = tuple(inputs)
        self._sample_rate = sample_rate
        self._format, self._subtype = output_format(path, samples)
        check_output(path, "audio", inputs=self._inputs)
        self._file: OutputFile | None = None
        self._memory: io.BytesIO | None = None
        self._encoder: Encoder | None = None

    def write(self, samples: npt.NDArray[Any]) -> None:
        """Append (n,) float32 or int16 samples.

        Raises:
            AudioFileError: If libsndfile cannot write them.
            OSError: If the file cannot be written.
        """
        if not len(samples):
            return
        data = self._stored(samples)
        if self._file is None:
            self._file = OutputFile(self._path, "audio", inputs=self._inputs)
            if not self._file.direct:
                self._encoder = self._encode_into(self._file)
            elif self._format == "WAV" and self._subtype == "PCM_16":
                self._file.write(wav_header(self._sample_rate))
            else:
                self._memory = io.BytesIO()
                self._encoder = self._encode_into(self._memory)
        if self._encoder is not None:
            self._encoder.write(data)
        else:
            self._file.write(data.astype("<i2", copy=False).tobytes())
            self._file.flush()

    def close(self) -> None:
        """Complete the file.

        Raises:
            As `write`.
        """
        if self._file is None:
            return
        try:
            if self._encoder is not None:
                encoder, self._encoder = self._encoder, None
                encoder.close()
            if self._memory is not None:
                self._file.write(self._memory.getvalue())
            self._file.commit()
        finally:
            self.discard()

    def discard(self) -> None:
        """Drop what was written; a FIFO keeps it."""
        if self._encoder is not None:
            self._encoder.discard()
        if self._file is not None:
            self._file.discard()
        self._file = self._encoder = self._memory = None

    def _encode_into(self, file: OutputFile | io.BytesIO) -> Encoder:
        return Encoder(file, self._sample_rate, self._format, self._subtype)

    def _stored(self, samples: npt.NDArray[Any]) -> npt.NDArray[Any]:
        if samples.dtype == np.int16 or self._subtype == "FLOAT":
            return samples
        return to_pcm16(samples) if self._subtype == "PCM_16" else np.clip(samples, -1.0, 1.0)


def wav_header(sample_rate: int, samples: int | None = None) -> bytes:
    """The beginning of a 16-bit mono WAV file, or of a stream whose length is not known."""
    size = _UNKNOWN if samples is None else min(_UNKNOWN, 2 * samples)
    form = struct.pack("<IHHIIHH", 16, 1, 1, sample_rate, 2 * sample_rate, 2, 16)
    return (
        b"RIFF"
        + struct.pack("<I", min(_UNKNOWN, size + 36))
        + b"WAVEfmt "
        + form
        + b"data"
        + struct.pack("<I", size)
    )
