"""A voice as a value and as a file (docs/VOICES.md): how somebody sounds."""

from __future__ import annotations

import hashlib
import json
import os
import struct
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from csm_ggml.audio.load import LEAST_RATE, MOST_RATE
from csm_ggml.errors import VoiceFileError
from csm_ggml.files import write_file
from csm_ggml.inputs import read_whole
from csm_ggml.loading.hub import short_name
from csm_ggml.text.turns import check_speaker, parse_turns
from csm_ggml.voices.prompt import EncodedSegment, PromptBuilder
from csm_ggml.voices.segment import Segment

MAGIC = b"CSMVOICE"
# Four times the KV prefix in F32 that fills all rows of csm-1b.
MOST_BYTES = 512 << 20
VERSION = 1
# Magic, version, bytes of the header.
_START = struct.Struct("<8sII")
_DIGEST_BYTES = 32
_CODE = np.dtype("<u2")
# An hour in frames of a millisecond: more is damage.
_MOST_FRAMES = 3_600_000
_MOST_TEXT = 1 << 20


@dataclass(frozen=True, eq=False)
class VoicePrefix:
    """The KV cache of a voice, computed beforehand with one model.

    Attributes:
        model: What the model was loaded as, without the folders of the machine that it was on.
        fingerprint: Of the model; see `CSM.fingerprint`.
        data: Keys and values of the voice's rows.
    """

    model: str
    fingerprint: str
    data: bytes

    def __post_init__(self) -> None:
        """Take the folders off the model's name."""
        object.__setattr__(self, "model", short_name(self.model))

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the data: what a prefix that came from a file is told by."""
        return hashlib.sha256(self.data).hexdigest()

    def check(self, model: str, fingerprint: str, *, voice: Voice) -> None:
        """Make sure that it was made with this model.

        Raises:
            ValueError: If it was not; the message names both.
        """
        if fingerprint != self.fingerprint:
            raise ValueError(
                f"the cached prefix of the voice of speaker {voice.speaker} was made with the "
                f"model {self.model} (fingerprint {self.fingerprint}), but this is {model} "
                f"(fingerprint {fingerprint}); use voice.without_prefix(), or create the voice "
                "with this model"
            )


@dataclass(frozen=True, eq=False, repr=False)
class Voice:
    """How somebody sounds: a recording as codes, and what is said in it.

    Made by `CSM.create_voice` or `Voice.load`.

    Attributes:
        speaker: The number that the voice speaks as.
        transcript: What is said in the recording, normalised.
        codes: (frames, codebooks) int32 of the recording.
        sample_rate: Samples per second of the codec that made them.
        frame_size: Samples in a frame.
        prefix: Its KV cache for one model, if it was asked for; else None.
        codec: The answer of the codec to a probe (csm_ggml.loading.codec_probe), which tells it
            from others; None if it is not known.
    """

    speaker: int
    transcript: str
    codes: npt.NDArray[np.int32]
    sample_rate: int
    frame_size: int
    prefix: VoicePrefix | None = None
    codec: tuple[float, ...] | None = None

    @property
    def duration(self) -> float:
        """Seconds of the recording, in whole frames."""
        return len(self.codes) * self.frame_size / self.sample_rate

    def segment(self) -> Segment:
        """The voice as a segment of context."""
        return Segment(self.speaker, self.transcript, codes=self.codes, tags=False)

    def encoded(self, prompts: PromptBuilder) -> EncodedSegment:
        """The voice as prompts are built of it.

        Raises:
            ValueError: If its codes are not of this kind of model.
        """
        what = f"the codes of the voice of speaker {self.speaker}"
        return EncodedSegment(self.segment().turn(), prompts.check_codes(self.codes, what=what))

    def with_speaker(self, speaker: int) -> Voice:
        """The same voice for another speaker number; a cached prefix is dropped."""
        return replace(self, speaker=check_speaker(speaker), prefix=None)

    def without_prefix(self) -> Voice:
        """The same voice for any model of its kind."""
        return replace(self, prefix=None)

    def without_codec(self) -> Voice:
        """The same voice without what tells its codec, so that any is taken for the right one."""
        return replace(self, codec=None)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write a voice file; the extension is .voice by custom.

        The file appears when it is complete: one that was there before is kept until then, and
        after any error.

        Raises:
            ValueError: If the name is that of another kind of file, such as .wav.
            OSError: If it cannot be written.
        """
        write_file(path, self.to_bytes(), "voice")

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Voice:
        """Read a voice file.

        Raises:
            FileNotFoundError: If there is none.
            VoiceFileError: If it is no voice, damaged, or of a later version.
            TypeError: If the path is none.
        """
        if not isinstance(path, str | os.PathLike):
            raise TypeError(f"the path of a voice file must be a str or a Path, got {path!r}")
        try:
            data = read_whole(path, MOST_BYTES, begins=MAGIC)
        except ValueError as error:
            raise VoiceFileError(str(error)) from None
        try:
            return cls.from_bytes(data)
        except VoiceFileError as error:
            raise VoiceFileError(f"{os.fspath(path)}: {error}") from None

    def to_bytes(self) -> bytes:
        """The content of a voice file."""
        header: dict[str, Any] = {
            "speaker": self.speaker,
            "transcript": self.transcript,
            "frames": len(self.codes),
            "codebooks": self.codes.shape[1],
            "sample_rate": self.sample_rate,
            "frame_size": self.frame_size,
        }
        if self.codec is not None:
            header["codec"] = self.codec
        if self.prefix is not None:
            header["prefix"] = {
                "model": self.prefix.model,
                "fingerprint": self.prefix.fingerprint,
                "bytes": len(self.prefix.data),
            }
        text = json.dumps(header, ensure_ascii=False).encode()
        content = _START.pack(MAGIC, VERSION, len(text)) + text + self.codes.astype(_CODE).tobytes()
        content += self.prefix.data if self.prefix is not None else b""
        return content + hashlib.sha256(content).digest()

    @classmethod
    def from_bytes(cls, data: bytes) -> Voice:
        """The voice that a file holds.

        Raises:
            VoiceFileError: If it is none, damaged, or of a later version.
        """
        if not isinstance(data, bytes | bytearray | memoryview):
            raise TypeError(f"a voice file is bytes, got {type(data).__name__}")
        data = bytes(data)
        if len(data) < _START.size or not data.startswith(MAGIC):
            raise VoiceFileError(
                f"not a voice file: it does not begin with {MAGIC.decode()}; of a recording, "
                "CSM.create_voice or `csm-ggml voice create` makes one"
            )
        _, version, header_bytes = _START.unpack_from(data)
        if version != VERSION:
            raise VoiceFileError(
                f"voice file of version {version}, this program knows version {VERSION}; "
                "update it, or create the voice again"
            )
        content, digest = data[:-_DIGEST_BYTES], data[-_DIGEST_BYTES:]
        if len(content) < _START.size + header_bytes or hashlib.sha256(content).digest() != digest:
            raise VoiceFileError(
                "the voice file is damaged or incomplete: its checksum does not match"
            )
        try:
            return _read(content, _START.size + header_bytes)
        except (ValueError, RecursionError) as error:
            raise VoiceFileError(f"the voice file holds no valid voice: {error}") from None

    def __repr__(self) -> str:
        """One line for people."""
        cached = f", prefix of {self.prefix.model!r}" if self.prefix else ""
        return (
            f"Voice(speaker={self.speaker}, {self.duration:.2f} s, {len(self.codes)} frames of "
            f"{self.codes.shape[1]} codes, {self.transcript!r}{cached})"
        )


def _read(content: bytes, at: int) -> Voice:
    header = json.loads(content[_START.size : at])
    if not isinstance(header, dict):
        raise ValueError(f"its header is {_shown(header)}, expected an object")
    shape = _whole(header, "frames", 1, _MOST_FRAMES), _whole(header, "codebooks", 1, 1024)
    end = at + _CODE.itemsize * shape[0] * shape[1]
    prefix, prefix_bytes = None, 0
    if (described := header.get("prefix")) is not None:
        if not isinstance(described, dict):
            raise ValueError(f"prefix is {_shown(described)}, expected an object")
        prefix_bytes = _whole(described, "bytes", 1, 1 << 48)
        prefix = VoicePrefix(
            _text(described, "model"), _text(described, "fingerprint"), content[end:]
        )
    if len(content) != end + prefix_bytes:
        raise ValueError("its parts do not fill it")
    speaker = check_speaker(_whole(header, "speaker", 0, 1 << 31))
    turns = parse_turns(_text(header, "transcript"), speaker=speaker, tags=False)
    if len(turns) != 1 or turns[0].speaker != speaker:
        raise ValueError("its transcript is more than one turn of its speaker")
    return Voice(
        speaker=speaker,
        transcript=turns[0].text,
        codes=np.frombuffer(content[at:end], _CODE).astype(np.int32).reshape(shape),
        sample_rate=_whole(header, "sample_rate", LEAST_RATE, MOST_RATE),
        frame_size=_whole(header, "frame_size", 1, 1 << 20),
        prefix=prefix,
        codec=_codec(header.get("codec")),
    )


def _whole(header: dict[str, Any], name: str, least: int, most: int) -> int:
    value = header.get(name)
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
        raise ValueError(f"{name} is {_shown(value)}, expected {least} to {most}")
    return value


def _text(header: dict[str, Any], name: str) -> str:
    value = header.get(name)
    if not isinstance(value, str) or len(value) > _MOST_TEXT:
        raise ValueError(f"{name} is {_shown(value)}, expected a text")
    return value


def _codec(value: object) -> tuple[float, ...] | None:
    if value is None:
        return None
    if not isinstance(value, list) or not 1 <= len(value) <= 1024:
        raise ValueError(f"codec is {_shown(value)}, expected a list of numbers")
    for number in value:
        known = isinstance(number, int | float) and not isinstance(number, bool)
        if not known or not -1e9 <= number <= 1e9:
            raise ValueError(f"codec holds {_shown(number)}, expected numbers")
    return tuple(float(number) for number in value)


def _shown(value: object) -> str:
    """A value for a message, however large it is."""
    if isinstance(value, dict | list):
        return "an object" if isinstance(value, dict) else "a list"
    try:
        text = repr(value)
    except ValueError:  # an int of more digits than Python converts
        return "a huge number"
    return text if len(text) <= 40 else text[:37] + "..."


# What `voice=` takes, alone or in a list.
VoiceLike: TypeAlias = Voice | str | os.PathLike[str]
