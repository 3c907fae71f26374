"""The best seconds of a longer recording: speech without clipping, from one pause to another."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

_WINDOW_SECONDS = 0.01
# Quieter than the louder parts by so much, for so long: a pause. Some of it stays at both ends.
_PAUSE_DB = -30.0
_SOFTEST_DB = -60.0
_PAUSE_SECONDS = 0.15
_KEEP_SECONDS = 0.1
# So many samples at full scale in a row are clipped.
_FULL_SCALE = 0.999
_CLIPPED = 3
# Part of the wanted length that is enough.
_LEAST_SHARE = 0.5
_LEAST_SPEECH = 0.3
# What clipping in one hundredth of a second costs, in seconds of speech.
_CLIPPING_COSTS = 5.0


@dataclass(frozen=True)
class Span:
    """A part of a recording.

    Attributes:
        start: Its first sample.
        end: The sample after its last.
        speech: Share of it that is speech, 0 to 1.
        clipped: Whether some of it is clipped.
    """

    start: int
    end: int
    speech: float
    clipped: bool


def best_span(samples: npt.NDArray[np.float32], sample_rate: int, seconds: float) -> Span:
    """Find what a voice is best made of.

    Args:
        samples: (n,), full scale is 1.
        sample_rate: Samples per second.
        seconds: Its length at most; it has half of that at least, where the pauses allow it.

    Raises:
        ValueError: If there is no speech in it.
    """
    window = max(1, round(_WINDOW_SECONDS * sample_rate))
    count = len(samples) // window
    blocks = samples[: count * window].reshape(count, window)
    power = np.mean(np.square(blocks, dtype=np.float64), axis=1) if count else np.zeros(0)
    loud = float(np.percentile(power, 95)) if count else 0.0
    heard = power > max(loud * 10 ** (_PAUSE_DB / 10), 10 ** (_SOFTEST_DB / 10))
    runs = _speech_runs(heard, round(_PAUSE_SECONDS / _WINDOW_SECONDS))
    if not runs:
        raise ValueError("there is no speech in the recording: it is silent throughout")
    clipped = _clipped(samples, window, count)
    speech_sums = np.concatenate([[0], np.cumsum(heard)])
    clipped_sums = np.concatenate([[0], np.cumsum(clipped)])
    most = round(seconds / _WINDOW_SECONDS)
    keep = round(_KEEP_SECONDS / _WINDOW_SECONDS)
    best: tuple[float, int, int] | None = None
    for first in range(len(runs)):
        start = max(0, runs[first][0] - keep)
        for last in range(first, len(runs)):
            end = min(count, runs[last][1] + keep)
            if end - start > most:
                break
            speech = float(speech_sums[end] - speech_sums[start]) * _WINDOW_SECONDS
            cost = _CLIPPING_COSTS * float(clipped_sums[end] - clipped_sums[start])
            # Of equals the one with fewer pauses.
            score = speech - cost - 0.1 * (end - start) * _WINDOW_SECONDS
            if best is None or score > best[0]:
                best = score, start, end
    if best is None or (best[2] - best[1]) < _LEAST_SHARE * most < count:
        # No pause is near enough: what has most speech, from the beginning of a run on.
        starts = [max(0, start - keep) for start, _ in runs]
        totals = [
            speech_sums[min(count, at + most)]
            - speech_sums[at]
            - 100 * _CLIPPING_COSTS * (clipped_sums[min(count, at + most)] - clipped_sums[at])
            for at in starts
        ]
        at = starts[int(np.argmax(totals))]
        alone = (0.0, at, min(count, at + most))
        best = alone if best is None else best
    _, start, end = best
    return Span(
        start * window,
        end * window,
        float(speech_sums[end] - speech_sums[start]) / max(1, end - start),
        bool(clipped_sums[end] > clipped_sums[start]),
    )


def _speech_runs(heard: npt.NDArray[np.bool_], pause: int) -> list[tuple[int, int]]:
    """Speech between pauses: first window, and the one after the last."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], heard, [False]]).astype(np.int8)))
    runs: list[tuple[int, int]] = []
    for start, end in zip(edges[::2], edges[1::2], strict=True):
        if runs and start - runs[-1][1] < pause:
            runs[-1] = runs[-1][0], int(end)
        else:
            runs.append((int(start), int(end)))
    least = round(_LEAST_SPEECH / _WINDOW_SECONDS)
    return [run for run in runs if run[1] - run[0] >= least]


def _clipped(samples: npt.NDArray[np.float32], window: int, count: int) -> npt.NDArray[np.bool_]:
    """Whether something is clipped in each window."""
    full = np.abs(samples[: count * window]) >= _FULL_SCALE
    several = full.copy()
    for shift in range(1, _CLIPPED):
        several[shift:] &= full[:-shift]
    several[: _CLIPPED - 1] = False
    clipped: npt.NDArray[np.bool_] = several.reshape(count, window).any(axis=1)
    return clipped
