"""Rotary embeddings: frequency factors, and the permutation between the two pairings."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import gguf as gguf_py
import numpy as np
import pytest
from numpy.typing import NDArray
from reference.checkpoint import draw_tensors
from reference.recipes import RECIPES, Recipe

if TYPE_CHECKING:
    from reference.runner import Reference

# csm-1b's factors as the model's specification lists them, by head width: factors before these are
# 1, after them 32.
CSM_1B_FACTORS = {
    64: (15, [1.651329, 3.292262, 9.666729]),
    128: (29, [1.234937, 1.651329, 2.276660, 3.292262, 5.171596, 9.666729]),
}


def tensors(path: Path) -> dict[str, NDArray[np.float32]]:
    """All tensors of an F32 file by name, in numpy order."""
    reader = gguf_py.GGUFReader(path)
    return {
        t.name: np.array(t.data).reshape(tuple(int(n) for n in t.shape[::-1]))
        for t in reader.tensors
    }


def closed_form(config: dict[str, object]) -> NDArray[np.float64]:
    """Factors that divide the plain angles, from a transformers configuration."""
    rope, half = config["rope_parameters"], int(config["head_dim"]) // 2  # type: ignore[call-overload]
    assert isinstance(rope, dict)
    if rope["rope_type"] == "default":
        return np.ones(half)
    wavelength = 2 * np.pi * rope["rope_theta"] ** (np.arange(half) / half)
    original, factor = rope["original_max_position_embeddings"], rope["factor"]
    low, high = rope["low_freq_factor"], rope["high_freq_factor"]
    smooth = np.clip((original / wavelength - low) / (high - low), 0, 1)
    return 1 / ((1 - smooth) / factor + smooth)


@pytest.mark.parametrize("part", ["backbone", "depth"])
def test_factors(recipe: Recipe, gguf: Callable[..., Path], part: str) -> None:
    config = recipe.config if part == "backbone" else recipe.config["depth_decoder_config"]
    factors = tensors(gguf(recipe.name))[f"{part}.rope_freqs.weight"]
    np.testing.assert_allclose(factors, closed_form(config), rtol=2e-6)


@pytest.mark.parametrize("part", ["backbone", "depth"])
def test_factors_of_csm_1b(gguf: Callable[..., Path], part: str) -> None:
    """Head widths 64 and 128 with the numbers that transformers' configuration of csm-1b has."""
    factors = tensors(gguf("wide"))[f"{part}.rope_freqs.weight"]
    first, listed = CSM_1B_FACTORS[2 * len(factors)]
    wanted = np.concatenate(
        [np.ones(first), listed, np.full(len(factors) - first - len(listed), 32)]
    )
    np.testing.assert_allclose(factors, wanted, rtol=1e-6)


@pytest.mark.parity
def test_frequencies_of_transformers(
    recipe: Recipe, reference: Callable[[str], Reference], gguf: Callable[..., Path]
) -> None:
    """base ** (-2j / width) / factor is the frequency transformers computes."""
    ours, model = tensors(gguf(recipe.name)), reference(recipe.name).model
    for part, module, config in (
        ("backbone", model.backbone_model, recipe.config),
        ("depth", model.depth_decoder.model, recipe.config["depth_decoder_config"]),
    ):
        factors = ours[f"{part}.rope_freqs.weight"].astype(np.float64)
        base, half = config["rope_parameters"]["rope_theta"], len(factors)
        frequencies = base ** (-np.arange(half) / half) / factors
        np.testing.assert_allclose(frequencies, np.asarray(module.rotary_emb.inv_freq), rtol=3e-6)


def neighbours(rows: NDArray[np.float32], head_dim: int) -> NDArray[np.float32]:
    """Row j and row j + width / 2 of each head become rows 2j and 2j + 1."""
    heads = rows.reshape(-1, 2, head_dim // 2, rows.shape[1])
    return heads.swapaxes(1, 2).reshape(rows.shape)


def halves(rows: NDArray[np.float32], head_dim: int) -> NDArray[np.float32]:
    """The inverse of neighbours."""
    heads = rows.reshape(-1, head_dim // 2, 2, rows.shape[1])
    return heads.swapaxes(1, 2).reshape(rows.shape)


@pytest.mark.parametrize("name", RECIPES)
def test_permutation(name: str, gguf: Callable[..., Path]) -> None:
    """q and k are permuted per head, nothing else is; undone, it is the checkpoint again."""
    theirs, ours = draw_tensors(RECIPES[name]), tensors(gguf(name))
    for prefix, part, config in (
        ("backbone_model", "backbone", RECIPES[name].config),
        ("depth_decoder.model", "depth", RECIPES[name].config["depth_decoder_config"]),
        ("codec_model.encoder_transformer", "mimi.encoder_transformer", RECIPES[name].codec),
        ("codec_model.decoder_transformer", "mimi.decoder_transformer", RECIPES[name].codec),
    ):
        for layer in range(config["num_hidden_layers"]):
            for theirs_name, ours_name in (
                ("q_proj", "attn_q"),
                ("k_proj", "attn_k"),
                ("v_proj", "attn_v"),
                ("o_proj", "attn_output"),
            ):
                source = theirs[f"{prefix}.layers.{layer}.self_attn.{theirs_name}.weight"]
                converted = ours[f"{part}.blk.{layer}.{ours_name}.weight"]
                permuted = theirs_name in ("q_proj", "k_proj")
                wanted = neighbours(source, config["head_dim"]) if permuted else source
                np.testing.assert_array_equal(
                    converted, wanted, f"{part}, layer {layer}, {ours_name}"
                )
                if permuted:
                    np.testing.assert_array_equal(halves(converted, config["head_dim"]), source)
