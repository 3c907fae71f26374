"""Arguments of a batch: what is common to all texts, and what is each one's own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from csm_ggml.speech.options import resolve_seed
from csm_ggml.voices.segment import Segment


def batch_seeds(seed: int | Sequence[int] | None, count: int) -> list[int | None]:
    """Each text's seed: given one by one, or counted up from the first; None is left to be drawn.

    Raises:
        ValueError: If there is not one for each text, or one is out of range.
    """
    if seed is None:
        return [None] * count
    if isinstance(seed, Sequence | np.ndarray):
        if len(seed) != count:
            raise ValueError(f"seed has {len(seed)} values, expected one for each of {count} texts")
        return list(seed)
    return [resolve_seed(resolve_seed(seed) + number) for number in range(count)]


def batch_options(options: Mapping[str, Any], count: int) -> list[dict[str, Any]]:
    """Each text's options, from options that are common or lists with one value for each text.

    Raises:
        ValueError: If a list has more or fewer values.
    """
    per_text: list[dict[str, Any]] = [{} for _ in range(count)]
    for name, value in options.items():
        common = isinstance(value, str) or not isinstance(value, Sequence | np.ndarray)
        if name == "context" and not common:
            common = len(value) == 0 or isinstance(value[0], Segment)
        if not common and len(value) != count:
            raise ValueError(
                f"{name} has {len(value)} values, expected one for each of {count} texts"
            )
        for number in range(count):
            per_text[number][name] = value if common else value[number]
    return per_text
