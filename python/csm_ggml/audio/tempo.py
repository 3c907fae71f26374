"""Faster or slower speech at the same pitch, while it is being made."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import numpy as np
import numpy.typing as npt

# FFmpeg's atempo filter halves at most; slower speech takes two of them.
_SLOWEST_OF_ONE = 0.5


class Tempo:
    """Changes the speed of one stream, in FFmpeg's `atempo` filter (overlapped waveforms).

    What comes out does not depend on how the stream is cut into chunks. At speed 1 samples pass
    untouched.
    """

    def __init__(self, speed: float, sample_rate: int) -> None:
        """Take the speed.

        Args:
            speed: 2 is twice as fast; from 0.25 to 4.
            sample_rate: Samples per second.

        Raises:
            ImportError: If it is not 1 and the package `av` is not installed.
        """
        self._graph: Any = None
        if speed == 1:
            return
        import av
        from av.filter import Graph

        self._av = av
        self._rate = sample_rate
        self._at = 0
        graph = Graph()
        self._source = graph.add_abuffer(
            sample_rate=sample_rate, format="flt", layout="mono", time_base=Fraction(1, sample_rate)
        )
        last = self._source
        while speed != 1:
            part = max(speed, _SLOWEST_OF_ONE)
            following = graph.add("atempo", f"{part:.9f}")
            last.link_to(following)
            last, speed = following, speed / part
        self._sink = graph.add("abuffersink")
        last.link_to(self._sink)
        graph.configure()
        self._graph = graph

    def change(self, samples: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """(n,) samples in; those that are ready, (m,), out."""
        if self._graph is None or not len(samples):
            return samples
        data = np.ascontiguousarray(samples[np.newaxis])
        frame = self._av.AudioFrame.from_ndarray(data, format="flt", layout="mono")
        frame.sample_rate = self._rate
        frame.time_base = Fraction(1, self._rate)
        frame.pts = self._at
        self._at += len(samples)
        self._source.push(frame)
        return self._ready()

    def finish(self) -> npt.NDArray[np.float32]:
        """The samples that are still to come."""
        if self._graph is None or not self._at:
            return np.zeros(0, np.float32)
        self._source.push(None)
        return self._ready()

    def _ready(self) -> npt.NDArray[np.float32]:
        parts = [np.zeros(0, np.float32)]
        while True:
            try:
                frame: Any = self._sink.pull()
            except (self._av.error.BlockingIOError, self._av.error.EOFError):
                return np.concatenate(parts)
            parts.append(frame.to_ndarray().reshape(-1))
