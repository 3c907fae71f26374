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

from csm_ggml.cli.common import UsageError, write_stdout

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
        self, path: str | os.PathLike[str], sample_rate: int, inputs: Iterable[str] = ()
    ) -> None:
        """Take the name; the file is made with the first chunk, and appears when it is complete.

        Args:
            path: The file.
            sample_rate: Samples per second.
            inputs: Files that it must not replace.
        """
        from csm_ggml.audio.writer import AudioWriter

        self._writer = AudioWriter(path, sample_rate, inputs=inputs)

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

    A turn of which the model says nothing has none.
    """

    def __init__(self, path: str, sample_rate: int, inputs: Iterable[str] = ()) -> None:
        """Take the name that the names are made of, and the files that none may replace."""
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
            name = f"{self._path.stem}-{turn.index + 1:03}{self._path.suffix}"
            self._file = FileSink(self._path.with_name(name), self._sample_rate, self._inputs)
            self.files += 1
        assert self._file is not None
        self._file.write(chunk)

    def close(self, *, completed: bool) -> None:
        """Complete the present file."""
        if self._file is not None:
            self._file.close(completed=completed)
        self._file = None


class PipeSink:
    """16-bit mono samples to standard output, as raw PCM or as a WAV stream."""

    def __init__(self, sample_rate: int, *, raw: bool) -> None:
        """Take the form; nothing is written before the first chunk.

        Args:
            sample_rate: Samples per second.
            raw: No WAV header.
        """
        from csm_ggml.audio.writer import wav_header

        self._header = b"" if raw else wav_header(sample_rate)

    def write(self, chunk: Audio) -> None:
        """Write the chunk, at once."""
        if not len(chunk.samples):
            return
        pcm = chunk.pcm16().astype("<i2", copy=False).tobytes()
        write_stdout(self._header + pcm)
        self._header = b""

    def close(self, *, completed: bool) -> None:
        """Do nothing: the pipe belongs to the process."""


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
