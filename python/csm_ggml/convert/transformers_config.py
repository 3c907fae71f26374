"""Hyper-parameters from the configuration files that transformers writes.

A key that a file leaves out has the default that transformers gives it. What the engine cannot do
is refused by name, so that a checkpoint never loads and then sounds wrong.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from math import prod
from pathlib import Path
from typing import Any

from csm_ggml._core import ModelFormatError
from csm_ggml.inputs import MOST_SETTINGS_BYTES, read_whole

from .config import (
    MOST_RATIO,
    MOST_RATIOS,
    GenerationConfig,
    MimiConfig,
    ModelConfig,
    TransformerConfig,
    check,
)
from .rope import Rope, read_rope

_BACKBONE_DEFAULTS = {
    "num_codebooks": 32,
    "vocab_size": 2051,
    "text_vocab_size": 128256,
    "hidden_size": 2048,
    "intermediate_size": 8192,
    "num_hidden_layers": 16,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "max_position_embeddings": 2048,
    "rms_norm_eps": 1e-5,
}
_DEPTH_DEFAULTS = {
    "num_codebooks": 32,
    "vocab_size": 2051,
    "backbone_hidden_size": 2048,
    "hidden_size": 1024,
    "intermediate_size": 8192,
    "num_hidden_layers": 4,
    "num_attention_heads": 8,
    "num_key_value_heads": 2,
    "max_position_embeddings": 33,
    "rms_norm_eps": 1e-5,
}
_MIMI_DEFAULTS = {
    "sampling_rate": 24_000,
    "hidden_size": 512,
    "num_filters": 64,
    "num_residual_layers": 1,
    "upsampling_ratios": [8, 6, 5, 4],
    "kernel_size": 7,
    "last_kernel_size": 3,
    "residual_kernel_size": 3,
    "dilation_growth_rate": 2,
    "compress": 2,
    "codebook_size": 2048,
    "codebook_dim": 256,
    "num_semantic_quantizers": 1,
    "vector_quantization_hidden_dimension": 256,
    "upsample_groups": 512,
    "num_hidden_layers": 8,
    "intermediate_size": 2048,
    "num_attention_heads": 8,
    "num_key_value_heads": 8,
    "norm_eps": 1e-5,
    "sliding_window": 250,
}

_LANGUAGE_FIXED: dict[str, tuple[Any, Any]] = {
    "hidden_act": ("silu", "silu"),
    "attention_bias": (False, False),
    "mlp_bias": (False, False),
}
_MIMI_FIXED: dict[str, tuple[Any, Any]] = {
    "audio_channels": (1, 1),
    "use_causal_conv": (True, True),
    "pad_mode": ("constant", "constant"),
    "trim_right_ratio": (1.0, 1.0),
    "use_conv_shortcut": (False, False),
    "hidden_act": ("gelu", "gelu"),
    "attention_bias": (False, False),
}
"""Features of which the engine has one variant: key to (transformers' default, the engine's)."""


class _Section:
    """One object of a configuration, with defaults and messages that name the file."""

    def __init__(self, values: Mapping[str, Any], defaults: Mapping[str, Any], where: str):
        self.values, self.defaults, self.where = values, defaults, where

    def raw(self, key: str) -> Any:
        value = self.values.get(key)
        return self.defaults.get(key) if value is None else value

    def size(self, key: str) -> int:
        value = self.raw(key)
        if isinstance(value, bool) or not isinstance(value, int) or not 0 < value < 1 << 31:
            raise self.error(key, value, "a positive integer")
        return value

    def number(self, key: str) -> float:
        value = self.raw(key)
        known = isinstance(value, int | float) and not isinstance(value, bool)
        if not known or not 1e-30 < value < 1e30:
            raise self.error(key, value, "a positive number")
        return float(value)

    def head_dim(self) -> int:
        if self.values.get("head_dim") is not None:
            return self.size("head_dim")
        return self.size("hidden_size") // self.size("num_attention_heads")

    def key_value_heads(self) -> int:
        # an explicit null means no grouping; a missing key means the default
        if "num_key_value_heads" in self.values and self.values["num_key_value_heads"] is None:
            return self.size("num_attention_heads")
        return self.size("num_key_value_heads")

    def require(self, key: str, expected: Any, got: Any = None) -> None:
        got = self.raw(key) if got is None else got
        if got != expected:
            raise self.error(key, got, repr(expected))

    def require_fixed(self, features: Mapping[str, tuple[Any, Any]]) -> None:
        for key, (default, expected) in features.items():
            value = self.values.get(key)
            self.require(key, expected, default if value is None else value)

    def error(self, key: str, got: Any, expected: str) -> ModelFormatError:
        return ModelFormatError(f"{self.where}: {key} is {shown(got)}, expected {expected}")


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object in a file; raises ModelFormatError if it is anything else."""
    try:
        content = json.loads(read_whole(path, MOST_SETTINGS_BYTES).decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise ModelFormatError(f"{path}: not JSON: {error}") from None
    if not isinstance(content, dict):
        raise ModelFormatError(f"{path}: a JSON {type(content).__name__}, expected an object")
    return content


def shown(value: object) -> str:
    """A value for a message, however large or deep it is."""
    try:
        text = repr(value)
    except (ValueError, RecursionError):
        return f"a {type(value).__name__} beyond reason"
    return text if len(text) <= 200 else text[:197] + "..."


def _section(config: Mapping[str, Any], key: str, where: str) -> Mapping[str, Any]:
    value = config.get(key) or {}
    if not isinstance(value, Mapping):
        raise ModelFormatError(f"{where}: {key} is {value!r}, expected an object")
    return value


def read_model(
    config: Mapping[str, Any], where: str, mimi: MimiConfig, generation: GenerationConfig
) -> tuple[ModelConfig, dict[str, Rope]]:
    """Hyper-parameters of a CSM `config.json`.

    Args:
        config: its content.
        where: its path, for messages.
        mimi: the codec's hyper-parameters.
        generation: sampling defaults.

    Returns:
        The configuration, and the rotary settings of `backbone` and `depth`.

    Raises:
        ModelFormatError: a value is unusable, or names a feature that the engine does not have.
    """
    backbone = _Section(config, _BACKBONE_DEFAULTS, where)
    backbone.require("model_type", "csm", config.get("model_type", "csm"))
    depth_where = f"{where}: depth_decoder_config"
    depth = _Section(_section(config, "depth_decoder_config", where), _DEPTH_DEFAULTS, depth_where)
    for section in (backbone, depth):
        section.require_fixed(_LANGUAGE_FIXED)
    depth.require("num_codebooks", backbone.size("num_codebooks"))
    depth.require("vocab_size", backbone.size("vocab_size"))
    depth.require("backbone_hidden_size", backbone.size("hidden_size"))
    ropes = {
        "backbone": read_rope(config, where, 500_000.0),
        "depth": read_rope(depth.values, depth_where, 500_000.0),
    }
    model = ModelConfig(
        codebooks=backbone.size("num_codebooks"),
        audio_vocab_size=backbone.size("vocab_size"),
        text_vocab_size=backbone.size("text_vocab_size"),
        context_length=backbone.size("max_position_embeddings"),
        backbone=_transformer(backbone, ropes["backbone"]),
        depth=_transformer(depth, ropes["depth"]),
        mimi=mimi,
        generation=generation,
    )
    check(model, where)
    return model, ropes


def _transformer(section: _Section, rope: Rope) -> TransformerConfig:
    return TransformerConfig(
        block_count=section.size("num_hidden_layers"),
        embedding_length=section.size("hidden_size"),
        feed_forward_length=section.size("intermediate_size"),
        head_count=section.size("num_attention_heads"),
        head_count_kv=section.key_value_heads(),
        head_dim=section.head_dim(),
        rms_epsilon=section.number("rms_norm_eps"),
        freq_base=rope.freq_base,
    )


def read_mimi(config: Mapping[str, Any], where: str) -> MimiConfig:
    """Hyper-parameters of a Mimi `config.json`, or of `codec_config` in a CSM one.

    Raises:
        ModelFormatError: a value is unusable, or names a feature that the engine does not have.
    """
    section = _Section(config, _MIMI_DEFAULTS, where)
    kind = config.get("model_type", "mimi")
    if kind != "mimi":
        raise ModelFormatError(f"{where}: model_type is {kind!r}, expected 'mimi'")
    section.require_fixed(_MIMI_FIXED)
    section.require("upsample_groups", section.size("hidden_size"))
    section.require("vector_quantization_hidden_dimension", section.size("codebook_dim"))
    ratios = section.raw("upsampling_ratios")
    known = isinstance(ratios, list) and 1 <= len(ratios) <= MOST_RATIOS
    if not known or not all(type(r) is int and 0 < r <= MOST_RATIO for r in ratios):
        raise section.error(
            "upsampling_ratios", ratios, f"1 to {MOST_RATIOS} integers of 1 to {MOST_RATIO}"
        )
    rope = read_rope(config, where, 10_000.0)
    if rope.scaling is not None:
        raise section.error("rope_type", "llama3", "'default'")
    return MimiConfig(
        sample_rate=section.size("sampling_rate"),
        hidden_size=section.size("hidden_size"),
        num_filters=section.size("num_filters"),
        upsampling_ratios=tuple(ratios),
        kernel_size=section.size("kernel_size"),
        last_kernel_size=section.size("last_kernel_size"),
        residual_kernel_size=section.size("residual_kernel_size"),
        num_residual_layers=section.size("num_residual_layers"),
        dilation_growth_rate=section.size("dilation_growth_rate"),
        compress=section.size("compress"),
        resample_stride=_resample_stride(section, ratios),
        block_count=section.size("num_hidden_layers"),
        feed_forward_length=section.size("intermediate_size"),
        head_count=section.size("num_attention_heads"),
        head_count_kv=section.key_value_heads(),
        head_dim=section.head_dim(),
        sliding_window=section.size("sliding_window"),
        norm_epsilon=section.number("norm_eps"),
        freq_base=rope.freq_base,
        codebook_size=section.size("codebook_size"),
        codebook_dim=section.size("codebook_dim"),
        semantic_codebooks=section.size("num_semantic_quantizers"),
    )


def _resample_stride(section: _Section, ratios: list[int]) -> int:
    # transformers derives it from two frame rates, of which older files state the lower one
    hop = prod(ratios)
    rate = section.size("sampling_rate")
    inner = -(-rate // hop)
    key = "frame_rate" if section.raw("frame_rate") is not None else "_frame_rate"
    outer = section.number(key) if section.raw(key) is not None else rate / (2 * hop)
    if outer >= inner:
        raise section.error("frame_rate", outer, f"less than {inner}, the rate of the latents")
    return int(inner / outer)


def read_generation(path: Path) -> GenerationConfig:
    """Sampling defaults of a `generation_config.json`; all None if there is no such file.

    Raises:
        ModelFormatError: a value is unusable.
    """
    if not path.is_file():
        return GenerationConfig()
    config = read_json(path)
    temperature, top_k, top_p = _sampling(config, "", path)
    depth = _sampling(config, "depth_decoder_", path)
    return GenerationConfig(temperature, top_k, top_p, *depth)


def _sampling(
    config: Mapping[str, Any], prefix: str, path: Path
) -> tuple[float | None, int | None, float | None]:
    """Temperature, top-k and top-p of one of the two models."""

    def number(key: str, upper: float) -> float | None:
        value = config.get(prefix + key)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= upper:
            raise ModelFormatError(
                f"{path}: {prefix}{key} is {value!r}, expected a number of 0 to {upper:g}"
            )
        return float(value)

    sample = config.get(prefix + "do_sample")
    temperature, top_p = number("temperature", 100.0), number("top_p", 1.0)
    top_k = number("top_k", 1e9)
    if sample is False:
        temperature = 0.0
    elif sample is True and temperature is None:
        temperature = 1.0
    return temperature, None if top_k is None else int(top_k), top_p
