"""Checkpoints: converting what is published, changing number formats, making random ones."""

from .conversion import convert, quantize_file
from .families import FAMILIES
from .policy import QUANTIZATION_PRESETS
from .presets import PRESETS
from .random_model import make_random
from .types import WEIGHT_TYPES
from .writer import Report

__all__ = [
    "FAMILIES",
    "PRESETS",
    "QUANTIZATION_PRESETS",
    "WEIGHT_TYPES",
    "Report",
    "convert",
    "make_random",
    "quantize_file",
]
