"""The sizes of a model that speech is measured in."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Geometry:
    """Sizes of a model.

    Attributes:
        sample_rate: Samples per second.
        frame_size: Samples in a frame.
        codebooks: Codes in a frame.
        context_length: Rows that the backbone can attend to, text and speech together.
    """

    sample_rate: int
    frame_size: int
    codebooks: int
    context_length: int

    @property
    def frame_rate(self) -> float:
        """Frames per second."""
        return self.sample_rate / self.frame_size
