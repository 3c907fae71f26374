"""Speech as the bytes of an audio file that is sent while it grows.

A streamed file is written front to back: no encoder here may go back to its beginning to put in a
length. libsndfile does so for MP3 and FLAC; what it writes there is left out, and so is the first
frame of an MP3 file, which only holds such a table (Xing). MP3 files may therefore be joined, and
players start at the first bytes.
"""

from __future__ import annotations

import io
import os
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from csm_ggml.audio.audio import save_samples, to_pcm16
from csm_ggml.audio.ogg import number_streams
from csm_ggml.audio.writer import wav_header

# libsndfile's command for how much sound an Ogg page may hold, in milliseconds; its default of a
# second would be the wait for the first bytes. The soundfile package has no name for it.
_SFC_SET_OGG_PAGE_LATENCY_MS = 0x1302
_OGG_PAGE_MS = 60.0
# 0 is the best, 1 the smallest. Speech at 24 kHz in MP3: 80 kbit/s, constant, so that a player
# without a Xing table knows the duration. In FLAC: blocks of 1152 samples, not of 4096.
_MP3_LEVEL = 0.5
_FLAC_LEVEL = 0.0
_AAC_BITS_PER_SECOND = 64_000
# Samples given to an encoder at once: none may work so long that nobody else is served.
_BLOCK = 12_000

Samples = npt.NDArray[np.float32]


class Encoder(ABC):
    """Turns the chunks of one stream into bytes."""

    @abstractmethod
    def encode(self, samples: Samples) -> bytes:
        """Bytes that are ready after (n,) more mono samples; may be none."""

    @abstractmethod
    def finish(self) -> bytes:
        """What is still to come at the end."""

    @abstractmethod
    def close(self) -> None:
        """Free what is held; for streams that end early, too."""


class _Pcm(Encoder):
    def __init__(self, sample_rate: int) -> None:
        pass

    def close(self) -> None:
        pass

    def encode(self, samples: Samples) -> bytes:
        return to_pcm16(samples).astype("<i2", copy=False).tobytes()

    def finish(self) -> bytes:
        return b""


class _Wav(_Pcm):
    """A plain 44-byte header first; its lengths say "unknown"."""

    def __init__(self, sample_rate: int) -> None:
        self._header = wav_header(sample_rate)

    def encode(self, samples: Samples) -> bytes:
        header, self._header = self._header, b""
        return header + super().encode(samples)

    def finish(self) -> bytes:
        header, self._header = self._header, b""
        return header


class _ForwardFile:
    """A file for libsndfile to write, of which only what is appended counts."""

    def __init__(self) -> None:
        self._ready = bytearray()
        self._end = 0
        self._at = 0

    def write(self, data: Any) -> int:
        data = bytes(data)
        # What lies before the end was sent already.
        new = data[max(0, self._end - self._at) :]
        self._ready += new
        self._at += len(data)
        self._end = max(self._end, self._at)
        return len(data)

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._end}[whence]
        self._at = int(base + offset)
        return self._at

    def tell(self) -> int:
        return self._at

    def flush(self) -> None:
        pass

    def take(self) -> bytes:
        data = bytes(self._ready)
        self._ready.clear()
        return data


class _SoundFile(Encoder):
    """What libsndfile encodes."""

    _format = ""
    _subtype = ""
    _level: float | None = None
    _mode: str | None = None

    def __init__(self, sample_rate: int) -> None:
        import soundfile

        self._file = _ForwardFile()
        self._sound = soundfile.SoundFile(
            self._file,
            "w",
            samplerate=sample_rate,
            channels=1,
            format=self._format,
            subtype=self._subtype,
            compression_level=self._level,
            bitrate_mode=self._mode,
        )

    def encode(self, samples: Samples) -> bytes:
        data = to_pcm16(samples)
        for start in range(0, len(data), _BLOCK):
            self._sound.write(data[start : start + _BLOCK])
        return self._file.take()

    def finish(self) -> bytes:
        self._sound.close()
        return self._file.take()

    def close(self) -> None:
        self._sound.close()


class _Mp3(_SoundFile):
    _format, _subtype = "MP3", "MPEG_LAYER_III"
    _level, _mode = _MP3_LEVEL, "CONSTANT"

    def __init__(self, sample_rate: int) -> None:
        super().__init__(sample_rate)
        self._table: bytes | None = b""

    def encode(self, samples: Samples) -> bytes:
        return self._without_table(super().encode(samples))

    def finish(self) -> bytes:
        return self._without_table(super().finish())

    def _without_table(self, data: bytes) -> bytes:
        """Drop the first frame if it is only a place for the Xing table."""
        if self._table is None:
            return data
        data = self._table + data
        if len(data) < 4:
            self._table = data
            return b""
        length = _mp3_frame_bytes(data)
        if len(data) < length:
            self._table = data
            return b""
        self._table = None
        head = data[:length]
        return data[length:] if b"Xing" in head or b"Info" in head else data


def _mp3_frame_bytes(header: bytes) -> int:
    """Length of a layer III frame of MPEG-1, MPEG-2 or MPEG-2.5."""
    bits = int.from_bytes(header[:4], "big")
    version, rate, padding = bits >> 19 & 3, bits >> 10 & 3, bits >> 9 & 1
    first = version == 3
    kilobits = (
        (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320)
        if first
        else (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160)
    )[bits >> 12 & 15]
    hertz = (44100, 48000, 32000)[rate] >> {3: 0, 2: 1, 0: 2}[version]
    return (144 if first else 72) * kilobits * 1000 // hertz + padding


class _Opus(_SoundFile):
    _format, _subtype = "OGG", "OPUS"

    def __init__(self, sample_rate: int) -> None:
        super().__init__(sample_rate)
        import soundfile

        latency = soundfile._ffi.new("double *", _OGG_PAGE_MS)
        soundfile._snd.sf_command(
            self._sound._file,
            _SFC_SET_OGG_PAGE_LATENCY_MS,
            latency,
            soundfile._ffi.sizeof("double"),
        )


class _Flac(_SoundFile):
    _format, _subtype = "FLAC", "PCM_16"
    _level = _FLAC_LEVEL


class _Aac(Encoder):
    """AAC in ADTS frames, by FFmpeg."""

    def __init__(self, sample_rate: int) -> None:
        import av

        self._av = av
        self._rate = sample_rate
        self._file = _ForwardFile()
        self._container = av.open(self._file, "w", format="adts")
        self._stream: Any = self._container.add_stream("aac", rate=sample_rate)
        self._stream.layout = "mono"
        self._stream.bit_rate = _AAC_BITS_PER_SECOND
        self._at = 0

    def encode(self, samples: Samples) -> bytes:
        data = to_pcm16(samples)
        for start in range(0, len(data), _BLOCK):
            part = data[np.newaxis, start : start + _BLOCK]
            frame = self._av.AudioFrame.from_ndarray(part, format="s16", layout="mono")
            frame.sample_rate = self._rate
            frame.pts = self._at
            self._at += part.shape[1]
            self._container.mux(self._stream.encode(frame))
        return self._file.take()

    def finish(self) -> bytes:
        self._container.mux(self._stream.encode(None))
        self._container.close()
        return self._file.take()

    def close(self) -> None:
        self._container.close()


_ENCODERS: dict[str, Callable[[int], Encoder]] = {
    "mp3": _Mp3,
    "opus": _Opus,
    "aac": _Aac,
    "flac": _Flac,
    "wav": _Wav,
    "pcm": _Pcm,
}
FORMATS = tuple(_ENCODERS)
MEDIA_TYPES = {
    "mp3": "audio/mpeg",
    "opus": "audio/ogg",
    "aac": "audio/aac",
    "flac": "audio/flac",
    "wav": "audio/wav",
    "pcm": "audio/pcm",
}


def make_encoder(format: str, sample_rate: int) -> Encoder:
    """An encoder of 16-bit mono sound.

    Args:
        format: One of `FORMATS`: mp3 (80 kbit/s), opus (in Ogg), aac (ADTS), flac, wav, or pcm
            (little-endian samples alone).
        sample_rate: Samples per second; opus takes 24000 and few others.

    Raises:
        ValueError: If there is no such format.
        ImportError: If it is aac and the package `av` is not installed.
    """
    if format not in _ENCODERS:
        raise ValueError(f"there is no format {format!r}, expected one of {', '.join(FORMATS)}")
    return _ENCODERS[format](sample_rate)


def encode_whole(format: str, samples: Samples, sample_rate: int) -> bytes:
    """A complete file, whose header knows its length where the format has a place for it.

    Equal sounds give equal files, byte by byte.

    Args:
        format: As in `make_encoder`.
        samples: (n,) mono.
        sample_rate: Samples per second.

    Raises:
        As `make_encoder`.
    """
    if format == "wav" or (format == "flac" and len(samples)):
        buffer = io.BytesIO()
        save_samples(buffer, samples, sample_rate, format=format.upper())
        return buffer.getvalue()
    encoder = make_encoder(format, sample_rate)
    data = encoder.encode(samples) + encoder.finish()
    if format != "opus":
        return data
    buffer = io.BytesIO(data)
    number_streams(buffer)
    return buffer.getvalue()
