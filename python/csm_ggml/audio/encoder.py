"""libsndfile writing into a Python file.

libsndfile calls back into Python for each block that it writes, and an exception in such a call - a
full disk, Ctrl-C - is printed and lost. So it runs in a thread of its own, which signals do not
reach, and what the file raises is kept and raised where it can be caught.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from csm_ggml.audio.ogg import number_streams
from csm_ggml.errors import AudioFileError
from csm_ggml.files import Completed, Writable

# libsndfile's Vorbis encoder keeps a whole write on the stack; large ones overflow it.
_WRITE_BLOCK = 1 << 16

T = TypeVar("T")


class Encoder(Completed):
    """One mono sound on its way into a file. Use it in a `with` block."""

    def __init__(self, file: Writable, sample_rate: int, format: str, subtype: str) -> None:
        """Write the beginning.

        Args:
            file: Can seek.
            sample_rate: Samples per second.
            format: libsndfile's name of the format.
            subtype: libsndfile's name of the sample format.

        Raises:
            AudioFileError: If libsndfile cannot write it.
            OSError: If the file cannot be written.
        """
        import soundfile

        self._raw = file
        self._file = _Guarded(file)
        self._name = getattr(file, "path", "audio")
        self._format = format
        self._worker = ThreadPoolExecutor(1, thread_name_prefix="csm-ggml-audio")
        self._sound: Any = self._run(
            lambda: soundfile.SoundFile(
                self._file,
                "w",
                samplerate=sample_rate,
                channels=1,
                format=format,
                subtype=subtype,
            )
        )

    def write(self, data: npt.NDArray[Any]) -> None:
        """Append (n,) samples, float or int16.

        Raises:
            As the beginning.
        """

        def write() -> None:
            for start in range(0, len(data), _WRITE_BLOCK):
                self._sound.write(np.ascontiguousarray(data[start : start + _WRITE_BLOCK]))

        self._run(write)

    def close(self) -> None:
        """Complete the sound; the file stays open.

        Raises:
            As the beginning.
        """
        try:
            self._run(self._sound.close)
        finally:
            self._worker.shutdown()
        if self._format.upper() == "OGG":
            number_streams(self._raw)

    def discard(self) -> None:
        """Let go of the file, whose content does not matter any more."""
        self._file.closed = True
        self._worker.submit(self._sound.close)
        self._worker.shutdown()

    def _run(self, work: Callable[[], T]) -> T:
        import soundfile

        try:
            result = self._worker.submit(work).result()
        except (soundfile.SoundFileError, AssertionError) as error:
            # soundfile asserts that as much was written as it was given.
            if self._file.error is not None:
                raise self._file.error from None
            raise AudioFileError(f"{self._name}: cannot be written: {error}") from None
        if self._file.error is not None:
            raise self._file.error
        return result


class _Guarded:
    """A file whose methods do not raise: the first error is kept, and nothing is written after.

    Whatever the error: libsndfile may complete its sound after an interruption, when the file is
    closed and nobody waits for it any more.
    """

    def __init__(self, file: Writable) -> None:
        self._file = file
        self.error: Exception | None = None
        self.closed = False

    def write(self, data: bytes) -> int:
        return self._call(lambda: self._file.write(data))

    def seek(self, offset: int, whence: int = 0) -> int:
        return self._call(lambda: self._file.seek(offset, whence))

    def tell(self) -> int:
        return self._call(self._file.tell)

    def _call(self, work: Callable[[], int]) -> int:
        if self.error is not None or self.closed:
            return 0
        try:
            return work()
        except Exception as error:
            self.error = error
        return 0
