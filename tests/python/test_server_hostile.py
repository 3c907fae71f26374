"""Requests that mean harm, or are broken: the server answers none with a 500, and loses no slot."""

from __future__ import annotations

import json
import random
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("fastapi")
pytest.importorskip("prometheus_client")

from csm_ggml.server.settings import Settings
from server_harness import Running, running, until


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("voices")


@pytest.fixture(scope="module")
def server(folder: Path) -> Iterator[Running]:
    with running(Settings(voices=folder), slots=4) as found:
        yield found


def mutated(rng: random.Random) -> tuple[str, str, bytes, dict[str, str]]:
    """A request of a kind that attackers and broken clients send."""
    values = [
        *(
            None,
            True,
            -1,
            0,
            1e308,
            10**40,
            "",
            "\x00",
            "../" * 20,
            "\u202e",
            "\ud800",
            "a" * 5_000,
        ),
        *(
            [],
            {},
            [[]],
            {"id": "x"},
            {"id": {}},
            float("nan"),
            "http://127.0.0.1:1/x",
            "NaN",
            2**64,
        ),
    ]
    fields = ["model", "input", "voice", "instructions", "response_format", "speed", "seed"]
    fields += [
        "stream_format",
        "temperature",
        "top_k",
        "max_seconds",
        "stream",
        "dialogue",
        "priority",
    ]
    body: Any = {"model": "tts-1", "input": "Hi.", "max_seconds": 0.1}
    for _ in range(rng.randint(0, 3)):
        body[rng.choice(fields)] = rng.choice(values)
    kind = rng.randrange(8)
    headers = {"Content-Type": "application/json"}
    data = json.dumps(body).encode()
    if kind == 0:
        data = bytes(rng.randrange(256) for _ in range(rng.randint(0, 200)))
    elif kind == 1:
        cut = rng.randrange(len(data))
        data = data[:cut] + bytes([rng.randrange(256)]) + data[cut + 1 :]
    elif kind == 2:
        data = b"[" * rng.randint(1, 5_000)
    elif kind == 3:
        data = data.replace(b"0.1", b"9" * 5_000)
    elif kind == 4:
        headers = {"Content-Type": rng.choice(["text/plain", "multipart/form-data", "", "x" * 300])}
    elif kind == 5:
        name = rng.choice(["name", "audio_sample", "consent", "transcript", "x" * 5_000])
        file = rng.choice(["", '; filename="../x"', '; filename=""', "; filename*=utf-8''%00"])
        data = f'--b\r\nContent-Disposition: form-data; name="{name}"{file}\r\n\r\n'.encode()
        data = rng.choice([b"", b"--b"]) + data * rng.randint(1, 20) + rng.choice([b"", b"--b--"])
        headers = {"Content-Type": "multipart/form-data; boundary=b"}
        return "POST", "/v1/audio/voices", data, headers
    elif kind == 6:
        body = {
            "items": rng.choice([[body], [body] * 70, body, None, [None], [[]], [{"input": 1}]])
        }
        return "POST", "/v1/audio/speech/batch", json.dumps(body).encode(), headers
    elif kind == 7:
        path = rng.choice(
            ["/%00", "/v1/models/%2e%2e%2f", "/v1/audio/voices/%00", "/page/%2e%2e/x"]
        )
        return rng.choice(["GET", "DELETE", "PUT", "HEAD"]), path, b"", {}
    return "POST", "/v1/audio/speech", data, headers


def resident_megabytes() -> float:
    """Memory of this process, which is the server's, too; 0 where it is not told."""
    told = Path("/proc/self/statm")
    return int(told.read_text().split()[1]) * 4096 / 1e6 if told.exists() else 0.0


@pytest.mark.parametrize("count", [300, pytest.param(10_000, marks=pytest.mark.soak)])
def test_hostile_requests_break_nothing(server: Running, folder: Path, count: int) -> None:
    rng = random.Random(count)
    before = 0.0
    for number in range(count):
        if number == count // 4:
            before = resident_megabytes()
        method, path, data, headers = mutated(rng)
        answer = server.ask(method, path, data, headers)
        assert answer.status < 500, (method, path, data[:300], answer.body)
        if answer.status >= 400 and method != "HEAD":
            assert set(answer.json["error"]) == {"type", "message", "param", "code"}
    until(lambda: server.busy() == 0)
    assert resident_megabytes() < before + 30
    assert server.speak().status == 200
    assert not list(folder.iterdir())


def test_broken_http_breaks_nothing(server: Running) -> None:
    for data in (
        b"\x00" * 100,
        b"GET / HTTP/9.9\r\n\r\n",
        b"POST /v1/audio/speech HTTP/1.1\r\nContent-Length: -5\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nabcdef",
        b"GET / HTTP/1.1\r\nHost: localhost\r\nX: " + b"a" * 200_000,
        b"GET / HTTP/1.1\r\nHost: localhost\r\nHost: evil.example\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
    ):
        try:
            connection = server.raw(data)
            connection.shutdown(socket.SHUT_WR)
            answer = connection.recv(1_000)
        except OSError:
            answer = b""
        assert not answer.startswith((b"HTTP/1.1 2", b"HTTP/1.1 5")), (data[:60], answer)
        connection.close()
    assert server.ask("GET", "/health").status == 200
