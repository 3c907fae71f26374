"""The packages of the extra `books`, which nothing else needs."""

from __future__ import annotations

import importlib
from typing import Any

_ADVICE = "pip install 'csm-ggml[books]'"


def import_av() -> Any:
    """PyAV, which encodes and measures.

    Raises:
        ImportError: If it is not installed; the message says what to do.
    """
    try:
        import av
        import av.filter
    except ImportError as error:
        raise ImportError(f"audiobooks need the package av ({error}): {_ADVICE}") from None
    return av


def import_mutagen(name: str) -> Any:
    """A module of Mutagen, which writes tags.

    Args:
        name: Such as "mutagen.mp4".

    Raises:
        ImportError: If it is not installed; the message says what to do.
    """
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise ImportError(f"audiobooks need the package mutagen ({error}): {_ADVICE}") from None
