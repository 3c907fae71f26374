"""Subtitles: when which sentence is heard.

When a piece begins and ends is known to the sample. Within it, sentences are placed by their share
of its characters, and moved to the silence that fits best there.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from csm_ggml.text.sentences import split_sentences

KINDS = ("srt", "vtt")
_WINDOW_SECONDS = 0.01
# Below the loudest tenth of a second of the piece, in dB, and for so long: a pause.
_SILENCE_DB = -32.0
_LEAST_SECONDS = 0.08
# A pause that is longer by a second is as good as one nearer by so many seconds.
_LENGTH_COUNTS = 3.0


@dataclass(frozen=True)
class Cue:
    """A sentence.

    Attributes:
        start: Seconds from the beginning of the file.
        end: The same.
        text: What is said.
    """

    start: float
    end: float
    text: str


def sentence_spans(
    text: str, samples: npt.NDArray[np.int16], sample_rate: int
) -> list[tuple[str, float, float]]:
    """Where the sentences of a piece lie in its sound.

    Args:
        text: Of the piece.
        samples: (n,) of its speech, without the pause before it.
        sample_rate: Samples per second.

    Returns:
        Sentence, start and end in seconds, in order.
    """
    sentences = split_sentences(text)
    duration = len(samples) / sample_rate
    if len(sentences) < 2:
        return [(text, 0.0, duration)]
    sizes = np.cumsum([len(sentence) for sentence in sentences])
    wanted = [float(size) / float(sizes[-1]) * duration for size in sizes[:-1]]
    ends = _match(wanted, _silences(samples, sample_rate))
    starts = [0.0, *(end for _, end in ends)]
    stops = [*(start for start, _ in ends), duration]
    return [
        (sentence, start, max(start, stop))
        for sentence, start, stop in zip(sentences, starts, stops, strict=True)
    ]


def subtitles(cues: Iterable[Cue], kind: str) -> str:
    """The file.

    Args:
        cues: In order.
        kind: "srt" or "vtt".
    """
    parts = ["WEBVTT\n"] if kind == "vtt" else []
    mark = "." if kind == "vtt" else ","
    for number, cue in enumerate(cues, 1):
        text = cue.text.replace("-->", "->")
        if kind == "vtt":
            text = text.replace("&", "&amp;").replace("<", "&lt;")
        times = f"{_time(cue.start, mark)} --> {_time(cue.end, mark)}"
        parts.append(f"{number}\n{times}\n{text}\n")
    return "\n".join(parts)


def _time(seconds: float, mark: str) -> str:
    milliseconds = round(1000 * seconds)
    whole, rest = divmod(milliseconds, 1000)
    return f"{whole // 3600:02}:{whole // 60 % 60:02}:{whole % 60:02}{mark}{rest:03}"


def _silences(samples: npt.NDArray[np.int16], sample_rate: int) -> list[tuple[float, float]]:
    """Pauses within the sound: start and end in seconds."""
    window = max(1, round(_WINDOW_SECONDS * sample_rate))
    count = len(samples) // window
    if count < 3:
        return []
    blocks = samples[: count * window].reshape(count, window).astype(np.float64)
    power = np.mean(np.square(blocks), axis=1)
    loudest = float(np.percentile(power, 95))
    quiet = power < max(loudest * 10 ** (_SILENCE_DB / 10), 1.0)
    edges = np.flatnonzero(np.diff(np.concatenate([[False], quiet, [False]]).astype(np.int8)))
    runs = [(int(a), int(b)) for a, b in zip(edges[::2], edges[1::2], strict=True)]
    step = window / sample_rate
    least = round(_LEAST_SECONDS / _WINDOW_SECONDS)
    return [(a * step, b * step) for a, b in runs if b - a >= least and a > 0 and b < count]


def _match(wanted: list[float], silences: list[tuple[float, float]]) -> list[tuple[float, float]]:
    """A pause for each time at which one is expected, in order, that fit best all together.

    Where there are too few, a time stays as it is.
    """
    costs = np.full((len(wanted) + 1, len(silences) + 1), math.inf)
    costs[0, :] = 0.0
    # Without a pause: as dear as one that is a second away.
    taken = np.zeros(costs.shape, np.int8)
    for i, time in enumerate(wanted, 1):
        costs[i, 0] = costs[i - 1, 0] + 1.0
        taken[i, 0] = 2
        for j, (start, end) in enumerate(silences, 1):
            own = abs((start + end) / 2 - time) - _LENGTH_COUNTS * (end - start)
            choices = (costs[i, j - 1], costs[i - 1, j - 1] + own, costs[i - 1, j] + 1.0)
            taken[i, j] = int(np.argmin(choices))
            costs[i, j] = choices[taken[i, j]]
    found: list[tuple[float, float]] = []
    i, j = len(wanted), len(silences)
    while i:
        if taken[i, j] == 0 and j:
            j -= 1
        elif taken[i, j] == 1:
            found.append(silences[j - 1])
            i, j = i - 1, j - 1
        else:
            found.append((wanted[i - 1], wanted[i - 1]))
            i -= 1
    found.reverse()
    # A time without a pause must not lie before one that has been passed.
    ordered: list[tuple[float, float]] = []
    at = 0.0
    for start, end in found:
        start, end = max(start, at), max(end, at)
        ordered.append((start, end))
        at = end
    return ordered
