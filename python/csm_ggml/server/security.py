"""Who may ask for what: checks before a request reaches the application, or its body is read.

Plain ASGI, because wrappers that stand between the application and the connection would hide from
it that a client has left.
"""

from __future__ import annotations

import asyncio
import hmac
import json
from collections.abc import Iterable
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from csm_ggml.server.problems import ApiError
from csm_ggml.server.settings import MEBIBYTE, Settings, key_digest

# What needs no key: nothing here tells who says what, or costs anything.
OPEN_PATHS = frozenset(
    ("/", "/health", "/ready", "/version", "/v1", "/v1/", "/docs", "/openapi.json", "/favicon.ico")
)
OPEN_FOLDER = "/page/"
LIST_PATHS = frozenset(("/v1/models", "/v1/audio/models", "/v1/audio/voices"))
UPLOAD_PATH = "/v1/audio/voices"
# The parts of an upload besides the recording.
_FORM_BYTES = 64 << 10
_CHANGING = frozenset(("POST", "PUT", "PATCH", "DELETE"))


class Guard:
    """Checks the Host and Origin headers, the key, and the size of the body, in this order."""

    def __init__(self, app: ASGIApp, settings: Settings) -> None:
        """Take the application behind."""
        self._app = app
        self._settings = settings

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let the request in, or answer it with an error."""
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        try:
            self._check_host(headers)
            self._check_origin(scope, headers)
            self._check_key(scope, headers)
            if scope["type"] == "http":
                receive = await self._read_body(scope, headers, receive)
        except ApiError as problem:
            if scope["type"] == "websocket":
                # Before it is accepted: the handshake is answered with 403.
                await send({"type": "websocket.close", "code": 1008, "reason": problem.message})
            else:
                await send_problem(send, problem)
            return
        except _Gone:
            return
        await self._app(scope, receive, send)

    def _check_host(self, headers: Headers) -> None:
        """A page of another site that makes its name point here still sends its name."""
        allowed = self._settings.hosts
        if allowed is not None and _host(headers.get("host", "")) not in allowed:
            raise ApiError(
                403, "this server is not known by that Host; start it with --allowed-host"
            )

    def _check_origin(self, scope: Scope, headers: Headers) -> None:
        """Pages of other sites may not post, delete or open WebSockets."""
        if scope["type"] == "http" and scope["method"] not in _CHANGING:
            return
        origin = headers.get("origin")
        if origin is None or origin in self._settings.origins:
            return
        try:
            own = urlsplit(origin).netloc.lower() == headers.get("host", "").lower()
        except ValueError:
            own = False
        if not own or origin == "null":
            raise ApiError(
                403, "pages of other origins may not use this server; see --allowed-origin"
            )

    def _check_key(self, scope: Scope, headers: Headers) -> None:
        settings = self._settings
        if not settings.keys:
            return
        path = scope["path"]
        if scope["type"] == "http":
            if scope["method"] in ("GET", "HEAD") and (
                path in OPEN_PATHS
                or path.startswith(OPEN_FOLDER)
                or (settings.public_lists and path in LIST_PATHS)
                or (settings.public_metrics and path == "/metrics")
            ):
                return
            if scope["method"] == "OPTIONS" and headers.get("origin") in settings.origins:
                return
        kind, _, key = headers.get("authorization", "").partition(" ")
        if kind.lower() != "bearer" or not _known(key.strip(), settings.keys):
            raise ApiError(
                401,
                "a key is needed: send the header Authorization: Bearer KEY",
                code="invalid_api_key",
                headers={"WWW-Authenticate": "Bearer"},
            )

    async def _read_body(self, scope: Scope, headers: Headers, receive: Receive) -> Receive:
        """Read the body up to its limit, and hand it on in one part."""
        if scope["method"] not in _CHANGING:
            return receive
        settings = self._settings
        upload = scope["path"] == UPLOAD_PATH
        limit = settings.upload_bytes + _FORM_BYTES if upload else settings.json_bytes
        told = headers.get("content-length", "0")
        if not told.isascii() or not told.isdigit():
            raise ApiError(400, "Content-Length is not a number")
        if len(told) > 18 or int(told) > limit:
            raise _too_large(limit)
        try:
            body = await asyncio.wait_for(_collect(receive, limit), settings.body_seconds)
        except asyncio.TimeoutError:
            raise ApiError(408, "the body of the request did not come in time") from None
        sent = False

        async def replay() -> Message:
            nonlocal sent
            if sent:
                return await receive()
            sent = True
            return {"type": "http.request", "body": body, "more_body": False}

        return replay


class _Gone(Exception):  # noqa: N818
    """The client left before it had sent its request."""


async def _collect(receive: Receive, limit: int) -> bytes:
    body = bytearray()
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise _Gone
        body += message.get("body", b"")
        if len(body) > limit:
            raise _too_large(limit)
        if not message.get("more_body", False):
            return bytes(body)


def _too_large(limit: int) -> ApiError:
    return ApiError(
        413,
        f"the body of this request may have {limit / MEBIBYTE:.0f} MiB at most",
        code="request_too_large",
        # What was not read would be taken for the next request.
        headers={"Connection": "close"},
    )


def _host(value: str) -> str:
    """A Host header without its port."""
    value = value.strip().lower()
    if value.startswith("["):
        return value[1:].partition("]")[0]
    return value.partition(":")[0]


def _known(key: str, keys: Iterable[bytes]) -> bool:
    """Whether it is one of the keys; takes as long whichever it is."""
    digest = key_digest(key)
    found = False
    for known in keys:
        found |= hmac.compare_digest(digest, known)
    return found


async def send_problem(send: Send, problem: ApiError) -> None:
    """An error as a whole answer."""
    body = json.dumps(problem.body()).encode()
    headers = {
        "content-type": "application/json",
        "content-length": str(len(body)),
        **{name.lower(): value for name, value in problem.headers.items()},
    }
    await send(
        {
            "type": "http.response.start",
            "status": problem.status,
            "headers": [(name.encode(), value.encode()) for name, value in headers.items()],
        }
    )
    await send({"type": "http.response.body", "body": body})
