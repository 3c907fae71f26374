"""One line of JSON for each request, without texts and keys, and its numbers into the metrics."""

from __future__ import annotations

import json
import logging
import secrets
import sys
import time
from typing import IO, Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from csm_ggml.server.metrics import Metrics
from csm_ggml.server.problems import internal
from csm_ggml.server.security import send_problem

log = logging.getLogger("csm_ggml.server")


class JsonLines(logging.Formatter):
    """Log records as lines of JSON."""

    def format(self, record: logging.LogRecord) -> str:
        """One line."""
        line: dict[str, Any] = {
            "time": time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
            + f".{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
        }
        fields = getattr(record, "fields", None)
        line |= fields if fields is not None else {"message": record.getMessage()}
        if record.exc_info:
            line["error"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=True)


def log_to(stream: IO[str] = sys.stderr) -> None:
    """Send the server's log, and uvicorn's, to a stream as lines of JSON."""
    handler = logging.StreamHandler(stream)
    handler.setFormatter(JsonLines())
    for name, level in (("csm_ggml.server", logging.INFO), ("uvicorn", logging.WARNING)):
        logger = logging.getLogger(name)
        logger.handlers = [handler]
        logger.setLevel(level)
        logger.propagate = False


class AccessLog:
    """Gives each request an id, and writes down how it went."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        """Take the application behind."""
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on."""
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        started = time.perf_counter()
        id = f"req_{secrets.token_hex(12)}"
        status = 0
        headers_sent = None

        async def watched(message: Message) -> None:
            nonlocal status, headers_sent
            if message["type"] == "http.response.start":
                status = message["status"]
                headers_sent = time.perf_counter() - started
                message["headers"] = [*message.get("headers", ()), (b"x-request-id", id.encode())]
            elif message["type"] == "websocket.accept":
                status = 101
            await send(message)

        try:
            await self._app(scope, receive, watched)
        except Exception as error:
            # Not to the client. An answer that has begun is broken off by the server.
            log.error("a request failed", exc_info=error)
            if scope["type"] == "http" and status == 0:
                await send_problem(watched, internal())
        finally:
            self._note(scope, id, status, time.perf_counter() - started, headers_sent)

    def _note(
        self, scope: Scope, id: str, status: int, seconds: float, headers_sent: float | None
    ) -> None:
        # The route and not the path, which a client may fill with anything.
        endpoint = getattr(scope.get("route"), "path", "other")
        format = scope.get("csm.format", "none")
        self._metrics.requests.labels(endpoint, format, str(status)).inc()
        self._metrics.request_seconds.labels(endpoint).observe(seconds)
        if endpoint in ("/health", "/ready", "/metrics") and status == 200:
            return
        fields: dict[str, Any] = {
            "event": "request",
            "id": id,
            "method": scope.get("method", "WEBSOCKET"),
            "endpoint": endpoint,
            "status": status,
            "seconds": round(seconds, 4),
        }
        if headers_sent is not None:
            fields["headers_after"] = round(headers_sent, 4)
        if (meter := scope.get("csm.meter")) is not None:
            fields["format"] = format
            fields["audio_seconds"] = round(meter.audio_seconds, 3)
            fields["underrun_seconds"] = round(meter.underrun, 4)
            if meter.first_audio is not None:
                fields["first_audio"] = round(meter.first_audio, 4)
        if (text := scope.get("csm.text")) is not None:
            fields["text"] = text
        log.info("request", extra={"fields": fields})
