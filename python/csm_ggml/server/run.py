"""The process: uvicorn, signals, and the end that waits for what is being said."""

from __future__ import annotations

import asyncio
import logging
import socket
import time
from collections.abc import Callable
from types import FrameType
from typing import Any

import uvicorn
from fastapi import FastAPI
from uvicorn.protocols.http.auto import AutoHTTPProtocol

from csm_ggml.csm import CSM
from csm_ggml.server.app import create_app
from csm_ggml.server.journal import log_to
from csm_ggml.server.service import Service
from csm_ggml.server.settings import Settings

log = logging.getLogger("csm_ggml.server")

# The headers of a request must have come by then.
HEADER_SECONDS = 10.0
# What is still open after the drain, such as idle WebSockets.
_CLOSE_SECONDS = 2


def serve(
    settings: Settings,
    load: Callable[[], CSM],
    *,
    host: str,
    port: int,
    connections: int = 1000,
    wyoming: int | None = None,
) -> int:
    """Run a server until SIGTERM or Ctrl-C.

    Args:
        settings: The server's.
        load: Loads the model.
        host: Address to listen at.
        port: Port to listen at; 0 for any.
        connections: At most so many at a time; others get a 503.
        wyoming: A second port, for Wyoming clients.

    Returns:
        The exit code: 1 if the model cannot be loaded.

    Raises:
        OSError: If the address cannot be used.
        VoiceFileError: If a file among the saved voices is none.
        ValueError: If the default voice, or an alias, names none.
    """
    listener = _listen(host, port)
    other = None if wyoming is None else _listen(host, wyoming)
    log_to()
    service = Service(settings, load)
    app = create_app(load=load, service=service)
    server = make_server(app, service, host=host, port=port, connections=connections, wyoming=other)
    address = listener.getsockname()
    fields = {"event": "listening", "host": address[0], "port": address[1]}
    log.info("listening", extra={"fields": fields})
    server.run(sockets=[listener])
    return 1 if service.failure is not None or not server.started else 0


def _listen(host: str, port: int) -> socket.socket:
    """A socket at an address; the error of one that cannot be had names it."""
    try:
        [(family, _, _, _, address), *_] = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
        return socket.create_server(address[:2], family=family, backlog=2048)
    except OSError as error:
        raise OSError(error.errno, error.strerror, f"{host}:{port}") from None


def make_server(
    app: FastAPI,
    service: Service,
    *,
    host: str,
    port: int,
    connections: int = 1000,
    wyoming: socket.socket | None = None,
) -> uvicorn.Server:
    """The server of `serve`, to be run."""
    config = uvicorn.Config(
        app,
        host=host,
        port=port,
        http=_Protocol,
        log_config=None,
        access_log=False,
        server_header=False,
        limit_concurrency=connections,
        timeout_graceful_shutdown=_CLOSE_SECONDS,
        ws_max_size=service.settings.json_bytes,
        ws_per_message_deflate=False,
    )
    return _Server(config, service, wyoming)


class _Server(uvicorn.Server):
    """Drains first: after a signal requests are refused, and those before it are answered."""

    def __init__(
        self, config: uvicorn.Config, service: Service, wyoming: socket.socket | None
    ) -> None:
        super().__init__(config)
        self._service = service
        self._wyoming = wyoming
        self._end = 0.0

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        if self._service.draining:
            super().handle_exit(sig, frame)
            return
        self._end = time.monotonic() + self._service.settings.drain_seconds
        self._service.drain()

    async def startup(self, sockets: Any = None) -> None:
        await super().startup(sockets)
        if self._wyoming is not None:
            from csm_ggml.server.wyoming import start_wyoming

            self.servers.append(await start_wyoming(self._service, self._wyoming))

    async def on_tick(self, counter: int) -> bool:
        service = self._service
        if service.failure is not None:
            return True
        if service.draining and (not service.active or time.monotonic() > self._end):
            return True
        return await super().on_tick(counter)


class _Protocol(AutoHTTPProtocol):  # type: ignore[misc, valid-type]
    """HTTP for clients that may be slow, but not forever: headers have a time limit."""

    _late: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self._watch()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        self._unwatch()
        super().connection_lost(exc)

    def handle_websocket_upgrade(self, *arguments: Any) -> None:
        self._unwatch()
        super().handle_websocket_upgrade(*arguments)

    def _watch(self) -> None:
        if self._working() or self.transport.is_closing():
            self._unwatch()
        elif self._late is None:
            self._late = self.loop.call_later(HEADER_SECONDS, self._give_up)

    def _unwatch(self) -> None:
        if self._late is not None:
            self._late.cancel()
            self._late = None

    def _working(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete

    def _give_up(self) -> None:
        self._late = None
        if not self._working() and not self.transport.is_closing():
            self.transport.close()
