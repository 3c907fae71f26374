"""The page at `/` and the list of endpoints at `/docs`: files of this package, and no others."""

from __future__ import annotations

from pathlib import Path

from fastapi import APIRouter
from starlette.responses import Response

_FOLDER = Path(__file__).parent / "page"
_TYPES = {".html": "text/html", ".js": "text/javascript", ".css": "text/css"}
# Nothing comes from elsewhere, and no other site may put the page into a frame.
_HEADERS = {
    "Content-Security-Policy": "default-src 'self'; img-src 'self' data:; object-src 'none'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",
}


def page_routes() -> APIRouter:
    """The files, read once."""
    router = APIRouter(include_in_schema=False)
    for file in sorted(_FOLDER.iterdir()):
        if file.suffix not in _TYPES:
            continue
        path = {"index.html": "/", "docs.html": "/docs"}.get(file.name, f"/page/{file.name}")
        media_type = f"{_TYPES[file.suffix]}; charset=utf-8"
        _add(router, path, file.read_bytes(), media_type)
    return router


def _add(router: APIRouter, path: str, content: bytes, media_type: str) -> None:
    async def serve() -> Response:
        return Response(content, media_type=media_type, headers=_HEADERS)

    router.add_api_route(path, serve, methods=["GET", "HEAD"], response_class=Response)
