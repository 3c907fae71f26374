"""What of a long text is spoken already, on disk: an interruption loses a piece, not a book.

One file beside the output: a line of JSON that says which job it belongs to, then for each piece a
line of JSON, its codes (uint16) and its samples (int16). It is only ever appended to; a record that
an interruption has cut is dropped when the file is opened again.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt

VERSION = 1
_CODE = np.dtype("<u2")
_SAMPLE = np.dtype("<i2")


@dataclass(frozen=True, eq=False)
class Record:
    """One piece.

    Attributes:
        codes: (frames, codebooks) int32.
        samples: (n,) int16, trimmed, the pause before it included.
        finish_reason: How it ended.
    """

    codes: npt.NDArray[np.int32]
    samples: npt.NDArray[np.int16]
    finish_reason: str


class Journal:
    """The records of one job."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        """Take the file's name; nothing is read or written yet."""
        self._path = Path(path)

    def seed(self, job: str) -> int | None:
        """The seed that the job was begun with; None if there is nothing to go on with.

        Args:
            job: What tells the job from all others: a digest of its text, model and options.
        """
        try:
            with self._path.open("rb") as file:
                header = json.loads(file.readline())
            if header["version"] == VERSION and header["job"] == job:
                return int(header["seed"])
        except (FileNotFoundError, ValueError, KeyError, TypeError):
            pass
        return None

    def begin(self, job: str, seed: int) -> None:
        """Start a new file."""
        header = {"version": VERSION, "job": job, "seed": seed}
        self._path.write_bytes(json.dumps(header).encode() + b"\n")

    def records(self) -> Iterator[Record]:
        """The complete records, in order; what follows the last of them is cut off."""
        with self._path.open("r+b") as file:
            file.readline()
            while True:
                at = file.tell()
                if (record := _read(file)) is None:
                    file.truncate(at)
                    return
                yield record

    def add(self, record: Record) -> None:
        """Append a record; it is on the disk when this returns."""
        header = {
            "frames": len(record.codes),
            "codebooks": record.codes.shape[1],
            "samples": len(record.samples),
            "finish_reason": record.finish_reason,
        }
        with self._path.open("ab") as file:
            file.write(
                json.dumps(header).encode()
                + b"\n"
                + record.codes.astype(_CODE).tobytes()
                + record.samples.astype(_SAMPLE).tobytes()
            )
            file.flush()
            os.fsync(file.fileno())

    def remove(self) -> None:
        """Delete the file: the job is done."""
        self._path.unlink(missing_ok=True)


def _read(file: IO[bytes]) -> Record | None:
    line = file.readline()
    if not line.endswith(b"\n"):
        return None
    try:
        header: dict[str, Any] = json.loads(line)
        shape = int(header["frames"]), int(header["codebooks"])
        codes = file.read(_CODE.itemsize * shape[0] * shape[1])
        samples = file.read(_SAMPLE.itemsize * int(header["samples"]))
        if len(samples) < _SAMPLE.itemsize * int(header["samples"]):
            return None
        return Record(
            codes=np.frombuffer(codes, _CODE).astype(np.int32).reshape(shape),
            samples=np.frombuffer(samples, _SAMPLE).astype(np.int16),
            finish_reason=str(header["finish_reason"]),
        )
    except (ValueError, KeyError, TypeError):
        return None
