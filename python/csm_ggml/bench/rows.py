"""From timings to the rows of the results."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median
from typing import Any

from csm_ggml.bench.runner import Measured
from csm_ggml.bench.session import UTTERANCE_SECONDS, Samples


def make_row(measured: Measured) -> dict[str, Any]:
    """One row of the JSON results; medians, None for what was not or could not be measured.

    Keys:
        type, depth_type, batch, threads, device: The configuration.
        frames: How many were timed.
        ms_per_frame, ms_per_frame_min, ms_per_frame_max: One frame of every utterance of the
            batch as sound: language models, streamed codec, and the prompt's share.
        codes_per_second: Of all utterances together.
        rtf: Time over duration of speech for each utterance; below 1 it is made faster than heard.
        lm_ms_per_frame: The language models alone, for one frame of the whole batch.
        mimi_ms_per_frame: The streamed codec for one frame of one utterance.
        mimi_chunk_ms_per_frame, encode_ms_per_frame: Codec and encoder, 25 frames at a time.
        prefill_rows_per_second: Of a long prompt of audio.
        time_to_first_audio_ms: From a short prompt until every utterance's first frame is sound.
        peak_rss_mb: Memory at its highest, in 10**6 bytes.
        frame_mb: Weights that a frame reads, in 10**6 bytes.
        read_bandwidth_gbs, read_bandwidth_gbs_min, read_bandwidth_gbs_max: 10**9 bytes per second.
        floor_ms: What reading these weights takes.
        contended_ms_per_frame, contention_ratio: While another process keeps a core busy, and how
            many times that is the quiet time.
        static_codes_per_second, continuous_codes_per_second, continuous_ratio: Of a batch that
            stays, and while requests of random lengths join and leave at random times; the second
            over the first, of each turn.
        continuous_occupancy: Mean share of the slots that were taken then.
    """
    result = measured.result
    samples = result.samples
    batch = measured.configuration.batch
    prompt = median(samples.prompt) / (UTTERANCE_SECONDS * result.frame_rate)
    frames = [lm + mimi + prompt for lm, mimi in zip(samples.lm, samples.mimi, strict=True)]
    frame = median(frames)
    context_row = median(samples.context_row)
    row: dict[str, Any] = {
        "type": measured.configuration.type,
        "depth_type": measured.configuration.depth_type,
        "batch": batch,
        "threads": result.threads,
        "device": result.device,
        "frames": len(frames),
        "ms_per_frame": frame * 1e3,
        "ms_per_frame_min": min(frames) * 1e3,
        "ms_per_frame_max": max(frames) * 1e3,
        "codes_per_second": batch * result.codebooks / frame,
        "rtf": frame * result.frame_rate,
        "lm_ms_per_frame": median(samples.lm) * 1e3,
        "mimi_ms_per_frame": median(samples.mimi) * 1e3 / batch,
        "mimi_chunk_ms_per_frame": _milliseconds(samples.mimi_chunk),
        "encode_ms_per_frame": _milliseconds(samples.encode),
        "prefill_rows_per_second": 1 / context_row,
        "time_to_first_audio_ms": _milliseconds(samples.first_audio),
        "peak_rss_mb": None if result.peak_bytes is None else result.peak_bytes / 1e6,
        "frame_mb": result.frame_bytes / 1e6,
    }
    row |= _bandwidth(measured) if result.on_cpu else dict.fromkeys(_BANDWIDTH_KEYS)
    contended = _milliseconds([seconds + prompt for seconds in samples.contended])
    row["contended_ms_per_frame"] = contended
    row["contention_ratio"] = None if contended is None else contended / row["ms_per_frame"]
    return row | _arrivals(samples)


def _arrivals(samples: Samples) -> dict[str, float | None]:
    both = zip(samples.continuous_rate, samples.static_rate, strict=True)
    values = {
        "static_codes_per_second": samples.static_rate,
        "continuous_codes_per_second": samples.continuous_rate,
        "continuous_ratio": [continuous / static for continuous, static in both],
        "continuous_occupancy": samples.occupancy,
    }
    return {key: median(found) if found else None for key, found in values.items()}


_BANDWIDTH_KEYS = (
    "read_bandwidth_gbs",
    "read_bandwidth_gbs_min",
    "read_bandwidth_gbs_max",
    "floor_ms",
)


def _bandwidth(measured: Measured) -> dict[str, float]:
    speeds = measured.bandwidth
    values = (
        median(speeds) / 1e9,
        min(speeds) / 1e9,
        max(speeds) / 1e9,
        measured.result.frame_bytes / median(speeds) * 1e3,
    )
    return dict(zip(_BANDWIDTH_KEYS, values, strict=True))


def _milliseconds(seconds: Sequence[float]) -> float | None:
    return median(seconds) * 1e3 if seconds else None
