"""An engine and a codec that follow a script: for the logic around them, which needs no model."""

import pickle
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

CODEBOOKS = 2
FRAME_SIZE = 4
END = (0, 0)


@dataclass
class Slot:
    script: list[tuple[int, ...]]
    settings: dict[str, float]
    rows: list[tuple[int, ...]] = field(default_factory=list)


class ScriptedEngine:
    """Slots, in the order of opening, say what the scripts hold, then the number of the step."""

    def __init__(
        self, scripts: Sequence[list[tuple[int, ...]]], *, slots: int = 1, context: int = 64
    ) -> None:
        self.slots = slots
        self.context = context
        self.open_slots: dict[int, Slot] = {}
        self.history: list[Slot] = []
        self.steps: list[list[int]] = []
        self._scripts = [list(script) for script in scripts]

    def open(self, **settings: float) -> int:
        slot = next(i for i in range(self.slots) if i not in self.open_slots)
        self.open_slots[slot] = Slot(self._scripts.pop(0), settings)
        self.history.append(self.open_slots[slot])
        return slot

    def close(self, slot: int) -> None:
        del self.open_slots[slot]

    def append(self, slot: int, text: np.ndarray, audio: np.ndarray) -> None:
        assert text.dtype == np.int32
        assert audio.dtype == np.int32
        assert audio.shape == (len(text), CODEBOOKS)
        rows = self.open_slots[slot].rows
        rows += [
            (int(t),) if t >= 0 else tuple(map(int, a)) for t, a in zip(text, audio, strict=True)
        ]
        assert len(rows) <= self.context

    def step(self, slots: Sequence[int]) -> tuple[np.ndarray, None]:
        self.steps.append(list(slots))
        frames = []
        for slot in slots:
            state = self.open_slots[slot]
            frame = state.script.pop(0) if state.script else (len(self.steps), 7)
            state.rows.append(frame)
            assert len(state.rows) <= self.context
            frames.append(frame)
        return np.array(frames, np.int32), None

    def position(self, slot: int) -> int:
        return len(self.open_slots[slot].rows)

    def rewind(self, slot: int, rows: int) -> None:
        # As in the engine: what is pending, the last row, cannot stay.
        assert rows < max(1, len(self.open_slots[slot].rows))
        del self.open_slots[slot].rows[rows:]

    def reseed(self, slot: int, **settings: float) -> None:
        self.open_slots[slot].settings = settings

    def save_prefix(self, slot: int) -> bytes:
        return pickle.dumps(self.open_slots[slot].rows[:-1])

    def load_prefix(self, slot: int, data: bytes) -> None:
        self.open_slots[slot].rows = pickle.loads(data)


class CountingDecoder:
    """Samples tell the frame's first code and how many frames of its stream went before."""

    def __init__(self, streams: int) -> None:
        self.frames = [0] * streams

    def decode(self, codes: np.ndarray, streams: Sequence[int]) -> np.ndarray:
        assert codes.dtype == np.int32
        samples = np.zeros((len(streams), codes.shape[1], FRAME_SIZE), np.float32)
        for own, sound, stream in zip(codes, samples, streams, strict=True):
            for frame, part in zip(own, sound, strict=True):
                part[:] = frame[0] + self.frames[stream] / 1000
                self.frames[stream] += 1
        return samples.reshape(len(streams), -1)

    def reset(self, stream: int) -> None:
        self.frames[stream] = 0


class LetterTokenizer:
    """One id a character."""

    bos = 1000
    eos = 1001

    def encode_turn(self, speaker: int, text: str) -> list[int]:
        return [self.bos, *map(ord, f"[{speaker}]{text}"), self.eos]
