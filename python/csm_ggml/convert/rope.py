"""Rotary frequency factors: what ggml divides the angle of each pair by."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from csm_ggml._core import ModelFormatError


@dataclass(frozen=True)
class Llama3Scaling:
    """Llama 3's stretching of the low frequencies.

    Only `original_context / low_freq_factor` and `original_context / high_freq_factor` matter,
    which is why checkpoints with different numbers may mean the same.
    """

    factor: float = 32.0
    low_freq_factor: float = 1.0
    high_freq_factor: float = 4.0
    original_context: float = 8192.0

    def factors(self, head_dim: int, freq_base: float) -> NDArray[np.float32]:
        """Factors of the `head_dim / 2` pairs."""
        frequency = freq_base ** (-np.arange(0, head_dim, 2, dtype=np.float64) / head_dim)
        wavelength = 2 * math.pi / frequency
        longest = self.original_context / self.low_freq_factor
        shortest = self.original_context / self.high_freq_factor
        share = (self.original_context / wavelength - self.low_freq_factor) / (
            self.high_freq_factor - self.low_freq_factor
        )
        blended = (1 - share) / self.factor + share
        scale = np.where(wavelength > longest, 1 / self.factor, blended)
        scale = np.where(wavelength < shortest, 1.0, scale)
        return (1 / scale).astype(np.float32)


def no_scaling(head_dim: int) -> NDArray[np.float32]:
    """Factors that change nothing."""
    return np.ones(head_dim // 2, np.float32)


@dataclass(frozen=True)
class Rope:
    """Base and scaling of a transformer's rotary embedding."""

    freq_base: float
    scaling: Llama3Scaling | None = None

    def factors(self, head_dim: int) -> NDArray[np.float32]:
        """Frequency factors for heads of this width, (head_dim / 2,)."""
        if self.scaling is None:
            return no_scaling(head_dim)
        return self.scaling.factors(head_dim, self.freq_base)


def read_rope(config: Mapping[str, object], where: str, default_base: float) -> Rope:
    """Rotary settings of a transformers configuration, in its older or newer form.

    Args:
        config: holds `rope_parameters`, or `rope_theta` and `rope_scaling`.
        where: the file and section, for messages.
        default_base: what transformers assumes without `rope_theta`.

    Raises:
        ModelFormatError: a kind of scaling that the engine does not have, or a missing number.
    """
    settings = config.get("rope_parameters") or config.get("rope_scaling") or {}
    if not isinstance(settings, Mapping):
        raise ModelFormatError(f"{where}: the RoPE settings are {settings!r}, expected an object")
    base = settings.get("rope_theta") or config.get("rope_theta") or default_base
    kind = settings.get("rope_type") or settings.get("type") or "default"
    partial = settings.get("partial_rotary_factor", config.get("partial_rotary_factor")) or 1.0
    if partial != 1.0:
        raise ModelFormatError(f"{where}: partial_rotary_factor is {partial}, expected 1")
    if kind == "default":
        return Rope(_number(base, "rope_theta", where))
    if kind != "llama3":
        raise ModelFormatError(f"{where}: rope_type is {kind!r}, expected 'default' or 'llama3'")
    context = settings.get("original_max_position_embeddings") or config.get(
        "max_position_embeddings"
    )
    scaling = Llama3Scaling(
        _number(settings.get("factor"), "factor", where),
        _number(settings.get("low_freq_factor"), "low_freq_factor", where),
        _number(settings.get("high_freq_factor"), "high_freq_factor", where),
        _number(context, "original_max_position_embeddings", where),
    )
    if scaling.high_freq_factor <= scaling.low_freq_factor:
        raise ModelFormatError(
            f"{where}: high_freq_factor is {scaling.high_freq_factor}, expected more than "
            f"low_freq_factor ({scaling.low_freq_factor})"
        )
    return Rope(_number(base, "rope_theta", where), scaling)


def _number(value: object, key: str, where: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 1e-30 < value < 1e30:
        raise ModelFormatError(f"{where}: {key} is {value!r}, expected a positive number")
    return float(value)
