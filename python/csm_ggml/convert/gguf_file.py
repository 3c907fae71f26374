"""Reading GGUF files: the core's reader checks the header, rows are read where it says they lie."""

from __future__ import annotations

from math import prod
from pathlib import Path
from typing import Any

from csm_ggml import _core
from csm_ggml._core import ModelFormatError
from csm_ggml.files import core_path

from . import types
from .tensors import FileRows, Stored


def read_gguf(path: Path) -> tuple[dict[str, Any], dict[str, Stored]]:
    """Keys and tensors of a GGUF file; shapes in numpy order.

    Raises:
        ModelFormatError: the file is truncated, damaged or not a little-endian GGUF of version 2
            or 3, or a tensor has a number format that cannot be read.
    """
    found = _core.gguf_info(core_path(path))
    metadata = {key: _texts(value) for key, value in found["metadata"].items()}
    return metadata, {entry["name"]: _stored(path, entry) for entry in found["tensors"]}


def _texts(value: Any) -> Any:
    if isinstance(value, list) and value and isinstance(value[0], bytes):
        # tokens are UTF-8; a byte that is not must survive to be named in a later message
        return [text.decode("utf-8", "surrogateescape") for text in value]
    return value


def _stored(path: Path, entry: dict[str, Any]) -> Stored:
    name, shape, kind = entry["name"], entry["shape"], entry["type"].lower()
    if kind not in types.WEIGHT_TYPES:
        raise ModelFormatError(
            f"{path}: tensor {name!r} is of ggml type {kind}; expected one of "
            f"{', '.join(types.WEIGHT_TYPES)}"
        )
    rows = prod(shape[:-1])
    return Stored(
        path,
        name,
        shape,
        kind,
        FileRows(path, entry["offset"], rows, types.row_bytes(kind, shape[-1])),
    )
