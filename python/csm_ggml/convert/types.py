"""ggml number formats: their names, their sizes, and arrays going in and out of them.

Numbers are encoded by the compiled core alone, so that a file holds the very bytes that ggml itself
would produce, k-quants included.
"""

from __future__ import annotations

import numpy as np
from gguf import GGML_QUANT_SIZES, GGMLQuantizationType
from numpy.typing import NDArray

from csm_ggml import _core

FLOAT_TYPES = ("f32", "f16", "bf16")

QUANTIZED_TYPES = (
    "q8_0",
    "q6_k",
    "q5_k",
    "q4_k",
    "q3_k",
    "q2_k",
    "q5_1",
    "q5_0",
    "q4_1",
    "q4_0",
    "iq4_nl",
    "iq4_xs",
    "mxfp4",
)
"""Block formats that need no importance matrix to be made."""

WEIGHT_TYPES = FLOAT_TYPES + QUANTIZED_TYPES

TYPE_IDS: dict[str, GGMLQuantizationType] = {
    name: GGMLQuantizationType[name.upper()] for name in WEIGHT_TYPES
}


def check_type(name: str, argument: str = "type") -> str:
    """Return the type's lower-case name.

    Args:
        name: a ggml type in any spelling of case, such as `"Q4_K"`.
        argument: the name of the caller's argument, for the message.

    Raises:
        ValueError: the type is unknown or cannot hold weights.
    """
    lowered = str(name).lower()
    if lowered not in TYPE_IDS:
        raise ValueError(
            f"{argument}={name!r}: not a weight type; expected one of {', '.join(WEIGHT_TYPES)}"
        )
    return lowered


def block_length(name: str) -> int:
    """Values in one block of the type; a row must be a multiple of it."""
    return int(GGML_QUANT_SIZES[TYPE_IDS[name]][0])


def row_bytes(name: str, columns: int) -> int:
    """Bytes of one row of `columns` values, which the type's block must divide."""
    length, size = GGML_QUANT_SIZES[TYPE_IDS[name]]
    if columns % length:
        raise ValueError(
            f"a row of {columns} values is not a multiple of {name}'s block of {length}"
        )
    return int(columns // length * size)


def encode(values: NDArray[np.float32], name: str) -> NDArray[np.uint8]:
    """(rows, columns) float32 to (rows, bytes per row) of the type; runs outside Python's lock."""
    values = np.ascontiguousarray(values, dtype=np.float32)
    if name == "f32":
        return values.view(np.uint8)
    return _core.quantize(values, name)


def decode(data: NDArray[np.uint8], name: str, columns: int) -> NDArray[np.float32]:
    """(rows, bytes per row) of the type to (rows, columns) float32."""
    if name == "f32":
        return np.ascontiguousarray(data).view(np.float32)
    if name == "f16":
        return np.ascontiguousarray(data).view(np.float16).astype(np.float32)
    if name == "bf16":
        halves = np.ascontiguousarray(data).view(np.uint16).astype(np.uint32)
        return (halves << 16).view(np.float32)
    return _core.dequantize(np.ascontiguousarray(data), name, columns)
