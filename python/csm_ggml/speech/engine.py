"""What the scheduler asks of the compiled engine and of the codec, and what it counts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

# A slot, and text and audio of rows to append to it.
SlotRows = tuple[int, npt.NDArray[np.int32], npt.NDArray[np.int32]]


class Engine(Protocol):
    """The part of `_core.Engine` that is used."""

    @property
    def slots(self) -> int: ...
    @property
    def context(self) -> int: ...
    def open(
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
    def close(self, slot: int) -> None: ...
    def reseed(
        self,
        slot: int,
        *,
        seed: int,
        attempt: int,
        temperature: float,
        top_k: int,
        top_p: float,
        depth_temperature: float,
        depth_top_k: int,
        depth_top_p: float,
    ) -> None: ...
    def append(
        self, slot: int, text: npt.NDArray[np.int32], audio: npt.NDArray[np.int32]
    ) -> Any: ...
    def step(
        self, slots: Sequence[int], *, prompt: SlotRows | None = None
    ) -> tuple[npt.NDArray[np.int32], Any]: ...
    def position(self, slot: int) -> int: ...
    def rewind(self, slot: int, rows: int) -> None: ...
    def save_prefix(self, slot: int) -> bytes: ...
    def load_prefix(self, slot: int, data: bytes) -> None: ...
    def save_slot(self, slot: int) -> bytes: ...
    def load_slot(self, slot: int, data: bytes) -> None: ...
    def trim(self) -> None: ...


class Decoder(Protocol):
    """The part of `_core.MimiDecoder` that is used."""

    def decode(
        self, codes: npt.NDArray[np.int32], streams: Sequence[int]
    ) -> npt.NDArray[np.float32]: ...
    def reset(self, stream: int) -> None: ...
    def save(self, stream: int) -> bytes: ...
    def load(self, stream: int, data: bytes) -> None: ...
    def trim(self) -> None: ...


@dataclass
class Costs:
    """What a request has cost so far; see `Stats` for the fields."""

    frames: int = 0
    prefill_rows: int = 0
    prefill_seconds: float = 0.0
    lm_seconds: float = 0.0
    codec_seconds: float = 0.0
