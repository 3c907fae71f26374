"""The server under load, with clients that leave, with errors amid a stream, and at its end."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from http.client import IncompleteRead
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("fastapi")
pytest.importorskip("prometheus_client")

from csm_ggml.cli import main
from csm_ggml.csm import CSM
from csm_ggml.server.settings import Settings
from server_harness import LONG, TEXT, Running, free_port, load, running, until


@pytest.fixture(scope="module")
def server() -> Iterator[Running]:
    with running(Settings(chunk_frames=1), slots=2, queue=2) as found:
        yield found


class Slow:
    """A watermark hook that makes each frame take as long as one of a large model."""

    def __init__(self, server: Running, seconds: float = 0.03) -> None:
        self.server, self.seconds = server, seconds

    def __enter__(self) -> None:
        def wait(chunk: Any) -> Any:
            time.sleep(self.seconds)
            return chunk.samples

        self.server.csm.watermark = wait

    def __exit__(self, *_: object) -> None:
        self.server.csm.watermark = None
        until(lambda: self.server.busy() == 0)


def fill(server: Running, **fields: Any) -> list[socket.socket]:
    """Requests that take all slots and all places of the queue."""
    refused = {"endpoint": "/v1/audio/speech", "format": "pcm", "status": "429"}
    before = server.metric("csm_requests_total", **refused)
    waiting = [server.post(LONG, response_format="pcm", **fields) for _ in range(2)]
    until(lambda: server.csm.scheduler.stats().speaking == 2)

    def full() -> bool:
        # Short ones may have ended before the last were asked for.
        waiting.append(server.post(LONG, response_format="pcm", **fields))
        return server.metric("csm_requests_total", **refused) > before

    until(full)
    return waiting


def test_full_queue_is_429_with_the_time_to_wait(server: Running) -> None:
    with Slow(server):
        waiting = fill(server)
        answer = server.speak()
        assert answer.status == 429
        assert int(answer.headers["retry-after"]) >= 1
        assert answer.json["error"]["code"] == "rate_limit_exceeded"
        # Nobody has to wait for that, or for the state of things.
        started = time.perf_counter()
        assert server.ask("GET", "/health").status == 200
        assert time.perf_counter() - started < 0.5
        for connection in waiting:
            connection.close()
    assert server.speak().status == 200


def test_a_batch_waits_for_room(server: Running) -> None:
    items = [{"input": "Yes.", "response_format": "pcm", "max_seconds": 0.5}] * 20
    with Slow(server, 0.01):
        others = fill(server, max_seconds=4)
        answer = server.ask("POST", "/v1/audio/speech/batch", {"items": items})
        for connection in others:
            connection.close()
    assert answer.status == 200, answer
    assert answer.json["succeeded"] == 20, answer.json


@pytest.mark.parametrize("moment", ["before the first audio", "amid the stream", "in the queue"])
def test_a_client_that_leaves_frees_its_slot_within_two_frames(
    server: Running, moment: str
) -> None:
    frame = 0.2
    with Slow(server, frame):
        others = []
        if moment == "in the queue":
            others = [server.post(LONG, response_format="pcm") for _ in range(2)]
            until(lambda: server.csm.scheduler.stats().speaking == 2)
        before = server.busy()
        connection = server.post(LONG, response_format="pcm")
        until(lambda: server.busy() == before + 1)
        if moment == "amid the stream":
            assert connection.recv(200).startswith(b"HTTP/1.1 200")
        connection.close()
        started = time.perf_counter()
        until(lambda: server.busy() == before)
        assert time.perf_counter() - started < 2 * frame + 0.15
        for other in others:
            other.close()
    assert server.metric("csm_finish_total", reason="cancelled") >= 1


def test_headers_come_with_the_first_audio(server: Running) -> None:
    with Slow(server, 0.2):
        started = time.perf_counter()
        connection = server.post(response_format="pcm")
        assert connection.recv(10)
        assert time.perf_counter() - started > 0.15
        connection.close()


def fail_after(server: Running, frames: int) -> None:
    count = 0

    def fail(chunk: Any) -> Any:
        nonlocal count
        count += 1
        if count > frames:
            raise RuntimeError("a secret of the server")
        return chunk.samples

    server.csm.watermark = fail


def test_an_error_before_the_first_audio_has_a_status(server: Running) -> None:
    fail_after(server, 0)
    try:
        answer = server.speak()
    finally:
        server.csm.watermark = None
    assert answer.status == 500 and "secret" not in answer.body.decode()
    assert answer.json["error"]["type"] == "server_error"


def test_an_error_amid_a_stream_breaks_it_off(server: Running) -> None:
    fail_after(server, 3)
    try:
        with pytest.raises((IncompleteRead, ConnectionError)):
            server.speak(response_format="pcm")
    finally:
        server.csm.watermark = None


def test_an_error_amid_events_is_an_event(server: Running) -> None:
    fail_after(server, 3)
    try:
        body = server.speak(response_format="pcm", stream_format="sse").body.decode()
    finally:
        server.csm.watermark = None
    *_, last = body.split("\n\n")[:-1]
    event, data = last.split("\n")
    assert event == "event: error" and json.loads(data[6:])["error"]["type"] == "server_error"
    assert "secret" not in body and "speech.audio.done" not in body


def test_a_slow_reader_hurts_nobody(server: Running) -> None:
    connection = server.post(" ".join([LONG] * 5), response_format="wav")
    connection.recv(10)
    started = time.perf_counter()
    assert server.speak(response_format="pcm").status == 200
    assert time.perf_counter() - started < 2
    connection.close()
    until(lambda: server.busy() == 0)


def test_a_client_that_takes_nothing_is_given_up() -> None:
    with running(replace(Settings(), stall_seconds=0.3), slots=1) as server:
        # More than the buffers of two sockets hold.
        sockets = [server.post(" ".join([LONG] * 6), response_format="wav") for _ in range(2)]
        assert server.speak(response_format="pcm").status == 200
        until(lambda: server.busy() == 0, 20)
        for connection in sockets:
            connection.close()


def test_gaps_are_counted_as_a_player_hears_them(server: Running) -> None:
    before = server.metric("csm_underrun_seconds_total")
    server.speak(response_format="pcm")
    assert server.metric("csm_underrun_seconds_total") == before
    with Slow(server, 0.12):
        audio = len(server.speak(TEXT, seed=5, response_format="pcm").body) / 48_000
    until(lambda: server.metric("csm_underrun_seconds_total") > before)
    starved = server.metric("csm_underrun_seconds_total") - before
    # Each of its frames took at least half as long again as it lasts.
    assert 0.4 * audio < starved < 2 * audio


def test_loading_is_503_and_then_it_is_ready() -> None:
    go = threading.Event()

    def later() -> CSM:
        go.wait(20)
        return load(slots=1)

    with running(loader=later, wait=False) as server:
        answer = server.speak()
        assert answer.status == 503 and int(answer.headers["retry-after"]) >= 1
        assert server.ask("GET", "/ready").status == 503
        assert server.ask("GET", "/health").status == 200
        go.set()
        until(lambda: server.ask("GET", "/ready").status == 200)
        assert server.speak().status == 200


def test_a_model_that_cannot_be_loaded_ends_the_process(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "csm_ggml", "serve", "--port", str(free_port())]
    result = subprocess.run(
        [*command, "--model", str(tmp_path / "none.gguf")],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert result.returncode == 1 and "none.gguf" in result.stderr


def test_an_address_that_is_taken_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        assert main(["serve", "--port", port]) == 1
        error = capsys.readouterr().err
        assert f"127.0.0.1:{port}" in error and "already in use" in error
        assert main(["serve", "--port", "0", "--wyoming", port]) == 1


@pytest.mark.parametrize(
    "arguments",
    [
        *(["--port", "70000"], ["--port", "x"], ["--queue", "-1"], ["--realtime", "2"]),
        *(["--realtime", "nan"], ["--slots", "0"], ["--drain-seconds", "-1"], ["--alias", "x"]),
        ["--api-key-file", "/nothing/there"],
    ],
)
def test_wrong_usage_is_told_before_the_model_is_loaded(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["serve", *arguments]) == 2
    assert arguments[0] in capsys.readouterr().err


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGTERM")
def test_sigterm_stops_admission_and_drains(tmp_path: Path) -> None:
    port = free_port()
    hook = tmp_path / "hook.py"
    hook.write_text(
        "import time\ndef slow(chunk):\n    time.sleep(0.05)\n    return chunk.samples\n"
    )
    command = [sys.executable, "-m", "csm_ggml", "serve", "--port", str(port), "--slots", "2"]
    environment = dict(os.environ, PYTHONPATH=os.pathsep.join([str(tmp_path), *sys.path]))
    process = subprocess.Popen([*command, "--watermark", "hook:slow"], env=environment)
    try:
        server = Running(None, None, port)  # type: ignore[arg-type]

        def ready() -> bool:
            with suppress(OSError):
                return server.ask("GET", "/ready").status == 200
            return False

        until(ready, 60)
        with ThreadPoolExecutor(1) as pool:
            speaking = pool.submit(server.speak, LONG, seed=5, response_format="pcm", max_seconds=6)
            time.sleep(0.5)
            process.send_signal(signal.SIGTERM)
            until(lambda: server.ask("GET", "/ready").status == 503)
            assert server.speak().status == 503
            assert server.ask("GET", "/health").status == 200
            answer = speaking.result(60)
        with load() as csm:
            assert answer.body == csm.generate(LONG, seed=5, max_seconds=6).pcm16().tobytes()
        assert process.wait(20) == 0
    finally:
        process.kill()
