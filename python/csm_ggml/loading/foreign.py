"""GGUF files with CSM's weights in layouts of other programs."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from csm_ggml import _core
from csm_ggml.loading.backends import core_path


def check_layout(paths: Iterable[Path]) -> None:
    """Raise ModelFormatError if one of the files has a layout that is known and not read here.

    Meant for where loading has failed: files that cannot be read say so elsewhere.
    """
    from csm_ggml.convert.refusals import is_foreign, other_gguf

    for path in paths:
        if path.suffix.lower() != ".gguf":
            continue
        found = None
        with suppress(Exception):
            found = _core.gguf_info(core_path(path))
        if found is None:
            continue
        architecture = found["metadata"].get("general.architecture")
        names = [tensor["name"] for tensor in found["tensors"]]
        if is_foreign(architecture, found["metadata"], names):
            raise other_gguf(path, architecture)
