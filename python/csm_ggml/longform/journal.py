"""What of a long text is spoken already, on disk: an interruption loses a piece, not a book.

One file beside the output: a line of JSON that says which job it belongs to, then a record for each
piece: whether it is its speaker's voice, its sizes, its seed, how it ended, its codes (uint16), its
samples (int16), and a digest of all this and of the digest before it. So a record that is cut,
changed or out of its place is found, and with it everything behind it. The file is locked while it
is open: one process at a time records into an output. A run that is not gone on with is kept under
another name until its own call comes back.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import struct
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from io import FileIO
from typing import IO

import numpy as np
import numpy.typing as npt

from csm_ggml.files import OutputFile, open_locked

VERSION = 4
_CODE = np.dtype("<u2")
_SAMPLE = np.dtype("<i2")
# Mark; frames, codebooks, samples, bytes of the finish reason; the seed.
_SIZES = struct.Struct("<4sIIIIQ")
_MARK, _VOICE_MARK = b"CSMP", b"CSMV"
_DIGEST_BYTES = 16
_HEADER_LIMIT = 4096


@dataclass(frozen=True, eq=False)
class Record:
    """One piece.

    Attributes:
        codes: (frames, codebooks) int32.
        samples: (n,) int16, trimmed, the pause before it included.
        finish_reason: How it ended.
        is_voice: Whether what follows is spoken in its voice.
        seed: Of the attempt that was kept.
    """

    codes: npt.NDArray[np.int32]
    samples: npt.NDArray[np.int16]
    finish_reason: str
    is_voice: bool = False
    seed: int = 0


def journal_path(path: str | os.PathLike[str]) -> str:
    """The journal of what is recorded into this file: beside it, where symbolic links lead."""
    return f"{os.path.realpath(path)}.progress"


class Journal:
    """The records of one job. Use it in a `with` block."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        """Open the file, which is made if need be, and lock it.

        Args:
            path: Of the journal.

        Raises:
            BlockingIOError: If another process, or another call in this one, has it.
            OSError: If it cannot be opened.
        """
        self._path = os.fsdecode(path)
        self._file = self._open()
        self._digest = b""

    def begin(self, job: str, seed: int, *, seed_given: bool = True, resume: bool = True) -> int:
        """Go on with an interrupted run of a job, or start a new one.

        An interrupted run of something else is renamed, with a warning that says to what. Where
        such a renamed one is of this job, it is taken.

        Args:
            job: What tells the job from all others: a digest of its text, model and options.
            seed: Of a new run.
            seed_given: Whether a run with another seed is another job.
            resume: Whether to go on with a run.

        Returns:
            The seed of the run.
        """

        def goes_on(known: tuple[str, int] | None) -> bool:
            return (
                resume
                and known is not None
                and known[0] == job
                and (not seed_given or known[1] == seed)
            )

        known = self._header()
        if not goes_on(known):
            if self._holds_records():
                self._keep_aside(asked=not resume)
            for aside in self._aside():
                with contextlib.suppress(OSError), open(aside, "rb") as file:
                    if goes_on(_read_header(file)):
                        self._take(aside)
                        known = self._header()
                        break
        if known is not None and goes_on(known):
            return known[1]
        line = _header_line(job, seed)
        self._file.seek(0)
        self._file.truncate()
        self._append(line)
        self._digest = _digest(b"", line)
        return seed

    def records(self) -> Iterator[Record]:
        """The whole records, in order; what follows the last of them is cut off, with a warning."""
        if self._header() is None:
            return
        count = 0
        while True:
            at = self._file.tell()
            if (record := self._read()) is None:
                break
            count += 1
            yield record
        if at < self._size():
            warnings.warn(
                f"{self._path}: {count} pieces are whole; what follows them is incomplete or "
                "damaged, and is spoken again",
                stacklevel=2,
            )
            self._file.truncate(at)
        self._file.seek(at)

    def add(self, record: Record) -> None:
        """Append a record; it is on the disk when this returns.

        Raises:
            OSError: If it cannot be written; the records before it stay.
        """
        content = _content(record)
        digest = _digest(self._digest, content)
        self._file.seek(0, os.SEEK_END)
        self._append(content + digest)
        self._digest = digest

    def replace(self, changed: Mapping[int, Record]) -> None:
        """Put other records in the place of some, all at once or not at all.

        Args:
            changed: By the number of the record, from 0.

        Raises:
            OSError: If they cannot be written; the old ones stay.
        """
        known = self._header()
        assert known is not None
        line = _header_line(*known)
        with OutputFile(self._path) as file:
            file.write(line)
            digest = _digest(b"", line)
            for number, record in enumerate(self.records()):
                content = _content(changed.get(number, record))
                digest = _digest(digest, content)
                file.write(content + digest)
        self._file.close()
        self._file = self._open()

    def remove(self) -> None:
        """Delete the file: the job is done."""
        self._unlink()

    def close(self) -> None:
        """Let the next process have the file; it is deleted if it holds nothing to go on with."""
        if self._file.closed:
            return
        if self._holds_records():
            self._file.close()
        else:
            self._unlink()

    def __enter__(self) -> Journal:
        """The journal."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close it."""
        self.close()

    def _open(self) -> FileIO:
        file = open_locked(self._path)
        if file is None:
            raise BlockingIOError(
                errno.EWOULDBLOCK,
                "another process is recording there; wait for it, or name another output",
                self._path.removesuffix(".progress"),
            )
        return file

    def _unlink(self) -> None:
        # Before it is unlocked, where the system can: whoever waits for it must find it gone.
        if os.name == "nt":
            self._file.close()
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self._path)
        self._file.close()

    def _size(self) -> int:
        return os.fstat(self._file.fileno()).st_size

    def _holds_records(self) -> bool:
        """Whether there is anything to lose: more than a header, or than the beginning of one."""
        self._file.seek(0)
        line = self._file.readline(_HEADER_LIMIT)
        return len(line) < self._size() or not line.startswith(b'{"version"'[: len(line)])

    def _header(self) -> tuple[str, int] | None:
        """Job and seed; the file is at the first record then."""
        self._file.seek(0)
        known = _read_header(self._file)
        if known is not None:
            self._digest = _digest(b"", _header_line(*known))
        return known

    def _append(self, content: bytes) -> None:
        at = self._file.tell()
        left = memoryview(content)
        try:
            while left:
                left = left[self._file.write(left) :]
            os.fsync(self._file.fileno())
        except OSError as error:
            with contextlib.suppress(OSError):
                self._file.truncate(at)
            raise OSError(error.errno, error.strerror, self._path) from None

    def _read(self) -> Record | None:
        start = self._file.read(_SIZES.size)
        if len(start) < _SIZES.size:
            return None
        mark, frames, codebooks, samples, reason, seed = _SIZES.unpack(start)
        codes = _CODE.itemsize * frames * codebooks
        size = reason + codes + _SAMPLE.itemsize * samples
        left = self._size() - self._file.tell()
        if mark not in (_MARK, _VOICE_MARK) or size + _DIGEST_BYTES > left:
            return None
        content = self._file.read(size)
        digest = self._file.read(_DIGEST_BYTES)
        if _digest(self._digest, start + content) != digest:
            return None
        self._digest = digest
        return Record(
            codes=np.frombuffer(content[reason : reason + codes], _CODE)
            .astype(np.int32)
            .reshape(frames, codebooks),
            samples=np.frombuffer(content[reason + codes :], _SAMPLE).astype(np.int16),
            finish_reason=content[:reason].decode(),
            is_voice=mark == _VOICE_MARK,
            seed=seed,
        )

    def _keep_aside(self, *, asked: bool) -> None:
        number = 1
        while os.path.exists(aside := f"{self._path}.{number}"):
            number += 1
        self._file.close()
        os.rename(self._path, aside)
        self._file = self._open()
        what = "" if asked else " of another text, voice, model, watermark, option or seed"
        warnings.warn(
            f"{self._path.removesuffix('.progress')}: an interrupted recording{what} is kept as "
            f"{aside}; the call that began it goes on with it",
            stacklevel=3,
        )

    def _take(self, aside: str) -> None:
        self._file.close()
        os.replace(aside, self._path)
        self._file = self._open()

    def _aside(self) -> list[str]:
        """The runs that were kept, the latest first."""
        folder, name = os.path.split(self._path)
        numbers = [
            int(number)
            for entry in os.listdir(folder or ".")
            if entry.startswith(f"{name}.") and (number := entry[len(name) + 1 :]).isdecimal()
        ]
        return [f"{self._path}.{number}" for number in sorted(numbers, reverse=True)]


def _content(record: Record) -> bytes:
    mark = _VOICE_MARK if record.is_voice else _MARK
    reason = record.finish_reason.encode()
    return (
        _SIZES.pack(mark, *record.codes.shape, len(record.samples), len(reason), record.seed)
        + reason
        + record.codes.astype(_CODE).tobytes()
        + record.samples.astype(_SAMPLE).tobytes()
    )


def _header_line(job: str, seed: int) -> bytes:
    fields = {"version": VERSION, "job": job, "seed": seed}
    check = hashlib.blake2b(json.dumps(fields).encode(), digest_size=8).hexdigest()
    return json.dumps({**fields, "check": check}).encode() + b"\n"


def _read_header(file: IO[bytes]) -> tuple[str, int] | None:
    line = file.readline(_HEADER_LIMIT)
    try:
        fields = json.loads(line)
        job, seed = fields["job"], fields["seed"]
        return (job, seed) if _header_line(job, seed) == line else None
    except (ValueError, KeyError, TypeError, RecursionError):
        return None


def _digest(before: bytes, content: bytes) -> bytes:
    return hashlib.blake2b(before + content, digest_size=_DIGEST_BYTES).digest()
