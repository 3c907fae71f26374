"""Driving the compiled engine in the tests."""

from __future__ import annotations

from typing import Any

import numpy as np
from csm_ggml import _core
from numpy.typing import NDArray

from .scenes import Prompt

GREEDY: dict[str, Any] = {"temperature": 0.0, "depth_temperature": 0.0}


def open_slot(engine: _core.Engine, prompt: Prompt, **settings: Any) -> int:
    """A new slot that has been given the prompt."""
    slot = engine.open(**settings)
    engine.append(slot, prompt.text, prompt.audio)
    return slot


def speak(engine: _core.Engine, slots: list[int], frames: int) -> NDArray[np.int32]:
    """So many frames for each of the slots, side by side: (slots, frames, codebooks)."""
    return np.stack([engine.step(slots)[0] for _ in range(frames)], axis=1)


def speak_alone(
    model: _core.Model, prompt: Prompt, frames: int, **settings: Any
) -> NDArray[np.int32]:
    """So many frames of one utterance in an engine of its own: (frames, codebooks)."""
    engine = _core.Engine(model)
    return speak(engine, [open_slot(engine, prompt, **settings)], frames)[0]


def prefill_logits(model: _core.Model, prompt: Prompt) -> NDArray[np.float32]:
    """First-codebook logits after every row (n, codes), all of them from one prefill."""
    engine = _core.Engine(model)
    slot = engine.open(**GREEDY)
    logits = engine.append(slot, prompt.text, prompt.audio, return_logits=True)
    # the last row stays pending until something follows it
    last = engine.append(slot, prompt.text[:1], prompt.audio[:1], return_logits=True)
    assert logits is not None and last is not None
    return np.concatenate([logits, last])


def forced_logits(
    model: _core.Model, prompt: Prompt, codes: NDArray[np.int32]
) -> NDArray[np.float32]:
    """Logits (frames, codebooks, codes) of all steps while codes (frames, codebooks) are spoken."""
    engine = _core.Engine(model)
    slot = open_slot(engine, prompt, **GREEDY)
    logits = []
    for frame in codes:
        spoken, of_frame = engine.step([slot], forced=frame[None], return_logits=True)
        assert of_frame is not None and np.array_equal(spoken[0], frame)
        logits.append(of_frame[0])
    return np.stack(logits)
