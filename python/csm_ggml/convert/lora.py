"""LoRA adapters: low-rank changes of matrices, added to them while the file is written.

PEFT keeps them in a folder of their own (`adapter_model.safetensors`, `adapter_config.json`), or
leaves them unmerged inside a whole checkpoint.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from csm_ggml._core import ModelFormatError

from .names import plain_name
from .tensors import Index, Stored
from .transformers_config import read_json

CONFIG = "adapter_config.json"

_PART = re.compile(
    r"(?P<target>.+)\.lora_(?P<embedding>embedding_)?(?P<side>[AB])"
    r"(?:\.(?!weight$)\w+)?(?:\.weight)?"
)
_REPLACED = re.compile(r"(?P<module>.+)\.modules_to_save\.\w+\.(?P<rest>.+)")
_ORIGINAL = re.compile(r".+\.original_module\..+")


@dataclass
class Change:
    """The two factors of one matrix's change."""

    a: Stored | None = None
    b: Stored | None = None
    embedding: bool = False


@dataclass
class Split:
    """A file's tensors, taken apart.

    Attributes:
        plain: what is no part of an adapter, under its plain name.
        changes: by the plain name of the matrix, without `.weight`.
    """

    plain: dict[str, Stored] = field(default_factory=dict)
    changes: dict[str, Change] = field(default_factory=dict)


def split(tensors: Mapping[str, Stored], path: Path) -> Split:
    """Tell adapters from other tensors, all under their plain names.

    Raises:
        ModelFormatError: two tensors have the same plain name, or a factor lacks the other.
    """
    found = Split()
    originals = [name for name in tensors if _ORIGINAL.fullmatch(name)]
    for name, stored in tensors.items():
        if name in originals:
            continue
        if part := _PART.fullmatch(name):
            target = plain_name(f"{part['target']}.weight").removesuffix(".weight")
            change = found.changes.setdefault(target, Change())
            change.embedding = bool(part["embedding"])
            side = part["side"].lower()
            if getattr(change, side) is not None:
                raise ModelFormatError(
                    f"{path}: two adapters change {target!r}, expected one; merge one of them into "
                    "the model first"
                )
            setattr(change, side, stored)
            continue
        if replaced := _REPLACED.fullmatch(name):
            name = f"{replaced['module']}.{replaced['rest']}"
        plain = plain_name(name)
        if plain in found.plain:
            raise ModelFormatError(
                f"{path}: tensors {found.plain[plain].name!r} and {stored.name!r} are both "
                f"{plain!r}: expected one of them"
            )
        found.plain[plain] = stored
    for target, change in found.changes.items():
        if change.a is None or change.b is None:
            raise ModelFormatError(f"{path}: the change of {target!r} lacks one of its two factors")
    return found


@dataclass(frozen=True)
class Settings:
    """What of an `adapter_config.json` the merging depends on.

    Attributes:
        where: the file, for messages.
        alpha: of all changes that have none of their own.
        alphas: by patterns of the matrices' names.
        ranks: the same.
        rank: of all others.
        rank_stabilised: whether a change counts alpha / sqrt(rank) times instead of alpha / rank.
        base: the checkpoint that it was trained on.
    """

    where: str
    alpha: float
    alphas: Mapping[str, float]
    ranks: Mapping[str, float]
    rank: float
    rank_stabilised: bool
    base: str | None

    def scale(self, target: str, rank: int) -> float:
        """How often a change of this rank counts.

        Raises:
            ModelFormatError: it is not of the rank that the settings say.
        """
        wanted = _matching(self.ranks, target, self.rank)
        if wanted != rank:
            raise ModelFormatError(
                f"{self.where}: the rank of the change of {target!r} is {wanted:g}, but its "
                f"factors have rank {rank}"
            )
        alpha = _matching(self.alphas, target, self.alpha)
        return alpha / math.sqrt(rank) if self.rank_stabilised else alpha / rank


def _matching(patterns: Mapping[str, float], target: str, otherwise: float) -> float:
    # as PEFT looks them up
    for pattern, value in patterns.items():
        try:
            if re.match(rf"(.*\.)?({pattern})$", target):
                return value
        except re.error:
            continue
    return otherwise


def read_settings(folder: Path) -> Settings | None:
    """The settings in a folder; None if there are none.

    Raises:
        ModelFormatError: they are damaged, or of a kind of adapter that is not merged here.
    """
    path = folder / CONFIG
    if not path.is_file():
        return None
    content = read_json(path)

    def refuse(key: str, expected: str) -> ModelFormatError:
        return ModelFormatError(
            f"{path}: {key} is {content.get(key)!r}, expected {expected}; merge it with PEFT's "
            "merge_and_unload() and convert the result"
        )

    if content.get("peft_type") != "LORA":
        raise refuse("peft_type", "'LORA'")
    for key in ("use_dora", "fan_in_fan_out", "lora_bias", "use_qalora", "alora_invocation_tokens"):
        if content.get(key):
            raise refuse(key, "none")
    if content.get("bias", "none") != "none":
        raise refuse("bias", "'none'")

    def number(value: object, key: str) -> float:
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < 1e9:
            raise refuse(key, "a positive number")
        return float(value)

    def patterns(key: str) -> dict[str, float]:
        found = content.get(key) or {}
        if not isinstance(found, dict):
            raise refuse(key, "an object")
        return {pattern: number(value, key) for pattern, value in found.items()}

    base = content.get("base_model_name_or_path")
    return Settings(
        where=str(path),
        alpha=number(content.get("lora_alpha"), "lora_alpha"),
        alphas=patterns("alpha_pattern"),
        ranks=patterns("rank_pattern"),
        rank=number(content.get("r"), "r"),
        rank_stabilised=bool(content.get("use_rslora")),
        base=base if isinstance(base, str) and base else None,
    )


class _Sum:
    """Rows of a matrix with its change, as bytes of float32."""

    def __init__(self, base: Stored, change: Change, scale: float) -> None:
        self._base, self._change, self._scale = base, change, scale

    def __getitem__(self, index: Index) -> NDArray[np.uint8]:
        left, right = self._factors
        values = self._base.values(index) + (left[index] @ right) * np.float32(self._scale)
        return np.ascontiguousarray(values, np.float32).view(np.uint8)

    @cached_property
    def _factors(self) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        assert self._change.a is not None
        assert self._change.b is not None
        a, b = self._change.a.values(), self._change.b.values()
        return (a.T, b.T) if self._change.embedding else (b, a)


def merge(tensors: dict[str, Stored], changes: Mapping[str, Change], settings: Settings) -> None:
    """Add the changes to their matrices.

    Args:
        tensors: by plain names; those that change are replaced.
        changes: by the names of the matrices without `.weight`.
        settings: of the adapter.

    Raises:
        ModelFormatError: there is no such matrix, or one of another shape.
    """
    for target, change in changes.items():
        name = f"{target}.weight"
        assert change.a is not None
        assert change.b is not None
        base = tensors.get(name)
        if base is None:
            raise ModelFormatError(
                f"{change.a.file}: changes {name!r}, which the model does not have: is it an "
                "adapter of another model, or of the same one in another format?"
            )
        for factor in (change.a, change.b):
            if len(factor.shape) != 2:
                raise ModelFormatError(
                    f"{factor.file}: tensor {factor.name!r} has shape {list(factor.shape)}, "
                    "expected two dimensions"
                )
        rank = change.a.shape[0]
        shape = (change.b.shape[0], change.a.shape[1])
        if change.embedding:
            shape = shape[::-1]
        if shape != base.shape or change.b.shape[1] != rank or not rank:
            raise ModelFormatError(
                f"{change.a.file}: the change of {name!r} is made of {list(change.b.shape)} and "
                f"{list(change.a.shape)}, expected factors of {list(base.shape)}"
            )
        rows = _Sum(base, change, settings.scale(target, rank))
        tensors[name] = Stored(base.file, base.name, base.shape, "f32", rows)
