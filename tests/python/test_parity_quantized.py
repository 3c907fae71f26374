"""Quantized weights keep the direction of the logits."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from csm_ggml import _core
from numpy.typing import NDArray
from reference import engines, scenes
from reference.recipes import WIDE

# Smallest cosine between the logits of quantized and F32 weights, all positions taken together.
COSINES = {"f16": 0.99999, "bf16": 0.9999, "q8_0": 0.999, "q4_0": 0.99, "q4_k": 0.99}
COSINES |= {"q6_k": 0.999, "q5_k": 0.995, "iq4_nl": 0.985}


def cosine(a: NDArray[np.float32], b: NDArray[np.float32]) -> float:
    x, y = a.astype(np.float64).ravel(), b.astype(np.float64).ravel()
    return float(x @ y / np.sqrt((x @ x) * (y @ y)))


@pytest.mark.parametrize("type", COSINES)
def test_logits(model: Callable[..., _core.Model], type: str) -> None:
    """Of prefill and of steps, each beside the F32 weights' on the same rows."""
    prompt, codes = scenes.text_prompt(WIDE), scenes.forced_codes(WIDE)
    exact, quantized = model("wide"), model("wide", type)
    assert quantized.weight_bytes < exact.weight_bytes
    for kind, run in (
        ("prefill", lambda m: engines.prefill_logits(m, prompt)),
        ("backbone steps", lambda m: engines.forced_logits(m, prompt, codes)[:, 0]),
        ("depth steps", lambda m: engines.forced_logits(m, prompt, codes)[:, 1:]),
    ):
        found = cosine(run(exact), run(quantized))
        assert found >= COSINES[type], f"{type}, {kind}: cosine {found:.5f}"


def test_half_precision_cache(model: Callable[..., _core.Model]) -> None:
    """Keys and values in F16, which quantized models use: next to no change."""
    prompt, logits = scenes.text_prompt(WIDE), {}
    for kind in ("f32", "f16"):
        engine = _core.Engine(model("wide"), kv_type=kind)
        slot = engines.open_slot(engine, prompt, **engines.GREEDY)
        forced = scenes.forced_codes(WIDE)[:1]
        _, logits[kind] = engine.step([slot], forced=forced, return_logits=True)
    assert cosine(logits["f32"], logits["f16"]) >= 0.99999
