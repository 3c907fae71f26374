"""Rotary frequency factors: csm-1b's published numbers, and both spellings of its scaling."""

from __future__ import annotations

import numpy as np
import pytest
from checkpoints import LLAMA3_BACKBONE, LLAMA3_DEPTH
from csm_ggml.convert.rope import Llama3Scaling, Rope, read_rope

# entries that are neither 1 (before) nor 32 (after), to the digits they are published with
BACKBONE = {15: 1.651329, 16: 3.292262, 17: 9.666729}
DEPTH = {29: 1.234937, 30: 1.651329, 31: 2.276660, 32: 3.292262, 33: 5.171596, 34: 9.666729}


@pytest.mark.parametrize(("head_dim", "between"), [(64, BACKBONE), (128, DEPTH)])
def test_factors_of_csm_1b(head_dim: int, between: dict[int, float]) -> None:
    wanted = np.ones(head_dim // 2)
    wanted[max(between) + 1 :] = 32
    for index, value in between.items():
        wanted[index] = value
    factors = Rope(500_000.0, Llama3Scaling()).factors(head_dim)
    assert factors.dtype == np.float32
    np.testing.assert_allclose(factors, wanted, rtol=3e-7)


@pytest.mark.parametrize(("settings", "head_dim"), [(LLAMA3_BACKBONE, 64), (LLAMA3_DEPTH, 128)])
def test_transformers_numbers_mean_the_same(settings: dict[str, float], head_dim: int) -> None:
    rope = read_rope({"rope_parameters": settings}, "config.json", 10_000.0)
    wanted = Rope(500_000.0, Llama3Scaling()).factors(head_dim)
    np.testing.assert_allclose(rope.factors(head_dim), wanted, rtol=1e-6)


def test_without_scaling() -> None:
    for settings in ({}, {"rope_scaling": None}, {"rope_parameters": {"rope_type": "default"}}):
        rope = read_rope(settings, "config.json", 10_000.0)
        assert rope.freq_base == 10_000.0
        np.testing.assert_array_equal(rope.factors(8), np.ones(4))


@pytest.mark.parity
@pytest.mark.parametrize("settings", [LLAMA3_BACKBONE, LLAMA3_DEPTH])
@pytest.mark.parametrize("head_dim", [32, 64, 128])
def test_frequencies_are_those_of_transformers(settings: dict[str, float], head_dim: int) -> None:
    from transformers import CsmConfig
    from transformers.models.csm.modeling_csm import CsmRotaryEmbedding

    config = CsmConfig(head_dim=head_dim, rope_parameters=settings)
    theirs = CsmRotaryEmbedding(config).inv_freq.numpy()
    base = 500_000.0 ** (-np.arange(0, head_dim, 2) / head_dim)
    factors = read_rope({"rope_parameters": settings}, "", 1.0).factors(head_dim)
    np.testing.assert_allclose(base / factors, theirs, rtol=1e-6)
