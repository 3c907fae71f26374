"""Files that are written whole or not at all: the one way in which this package writes any.

What is written goes into a file beside the wanted one, under a name that begins with a dot and ends
in `.partial`, and takes the wanted name when it is complete: readers, a full disk and an
interruption see the old file or the new one. Symbolic links are followed. Devices and FIFOs are
written through, as nothing may take their place. A partial file is locked while it is written, so
that what a killed process has left is known by its missing lock, and removed by the next writer.
"""

from __future__ import annotations

import contextlib
import errno
import io
import os
import secrets
import stat
import sys
from collections.abc import Iterable
from types import TracebackType
from typing import IO, Any, TypeVar

if sys.platform == "win32":
    import msvcrt
else:
    import fcntl

PARTIAL = ".partial"
# Of the wanted name in that of its partial file; file systems allow 255 bytes in all.
_NAME_CHARACTERS = 48

# What a file is by the end of its name, where that is clear.
KINDS = {
    "audio": (
        *(".wav", ".flac", ".ogg", ".oga", ".opus", ".mp3", ".m4a", ".aac", ".aif", ".aiff"),
        *(".aifc", ".au", ".caf", ".w64", ".wma"),
    ),
    "voice": (".voice",),
    "model": (".gguf", ".safetensors", ".pt", ".pth", ".bin", ".onnx"),
    "codes": (".npy", ".npz", ".codes"),
    "text": (".txt", ".md", ".csv", ".tsv", ".html", ".py"),
    "JSON": (".json",),
    "picture": (".png", ".svg", ".pdf", ".jpg", ".jpeg", ".webp", ".eps"),
    "progress": (".progress",),
}


Own = TypeVar("Own", bound="Completed")


class Completed:
    """What a `with` block completes, or gives up after an error."""

    def close(self) -> None:
        """Complete it."""
        raise NotImplementedError

    def discard(self) -> None:
        """Give it up: its content does not matter any more."""
        raise NotImplementedError

    def __enter__(self: Own) -> Own:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if error is None:
            self.close()
        else:
            self.discard()


class OutputFile:
    """A binary file on its way. Use it in a `with` block, which completes or discards it.

    Attributes:
        path: The wanted name.
        direct: Whether it is a device or FIFO, written through: it cannot seek, and what was
            written stays written.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *kinds: str,
        inputs: Iterable[str | os.PathLike[str]] = (),
    ) -> None:
        """Begin a file.

        Args:
            path: The wanted name; a file that exists is replaced when the new one is complete.
            kinds: What is to be written, of `KINDS`; a name that ends like something else is
                refused. None allows all names.
            inputs: What it is made of; none of them may be the output.

        Raises:
            ValueError: If the name is that of another kind of file, or of an input.
            OSError: If the file cannot be written: no folder, a folder, no right to, a device
                that holds files.
        """
        self.path = os.fsdecode(path)
        self._partial: str | None = None
        self._owner = os.getpid()
        check_kind(self.path, *kinds)
        self._target, self.direct = _target(self.path)
        _check_inputs(self.path, inputs)
        if self.direct:
            self._file: IO[bytes] = open(self._target, "wb")  # noqa: SIM115
            return
        folder, name = os.path.split(self._target)
        prefix = f".{name[:_NAME_CHARACTERS]}."
        self._partial = os.path.join(folder, f"{prefix}{secrets.token_hex(8)}{PARTIAL}")
        try:
            _sweep(folder or ".", prefix)
            while True:
                self._file = open(self._partial, "x+b")  # noqa: SIM115
                # A sweep of another process may have come before the lock.
                if _lock(self._file) is None or _is_at(self._file, self._partial):
                    break
                self._file.close()
        except OSError as error:
            self.discard()
            raise OSError(error.errno, error.strerror, self.path) from None
        except BaseException:
            self.discard()
            raise

    def write(self, data: Any) -> int:
        """Append bytes, or what has a buffer; returns how many.

        Raises:
            OSError: If that fails; the error names the file.
        """
        with self._named():
            return self._file.write(data)

    def seek(self, offset: int, whence: int = 0) -> int:
        """Go to a position, as files do."""
        with self._named():
            return self._file.seek(offset, whence)

    def tell(self) -> int:
        """The position."""
        with self._named():
            return self._file.tell()

    def read(self, count: int = -1) -> bytes:
        """Read back what was written."""
        with self._named():
            return self._file.read(count)

    def flush(self) -> None:
        """Hand on what is buffered."""
        with self._named():
            self._file.flush()

    def commit(self) -> None:
        """Complete the file: it is on the disk, under its name, when this returns.

        Raises:
            OSError: If that fails; the file that was there before is still there.
        """
        try:
            with self._named():
                self._file.flush()
                if self._partial is not None:
                    _sync(self._file)
                    with contextlib.suppress(OSError):
                        os.chmod(self._partial, stat.S_IMODE(os.stat(self._target).st_mode))
                    if sys.platform == "win32":
                        self._file.close()
                    os.replace(self._partial, self._target)
                    self._partial = None
                self._file.close()
        except BaseException:
            self.discard()
            raise
        _sync_folder(os.path.dirname(self._target))

    def discard(self) -> None:
        """Drop what was written; may be called again, and after `commit`."""
        if (file := getattr(self, "_file", None)) is not None:
            with contextlib.suppress(OSError):
                file.close()
        if self._partial is not None:
            with contextlib.suppress(OSError):
                os.unlink(self._partial)
            self._partial = None

    def __enter__(self) -> OutputFile:
        """The file."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Complete the file, or discard it after an error."""
        if error is None:
            self.commit()
        else:
            self.discard()

    def __del__(self) -> None:
        # An interruption may come between the making of the object and the block that closes it.
        if getattr(self, "_owner", None) == os.getpid():
            self.discard()

    @contextlib.contextmanager
    def _named(self) -> Any:
        try:
            yield
        except OSError as error:
            raise OSError(error.errno, error.strerror or str(error), self.path) from None


def write_file(
    path: str | os.PathLike[str],
    data: bytes,
    *kinds: str,
    inputs: Iterable[str | os.PathLike[str]] = (),
) -> None:
    """Write a whole file; see `OutputFile`."""
    with OutputFile(path, *kinds, inputs=inputs) as file:
        file.write(data)


def check_output(
    path: str | os.PathLike[str],
    *kinds: str,
    inputs: Iterable[str | os.PathLike[str]] = (),
) -> None:
    """Find out before the work whether a file can be written; see `OutputFile`.

    Raises:
        As `OutputFile`.
    """
    name = os.fsdecode(path)
    check_kind(name, *kinds)
    _, direct = _target(name)
    _check_inputs(name, inputs)
    if not direct:  # opening a FIFO would let its reader go
        OutputFile(path).discard()


def check_kind(path: str | os.PathLike[str], *kinds: str) -> None:
    """Make sure that a name does not end like that of another kind of file.

    Args:
        path: The name.
        kinds: Of `KINDS`; none allows all.

    Raises:
        ValueError: If it does.
    """
    extension = os.path.splitext(os.fsdecode(path))[1].lower()
    of_name = [kind for kind, extensions in KINDS.items() if extension in extensions]
    if kinds and of_name and not set(kinds) & set(of_name):
        expected = ", ".join(KINDS[kinds[0]])
        raise ValueError(
            f"{os.fsdecode(path)}: {extension} is the name of a file of another kind "
            f"({of_name[0]}) than is written here ({kinds[0]}: {expected}); use another name"
        )


def core_path(path: str | os.PathLike[str]) -> str:
    """A path as the compiled core takes it: where names are bytes, they need not be UTF-8."""
    if sys.platform == "win32":
        return os.fsdecode(path)
    # The core takes bytes for str, which its type hints do not say.
    return os.fsencode(path)  # type: ignore[return-value]


def is_stream(path: str | os.PathLike[str]) -> bool:
    """Whether a name is that of a device or FIFO, which is written through."""
    return _target(os.fsdecode(path))[1]


def open_locked(path: str | os.PathLike[str]) -> io.FileIO | None:
    """Open a file for reading and writing, made if need be, that one process has at a time.

    Returns:
        The file, without a buffer, locked until it is closed; None if somebody else has it.

    Raises:
        OSError: If it cannot be opened.
    """
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | getattr(os, "O_BINARY", 0), 0o666)
        file = io.FileIO(descriptor, "r+")
        if _lock(file) is False:
            file.close()
            return None
        # Whoever had it may have removed it meanwhile.
        if _is_at(file, path):
            return file
        file.close()


def _target(path: str) -> tuple[str, bool]:
    """What a name leads to, and whether it is written through."""
    if "\0" in path:
        raise ValueError(f"{path!r} is no file name: it holds a zero byte")
    try:
        mode = os.stat(path).st_mode
    except FileNotFoundError:
        target = os.path.realpath(path)
        folder = os.path.dirname(target)
        if not path or not os.path.isdir(folder):
            raise FileNotFoundError(errno.ENOENT, f"there is no folder {folder}", path) from None
        return target, False
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, "is a folder, expected a file name", path)
    if not os.access(path, os.W_OK):
        raise PermissionError(errno.EACCES, "the file is write-protected", path)
    if stat.S_ISREG(mode):
        return os.path.realpath(path), False
    if stat.S_ISFIFO(mode) or stat.S_ISCHR(mode):
        return path, True
    raise OSError(errno.EINVAL, "is a disk or a socket, expected a file, FIFO or terminal", path)


def _check_inputs(path: str, inputs: Iterable[str | os.PathLike[str]]) -> None:
    for source in inputs:
        with contextlib.suppress(OSError):
            if stat.S_ISREG(os.stat(path).st_mode) and os.path.samefile(path, source):
                raise ValueError(f"{path}: is one of the files to be read; write to another name")


def _sweep(folder: str, prefix: str) -> None:
    """Remove partial files of a name that nobody writes any more."""
    with contextlib.suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            if not (entry.name.startswith(prefix) and entry.name.endswith(PARTIAL)):
                continue
            with contextlib.suppress(OSError):
                if sys.platform == "win32":  # refuses to remove what is open
                    os.unlink(entry.path)
                elif entry.is_file(follow_symlinks=False):
                    with open(entry.path, "rb") as file:
                        if _lock(file):
                            os.unlink(entry.path)


def _lock(file: IO[bytes] | io.FileIO) -> bool | None:
    """Lock a file until it is closed: True, False if somebody else has, None where none can."""
    try:
        if sys.platform == "win32":
            file.seek(1 << 40)
            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
            file.seek(0)
        else:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        held = (errno.EWOULDBLOCK, errno.EAGAIN, errno.EACCES, errno.EDEADLK)
        return False if error.errno in held else None
    return True


def _is_at(file: IO[bytes] | io.FileIO, path: str | os.PathLike[str]) -> bool:
    """Whether an open file is still the one of this name."""
    try:
        return os.path.samestat(os.fstat(file.fileno()), os.stat(path))
    except FileNotFoundError:
        return False


def _sync(file: IO[bytes]) -> None:
    try:
        os.fsync(file.fileno())
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise


def _sync_folder(folder: str) -> None:
    """Have a new name on the disk, where the system can."""
    with contextlib.suppress(OSError):
        descriptor = os.open(folder or ".", os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


Writable = OutputFile | io.BytesIO
