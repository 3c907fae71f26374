"""Files that are read whole: bounded, whatever they are, with errors that name them.

A name that somebody gives may be a device without an end, a FIFO, or a file of another kind and of
any size. None of them may take all memory.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator

# Texts, transcripts, word lists, tables of codes: far above a library's longest book.
MOST_TEXT_BYTES = 64 << 20
# Settings of a model in JSON, chat templates, lists of keys.
MOST_SETTINGS_BYTES = 64 << 20
_BLOCK = 1 << 20


@contextlib.contextmanager
def named(path: str | os.PathLike[str]) -> Iterator[None]:
    """Have every `OSError` of reading a file name it; those of a read alone do not."""
    try:
        yield
    except OSError as error:
        if error.errno is None or error.filename is not None:
            raise
        raise OSError(error.errno, error.strerror, os.fspath(path)) from None


def read_whole(
    path: str | os.PathLike[str], most: int = MOST_TEXT_BYTES, *, begins: bytes = b""
) -> bytes:
    """The content of a file, FIFO or device.

    Args:
        path: Its name.
        most: Bytes that it may have.
        begins: What such a file begins with. Of one that begins otherwise only the first megabyte
            is returned: enough to say what is wrong with it.

    Raises:
        OSError: If it cannot be read; the error names it.
        ValueError: If it is larger.
    """
    with named(path), open(path, "rb", buffering=0) as file:
        size = os.fstat(file.fileno()).st_size
        if size > most:
            raise _larger(os.fspath(path), most)
        data = bytearray()
        while block := file.read(_BLOCK):
            data += block
            if not data.startswith(begins[: len(data)]):
                break
            if len(data) > most:
                raise _larger(os.fspath(path), most)
        return bytes(data)


def read_standard_input(most: int = MOST_TEXT_BYTES) -> bytes:
    """What comes from standard input, to its end.

    Raises:
        OSError: If it is closed or cannot be read.
        ValueError: If it is larger.
    """
    with named("standard input"):
        data = sys.stdin.buffer.read(most + 1)
    if len(data) > most:
        raise _larger("standard input", most)
    return data


def _larger(name: str | bytes, most: int) -> ValueError:
    return ValueError(f"{os.fsdecode(name)}: is larger than {most >> 20} MiB, or has no end")
