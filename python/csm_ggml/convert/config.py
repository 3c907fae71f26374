"""Hyper-parameters of a checkpoint, and their keys in our GGUF files (docs/GGUF.md)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from math import prod
from typing import Any

from csm_ggml._core import ModelFormatError

FORMAT_VERSION = 1
ARCHITECTURE = "csm"


@dataclass(frozen=True)
class TransformerConfig:
    """Sizes of the backbone or of the depth decoder."""

    block_count: int
    embedding_length: int
    feed_forward_length: int
    head_count: int
    head_count_kv: int
    head_dim: int
    rms_epsilon: float = 1e-5
    freq_base: float = 500_000.0


@dataclass(frozen=True)
class MimiConfig:
    """Sizes of the codec; the defaults are Mimi's own."""

    sample_rate: int = 24_000
    hidden_size: int = 512
    num_filters: int = 64
    upsampling_ratios: tuple[int, ...] = (8, 6, 5, 4)
    kernel_size: int = 7
    last_kernel_size: int = 3
    residual_kernel_size: int = 3
    num_residual_layers: int = 1
    dilation_growth_rate: int = 2
    compress: int = 2
    resample_stride: int = 2
    block_count: int = 8
    feed_forward_length: int = 2048
    head_count: int = 8
    head_count_kv: int = 8
    head_dim: int = 64
    sliding_window: int = 250
    norm_epsilon: float = 1e-5
    freq_base: float = 10_000.0
    codebook_size: int = 2048
    codebook_dim: int = 256
    semantic_codebooks: int = 1

    @property
    def frame_size(self) -> int:
        """Samples in a frame."""
        return prod(self.upsampling_ratios) * self.resample_stride


@dataclass(frozen=True)
class GenerationConfig:
    """Defaults of whoever speaks; what is None is left to the engine."""

    temperature: float | None = None
    top_k: int | None = None
    top_p: float | None = None
    depth_temperature: float | None = None
    depth_top_k: int | None = None
    depth_top_p: float | None = None
    piece_characters: int | None = None


@dataclass(frozen=True)
class ModelConfig:
    """Everything but the tokenizer's text ids."""

    codebooks: int
    audio_vocab_size: int
    text_vocab_size: int
    context_length: int
    backbone: TransformerConfig
    depth: TransformerConfig
    mimi: MimiConfig
    generation: GenerationConfig = field(default_factory=GenerationConfig)
    name: str | None = None


_MODEL_KEYS = {
    "csm.codebooks": "codebooks",
    "csm.audio_vocab_size": "audio_vocab_size",
    "csm.text_vocab_size": "text_vocab_size",
    "csm.context_length": "context_length",
}
_TRANSFORMER_KEYS = {
    "block_count": "block_count",
    "embedding_length": "embedding_length",
    "feed_forward_length": "feed_forward_length",
    "attention.head_count": "head_count",
    "attention.head_count_kv": "head_count_kv",
    "attention.head_dim": "head_dim",
    "attention.layer_norm_rms_epsilon": "rms_epsilon",
    "rope.freq_base": "freq_base",
}
_MIMI_TRANSFORMER_KEYS = {
    "block_count": "block_count",
    "feed_forward_length": "feed_forward_length",
    "attention.head_count": "head_count",
    "attention.head_count_kv": "head_count_kv",
    "attention.head_dim": "head_dim",
    "attention.sliding_window": "sliding_window",
    "attention.layer_norm_epsilon": "norm_epsilon",
    "rope.freq_base": "freq_base",
}
_MIMI_KEYS = {
    **{
        f"mimi.{f.name}": f.name
        for f in fields(MimiConfig)
        if f.name not in _MIMI_TRANSFORMER_KEYS.values()
    },
    **{f"mimi.transformer.{key}": name for key, name in _MIMI_TRANSFORMER_KEYS.items()},
}
_FLOATS = {"rms_epsilon", "norm_epsilon", "freq_base"}

# The greatest sizes that the engine loads.
_MOST_MODEL = {
    "codebooks": 256,
    "audio_vocab_size": 1 << 16,
    "text_vocab_size": 1 << 24,
    "context_length": 1 << 20,
}
_MOST_TRANSFORMER = {
    "block_count": 512,
    "embedding_length": 1 << 16,
    "feed_forward_length": 1 << 20,
    "head_count": 1 << 16,
    "head_count_kv": 1 << 16,
    "head_dim": 1 << 16,
}
_MOST_MIMI = {
    "sample_rate": 1 << 20,
    "hidden_size": 1 << 16,
    "num_filters": 1 << 16,
    "kernel_size": 64,
    "last_kernel_size": 64,
    "residual_kernel_size": 64,
    "num_residual_layers": 8,
    "dilation_growth_rate": 1024,
    "compress": 1 << 16,
    "resample_stride": 64,
    "block_count": 128,
    "feed_forward_length": 1 << 16,
    "head_count": 1 << 16,
    "head_count_kv": 1 << 16,
    "head_dim": 1 << 16,
    "sliding_window": 1 << 13,
    "codebook_size": 1 << 20,
    "codebook_dim": 1 << 16,
    "semantic_codebooks": 256,
}
MOST_RATIOS = 8
MOST_RATIO = 64
_MOST_FRAME = 1 << 16


def to_metadata(config: ModelConfig) -> dict[str, Any]:
    """GGUF keys and values of the hyper-parameters: floats for f32 keys, ints for u32 ones."""
    keys: dict[str, Any] = {"csm.format_version": FORMAT_VERSION}
    if config.name:
        # Names of files need not be text.
        keys["general.name"] = config.name.encode(errors="backslashreplace").decode()
    keys |= {key: getattr(config, name) for key, name in _MODEL_KEYS.items()}
    for part in ("backbone", "depth"):
        sizes = getattr(config, part)
        keys |= {f"csm.{part}.{key}": getattr(sizes, n) for key, n in _TRANSFORMER_KEYS.items()}
    for setting in fields(GenerationConfig):
        value = getattr(config.generation, setting.name)
        if value is not None:
            keys[f"csm.generation.{setting.name}"] = value
    keys |= {key: getattr(config.mimi, name) for key, name in _MIMI_KEYS.items()}
    keys["mimi.upsampling_ratios"] = list(config.mimi.upsampling_ratios)
    return keys


def from_metadata(keys: Mapping[str, Any], where: str) -> ModelConfig:
    """The inverse of `to_metadata`.

    Raises:
        ModelFormatError: a key is missing or holds something else than it should.
    """
    version = keys.get("csm.format_version")
    if version != FORMAT_VERSION:
        raise ModelFormatError(
            f"{where}: csm.format_version is {version!r}, expected {FORMAT_VERSION}"
        )
    language = {
        part: TransformerConfig(
            **{n: _get(keys, f"csm.{part}.{key}", n, where) for key, n in _TRANSFORMER_KEYS.items()}
        )
        for part in ("backbone", "depth")
    }
    mimi = {name: _get(keys, key, name, where) for key, name in _MIMI_KEYS.items()}
    config = ModelConfig(
        **{name: _get(keys, key, name, where) for key, name in _MODEL_KEYS.items()},
        backbone=language["backbone"],
        depth=language["depth"],
        mimi=MimiConfig(**mimi),
        generation=GenerationConfig(
            **{f.name: _default(keys, f.name, where) for f in fields(GenerationConfig)}
        ),
        name=name if isinstance(name := keys.get("general.name"), str) else None,
    )
    check(config, where)
    return config


# Characters of a piece of a long text: the bounds of the option of this name.
LEAST_PIECE, MOST_PIECE = 20, 100_000


def _default(keys: Mapping[str, Any], name: str, where: str) -> Any:
    value = keys.get(f"csm.generation.{name}")
    if value is None:
        return None
    if name == "piece_characters":
        if not _is_size(value) or not LEAST_PIECE <= value <= MOST_PIECE:
            raise ModelFormatError(
                f"{where}: csm.generation.{name} is {value!r}, expected {LEAST_PIECE} to "
                f"{MOST_PIECE} characters"
            )
        return value
    kinds = int if name.endswith("top_k") else int | float
    if isinstance(value, bool) or not isinstance(value, kinds) or not 0 <= value < 1 << 31:
        raise ModelFormatError(
            f"{where}: csm.generation.{name} is {value!r}, expected a number of at least 0"
        )
    return value


def _get(keys: Mapping[str, Any], key: str, name: str, where: str) -> Any:
    value = keys.get(key)
    if name == "upsampling_ratios":
        if isinstance(value, list | tuple) and value and all(_is_size(v) for v in value):
            return tuple(value)
        raise ModelFormatError(f"{where}: {key} is {value!r}, expected a list of positive integers")
    if name in _FLOATS:
        if isinstance(value, int | float) and not isinstance(value, bool) and 1e-30 < value < 1e30:
            return float(value)
        raise ModelFormatError(f"{where}: {key} is {value!r}, expected a positive number")
    if not _is_size(value):
        raise ModelFormatError(f"{where}: {key} is {value!r}, expected a positive integer")
    return value


def _is_size(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 < value < 1 << 31


def check(config: ModelConfig, where: str) -> None:
    """Raise ModelFormatError where hyper-parameters contradict each other."""

    def require(holds: bool, what: str) -> None:
        if not holds:
            raise ModelFormatError(f"{where}: {what}")

    def within(sizes: object, most: Mapping[str, int], of: str) -> None:
        for name, limit in most.items():
            value = getattr(sizes, name)
            require(1 <= value <= limit, f"{of}{name} is {value}, expected 1 to {limit}")

    within(config, _MOST_MODEL, "")
    within(config.mimi, _MOST_MIMI, "the codec's ")
    ratios = config.mimi.upsampling_ratios
    require(
        1 <= len(ratios) <= MOST_RATIOS and all(1 <= ratio <= MOST_RATIO for ratio in ratios),
        f"upsampling_ratios are {list(ratios)[:20]}, expected 1 to {MOST_RATIOS} of 1 to "
        f"{MOST_RATIO}",
    )
    require(
        config.mimi.frame_size <= _MOST_FRAME,
        f"a frame has {config.mimi.frame_size} samples, expected at most {_MOST_FRAME}",
    )
    for part in ("backbone", "depth"):
        sizes: TransformerConfig = getattr(config, part)
        within(sizes, _MOST_TRANSFORMER, f"the {part}'s ")
        require(
            sizes.head_count % sizes.head_count_kv == 0,
            f"{part} has {sizes.head_count} query heads, expected a multiple of its "
            f"{sizes.head_count_kv} key/value heads",
        )
        require(sizes.head_dim % 2 == 0, f"{part} head width is {sizes.head_dim}, expected even")
    mimi = config.mimi
    require(
        mimi.head_count % mimi.head_count_kv == 0,
        f"the codec has {mimi.head_count} query heads, expected a multiple of its "
        f"{mimi.head_count_kv} key/value heads",
    )
    require(mimi.head_dim % 2 == 0, f"codec head width is {mimi.head_dim}, expected even")
    require(
        config.codebooks > mimi.semantic_codebooks,
        f"{config.codebooks} codebooks, expected more than the {mimi.semantic_codebooks} semantic "
        "ones of the codec",
    )
    require(
        config.audio_vocab_size >= mimi.codebook_size,
        f"{config.audio_vocab_size} audio codes in the language model, expected at least the "
        f"codec's {mimi.codebook_size}",
    )
    require(
        mimi.num_filters // mimi.compress > 0,
        f"{mimi.num_filters} filters compressed by {mimi.compress} leave no channel",
    )
