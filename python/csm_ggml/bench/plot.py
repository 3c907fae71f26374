"""Codes per second, under the roof of memory and arithmetic, and real-time factor, as a picture."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

from csm_ggml.bench.report import type_label
from csm_ggml.files import write_file

_SIZE = (10, 4.5)  # inches
_DOTS_PER_INCH = 150


def save_plot(document: dict[str, Any], path: str | Path) -> None:
    """Draw the rows of a document of results; the format is that of the file's name.

    Raises:
        ModuleNotFoundError: If matplotlib is not installed.
        ValueError: If matplotlib does not know the format.
        OSError: If the file cannot be written.
    """
    # Not through pyplot: that would look for a display.
    from matplotlib.figure import Figure

    figure = Figure(figsize=_SIZE, layout="constrained")
    speed, factor = figure.subplots(1, 2)
    rows = document["rows"]
    for label in dict.fromkeys(type_label(row) for row in rows):
        own = sorted((row for row in rows if type_label(row) == label), key=lambda r: r["batch"])
        batches = [row["batch"] for row in own]
        (line,) = speed.plot(
            batches, [row["codes_per_second"] for row in own], marker="o", label=label
        )
        limit = roof(own[0], batches[-1])
        if limit:
            speed.plot(*limit, color=line.get_color(), linestyle=":", label=f"{label}, limit")
        factor.plot(batches, [row["rtf"] for row in own], marker="o", label=label)
    batches = sorted({row["batch"] for row in rows})
    # An utterance is heard at so many codes per second.
    heard = rows[0]["codes_per_second"] * rows[0]["rtf"] / rows[0]["batch"]
    speed.axhline(heard, color="k", linestyle="--", label="real time, one utterance")
    factor.axhline(1, color="k", linestyle="--", label="real time")
    speed.set_ylabel("codes per second, all utterances")
    factor.set_ylabel("real-time factor of each utterance")
    for axes in (speed, factor):
        axes.set_xlabel("utterances side by side")
        axes.set_xscale("log", base=2)
        axes.set_xticks(batches, [str(batch) for batch in batches])
        axes.minorticks_off()
        axes.set_ylim(bottom=0)
        axes.grid(alpha=0.3)
        axes.legend()
    machine, settings = document["machine"], document["settings"]
    figure.suptitle(f"{machine['cpu']}, {settings['threads']} threads, {settings['device']}")
    picture = io.BytesIO()
    figure.savefig(picture, format=Path(path).suffix[1:].lower(), dpi=_DOTS_PER_INCH)
    write_file(path, picture.getvalue(), "picture")


def roof(row: dict[str, Any], largest: int) -> tuple[list[float], list[float]] | None:
    """The most codes per second of the language models, for batches up to the largest.

    They read the weights once, whatever the batch, and multiply with them for each utterance: so
    the roof rises with the batch until arithmetic takes longer than reading, and is level then.

    Args:
        row: Of the results.
        largest: The largest batch to draw.

    Returns:
        Batches and codes per second where the line bends; None for a row without both floors.
    """
    if not row["compute_floor_ms"]:
        return None
    codes = row["codes_per_second"] * row["ms_per_frame"] / row["batch"]  # thousandths
    reading, multiplying = row["floor_ms"], row["compute_floor_ms"] / row["batch"]
    batches = sorted({1.0, float(largest), min(max(reading / multiplying, 1.0), float(largest))})
    return batches, [batch * codes / max(reading, batch * multiplying) for batch in batches]
