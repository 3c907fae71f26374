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
        instruction_set: Of the package's own kernels; None for a build without them.
        isa: The same where the configuration asked for it, else None.
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
        gigaproducts: 10**9 multiply-adds with weights that a frame of the batch takes.
        peak_gigaproducts, peak_gigaproducts_min, peak_gigaproducts_max: What the same threads do in
            a second with the instructions in use, in the mix of types that a frame has.
        compute_floor_ms: What these multiply-adds take.
        limit, limit_ratio: "memory" or "arithmetic", whichever takes longer, and how many times
            that the language models take.
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
        "instruction_set": result.instruction_set,
        "isa": measured.configuration.instruction_set,
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
    row |= _limits(measured, row["lm_ms_per_frame"])
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


_LIMIT_KEYS = (
    "read_bandwidth_gbs",
    "read_bandwidth_gbs_min",
    "read_bandwidth_gbs_max",
    "floor_ms",
    "gigaproducts",
    "peak_gigaproducts",
    "peak_gigaproducts_min",
    "peak_gigaproducts_max",
    "compute_floor_ms",
    "limit",
    "limit_ratio",
)


def _limits(measured: Measured, lm_ms: float) -> dict[str, Any]:
    """Both floors; None for what is not known, which off the CPU is all."""
    row: dict[str, Any] = dict.fromkeys(_LIMIT_KEYS)
    result = measured.result
    if not result.on_cpu:
        return row
    speeds = measured.limits.bandwidth
    floors = {"memory": result.frame_bytes / median(speeds) * 1e3}
    row["read_bandwidth_gbs"] = median(speeds) / 1e9
    row["read_bandwidth_gbs_min"] = min(speeds) / 1e9
    row["read_bandwidth_gbs_max"] = max(speeds) / 1e9
    row["floor_ms"] = floors["memory"]
    backbone, depth = result.frame_products
    row["gigaproducts"] = measured.configuration.batch * (backbone + depth) / 1e9
    if measured.limits.peaks:
        # Types in a frame's own mix: so many seconds for each, together for all products.
        speeds = [
            (backbone + depth) / (backbone / first + depth / second)
            for first, second in measured.limits.peaks
        ]
        row["peak_gigaproducts"] = median(speeds) / 1e9
        row["peak_gigaproducts_min"] = min(speeds) / 1e9
        row["peak_gigaproducts_max"] = max(speeds) / 1e9
        floors["arithmetic"] = row["gigaproducts"] / row["peak_gigaproducts"] * 1e3
        row["compute_floor_ms"] = floors["arithmetic"]
    row["limit"] = max(floors, key=lambda limit: floors[limit])
    row["limit_ratio"] = lm_ms / max(floors.values())
    return row


def _milliseconds(seconds: Sequence[float]) -> float | None:
    return median(seconds) * 1e3 if seconds else None
