"""Results for people: tables in Markdown, as docs/PERFORMANCE.md shows them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

# Heading, key, format.
_Column = tuple[str, str, str]

_SPEECH: list[_Column] = [
    ("batch", "batch", "d"),
    ("ms/frame", "ms_per_frame", ".1f"),
    ("min", "ms_per_frame_min", ".1f"),
    ("max", "ms_per_frame_max", ".1f"),
    ("codes/s", "codes_per_second", ".0f"),
    ("RTF", "rtf", ".2f"),
    ("models ms", "lm_ms_per_frame", ".1f"),
    ("memory floor ms", "floor_ms", ".1f"),
    ("arithmetic floor ms", "compute_floor_ms", ".1f"),
    ("limit", "limit", "s"),
    ("times", "limit_ratio", ".2f"),
    ("first audio ms", "time_to_first_audio_ms", ".0f"),
    ("peak MB", "peak_rss_mb", ".0f"),
]
_CONTENTION: list[_Column] = [
    ("contended ms", "contended_ms_per_frame", ".1f"),
    ("ratio", "contention_ratio", ".2f"),
]
_ARRIVALS: list[_Column] = [
    ("batch", "batch", "d"),
    ("static codes/s", "static_codes_per_second", ".0f"),
    ("continuous codes/s", "continuous_codes_per_second", ".0f"),
    ("ratio", "continuous_ratio", ".2f"),
    ("slots taken", "continuous_occupancy", ".2f"),
]
_CALLERS: list[_Column] = [
    ("callers", "callers", "d"),
    ("batch codes/s", "batch_rate", ".0f"),
    ("callers codes/s", "callers_rate", ".0f"),
    ("ratio", "callers_ratio", ".2f"),
    ("arrivals codes/s", "arrivals_rate", ".0f"),
    ("ratio", "arrivals_ratio", ".2f"),
    ("newcomer steps", "newcomer_frames", ".0f"),
    ("ms", "newcomer_ms", ".0f"),
    ("longest gap, frames", "gap", ".2f"),
    ("quiet", "quiet_gap", ".2f"),
    ("engine ms", "engine_ms", ".2f"),
    ("stream ms", "alone_ms", ".2f"),
    ("scheduler us", "overhead_us", ".0f"),
]
_PARTS: list[_Column] = [
    ("batch", "batch", "d"),
    ("prefill rows/s", "prefill_rows_per_second", ".0f"),
    ("Mimi streamed ms", "mimi_ms_per_frame", ".2f"),
    ("Mimi 25 frames ms", "mimi_chunk_ms_per_frame", ".2f"),
    ("Mimi encode ms", "encode_ms_per_frame", ".2f"),
    ("MB read/frame", "frame_mb", ".0f"),
    ("memory GB/s", "read_bandwidth_gbs", ".1f"),
    ("min", "read_bandwidth_gbs_min", ".1f"),
    ("max", "read_bandwidth_gbs_max", ".1f"),
    ("10^9 products", "gigaproducts", ".1f"),
    ("10^9/s at best", "peak_gigaproducts", ".0f"),
]


def format_report(document: dict[str, Any]) -> str:
    """The whole report.

    Args:
        document: With the keys machine, settings and rows of the JSON results.
    """
    machine, settings, rows = (document[key] for key in ("machine", "settings", "rows"))
    tables = _callers_tables(rows) if settings["callers"] else _speech_tables(settings, rows)
    return "\n".join([*_heading(machine, settings), *tables])


def _heading(machine: dict[str, Any], settings: dict[str, Any]) -> list[str]:
    memory = machine["memory_bytes"]
    load = settings["load_average_before"]
    return [
        f"CPU       {machine['cpu']}, {machine['physical_cores']} cores "
        f"({machine['logical_processors']} logical processors) usable"
        + (f", {memory / 2**30:.0f} GiB" if memory else ""),
        f"features  {' '.join(machine['cpu_features'])}",
        f"kernels   {machine['instruction_set'] or 'those of ggml only'}",
        f"build     csm-ggml {machine['csm_ggml']}, ggml {machine['ggml']} "
        f"({machine['ggml_commit']}), Python {machine['python']}, {machine['system']}",
        f"model     {settings['model']}",
        f"run       {settings['device']}, {settings['threads']} threads, "
        f"{settings['frames']} frames in {settings['rounds']} rounds, load average before: "
        + ("unknown" if load is None else f"{load:.2f}"),
        "",
    ]


def _callers_tables(rows: Sequence[dict[str, Any]]) -> list[str]:
    return [
        "Callers: medians; threads that each call stream(), against generate_batch()",
        "",
        *_table(_CALLERS, rows),
    ]


def _speech_tables(settings: dict[str, Any], rows: Sequence[dict[str, Any]]) -> list[str]:
    lines = [
        "Speech: medians; a frame of the whole batch, from prompt to sound",
        "",
        *_table(_SPEECH + (_CONTENTION if settings["contention"] else []), rows),
        "",
        "Parts: medians; Mimi per frame of one utterance",
        "",
        *_table(_PARTS, rows),
    ]
    if settings["arrivals"]:
        lines += [
            "",
            "Continuous batching: medians; requests of 1 to 6 seconds join and leave at any time",
            "",
            *_table(_ARRIVALS, rows),
        ]
    return lines


def format_table(headings: Sequence[str], cells: Sequence[Sequence[str]]) -> list[str]:
    """Lines of a Markdown table; the first column is left, the others right aligned."""
    widths = [max(len(row[n]) for row in [headings, *cells]) for n in range(len(headings))]
    rule = [f":{'-' * (widths[0] - 1)}", *("-" * (width - 1) + ":" for width in widths[1:])]
    lines = []
    for row in (headings, rule, *cells):
        first, *others = row
        padded = [first.ljust(widths[0])]
        padded += [cell.rjust(width) for cell, width in zip(others, widths[1:], strict=True)]
        lines.append(f"| {' | '.join(padded)} |")
    return lines


def _table(columns: Sequence[_Column], rows: Sequence[dict[str, Any]]) -> list[str]:
    cells = [
        [type_label(row), *(_cell(row[key], form) for _, key, form in columns)] for row in rows
    ]
    return format_table(["type", *(heading for heading, _, _ in columns)], cells)


def type_label(row: dict[str, Any]) -> str:
    """What a row's number formats are called, and its instruction set where it was asked for."""
    label = str(row["type"])
    if row["depth_type"] != row["type"]:
        label += f", depth {row['depth_type']}"
    return f"{label}, {row['isa']}" if row.get("isa") else label


def _cell(value: Any, form: str) -> str:
    return "-" if value is None else format(value, form)
