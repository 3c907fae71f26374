"""A voice as a value and as a file (docs/VOICES.md): how somebody sounds."""

from __future__ import annotations

import hashlib
import json
import os
import struct
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from csm_ggml.errors import VoiceFileError
from csm_ggml.files import write_file
from csm_ggml.text.turns import check_speaker, parse_turns
from csm_ggml.voices.prompt import PromptBuilder, SpokenSegment
from csm_ggml.voices.segment import Segment

MAGIC = b"CSMVOICE"
VERSION = 1
# Magic, version, bytes of the header.
_START = struct.Struct("<8sII")
_DIGEST_BYTES = 32
_CODE = np.dtype("<u2")


@dataclass(frozen=True, eq=False)
class VoicePrefix:
    """What a model makes of a voice, computed beforehand.

    Attributes:
        model: What the model was loaded as.
        fingerprint: Of the model; see `CSM.fingerprint`.
        data: Keys and values of the voice's rows.
    """

    model: str
    fingerprint: str
    data: bytes

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
        prefix: What one model makes of it, if it was asked for.
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
        return Segment(self.speaker, self.transcript, codes=self.codes)

    def spoken(self, prompts: PromptBuilder) -> SpokenSegment:
        """The voice as prompts are built of it.

        Raises:
            ValueError: If its codes are not of this kind of model.
        """
        what = f"the codes of the voice of speaker {self.speaker}"
        return SpokenSegment(self.segment().turn(), prompts.check_codes(self.codes, what=what))

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
        """
        try:
            return cls.from_bytes(Path(path).read_bytes())
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
        if len(data) < _START.size or not data.startswith(MAGIC):
            raise VoiceFileError(f"not a voice file: it does not begin with {MAGIC.decode()}")
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
        except (KeyError, TypeError, ValueError) as error:
            raise VoiceFileError(f"the voice file holds no valid voice: {error!r}") from None

    def __repr__(self) -> str:
        """One line for people."""
        cached = f", prefix of {self.prefix.model!r}" if self.prefix else ""
        return (
            f"Voice(speaker={self.speaker}, {self.duration:.2f} s, {len(self.codes)} frames of "
            f"{self.codes.shape[1]} codes, {self.transcript!r}{cached})"
        )


def _read(content: bytes, at: int) -> Voice:
    header = json.loads(content[_START.size : at])
    shape = int(header["frames"]), int(header["codebooks"])
    end = at + _CODE.itemsize * shape[0] * shape[1]
    prefix = None
    if (described := header.get("prefix")) is not None:
        prefix = VoicePrefix(str(described["model"]), str(described["fingerprint"]), content[end:])
    if len(content) != end + (int(described["bytes"]) if described else 0):
        raise ValueError("its parts do not fill it")
    speaker = check_speaker(header["speaker"])
    codec = header.get("codec")
    [turn] = parse_turns(header["transcript"], speaker=speaker)
    return Voice(
        speaker=speaker,
        transcript=turn.text,
        codes=np.frombuffer(content[at:end], _CODE).astype(np.int32).reshape(shape),
        sample_rate=int(header["sample_rate"]),
        frame_size=int(header["frame_size"]),
        prefix=prefix,
        codec=None if codec is None else tuple(float(value) for value in codec),
    )


# What `voice=` takes, alone or in a list.
VoiceLike: TypeAlias = Voice | str | os.PathLike[str]
