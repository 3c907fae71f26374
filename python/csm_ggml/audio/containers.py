"""What is around the sound in a file: other containers are told, wrong WAV headers are mended.

Recorders write WAV files whose sizes are wrong: 0 or the greatest number where a recording was
broken off or streamed, and other chunks whose sizes do not fit. libsndfile then finds nothing, or
less than there is. Such a file is given to it with a header that is right. Tags before the sound,
which MP3 files have with pictures in them, are left out.
"""

from __future__ import annotations

import os
import struct
from typing import IO

_CHUNK = struct.Struct("<4sI")
# The largest chunk before the sound, or place of one, that is looked through.
_LOOK_BYTES = 1 << 24
# Beyond so many tags, chunks and chunks that had to be looked for, a file is left as it is.
_MOST_TAGS = 16
_MOST_CHUNKS = 1000
_MOST_FOUND = 4
_UNKNOWN = 0xFFFFFFFF
_NAMES = (b"data", b"fmt ", b"fact", b"LIST", b"bext", b"JUNK", b"id3 ", b"cue ", b"smpl")


def other_container(file: IO[bytes]) -> str | None:
    """FFmpeg's name of a file that libsndfile does not read; None for others."""
    file.seek(0)
    start = file.read(16)
    if start[4:8] == b"ftyp":
        return "MP4"
    if start.startswith(b"\x1a\x45\xdf\xa3"):
        return "Matroska"
    if start.startswith(b"\x30\x26\xb2\x75\x8e\x66\xcf\x11"):
        return "ASF"
    # A sync word of twelve bits, then layer 0: in MP3 it is 1 to 3.
    if len(start) > 1 and start[0] == 0xFF and start[1] & 0xF6 == 0xF0:
        return "AAC"
    return None


class Part:
    """Some bytes, and then a part of a file, as one file that is read."""

    def __init__(self, head: bytes, file: IO[bytes], start: int, length: int) -> None:
        """Take the parts.

        Args:
            head: What comes first.
            file: The file.
            start: Where its part begins.
            length: Bytes of it.
        """
        self._head = head
        self._file = file
        self._start = start
        self._length = len(head) + length
        self._at = 0

    def read(self, count: int = -1) -> bytes:
        """Read so many bytes, or the rest."""
        end = self._length if count < 0 else min(self._length, self._at + count)
        data = self._head[self._at : end]
        if (left := end - self._at - len(data)) > 0:
            self._file.seek(self._start + self._at + len(data) - len(self._head))
            data += self._file.read(left)
        self._at += len(data)
        return data

    def readinto(self, buffer: bytearray | memoryview) -> int:
        """Read as much as there is room for; returns how much."""
        data = self.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Go to a position, as files do."""
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._length}[whence]
        self._at = max(0, base + offset)
        return self._at

    def tell(self) -> int:
        """The position."""
        return self._at


def mended(file: IO[bytes]) -> Part | None:
    """The file as libsndfile reads it; None if it does so as it is."""
    size = file.seek(0, os.SEEK_END)
    start = _after_tags(file)
    file.seek(start)
    kind = file.read(12)
    if kind[:4] in (b"RIFF", b"RF64") and kind[8:] == b"WAVE":
        return _wav(file, start, size, kind[:4])
    return Part(b"", file, start, size - start) if 0 < start < size else None


def _after_tags(file: IO[bytes]) -> int:
    """Where the ID3v2 tags at the beginning end."""
    at = 0
    for _ in range(_MOST_TAGS):
        file.seek(at)
        head = file.read(10)
        if len(head) < 10 or not head.startswith(b"ID3") or max(head[6:]) > 127:
            return at
        size = head[6] << 21 | head[7] << 14 | head[8] << 7 | head[9]
        at += 10 + size + (10 if head[5] & 0x10 else 0)
    return 0


def _wav(file: IO[bytes], start: int, size: int, kind: bytes) -> Part | None:
    """A WAV file with a header that is right; None if it has one, or is none."""
    form, at, right = b"", start + 12, start == 0
    long_data: int | None = None
    looked = 0
    for _ in range(_MOST_CHUNKS):
        if at + 8 > size:
            break
        file.seek(at)
        name, claimed = _CHUNK.unpack(file.read(8))
        if name == b"data":
            begin = at + 8
            if kind == b"RF64" and claimed == _UNKNOWN and long_data:
                claimed = long_data
            length = _data_length(file, begin, claimed, size)
            if not form or (right and length == claimed):
                return None
            known = min(length, _UNKNOWN)
            head = b"RIFF" + struct.pack("<I", min(_UNKNOWN, length + len(form) + 12)) + b"WAVE"
            head += form + _CHUNK.pack(b"data", known)
            return Part(head, file, begin, length)
        if name == b"fmt " and 16 <= claimed <= 4096:
            file.seek(at)
            form = file.read(8 + claimed + claimed % 2)
        if name == b"ds64" and claimed >= 24:
            long_data = struct.unpack("<8xQ", file.read(16))[0]
        following = at + 8 + claimed + claimed % 2
        if claimed % 2 and _name(file, following - 1) in _NAMES:
            # Some leave out the byte that makes the size even.
            right, following = False, following - 1
        elif not _is_chunk(file, following, size):
            right, looked = False, looked + 1
            if looked > _MOST_FOUND:
                return None
            if (found := _find(file, at + 8, b"data" if form else b"fmt ")) is not None:
                following = found
            else:
                return None
        at = following
    return None


def _data_length(file: IO[bytes], begin: int, claimed: int, size: int) -> int:
    """Bytes of sound: as many as are claimed where that can be, else the rest of the file."""
    rest = size - begin
    if claimed > rest:
        return rest
    end = begin + claimed
    if end + claimed % 2 >= size or _is_chunk(file, end + claimed % 2, size):
        return claimed
    # What follows is no chunk. Little of it is something else, much of it is sound.
    return claimed if claimed and 2 * claimed >= rest else rest


def _is_chunk(file: IO[bytes], at: int, size: int) -> bool:
    if not 0 <= at <= size - 8:
        return False
    file.seek(at)
    name, claimed = _CHUNK.unpack(file.read(8))
    printable = all(0x20 <= byte < 0x7F for byte in name)
    return printable and (name == b"data" or at + 8 + claimed <= size + 1)


def _name(file: IO[bytes], at: int) -> bytes:
    file.seek(at)
    return file.read(4)


def _find(file: IO[bytes], at: int, name: bytes) -> int | None:
    file.seek(at)
    found = file.read(_LOOK_BYTES).find(name)
    return None if found < 0 else at + found
