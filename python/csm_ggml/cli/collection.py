"""A folder of many spoken rows: an audio file for each, and a manifest that tells what they are.

A row is done when its line is in the manifest, which is written after its file. So whatever ends
the process, what is in the manifest is whole, and the same command goes on with the rest. When all
is done, the manifest is in the order of the rows: the folder does not tell how it was made.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from io import FileIO
from pathlib import Path
from typing import Any

from csm_ggml.cli.common import UsageError
from csm_ggml.files import open_locked, write_file

MANIFEST = "manifest.jsonl"
SETTINGS = "speak-many.json"

_NAME_CHARACTERS = 100
_HASH_DIGITS = 12
# Names that Windows keeps for devices, whatever follows the first dot.
_DEVICES = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\..*)?", re.IGNORECASE)


@dataclass(frozen=True)
class Item:
    """A row.

    Attributes:
        id: Its own, as text.
        row: Its columns.
    """

    id: str
    row: Mapping[str, Any]


class Collection:
    """The folder. Use it in a `with` block; it is locked meanwhile.

    Attributes:
        done: Lines of the manifest, by the ids of their rows.
        before: How many rows were done when it was opened.
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        items: Sequence[Item],
        settings: Mapping[str, Any],
        extension: str,
    ) -> None:
        """Open a folder, which is made if need be, and see what is done.

        Args:
            folder: Its name.
            items: All rows, with different ids.
            settings: What else the speech depends on; a folder holds the rows of one set of them.
            extension: Of the audio files, with the dot.

        Raises:
            UsageError: If it holds rows that were spoken with other settings, or is no folder.
            BlockingIOError: If another process speaks into it.
            OSError: If it cannot be written.
        """
        self._folder = Path(folder)
        self._items = items
        self._names = file_names([item.id for item in items], extension)
        self.done: dict[str, dict[str, Any]] = {}
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
        except FileExistsError:
            raise UsageError(f"{folder}: is a file, expected a folder") from None
        locked = open_locked(self._folder / SETTINGS)
        if locked is None:
            raise BlockingIOError(f"{folder}: another process speaks into this folder")
        self._lock = locked
        try:
            self._check_settings(dict(settings))
            self._read()
            self.before = len(self.done)
            self._write_manifest()
            self._manifest = open(self._folder / MANIFEST, "ab")  # noqa: SIM115
        except BaseException:
            locked.close()
            raise

    @property
    def to_do(self) -> list[Item]:
        """The rows that are not done, in their order."""
        return [item for item in self._items if item.id not in self.done]

    def add(self, item: Item, audio: bytes, facts: Mapping[str, Any]) -> None:
        """Take a row that was spoken, or could not be.

        Args:
            item: The row.
            audio: Its file; of a row with an error, nothing is written.
            facts: The further columns of its line: duration, frames, finish_reason, seed, error.

        Raises:
            OSError: If it cannot be written.
        """
        name = "" if facts["error"] else self._names[item.id]
        if name:
            write_file(self._folder / name, audio)
        line = {**_as_json(item.row), "id": item.id, "file": name, **facts}
        self._manifest.write(_line(line))
        self._manifest.flush()
        self.done[item.id] = line

    def finish(self) -> None:
        """Bring the manifest into the order of the rows.

        Raises:
            OSError: If it cannot be written.
        """
        self._manifest.close()
        self.done = {item.id: self.done[item.id] for item in self._items if item.id in self.done}
        self._write_manifest()

    def __enter__(self) -> Collection:
        """The folder."""
        return self

    def __exit__(self, *_: object) -> None:
        """Let others have it."""
        with contextlib.suppress(OSError):
            self._manifest.close()
        self._lock.close()

    def _check_settings(self, settings: dict[str, Any]) -> None:
        data = _read_all(self._lock)
        try:
            before = json.loads(data) if data.strip() else None
        except ValueError:
            before = None
        if before is None:
            # Nothing, or what a crash has left of it: nothing was spoken yet.
            self._lock.seek(0)
            self._lock.truncate()
            self._lock.write(json.dumps(settings, indent=1, sort_keys=True).encode() + b"\n")
            return
        other = [name for name in {**before, **settings} if before.get(name) != settings.get(name)]
        if other:
            name = other[0]
            raise UsageError(
                f"{self._folder} holds rows of another run, with {name} "
                f"{before.get(name)!r} instead of {settings.get(name)!r}; name another folder"
            )

    def _read(self) -> None:
        """What is done of these very rows, as they are now; errors are tried again."""
        try:
            lines = (self._folder / MANIFEST).read_bytes().split(b"\n")
        except FileNotFoundError:
            return
        rows = {item.id: _as_json(item.row) for item in self._items}
        for line in lines:
            try:
                found = json.loads(line)
                own = rows[found["id"]]
            except (ValueError, KeyError, TypeError):
                continue  # cut by a crash, or of a row that is no longer in the table
            kept = {**found, **own, "id": found["id"]}
            whole = not found.get("error") and (self._folder / str(found.get("file"))).is_file()
            if whole and kept == found:
                self.done[found["id"]] = found
                self._names[found["id"]] = found["file"]

    def _write_manifest(self) -> None:
        lines = (self.done[item.id] for item in self._items if item.id in self.done)
        write_file(self._folder / MANIFEST, b"".join(map(_line, lines)))


def file_names(ids: Sequence[str], extension: str) -> dict[str, str]:
    """A file name for each id: the id itself, if that is a name everywhere and no other's.

    Args:
        ids: All different.
        extension: Of the files, with the dot.
    """
    plain = {id: re.sub(r"[^A-Za-z0-9._-]+", "_", id)[:_NAME_CHARACTERS].lstrip(".-") for id in ids}
    # Some file systems do not tell capital letters from small ones.
    taken = Counter(name.lower() for name in plain.values())
    names = {}
    for id, name in plain.items():
        if name != id or not name or taken[name.lower()] > 1 or _DEVICES.fullmatch(name):
            digest = hashlib.sha256(id.encode("utf-8", "surrogatepass")).hexdigest()
            name = f"{name or 'row'}-{digest[:_HASH_DIGITS]}"
        names[id] = name + extension
    return names


def _as_json(row: Mapping[str, Any]) -> dict[str, Any]:
    """The columns that a line of JSON can hold, as they come back from it."""
    kept = {name: value for name, value in row.items() if not isinstance(value, bytes)}
    made: dict[str, Any] = json.loads(json.dumps(kept, default=str))
    return made


def _line(line: Mapping[str, Any]) -> bytes:
    return json.dumps(line, ensure_ascii=False).encode("utf-8", "backslashreplace") + b"\n"


def _read_all(file: FileIO) -> bytes:
    file.seek(0)
    return file.readall()
