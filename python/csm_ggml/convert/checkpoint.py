"""A set of source tensors in which every one must be accounted for."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from csm_ggml._core import ModelFormatError

from .tensors import Shape, Stored, expect_shape


@dataclass
class Checkpoint:
    """Tensors by their names in the source.

    Attributes:
        label: file or folder, for messages.
        tensors: name to tensor.
    """

    label: str
    tensors: Mapping[str, Stored]
    _used: set[str] = field(default_factory=set)

    def __contains__(self, name: str) -> bool:
        """Whether the source has a tensor of this name."""
        return name in self.tensors

    def has_prefix(self, *prefixes: str) -> bool:
        """Whether any tensor's name starts with one of these."""
        return any(name.startswith(prefixes) for name in self.tensors)

    def take(self, name: str, shape: Shape | None = None) -> Stored:
        """The tensor of this name, which thereby is accounted for.

        Raises:
            ModelFormatError: it is missing, or of another shape than the given one.
        """
        stored = self.tensors.get(name)
        if stored is None:
            wanted = f" of shape {list(shape)}" if shape else ""
            raise ModelFormatError(f"{self.label}: tensor {name!r}{wanted} is missing")
        if shape is not None:
            expect_shape(stored, shape)
        self._used.add(name)
        return stored

    def shape(self, name: str, dimensions: int) -> Shape:
        """The tensor's shape, without accounting for it.

        Raises:
            ModelFormatError: it is missing, empty or has another number of dimensions.
        """
        if name not in self.tensors:
            raise ModelFormatError(f"{self.label}: tensor {name!r} is missing")
        stored = self.tensors[name]
        if len(stored.shape) != dimensions or 0 in stored.shape:
            raise ModelFormatError(
                f"{stored.file}: tensor {name!r} has shape {list(stored.shape)}, expected "
                f"{dimensions} dimensions that are not empty"
            )
        return stored.shape

    def finish(self, ignorable: Iterable[str]) -> None:
        """Check that nothing is left over.

        Args:
            ignorable: regular expressions of names that carry nothing the engine needs.

        Raises:
            ModelFormatError: naming the tensors nobody asked for.
        """
        patterns = [re.compile(p) for p in ignorable]
        left = sorted(
            name
            for name in self.tensors.keys() - self._used
            if not any(p.search(name) for p in patterns)
        )
        if left:
            some = ", ".join(f"{n!r} {list(self.tensors[n].shape)}" for n in left[:5])
            more = f" and {len(left) - 5} more" if len(left) > 5 else ""
            raise ModelFormatError(
                f"{self.tensors[left[0]].file}: {len(left)} tensors that a CSM model with these "
                f"hyper-parameters does not have: {some}{more}"
            )
