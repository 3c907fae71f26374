"""Which number format each tensor gets.

- Norms, biases, scales and rotary factors stay F32: they are tiny, and ggml's element-wise
  operations want it.
- The matrices of the two language models are what a frame reads, so they get the asked type. The
  depth decoder may have its own: it is read 31 times a frame, so that its format decides the time,
  while the backbone's decides the first codebook, which holds the words.
- Heads and the projection into the depth decoder stand between a layer and the codes, with no
  residual to soften their error: they are 4 % of what a frame reads and, at 4 bits, made half of
  the depth logits' error. They get no fewer than 8 bits.
- Embedding tables are only gathered from, a few rows a frame, so a coarse format would cost
  quality and save no time: they take the asked float type, and q8_0 with any quantized one.
- The codec decides what is heard, and is small: F32 unless asked otherwise. Codebooks are always
  F32, because encoding compares distances that a coarser format makes equal.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from . import types
from .layout import Role, Spec

CODEC_TYPES = ("f32", "f16")


@dataclass(frozen=True)
class TypePolicy:
    """The asked formats.

    Attributes:
        type: of the language models.
        depth_type: of the depth decoder, its projection and its heads; None means `type`.
        codec_type: `f32` or `f16`.
    """

    type: str
    depth_type: str | None = None
    codec_type: str = "f32"

    def __post_init__(self) -> None:
        """Normalize the names; raises ValueError for one that is not a weight type."""
        object.__setattr__(self, "type", types.check_type(self.type))
        depth = self.type if self.depth_type is None else self.depth_type
        object.__setattr__(self, "depth_type", types.check_type(depth, "depth_type"))
        codec = types.check_type(self.codec_type, "codec_type")
        if codec not in CODEC_TYPES:
            raise ValueError(f"codec_type={self.codec_type!r}: expected one of {CODEC_TYPES}")
        object.__setattr__(self, "codec_type", codec)

    def assign(self, specs: Sequence[Spec]) -> tuple[list[str], list[str]]:
        """Each tensor's format, and notes on those that could not get the asked one."""
        given: list[str] = []
        misfits: dict[str, list[str]] = {}
        for spec in specs:
            chosen = asked = self._asked(spec.role)
            columns = spec.shape[-1]
            if columns % types.block_length(asked):
                chosen = "q8_0" if columns % types.block_length("q8_0") == 0 else "f16"
                reason = f"rows of {columns} values do not fit {asked}, stored as {chosen}"
                misfits.setdefault(reason, []).append(spec.name)
            given.append(chosen)
        return given, [_note(reason, names) for reason, names in misfits.items()]

    def _asked(self, role: Role) -> str:
        if role in (Role.SMALL, Role.CODEBOOK):
            return "f32"
        if role in (Role.CODEC_MATRIX, Role.CODEC_CONVOLUTION):
            return self.codec_type
        if role is Role.TABLE:
            return self.type if self.type in types.FLOAT_TYPES else "q8_0"
        asked = self.depth_type if role in (Role.DEPTH, Role.DEPTH_HEAD) else self.type
        assert asked is not None
        if role in (Role.BACKBONE_HEAD, Role.DEPTH_HEAD) and asked not in types.FLOAT_TYPES:
            return "q8_0"
        return asked


QUANTIZATION_PRESETS = {
    "fast": TypePolicy("q4_0"),
    "balanced": TypePolicy("q8_0", "q4_0"),
    "high": TypePolicy("q8_0"),
    "exact": TypePolicy("f32"),
}
"""From the quickest to the one that changes nothing; docs/QUANTIZATION.md has the figures."""


def choose_policy(
    preset: str | None, type: str | None, depth_type: str | None, codec_type: str
) -> TypePolicy:
    """The policy of a preset, or of formats that are named one by one.

    Args:
        preset: a name in `QUANTIZATION_PRESETS`, or None.
        type: as in `TypePolicy`; None with a preset.
        depth_type: as in `TypePolicy`; None with a preset.
        codec_type: as in `TypePolicy`, with a preset, too.

    Raises:
        ValueError: the preset is unknown, there is a type beside it, or neither is given.
    """
    names = ", ".join(QUANTIZATION_PRESETS)
    if preset is None:
        if type is None:
            raise ValueError(f"expected a type, such as 'q8_0', or a preset: {names}")
        return TypePolicy(type, depth_type, codec_type)
    if preset not in QUANTIZATION_PRESETS:
        raise ValueError(f"preset={preset!r}: expected one of {names}")
    if type is not None or depth_type is not None:
        raise ValueError(
            f"preset={preset!r} says the types of the language models already: leave out type "
            "and depth_type, or the preset"
        )
    return replace(QUANTIZATION_PRESETS[preset], codec_type=codec_type)


def _note(reason: str, names: list[str]) -> str:
    others = f" and {len(names) - 1} other tensors" if len(names) > 1 else ""
    return f"{names[0]}{others}: {reason}"
