"""Where the compiled core finds ggml's backends, and what it is given."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from types import ModuleType

from csm_ggml import _core
from csm_ggml.files import core_path
from csm_ggml.log import logger

__all__ = ["check_device", "core_path", "load_backends"]


@cache
def load_backends() -> ModuleType:
    """Load ggml's backend libraries from the package's own folder, once; returns the compiled core.

    Release wheels carry one library for each generation of CPUs and take the best that runs here;
    builds from source have their backends linked in, and for them this does nothing.
    """
    _core.set_backend_dir(str(Path(_core.__file__).parent))
    _core.set_log(lambda level, text: logger.log(level, "%s", text.rstrip()))
    return _core


def check_device(device: object) -> str:
    """The name of a device.

    Raises:
        TypeError: If it is no str.
    """
    if not isinstance(device, str):
        raise TypeError(f"device must be a str such as 'auto' or 'cpu', got {device!r}")
    return device
