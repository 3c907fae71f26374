"""A server of the demo model on a socket of its own, for the tests of its faces."""

from __future__ import annotations

import http.client
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import uvicorn
from csm_ggml.csm import CSM
from csm_ggml.server.app import create_app
from csm_ggml.server.run import make_server
from csm_ggml.server.service import Service
from csm_ggml.server.settings import Settings

TEXT = "Hello there, how are you today?"
STORY = "Hello there. How are you today? I am fine, thank you very much for asking me. Good bye!"
LONG = " ".join(["This one sentence is said again and again."] * 12)


@dataclass
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass
class Running:
    """A server that runs in a thread."""

    service: Service
    server: uvicorn.Server
    port: int
    wyoming: int | None = None

    @property
    def csm(self) -> CSM:
        assert self.service.csm is not None
        return self.service.csm

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def connect(self) -> http.client.HTTPConnection:
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)

    def ask(
        self,
        method: str,
        path: str,
        body: Any = None,
        headers: dict[str, str] | None = None,
    ) -> Answer:
        headers = dict(headers or {})
        if body is not None and not isinstance(body, bytes):
            body = json.dumps(body).encode()
            headers.setdefault("Content-Type", "application/json")
        connection = self.connect()
        try:
            connection.request(method, path, body, headers)
            response = connection.getresponse()
            found = {name.lower(): value for name, value in response.getheaders()}
            return Answer(response.status, found, response.read())
        finally:
            connection.close()

    def speak(self, text: str = TEXT, **fields: Any) -> Answer:
        return self.ask("POST", "/v1/audio/speech", {"model": "tts-1", "input": text, **fields})

    def raw(self, data: bytes) -> socket.socket:
        connection = socket.create_connection(("127.0.0.1", self.port), timeout=30)
        connection.sendall(data)
        return connection

    def post(self, text: str = TEXT, **fields: Any) -> socket.socket:
        """A speech request whose answer is not read."""
        body = json.dumps({"model": "tts-1", "input": text, **fields}).encode()
        return self.raw(
            b"POST /v1/audio/speech HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json"
            b"\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body)
        )

    def busy(self) -> int:
        """Jobs that the scheduler has not done with."""
        stats = self.csm.scheduler.stats()
        return stats.queued + stats.prefilling + stats.speaking + stats.paused + stats.parked

    def metric(self, name: str, **labels: str) -> float:
        value = self.service.metrics.registry.get_sample_value(name, labels)
        return 0.0 if value is None else value


def until(there: Callable[[], Any], seconds: float = 10) -> None:
    end = time.monotonic() + seconds
    while not there():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.005)


def load(**options: Any) -> CSM:
    return CSM.from_pretrained("demo", threads=1, **options)


@contextmanager
def running(
    settings: Settings | None = None,
    *,
    loader: Callable[[], CSM] | None = None,
    wait: bool = True,
    wyoming: bool = False,
    **options: Any,
) -> Iterator[Running]:
    """A server; `options` go to the model."""
    service = Service(settings or Settings(), loader or (lambda: load(**options)))
    app = create_app(load=load, service=service)
    port = free_port()
    listener = socket.create_server(("127.0.0.1", 0)) if wyoming else None
    other = None if listener is None else listener.getsockname()[1]
    server = make_server(app, service, host="127.0.0.1", port=port, wyoming=listener)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    until(lambda: server.started or not thread.is_alive())
    found = Running(service, server, port, other)
    try:
        if wait:
            until(lambda: service.csm is not None)
        yield found
    finally:
        server.should_exit = True
        thread.join(30)
        assert not thread.is_alive()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
