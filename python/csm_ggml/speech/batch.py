"""Arguments of a batch: what is common to all texts, and what is each one's own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from csm_ggml.speech.options import resolve_seed

# Options whose value is a list: one for each text is a list of lists.
_LISTS = ("voice", "context")


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
        TypeError: If a list of voices or segments also has lists of them, or None.
    """
    per_text: list[dict[str, Any]] = [{} for _ in range(count)]
    for name, value in options.items():
        common = not _is_list(value)
        if name in _LISTS and not common:
            own = [item is None or _is_list(item) for item in value]
            common = not any(own)
            if not common and not all(own):
                raise TypeError(
                    f"{name} must be a list for all texts, or have a list (or None) for each text, "
                    "got both"
                )
        if not common and len(value) != count:
            raise ValueError(
                f"{name} has {len(value)} values, expected one for each of {count} texts"
            )
        for number in range(count):
            per_text[number][name] = value if common else value[number]
    return per_text


def _is_list(value: object) -> bool:
    return isinstance(value, Sequence | np.ndarray) and not isinstance(value, str)
