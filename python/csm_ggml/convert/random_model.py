"""Checkpoints with random weights, for tests, benchmarks and speaking before a voice is trained.

A full-size one has 1.5 G weights, and quantizing each would take minutes with the slower formats.
So blocks are drawn, not numbers: for each format and scale a pool of blocks is made once, and
every tensor is filled with blocks drawn from it. Rows are then as different as independent ones
for all that speed or numerical tests can see.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from math import prod, sqrt
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from csm_ggml.limits import check_count

from . import types
from .config import ModelConfig, from_metadata, to_metadata
from .layout import Role, Spec, expected
from .policy import TypePolicy
from .presets import PRESETS, Preset, synthetic_vocabulary
from .rope import Rope
from .sources import PathLike
from .writer import Planned, Report, write

_POOL_VALUES = 1 << 20
"""Values in a pool: 4096 blocks of the longest format."""

_CHUNK_VALUES = 1 << 22
"""Values written at once."""


def make_random(
    output: PathLike,
    *,
    preset: str = "tiny",
    type: str = "f32",
    depth_type: str | None = None,
    codec_type: str = "f32",
    seed: int = 0,
    overrides: Mapping[str, Any] | None = None,
    piece_characters: int | None = None,
    encoder: bool = True,
    progress: bool = True,
) -> Report:
    """Write a CSM-shaped checkpoint with random weights.

    The same arguments give the same file. Values are scaled like those of a freshly initialized
    transformer, so that activations stay of order one at any size. Head rows of codes that the
    codec does not have are zero.

    Args:
        output: the GGUF file to write.
        preset: `tiny` (a few megabytes) or `csm-1b` (the sizes of sesame/csm-1b).
        type: ggml type of the language models' matrices.
        depth_type: ggml type of the depth decoder if it shall differ from `type`.
        codec_type: `f32` or `f16`.
        seed: of the random numbers, 0 or more.
        overrides: hyper-parameters that differ from the preset, by their keys in docs/GGUF.md.
        piece_characters: as in `convert`.
        encoder: whether to write the codec's encoder.
        progress: show a bar while writing, if stderr is a terminal.

    Raises:
        ValueError: the preset, a type or an override is unknown, or a number out of range.
        ModelFormatError: the hyper-parameters contradict each other.
        OSError: the file cannot be written.
    """
    policy = TypePolicy(type, depth_type, codec_type)
    if preset not in PRESETS:
        raise ValueError(f"preset={preset!r}: expected one of {', '.join(PRESETS)}")
    if seed < 0:
        raise ValueError(f"seed={seed}: expected 0 or more")
    chosen = PRESETS[preset]
    config = _configure(chosen, preset, overrides or {})
    if piece_characters is not None:
        check_count("piece_characters", piece_characters)
        generation = replace(config.generation, piece_characters=piece_characters)
        config = replace(config, generation=generation)
    vocabulary = synthetic_vocabulary(config.text_vocab_size, chosen.specials)
    maker = _Maker(config, chosen, seed)
    specs = expected(config, encoder=encoder)
    given, notes = policy.assign(specs)
    planned = [
        Planned(spec, kind, maker.chunks(spec, kind))
        for spec, kind in zip(specs, given, strict=True)
    ]
    metadata = to_metadata(config) | vocabulary.to_metadata()
    return write(Path(output), metadata, planned, notes=notes, progress=progress)


def _configure(preset: Preset, name: str, overrides: Mapping[str, Any]) -> ModelConfig:
    keys = to_metadata(replace(preset.config, name=f"random {name}"))
    unknown = sorted(overrides.keys() - keys.keys())
    if unknown:
        raise ValueError(
            f"overrides: unknown {', '.join(unknown)}; "
            "expected keys such as csm.backbone.block_count"
        )
    return from_metadata(keys | dict(overrides), "overrides")


class _Maker:
    """Fills tensors."""

    def __init__(self, config: ModelConfig, preset: Preset, seed: int):
        self.config, self.preset, self.seed = config, preset, seed
        self.pools: dict[tuple[str, float], NDArray[np.uint8]] = {}

    def chunks(self, spec: Spec, kind: str) -> Callable[[], Iterator[NDArray[np.uint8]]]:
        """A maker of the tensor's bytes."""
        if spec.role is Role.SMALL:
            return lambda: iter([types.encode(self._small(spec).reshape(1, -1), kind)])
        if spec.name in ("codebook0_head.weight", "depth.heads.weight"):
            return lambda: self._heads(spec, kind)
        return lambda: self._drawn(spec, kind)

    def _random(self, spec: Spec) -> np.random.Generator:
        # by name, so that a tensor is the same whichever others the file has
        return np.random.default_rng([self.seed, zlib.crc32(spec.name.encode())])

    def _small(self, spec: Spec) -> NDArray[np.float32]:
        if spec.name.endswith("rope_freqs.weight"):
            part = self.config.backbone if spec.name.startswith("backbone") else self.config.depth
            return Rope(part.freq_base, self.preset.scaling).factors(part.head_dim)
        noise = self._random(spec).standard_normal(spec.shape, np.float32)
        middle, spread = 1.0, 0.1
        if spec.name.endswith(".bias"):
            middle, spread = 0.0, 0.02
        elif "_scale." in spec.name:
            middle, spread = 0.1, 0.01
        values: NDArray[np.float32] = np.float32(middle) + noise * np.float32(spread)
        return values

    def _deviation(self, spec: Spec) -> float:
        """Standard deviation of the values: what keeps activations of order one."""
        config, name = self.config, spec.name
        if name == "text_embd.weight":
            return 1.0
        if name == "audio_embd.weight":
            return 1 / sqrt(config.codebooks)
        if spec.role is Role.CODEBOOK:
            return 1 / sqrt(config.codebooks)
        inputs = spec.shape[-1]
        if spec.role is Role.CODEC_CONVOLUTION and len(spec.shape) == 3:
            inputs = spec.shape[1] * spec.shape[2]
            if name.startswith("mimi.decoder.") and spec.shape[0] == 2 * spec.shape[1]:
                # transposed: each output sums two taps of every input channel
                inputs = 2 * spec.shape[0]
            elif name.startswith("mimi.upsample."):
                inputs = 2
            elif spec.shape[0] == 1:
                # the last convolution sets the loudness of the noise
                inputs *= 100
        deviation = 1 / sqrt(inputs)
        if name.endswith(("attn_output.weight", "ffn_down.weight")):
            blocks = config.mimi.block_count
            if not name.startswith("mimi."):
                part = config.backbone if name.startswith("backbone") else config.depth
                blocks = part.block_count
            # two additions a layer to the residual stream, whose sum shall not grow with depth
            deviation /= sqrt(2 * blocks)
        return deviation

    def _pool(self, kind: str, deviation: float) -> NDArray[np.uint8]:
        """Blocks to draw from, (blocks, bytes per block)."""
        # a float format's block is one number; 32 of them at a time are drawn as fast as a
        # quantized block
        length = max(32, types.block_length(kind))
        key = (kind, deviation)
        if key not in self.pools:
            seed = [self.seed, zlib.crc32(repr(key).encode())]
            shape = (_POOL_VALUES // length, length)
            values = np.random.default_rng(seed).standard_normal(shape, np.float32)
            self.pools[key] = types.encode(values * np.float32(deviation), kind)
        return self.pools[key]

    def _drawn(self, spec: Spec, kind: str) -> Iterator[NDArray[np.uint8]]:
        pool = self._pool(kind, self._deviation(spec))
        width = types.row_bytes(kind, spec.shape[-1])
        total = prod(spec.shape[:-1]) * width
        random = self._random(spec)
        step = _CHUNK_VALUES // max(32, types.block_length(kind))
        written = 0
        while written < total:
            blocks = min(step, -(-(total - written) // pool.shape[1]))
            picked = pool[random.integers(0, len(pool), blocks, np.uint32)].reshape(-1)
            picked = picked[: total - written]
            written += picked.nbytes
            yield picked

    def _heads(self, spec: Spec, kind: str) -> Iterator[NDArray[np.uint8]]:
        codes, real = self.config.audio_vocab_size, self.config.mimi.codebook_size
        width = types.row_bytes(kind, spec.shape[-1])
        page = Spec(spec.name, (codes, spec.shape[-1]), spec.role)
        for n in range(prod(spec.shape[:-2])):
            numbered = replace(page, name=f"{spec.name}.{n}")
            data = np.concatenate(list(self._drawn(numbered, kind))).reshape(codes, width)
            # a block of zero bytes is zero in every format: its scale is
            data[real:] = 0
            yield data
