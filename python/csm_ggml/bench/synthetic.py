"""Full-size checkpoints of random weights, made once and kept for the next run."""

from __future__ import annotations

import hashlib
from pathlib import Path

from csm_ggml.convert import PRESETS, make_random
from csm_ggml.convert.layout import expected
from csm_ggml.convert.policy import TypePolicy

# Rises when the same tensors get other values.
_VERSION = 1
_SEED = 0


def synthetic_path(folder: Path, preset: str, type: str, depth_type: str | None = None) -> Path:
    """Where a checkpoint is kept. The name holds everything that the file depends on.

    Args:
        folder: Of the checkpoints.
        preset: `tiny` or `csm-1b`.
        type: ggml type of the language models' matrices.
        depth_type: ggml type of the depth decoder if it differs.

    Raises:
        ValueError: If the preset or a type is unknown.
    """
    if preset not in PRESETS:
        raise ValueError(f"there is no preset {preset!r}, expected one of {', '.join(PRESETS)}")
    policy = TypePolicy(type, depth_type, "f32")
    specs = expected(PRESETS[preset].config)
    given, _ = policy.assign(specs)
    # Which tensor gets which type may change while the types that are asked for stay the same.
    tensors = repr([(s.name, s.shape, kind) for s, kind in zip(specs, given, strict=True)])
    digest = hashlib.sha256(tensors.encode()).hexdigest()[:8]
    label = "-".join([preset, type, *([depth_type] if depth_type else [])])
    return folder / f"random-{label}-seed{_SEED}-v{_VERSION}-{digest}.gguf"


def make_synthetic(path: Path, preset: str, type: str, depth_type: str | None = None) -> None:
    """Write the checkpoint that belongs at `path`; nothing is left behind if that fails.

    Raises:
        ValueError: If the preset or a type is unknown.
        OSError: If it cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    make_random(path, preset=preset, type=type, depth_type=depth_type, seed=_SEED)
