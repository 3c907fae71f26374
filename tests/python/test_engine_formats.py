"""What utterances may not depend on, in the number formats that have kernels of their own.

Most tests of exactness use F32. Other weights take other paths: packed for integer dot products
(Q4_0, Q8_0, IQ4_NL, Q4_K, Q5_K, Q6_K), ggml's dot products of single rows (Q2_K and the like), or
panels that are widened (F16); and their keys and values are F16.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from csm_ggml import _core
from csm_ggml.speech.options import Sampling
from numpy.typing import NDArray
from reference import engines, scenes
from reference.compare import assert_codes_equal
from reference.recipes import WIDE

Load = Callable[..., _core.Model]

TYPES = ("f16", "bf16", "q8_0", "q6_k", "q5_k", "q4_k", "q4_0", "q2_k", "iq4_nl")
FRAMES = 3
UTTERANCES = 4


def prompts() -> list[scenes.Prompt]:
    """Prompts of different lengths, every other one with audio."""
    made = []
    for i in range(UTTERANCES):
        words = scenes.segment_text(WIDE, f"format {i}", 3 + 4 * i)
        parts = [scenes.text_rows(words, WIDE.codebooks)]
        if i % 2:
            heard = scenes.audio_rows(scenes.codes(WIDE, f"format {i}", 5 * i))
            parts += [heard, scenes.text_rows(words, WIDE.codebooks)]
        made.append(scenes.join(*parts))
    return made


def settings(i: int) -> dict[str, Any]:
    return engines.GREEDY if i == 0 else {"seed": i}


@pytest.fixture(scope="module")
def alone(model: Load) -> Callable[[str], list[NDArray[np.int32]]]:
    """What each prompt says in an engine of its own, on one thread."""
    spoken: dict[str, list[NDArray[np.int32]]] = {}

    def get(type: str) -> list[NDArray[np.int32]]:
        if type not in spoken:
            spoken[type] = [
                engines.speak_alone(model("wide", type), prompt, FRAMES, **settings(i))
                for i, prompt in enumerate(prompts())
            ]
        return spoken[type]

    return get


@pytest.mark.parametrize("type", TYPES)
@pytest.mark.parametrize("threads", [1, 2])
def test_batch_says_what_each_says_alone(
    type: str, threads: int, model: Load, alone: Callable[[str], list[NDArray[np.int32]]]
) -> None:
    engine = _core.Engine(model("wide", type, threads), slots=UTTERANCES)
    order = [3, 0, 2, 1]
    slots = {i: engines.open_slot(engine, prompts()[i], **settings(i)) for i in order}
    spoken = engines.speak(engine, [slots[i] for i in range(UTTERANCES)], FRAMES)
    for i, wanted in enumerate(alone(type)):
        assert_codes_equal(spoken[i], wanted, f"{type}, {threads} threads, utterance {i}")


@pytest.mark.parametrize("type", TYPES)
def test_utterances_come_and_go(
    type: str, model: Load, alone: Callable[[str], list[NDArray[np.int32]]]
) -> None:
    """Each begins a frame after the one before; in between, slots are free."""
    engine = _core.Engine(model("wide", type), slots=3)
    said: list[list[NDArray[np.int32]]] = [[] for _ in range(UTTERANCES)]
    waiting, running = list(range(UTTERANCES)), {}
    while waiting or running:
        if waiting and len(running) < 3:
            i = waiting.pop(0)
            running[i] = engines.open_slot(engine, prompts()[i], **settings(i))
        now = list(running)
        codes, _ = engine.step([running[i] for i in now])
        for i, frame in zip(now, codes, strict=True):
            said[i].append(frame)
            if len(said[i]) == FRAMES:
                engine.close(running.pop(i))
    for i, wanted in enumerate(alone(type)):
        assert_codes_equal(np.stack(said[i]), wanted, f"{type}, utterance {i}")


@pytest.mark.parametrize("type", TYPES)
def test_rows_in_pieces_prefixes_and_rewinding(
    type: str, model: Load, alone: Callable[[str], list[NDArray[np.int32]]]
) -> None:
    """However the keys and values of a prompt came about, it is gone on in the same way."""
    number = 3
    prompt, wanted = prompts()[number], alone(type)[number]
    engine = _core.Engine(model("wide", type), slots=2)
    slot = engine.open(**settings(number))
    for begin, end in pairwise((0, 1, 9, 16, len(prompt.text))):
        engine.append(slot, prompt.text[begin:end], prompt.audio[begin:end])
    data = engine.save_prefix(slot)
    said = engines.speak(engine, [slot], FRAMES)[0]
    assert_codes_equal(said, wanted, f"{type}, rows in pieces")

    other = engine.open(**settings(number))
    engine.load_prefix(other, data)
    engine.append(other, prompt.text[-1:], prompt.audio[-1:])
    said = engines.speak(engine, [other], FRAMES)[0]
    assert_codes_equal(said, wanted, f"{type}, saved rows")
    engine.close(other)

    engine.rewind(slot, 9)
    engine.reseed(slot, **(Sampling().as_dict() | settings(number)))
    engine.append(slot, prompt.text[9:], prompt.audio[9:])
    said = engines.speak(engine, [slot], FRAMES)[0]
    assert_codes_equal(said, wanted, f"{type}, after rewinding")
