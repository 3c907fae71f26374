"""Zip archives of strangers, read in memory: nothing of them is ever written to a disk.

What is read is bounded by what comes out, whatever the archive says of its sizes, so that a bomb is
an error and not the end of the memory.
"""

from __future__ import annotations

import os
import posixpath
import zipfile
import zlib
from urllib.parse import unquote

from csm_ggml.errors import BookFileError

MOST_ENTRIES = 20_000
# Bytes of one file, and of all that are read of an archive, unpacked.
MOST_FILE_BYTES = 16 << 20
MOST_BYTES = 256 << 20
_BLOCK = 1 << 16


class Archive:
    """A zip file that is open for reading. Use it in a `with` block."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        """Open it and look at its names.

        Raises:
            BookFileError: If it is no zip archive, or one of absurd size.
            OSError: If it cannot be read.
        """
        self.name = os.fsdecode(path)
        try:
            self._zip = zipfile.ZipFile(path)
        except (zipfile.BadZipFile, zipfile.LargeZipFile, ValueError, NotImplementedError) as error:
            raise BookFileError(
                f"{self.name}: not a whole zip archive, as EPUB and DOCX files are: {error}"
            ) from None
        self._left = MOST_BYTES
        entries = self._zip.infolist()
        if len(entries) > MOST_ENTRIES:
            self.close()
            raise BookFileError(
                f"{self.name}: {len(entries)} files in the archive, at most {MOST_ENTRIES} are read"
            )
        self._entries = {entry.filename: entry for entry in entries}

    def __contains__(self, name: str) -> bool:
        return name in self._entries

    @property
    def names(self) -> list[str]:
        """Names of the files in it, in the order of the archive."""
        return list(self._entries)

    def read(self, name: str) -> bytes:
        """A file of the archive, whole.

        Raises:
            BookFileError: If there is no such file, it is damaged, encrypted or too large.
        """
        if name not in self._entries:
            raise BookFileError(f"{self.name}: there is no {name!r} in the archive")
        entry = self._entries[name]
        if entry.flag_bits & 1:
            raise BookFileError(f"{self.name}: {name!r} is encrypted and cannot be read")
        limit = min(MOST_FILE_BYTES, self._left)
        blocks: list[bytes] = []
        size = 0
        try:
            with self._zip.open(entry) as file:
                while block := file.read(_BLOCK):
                    size += len(block)
                    if size > limit:
                        raise BookFileError(
                            f"{self.name}: {name!r} is too large when it is unpacked: at most "
                            f"{MOST_FILE_BYTES >> 20} MiB a file and {MOST_BYTES >> 20} MiB in all "
                            "are read"
                        )
                    blocks.append(block)
        except (
            zipfile.BadZipFile,
            zlib.error,
            EOFError,
            NotImplementedError,
            RuntimeError,
            OSError,
        ) as error:
            raise BookFileError(f"{self.name}: {name!r} is damaged: {error}") from None
        self._left -= size
        return b"".join(blocks)

    def close(self) -> None:
        """Close the file."""
        self._zip.close()

    def __enter__(self) -> Archive:
        """The archive."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close it."""
        self.close()


def resolve(base: str, reference: str) -> tuple[str, str]:
    """Where a reference inside an archive leads.

    Args:
        base: Name of the file that holds the reference.
        reference: A relative URL, such as `../Text/one.xhtml#start`.

    Returns:
        Name of a file in the archive and the fragment, "" if there is none. A reference that leads
        out of the archive or into the network gets a name that no archive has, "".
    """
    path, _, fragment = reference.partition("#")
    if ":" in path.split("/")[0] or path.startswith("//"):
        return "", unquote(fragment)
    path = unquote(path)
    if not path:
        return base, unquote(fragment)
    joined = posixpath.normpath(posixpath.join(posixpath.dirname(base), path))
    if joined.startswith(("../", "/")) or joined in ("..", ".") or "\0" in joined:
        return "", unquote(fragment)
    return joined, unquote(fragment)
