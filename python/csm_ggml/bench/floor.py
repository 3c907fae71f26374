"""The least that a frame must read and multiply: memory and arithmetic bound its time."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from math import prod
from pathlib import Path
from typing import Any

from csm_ggml.loading.backends import core_path, load_backends

# Names in the files of llama.cpp's conversion, whose two language models both begin at "blk.".
_DECODER_NAMES = {
    "csm_proj.weight": "depth.projection.weight",
    "audio_head.weight": "depth.heads.weight",
}


def frame_bytes(files: Sequence[Path], codebooks: int) -> int:
    """Bytes of weights that one frame reads, whatever the batch.

    The backbone and the first codebook's head are read once. The depth decoder has `codebooks`
    positions, but the first two go through its layers together, as neither waits for a drawn code
    that the other gives; so its layers and the projection into it are read `codebooks - 1` times.
    Each of its heads is read once. Embeddings are single rows and do not count, nor do keys and
    values, which live in the caches of the processor for the depth decoder and are small beside
    the weights for the backbone.

    Args:
        files: Of one model.
        codebooks: Codes in a frame.

    Raises:
        ModelFormatError: If a file cannot be read.
    """
    passes = codebooks - 1
    total = 0
    for tensor in _language_tensors(files):
        name = tensor["name"]
        if name.startswith("backbone.") or name == "codebook0_head.weight":
            total += tensor["bytes"]
        elif name.startswith("depth.blk.") or name == "depth.projection.weight":
            total += tensor["bytes"] * passes
        elif name == "depth.heads.weight":
            # llama.cpp's conversion may hold empty pages after the real ones.
            total += tensor["bytes"] * passes // tensor["shape"][0]
    return total


def frame_products(files: Sequence[Path], codebooks: int) -> tuple[int, int]:
    """Multiply-adds with weights that a frame of one utterance takes: backbone, depth decoder.

    All `codebooks` positions of the depth decoder go through its layers, each through the head of
    its own code; the first codebook's head counts as the backbone's. Attention is left out: its
    products are with keys and values, and few beside these.

    Args:
        files: Of one model.
        codebooks: Codes in a frame.

    Raises:
        ModelFormatError: If a file cannot be read.
    """
    backbone = depth = 0
    for tensor in _language_tensors(files):
        name, shape = tensor["name"], tensor["shape"]
        if len(shape) < 2:
            continue
        if name.startswith("backbone.") or name == "codebook0_head.weight":
            backbone += prod(shape)
        elif name.startswith("depth.blk.") or name == "depth.projection.weight":
            depth += prod(shape) * codebooks
        elif name == "depth.heads.weight":
            depth += prod(shape[1:]) * (codebooks - 1)
    return backbone, depth


def dominant_types(files: Sequence[Path]) -> tuple[str, str]:
    """The ggml types that most bytes of the backbone's and the depth decoder's layers have.

    Raises:
        ModelFormatError: If a file cannot be read.
    """
    sizes: dict[str, Counter[str]] = {"backbone": Counter(), "depth": Counter()}
    for tensor in _language_tensors(files):
        part, *rest = tensor["name"].split(".")
        if part in sizes and rest[0] == "blk":
            sizes[part][tensor["type"]] += tensor["bytes"]
    backbone, depth = (count.most_common(1)[0][0] if count else "" for count in sizes.values())
    return backbone, depth


def _language_tensors(files: Sequence[Path]) -> Iterator[dict[str, Any]]:
    """Tensors of the language models, under the names of docs/GGUF.md."""
    for path in files:
        tensors = load_backends().gguf_info(core_path(path))["tensors"]
        names = {tensor["name"] for tensor in tensors}
        part = "depth" if "audio_head.weight" in names else "backbone"
        for tensor in tensors:
            name = _DECODER_NAMES.get(tensor["name"], tensor["name"])
            if name.startswith("blk."):
                name = f"{part}.{name}"
            yield {**tensor, "name": name}
