"""Silence that a text asks for: `[pause 0.5s]`."""

from __future__ import annotations

import re

# Seconds of silence where a blank line parts what one speaker says, or something stands that has no
# sound, and of a `[pause]` that names none.
PARAGRAPH_PAUSE = 0.7
USUAL_PAUSE = 0.5
LONGEST_PAUSE = 60.0

_PAUSE = re.compile(r"\[\s{0,9}pause\b([^\[\]\n]{0,40})\]", re.IGNORECASE)
# Marks that belong to the words before a pause: "wait [pause 1s]."
_LEFT_BEHIND = re.compile(r"\s*([.,;:!?\u2026]+)(?=\s|$)")
_SECONDS = re.compile(
    r"\s*[:=]?\s*(\d+(?:\.\d*)?|\.\d+)\s*(ms|milliseconds?|s|sec|seconds?)?\s*", re.I
)


def split_pauses(text: str) -> list[tuple[float | None, str]]:
    """Cut a text at its pauses.

    Args:
        text: Clean text (`csm_ggml.text.characters.clean`).

    Returns:
        Seconds and the text after them; None for the text before the first pause, which may be
        empty. `[pause]` alone is half a second.

    Raises:
        ValueError: If a pause has a length that cannot be read, or one of more than 60 seconds.
    """
    parts = _PAUSE.split(text)
    cut: list[tuple[float | None, str]] = [(None, parts[0])]
    for length, following in zip(parts[1::2], parts[2::2], strict=True):
        if marks := _LEFT_BEHIND.match(following):
            before, said = cut[-1]
            cut[-1] = before, said.rstrip() + marks[1] if said.strip() else said
            following = following[marks.end() :]
        cut.append((_seconds(length), following))
    return cut


def _seconds(length: str) -> float:
    if not length.strip():
        return USUAL_PAUSE
    match = _SECONDS.fullmatch(length)
    if match is None:
        raise ValueError(
            f"[pause{length}] is no pause: expected seconds or milliseconds, "
            "as in [pause 0.5s] or [pause 500ms]"
        )
    seconds = float(match[1]) / (1000 if (match[2] or "s").lower().startswith("m") else 1)
    if seconds > LONGEST_PAUSE:
        raise ValueError(f"[pause{length}] is too long: at most {LONGEST_PAUSE:g} seconds")
    return seconds
