"""Ray Data and Ray Serve on a real cluster of this machine (`pytest -m ray`, extra `ray`)."""

import json
import os
import signal
import socket
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from csm_ggml import CSM
from csm_ggml.cli import main
from csm_ggml.ray import Speaker

pytestmark = pytest.mark.ray
ray: Any = pytest.importorskip("ray")
pytest.importorskip("ray.data")
serve: Any = pytest.importorskip("ray.serve")

WORDS = ("one", "two", "three", "four", "five", "six", "seven")
ROWS = [
    {"id": f"r{n}", "text": " ".join(WORDS[n * k % 7] for k in range(1, 2 + n % 5)) + "."}
    for n in range(240)
]
with socket.socket() as free:
    free.bind(("127.0.0.1", 0))
    PORT = free.getsockname()[1]
ADDRESS = f"http://127.0.0.1:{PORT}"


@pytest.fixture(scope="module", autouse=True)
def cluster() -> Iterator[None]:
    ray.init(num_cpus=4, include_dashboard=False, log_to_driver=False, object_store_memory=2**28)
    ray.data.DataContext.get_current().enable_progress_bars = False
    yield
    ray.shutdown()


@pytest.fixture(scope="module")
def expected() -> dict[str, bytes]:
    """The rows in one process without Ray."""
    columns = {name: [row[name] for row in ROWS] for name in ("id", "text")}
    return {row["id"][0]: row["audio"][0] for row in Speaker(seed=5, threads=1)(columns)}


def spoken(actors: int, batch: int, rows: list[dict[str, str]] = ROWS) -> Iterator[Any]:
    data = ray.data.from_items(rows).map_batches(
        Speaker,
        fn_constructor_kwargs={"seed": 5},
        batch_size=batch,
        compute=ray.data.ActorPoolStrategy(size=actors),
        num_cpus=1,
    )
    return iter(data.iter_rows())


def workers(name: str) -> list[int]:
    """Processes of actors whose title begins with this."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if (folder / "cmdline").read_bytes().startswith(name.encode()):
                found.append(int(folder.name))
        except OSError:
            continue
    return found


def test_actors_batches_and_order_change_nothing(expected: dict[str, bytes]) -> None:
    rows = {row["id"]: row["audio"] for row in spoken(2, 25, ROWS[::-1])}
    assert rows == expected


@pytest.mark.skipif(not Path("/proc/self/cmdline").exists(), reason="finds the worker in /proc")
def test_a_killed_worker_loses_and_doubles_nothing(expected: dict[str, bytes]) -> None:
    context = ray.data.DataContext.get_current()
    usual = context.target_max_block_size
    # A few rows a block: some of a batch are out already when its worker dies.
    context.target_max_block_size = 100_000
    try:
        found: list[tuple[str, bytes]] = []
        for row in spoken(2, 60):
            found.append((row["id"], row["audio"]))
            if len(found) == 10:
                os.kill(workers("ray::MapWorker")[0], signal.SIGKILL)
    finally:
        context.target_max_block_size = usual
    assert len(found) == len(ROWS)
    assert dict(found) == expected


def test_speak_many_on_a_cluster(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    rows = [*ROWS[:30], {"id": "empty", "text": ""}]
    Path("in.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    command = ["speak-many", "in.jsonl", "-q", "--threads", "1", "-o"]
    assert main([*command, "one"]) == 1
    assert main([*command, "two", "--ray", "--actors", "2"]) == 1
    for file in Path("one").iterdir():
        assert file.read_bytes() == Path("two", file.name).read_bytes()
    assert len(list(Path("two").iterdir())) == 30 + 2
    # An error is told as if there were no Ray.
    assert main([*command, "three", "--on-error", "raise"]) == 1
    here = capsys.readouterr().err.splitlines()[-1]
    assert main([*command, "four", "--ray", "--on-error", "raise"]) == 1
    assert capsys.readouterr().err.splitlines()[-1].startswith(here)


def request(text: str, timeout: float = 60) -> Any:
    body = {"model": "demo", "input": text, "voice": "alloy", "response_format": "pcm", "seed": 7}
    return urllib.request.urlopen(
        urllib.request.Request(
            f"{ADDRESS}/v1/audio/speech",
            data=json.dumps(body).encode(),
            headers={"Content-Type": "application/json"},
        ),
        timeout=timeout,
    )


def test_serve(monkeypatch: pytest.MonkeyPatch) -> None:
    from csm_ggml.ray import app

    long = "One two three four five six seven eight nine ten. " * 40
    csm = CSM.from_pretrained("demo", threads=1)
    serve.start(http_options={"host": "127.0.0.1", "port": PORT})
    serve.run(app(threads=1, slots=2, queue=2), name="speech")
    try:
        # Ready means that the model is there: the first request is spoken.
        with request("Hello there.") as answer:
            whole = answer.read()
            assert answer.headers["x-csm-seed"] == "7"
        assert whole == csm.generate("Hello there.", seed=7, tags=False).pcm16().tobytes()

        # Full: 429 as the server has it everywhere, and a wait.
        codes: list[int] = []
        waits: list[int] = []
        refusals: list[str] = []

        def ask() -> None:
            try:
                with request(long) as answer:
                    answer.read()
                    codes.append(answer.status)
            except urllib.error.HTTPError as error:
                waits.append(int(error.headers["Retry-After"]))
                codes.append(error.code)
                refusals.append(json.load(error)["error"]["code"])

        threads = [threading.Thread(target=ask) for _ in range(16)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert set(codes) == {200, 429}
        assert codes.count(200) >= 4
        assert min(waits) >= 1
        assert set(refusals) == {"rate_limit_exceeded"}

        # A listener who leaves frees the slot.
        with request(long * 2) as answer:
            answer.read(1000)
        end = time.monotonic() + 10
        while time.monotonic() < end:
            with urllib.request.urlopen(f"{ADDRESS}/ready") as answer:
                if json.load(answer)["speaking"] == 0:
                    break
            time.sleep(0.1)
        else:
            raise AssertionError("the slot is still taken")

        # What is being said when the application is taken down is said to its end.
        with request(long) as answer:
            start = answer.read(1000)
            ending = threading.Thread(target=serve.delete, args=("speech",))
            ending.start()
            rest = answer.read()
            ending.join()
        assert len(start + rest) > 24_000 * 2 * 60
    finally:
        serve.shutdown()
