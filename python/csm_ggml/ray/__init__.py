"""Speech on many machines: `Speaker` for Ray Data, `app` for Ray Serve.

Both are the package as it is: `Speaker` is a loaded model that takes batches of rows, also without
Ray; `app` is the server's application, in replicas. Ray itself is needed by `app` alone, and comes
with `pip install "csm-ggml[ray]"`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from csm_ggml.ray.speaker import Speaker

if TYPE_CHECKING:
    from csm_ggml.ray.serving import app

__all__ = ["Speaker", "app"]


def __getattr__(name: str) -> object:
    if name != "app":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from csm_ggml.ray.serving import app

    return app
