"""An engine and a codec that follow a script: for the logic around them, which needs no model."""

import pickle
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
from csm_ggml import Audio
from csm_ggml.loading.geometry import Geometry
from csm_ggml.speech.options import Length
from csm_ggml.speech.request import Conditioning, Request, Settings
from csm_ggml.speech.scheduler import Scheduler
from csm_ggml.speech.utterance import WHOLE, ChunkSizes, Utterance
from csm_ggml.text.turns import parse_turns
from csm_ggml.voices.prompt import EncodedSegment, PromptBuilder

CODEBOOKS = 2
FRAME_SIZE = 4
RATE = 50
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

    def step(self, slots: Sequence[int], *, prompt: Any = None) -> tuple[np.ndarray, None]:
        if prompt is not None:
            assert prompt[0] not in slots
            self.append(*prompt)
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

    def save_slot(self, slot: int) -> bytes:
        return pickle.dumps(self.open_slots[slot])

    def load_slot(self, slot: int, data: bytes) -> None:
        # Its own script comes with it; that of the opening is for the next one.
        self._scripts.insert(0, self.open_slots[slot].script)
        vars(self.open_slots[slot]).update(vars(pickle.loads(data)))


class HashEngine:
    """Says what its rows, its seed and the number of the frame determine, as a model does.

    It keeps account of its slots like the real one: an open slot has a pending row, what is rewound
    is gone, a slot that is closed is empty.
    """

    def __init__(self, *, slots: int = 1, context: int = 64, end: int = 12) -> None:
        self.slots = slots
        self.context = context
        self.steps: list[list[int]] = []
        self.appended: list[int] = []
        self.joined: list[int] = []  # those of them that were given in a step
        self._end = end  # one frame in so many ends a turn
        self._open: dict[int, dict[str, Any]] = {}

    def open(self, **settings: float) -> int:
        slot = next(i for i in range(self.slots) if i not in self._open)
        self._open[slot] = {"rows": [], "seed": (settings["seed"], 0), "frame": 0}
        return slot

    def close(self, slot: int) -> None:
        del self._open[slot]

    def reseed(self, slot: int, **settings: float) -> None:
        self._open[slot].update(seed=(settings["seed"], settings["attempt"]), frame=0)

    def append(self, slot: int, text: np.ndarray, audio: np.ndarray) -> None:
        rows = self._open[slot]["rows"]
        self.appended.append(len(text))
        rows += [
            (int(t),) if t >= 0 else tuple(map(int, a)) for t, a in zip(text, audio, strict=True)
        ]
        assert len(rows) <= self.context

    def step(self, slots: Sequence[int], *, prompt: Any = None) -> tuple[np.ndarray, None]:
        if prompt is not None:
            assert prompt[0] not in slots
            self.append(*prompt)
            self.joined.append(self.appended[-1])
        assert len(set(slots)) == len(slots)
        self.steps.append(list(slots))
        frames = []
        for slot in slots:
            state = self._open[slot]
            drawn = hash((tuple(state["rows"]), state["seed"], state["frame"]))
            frame = END if drawn % self._end == 0 else (1 + drawn % 49, drawn // 49 % 50)
            state["rows"].append(frame)
            state["frame"] += 1
            assert len(state["rows"]) <= self.context
            frames.append(frame)
        return np.array(frames, np.int32), None

    def position(self, slot: int) -> int:
        return len(self._open[slot]["rows"])

    def rewind(self, slot: int, rows: int) -> None:
        assert rows < max(1, self.position(slot))
        del self._open[slot]["rows"][rows:]

    def save_prefix(self, slot: int) -> bytes:
        return pickle.dumps(self._open[slot]["rows"][:-1])

    def load_prefix(self, slot: int, data: bytes) -> None:
        self._open[slot]["rows"] = pickle.loads(data)

    def save_slot(self, slot: int) -> bytes:
        return pickle.dumps(self._open[slot])

    def load_slot(self, slot: int, data: bytes) -> None:
        self._open[slot] = pickle.loads(data)

    @property
    def idle(self) -> bool:
        """Whether all slots are closed."""
        return not self._open


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

    def save(self, stream: int) -> bytes:
        return pickle.dumps(self.frames[stream])

    def load(self, stream: int, data: bytes) -> None:
        self.frames[stream] = pickle.loads(data)


class LetterTokenizer:
    """One id a character."""

    bos = 1000
    eos = 1001

    def encode_turn(self, speaker: int, text: str) -> list[int]:
        return [self.bos, *map(ord, f"[{speaker}]{text}"), self.eos]


def letter_prompts() -> PromptBuilder:
    return PromptBuilder(LetterTokenizer(), codebooks=CODEBOOKS, audio_vocab_size=51)  # type: ignore[arg-type]


def scheduler_of(engine: Any, *, decoder: Any = CountingDecoder, **settings: Any) -> Scheduler:
    """A scheduler around a fake engine; who waits for a job does the work, unless threads=True."""
    return Scheduler(
        lambda slots: engine,
        decoder,
        letter_prompts(),
        Geometry(RATE, FRAME_SIZE, CODEBOOKS, engine.context),
        **{"slots": engine.slots, "threads": False, **settings},
    )


def request(
    text: str,
    max_frames: int | None = 5,
    *,
    context: Sequence[EncodedSegment] = (),
    seed: int = 1,
    sound: bool = True,
    **settings: Any,
) -> Request:
    return Request(
        turns=tuple(parse_turns(text)),
        seed=seed,
        settings=Settings(length=Length(max_frames), **settings),
        conditioning=Conditioning(context=tuple(context)),
        sound=sound,
    )


def speak(
    engine: Any, *requests: Request, chunks: ChunkSizes = WHOLE, **settings: Any
) -> list[tuple[int, Audio]]:
    """All chunks of requests that are asked for together, each with the number of its request."""
    scheduler = scheduler_of(engine, **settings)
    jobs = [scheduler.submit(each, chunks=chunks) for each in requests]
    return [(number, chunk) for number, job in enumerate(jobs) for chunk in job]


def say_nothing_of(monkeypatch: pytest.MonkeyPatch, *parts: str) -> None:
    """Let all models answer turns that hold one of these texts with nothing; "" is in all."""
    accept = Utterance.accept

    def silenced(self: Utterance, engine: Any, frame: np.ndarray, seconds: float) -> Any:
        text = self.request.turns[self._turn.index].text
        if any(part in text for part in parts):
            frame = np.zeros_like(frame)
        return accept(self, engine, frame, seconds)

    monkeypatch.setattr(Utterance, "accept", silenced)
