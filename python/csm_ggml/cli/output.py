"""Where speech goes while it is being made: files, a pipe, the sound card."""

from __future__ import annotations

import contextlib
import os
import queue
import threading
from collections.abc import Iterable
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Protocol

from csm_ggml.cli.common import UsageError, rewrite_stdout, stdout_position, write_stdout

if TYPE_CHECKING:
    from csm_ggml.audio.audio import Audio


# Chunks that wait for the sound card at most.
PLAY_AHEAD_CHUNKS = 64


class Sink(Protocol):
    """Takes the chunks of a stream, in order."""

    def write(self, chunk: Audio) -> None:
        """Take a chunk."""

    def close(self, *, completed: bool) -> None:
        """Take note that there is no further one, or that there has been an error."""


class Sinks:
    """Several at once; all are closed when the block ends."""

    def __init__(self, *sinks: Sink) -> None:
        """Take the sinks."""
        self._sinks = sinks

    def write(self, chunk: Audio) -> None:
        """Give a chunk to each."""
        for sink in self._sinks:
            sink.write(chunk)

    def __enter__(self) -> Sinks:
        """The sinks."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Close them."""
        with ExitStack() as stack:
            for sink in self._sinks:
                stack.callback(sink.close, completed=error is None)


class FileSink:
    """One audio file."""

    def __init__(
        self,
        path: str | os.PathLike[str],
        sample_rate: int,
        inputs: Iterable[str] = (),
        samples: str = "16",
    ) -> None:
        """Take the name; the file is made with the first chunk, and appears when it is complete.

        Args:
            path: The file.
            sample_rate: Samples per second.
            inputs: Files that it must not replace.
            samples: How they are stored; see `output_format`.
        """
        from csm_ggml.audio.writer import AudioWriter

        self._writer = AudioWriter(path, sample_rate, inputs=inputs, samples=samples)

    def write(self, chunk: Audio) -> None:
        """Append the chunk."""
        self._writer.write(chunk.samples)

    def close(self, *, completed: bool) -> None:
        """Complete the file; after an error, drop it."""
        if completed:
            self._writer.close()
        else:
            self._writer.discard()


class SplitSink:
    """One audio file for each turn: `talk.wav` becomes talk-001.wav, talk-002.wav, ...

    All numbers have as many digits, at least three, so that the names sort as the turns do. A turn
    of which the model says nothing has no file.
    """

    def __init__(
        self,
        path: str,
        sample_rate: int,
        turns: int,
        inputs: Iterable[str] = (),
        samples: str = "16",
    ) -> None:
        """Take the name that the names are made of.

        Args:
            path: That name.
            sample_rate: Samples per second.
            turns: How many there will be.
            inputs: Files that none may replace.
            samples: How they are stored; see `output_format`.
        """
        self._digits = max(3, len(str(turns)))
        self._samples = samples
        self._path = Path(path)
        self._inputs = tuple(inputs)
        self._sample_rate = sample_rate
        self._turn = -1
        self._file: FileSink | None = None
        self.files = 0

    def write(self, chunk: Audio) -> None:
        """Append the chunk to its turn's file."""
        [turn] = chunk.turns
        if turn.finish_reason == "empty":
            return
        if turn.index != self._turn:
            self.close(completed=True)
            self._turn = turn.index
            number = f"{turn.index + 1:0{self._digits}}"
            path = self._path.with_name(f"{self._path.stem}-{number}{self._path.suffix}")
            self._file = FileSink(path, self._sample_rate, self._inputs, self._samples)
            self.files += 1
        assert self._file is not None
        self._file.write(chunk)

    def close(self, *, completed: bool) -> None:
        """Complete the present file."""
        if self._file is not None:
            self._file.close(completed=completed)
        self._file = None


class PipeSink:
    """16-bit mono samples to standard output, as raw PCM or as a WAV stream.

    The header of a stream cannot tell its length; where standard output is a file, it does at last.
    """

    def __init__(self, sample_rate: int, *, raw: bool) -> None:
        """Take the form; nothing is written before the first chunk.

        Args:
            sample_rate: Samples per second.
            raw: No WAV header.
        """
        self._sample_rate = sample_rate
        self._raw = raw
        self._count = 0
        # Where the header begins, once it is written, if that can be gone back to.
        self._start: int | None = None

    def write(self, chunk: Audio) -> None:
        """Write the chunk, at once."""
        from csm_ggml.audio.writer import wav_header

        if not len(chunk.samples):
            return
        pcm = chunk.pcm16().astype("<i2", copy=False).tobytes()
        if not self._raw and not self._count:
            self._start = stdout_position()
            pcm = wav_header(self._sample_rate) + pcm
        write_stdout(pcm)
        self._count += len(chunk.samples)

    def close(self, *, completed: bool) -> None:
        """Put the length of what was written into the header, where that can be."""
        from csm_ggml.audio.writer import wav_header

        if self._start is not None:
            with contextlib.suppress(OSError, ValueError):
                rewrite_stdout(self._start, wav_header(self._sample_rate, self._count))


class PlaySink:
    """The sound card. A thread of its own plays, so that speech is made in the meantime."""

    def __init__(self, sample_rate: int) -> None:
        """Open it.

        Raises:
            UsageError: If the sounddevice package, or the library under it, is not installed, or
                there is no output device.
        """
        try:
            import sounddevice
        except (ImportError, OSError) as error:
            raise UsageError(
                f"--play needs the sounddevice package ({error}): pip install 'csm-ggml[play]'"
            ) from None
        try:
            self._stream: Any = sounddevice.OutputStream(
                samplerate=sample_rate, channels=1, dtype="int16"
            )
            self._stream.start()
        except sounddevice.PortAudioError as error:
            raise UsageError(f"--play: no sound can be played here: {error}") from None
        self._waiting: queue.Queue[Audio | None] = queue.Queue(PLAY_AHEAD_CHUNKS)
        self._error: Exception | None = None
        self._player = threading.Thread(target=self._play, daemon=True)
        self._player.start()

    def write(self, chunk: Audio) -> None:
        """Have the chunk played after those before; waits when many are waiting.

        Raises:
            RuntimeError: If the sound card has failed.
        """
        if self._error is not None:
            raise RuntimeError(f"the sound card has failed: {self._error}") from self._error
        self._waiting.put(chunk)

    def close(self, *, completed: bool) -> None:
        """Wait until all is played; after an error, be silent at once."""
        if not completed:
            with contextlib.suppress(queue.Empty):
                while True:
                    self._waiting.get_nowait()
        self._waiting.put(None)
        self._player.join()
        self._stream.stop()
        self._stream.close()

    def _play(self) -> None:
        while (chunk := self._waiting.get()) is not None:
            if self._error is None:
                try:
                    self._stream.write(chunk.pcm16().reshape(-1, 1))
                except Exception as error:
                    self._error = error
