"""Where the compiled core finds ggml's backends."""

from functools import cache
from pathlib import Path
from types import ModuleType

from csm_ggml import _core


@cache
def load_backends() -> ModuleType:
    """Load ggml's backend libraries from the package's own folder, once; returns the compiled core.

    Release wheels carry one library for each generation of CPUs and take the best that runs here;
    builds from source have their backends linked in, and for them this does nothing.
    """
    _core.set_backend_dir(str(Path(_core.__file__).parent))
    return _core
