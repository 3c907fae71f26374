"""How loud a book is (ITU-R BS.1770, EBU R 128), and how it is made as loud as others.

One gain for the whole book, so that quiet chapters stay quieter than loud ones. Where peaks would
be clipped then, a limiter turns the sound down for some milliseconds around them. Pieces begin and
end in silence, so each is limited alone.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from csm_ggml.books.extras import import_av

# The highest true peak, in dB of full scale: encoders and converters need the room above.
TRUE_PEAK_DB = -1.0
# Aimed at, so that the peaks between the samples of an encoder's output stay below that, too.
_CEILING_DB = -1.5
# Peaks between samples are looked for at four times the rate; without it they may be missed by so
# much at most in speech.
_OVERSAMPLING = 4
_BETWEEN_DB = 3.0
# Softer, there is nothing to measure.
_SILENCE_LUFS = -70.0
_MOST_GAIN_DB = 30.0
_LOOK_AHEAD_SECONDS = 0.005
_BLOCK_SECONDS = 1.0

Samples = npt.NDArray[np.float32]


class LoudnessMeter:
    """Measures (n,) int16 samples as they come, in bounded memory; FFmpeg's filter ebur128."""

    def __init__(self, sample_rate: int) -> None:
        """Begin.

        Args:
            sample_rate: Samples per second.

        Raises:
            ImportError: If the package `av` is not installed.
        """
        self._av = import_av()
        self._rate = sample_rate
        self._at = 0
        self._graph = self._av.filter.Graph()
        self._source = self._graph.add_abuffer(
            format="s16", sample_rate=sample_rate, layout="mono", time_base=f"1/{sample_rate}"
        )
        meter = self._graph.add("ebur128", "metadata=1")
        self._sink = self._graph.add("abuffersink")
        self._source.link_to(meter)
        meter.link_to(self._sink)
        self._graph.configure()
        self._last: Any = None

    def add(self, samples: npt.NDArray[np.int16]) -> None:
        """Take more samples."""
        block = round(_BLOCK_SECONDS * self._rate)
        for start in range(0, len(samples), block):
            part = np.ascontiguousarray(samples[np.newaxis, start : start + block])
            frame = self._av.AudioFrame.from_ndarray(part, format="s16", layout="mono")
            frame.sample_rate = self._rate
            frame.pts = self._at
            self._at += part.shape[1]
            self._source.push(frame)
            self._pull()

    def loudness(self) -> float:
        """Integrated loudness of all samples so far, in LUFS; -infinity for silence."""
        # What is shorter than the filter's window is measured with silence after it.
        self.add(np.zeros(round(0.5 * self._rate), np.int16))
        if self._last is None:
            return -math.inf
        value = float(self._last.metadata.get("lavfi.r128.I", "-inf"))
        return value if value > _SILENCE_LUFS else -math.inf

    def _pull(self) -> None:
        while True:
            try:
                self._last = self._sink.pull()
            except (BlockingIOError, EOFError):
                return


def gain_for(loudness: float, target: float) -> float:
    """The factor that brings a sound from its loudness to another one, both in LUFS."""
    if not math.isfinite(loudness):
        return 1.0
    return float(10 ** (min(target - loudness, _MOST_GAIN_DB) / 20))


def true_peak(samples: Samples, sample_rate: int) -> float:
    """The highest value between and at (n,) samples, as BS.1770 has it; full scale is 1."""
    return float(np.max(_peaks(samples, sample_rate), initial=0.0))


def limited(samples: Samples, sample_rate: int) -> Samples:
    """A sound whose true peak is below -1.5 dB of full scale.

    Args:
        samples: (n,) of one piece, full scale is 1; may exceed it.
        sample_rate: Samples per second.

    Returns:
        (n,), the same where nothing is too loud.
    """
    ceiling = 10 ** (_CEILING_DB / 20)
    if np.max(np.abs(samples), initial=0.0) <= ceiling * 10 ** (-_BETWEEN_DB / 20):
        return samples
    for _ in range(4):
        peaks = _peaks(samples, sample_rate)
        if np.max(peaks) <= ceiling:
            break
        needed = np.where(peaks > ceiling, 0.995 * ceiling / np.maximum(peaks, ceiling), 1.0)
        samples = (samples * _smoothed(needed, sample_rate)).astype(np.float32)
    return samples


def _peaks(samples: Samples, sample_rate: int) -> Samples:
    """(n,) highest magnitudes at and after each sample, before the next one."""
    if not len(samples):
        return np.zeros(0, np.float32)
    import soxr

    # The filter's ends ring where sound begins at once.
    padded = np.pad(samples.astype(np.float32), 64)
    over = soxr.resample(padded, sample_rate, _OVERSAMPLING * sample_rate, quality="VHQ")
    over = over[: _OVERSAMPLING * len(padded)]
    over = np.pad(over, (0, _OVERSAMPLING * len(padded) - len(over)))
    between = np.abs(over, out=over).reshape(-1, _OVERSAMPLING)
    highest = np.abs(padded, out=padded)
    for column in between.T:
        np.maximum(highest, column, out=highest)
    return highest[64:-64]


def _smoothed(gain: npt.NDArray[Any], sample_rate: int) -> npt.NDArray[np.float64]:
    """A gain that changes slowly and is nowhere above the one that is needed."""
    width = max(1, round(_LOOK_AHEAD_SECONDS * sample_rate))
    padded = np.pad(gain, 2 * width, constant_values=1.0)
    views = np.lib.stride_tricks.sliding_window_view(padded, 2 * width + 1)
    lowest = views.min(axis=1)
    window = np.hanning(2 * width + 3)[1:-1]
    smooth: npt.NDArray[np.float64] = np.convolve(lowest, window / window.sum(), mode="valid")
    return smooth
