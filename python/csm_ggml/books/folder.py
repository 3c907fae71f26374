"""The folder of an audiobook's job: what it is of, what is spoken, and whose turn it is.

job.json says what the job is of: the book's file, the model, the seed and everything else that the
sound depends on. chapter-001.pieces and so on hold what is spoken (csm_ggml.longform.journal),
speaker-0.voice is the voice of a speaker who was given none. All are written whole or not at all,
so that the job goes on after any interruption, and the folder can be copied and moved.
"""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from csm_ggml.errors import BookFileError
from csm_ggml.files import open_locked, write_file

VERSION = 1
MANIFEST = "job.json"
TIMES = "times.json"
_MANIFEST_BYTES = 1 << 20


class JobFolder:
    """A folder that one process at a time works in. Use it in a `with` block."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        """Make the folder if need be, and lock it.

        Raises:
            BlockingIOError: If another process works in it.
            OSError: If it cannot be made, or there is a file of this name.
        """
        self.path = Path(path)
        self.path.mkdir(exist_ok=True)
        lock = open_locked(self.path / "lock")
        if lock is None:
            raise BlockingIOError(
                errno.EWOULDBLOCK,
                "another process is working on this book; wait for it, or name another job folder",
                os.fspath(path),
            )
        self._lock = lock

    def begin(self, settings: Mapping[str, str], seed: int | None, drawn: int) -> int:
        """Take up the job that the folder is of, or make it the folder of this one.

        Args:
            settings: What the sound depends on, by what it is called.
            seed: That was asked for; None for any.
            drawn: The seed of a new job for which none was asked.

        Returns:
            The seed of the job.

        Raises:
            ValueError: If the folder is that of another job; the message says in what they differ.
            BookFileError: If what the folder says of itself cannot be read.
        """
        file = self.path / MANIFEST
        if file.exists():
            known, own = self._read(file)
            found = {**known, "seed": str(own)}
            wanted = {**settings, "seed": str(own if seed is None else seed)}
            differing = [n for n in {**found, **wanted} if found.get(n) != wanted.get(n)]
            if differing:
                told = "; ".join(
                    f"{name} was {_short(found.get(name))}, is {_short(wanted.get(name))}"
                    for name in differing
                )
                raise ValueError(
                    f"{self.path}: is the folder of another job ({told}); name another folder, or "
                    "delete this one if it is not needed any more"
                )
            return own
        own = drawn if seed is None else seed
        fields = {"version": VERSION, "seed": own, "settings": dict(settings)}
        write_file(file, json.dumps(fields, indent=1, ensure_ascii=False).encode() + b"\n", "JSON")
        return own

    def journal(self, chapter: int) -> Path:
        """The journal of a chapter."""
        return self.path / f"chapter-{chapter:03}.pieces"

    def voice(self, speaker: int) -> Path:
        """The voice of a speaker who was given none."""
        return self.path / f"speaker-{speaker}.voice"

    def times(self) -> dict[int, tuple[float, float]]:
        """Of each chapter: seconds that pieces took, and seconds of audio in them."""
        try:
            fields = json.loads((self.path / TIMES).read_bytes())
            return {int(k): (float(took), float(audio)) for k, (took, audio) in fields.items()}
        except (OSError, ValueError, TypeError, AttributeError):
            return {}

    def add_time(self, chapter: int, took: float, audio: float) -> None:
        """Note how long pieces of a chapter took, beside what was noted before."""
        times = self.times()
        before = times.get(chapter, (0.0, 0.0))
        times[chapter] = (before[0] + took, before[1] + audio)
        write_file(self.path / TIMES, json.dumps(times).encode(), "JSON")

    def close(self) -> None:
        """Let the next process have it."""
        self._lock.close()

    def __enter__(self) -> JobFolder:
        """The folder."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close it."""
        self.close()

    def _read(self, file: Path) -> tuple[dict[str, Any], int]:
        try:
            with file.open("rb") as opened:
                fields = json.loads(opened.read(_MANIFEST_BYTES))
            version, settings, seed = fields["version"], fields["settings"], fields["seed"]
        except (ValueError, KeyError, TypeError, RecursionError):
            version = settings = seed = None
        if version == VERSION and isinstance(settings, dict) and isinstance(seed, int):
            return settings, seed
        raise BookFileError(
            f"{file}: is damaged, of a later version, or not of csm-ggml; name another job folder, "
            "or delete the file if the pieces in the folder are of this very book and voice"
        )


def _short(value: object) -> str:
    text = "nothing" if value in (None, "") else str(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
