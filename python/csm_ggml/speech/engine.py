"""What the loops around the compiled engine ask of it, and what they count."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from csm_ggml.voices.prompt import Rows

# Rows given to the backbone in one call: between calls Ctrl-C is noticed.
PREFILL_ROWS = 256


class Engine(Protocol):
    """The part of `_core.Engine` that is used."""

    @property
    def slots(self) -> int: ...  # noqa: D102
    @property
    def context(self) -> int: ...  # noqa: D102
    def open(  # noqa: D102
        self,
        *,
        seed: int,
        temperature: float,
        top_k: int,
        top_p: float,
        depth_temperature: float,
        depth_top_k: int,
        depth_top_p: float,
    ) -> int: ...
    def close(self, slot: int) -> None: ...  # noqa: D102
    def reseed(  # noqa: D102
        self,
        slot: int,
        *,
        seed: int,
        temperature: float,
        top_k: int,
        top_p: float,
        depth_temperature: float,
        depth_top_k: int,
        depth_top_p: float,
    ) -> None: ...
    def append(  # noqa: D102
        self, slot: int, text: npt.NDArray[np.int32], audio: npt.NDArray[np.int32]
    ) -> Any: ...
    def step(self, slots: Sequence[int]) -> tuple[npt.NDArray[np.int32], Any]: ...  # noqa: D102
    def position(self, slot: int) -> int: ...  # noqa: D102
    def rewind(self, slot: int, rows: int) -> None: ...  # noqa: D102
    def save_prefix(self, slot: int) -> bytes: ...  # noqa: D102
    def load_prefix(self, slot: int, data: bytes) -> None: ...  # noqa: D102


@dataclass
class Costs:
    """What a request has cost so far; see `Stats` for the fields."""

    frames: int = 0
    prefill_rows: int = 0
    prefill_seconds: float = 0.0
    lm_seconds: float = 0.0


def prefill(engine: Engine, slot: int, rows: Rows, costs: Costs) -> None:
    """Append rows to a slot; add to the costs."""
    started = time.perf_counter()
    for start in range(0, len(rows), PREFILL_ROWS):
        part = rows[start : start + PREFILL_ROWS]
        engine.append(slot, part.text, part.audio)
    costs.prefill_seconds += time.perf_counter() - started
    costs.prefill_rows += len(rows)
