"""The server with its clients' own libraries over sockets, the WebSocket and Wyoming."""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("fastapi")
pytest.importorskip("prometheus_client")

from csm_ggml.csm import CSM
from csm_ggml.server.flow import SentenceReader
from csm_ggml.server.problems import busy
from csm_ggml.server.settings import Settings, key_digest
from server_harness import LONG, STORY, TEXT, Running, running, until

KEY = "sk-test"


@pytest.fixture(scope="module")
def server() -> Iterator[Running]:
    settings = Settings(keys=(key_digest(KEY),), chunk_frames=1)
    wyoming = _installed("wyoming")
    with running(settings, slots=4, wyoming=wyoming) as found:
        yield found


def _installed(name: str) -> bool:
    import importlib.util

    return importlib.util.find_spec(name) is not None


def pcm(csm: CSM, text: str, seed: int, **options: Any) -> bytes:
    return csm.generate(text, seed=seed, **options).pcm16().astype("<i2").tobytes()


# OpenAI's library


def client(server: Running, **options: Any) -> Any:
    openai = pytest.importorskip("openai")
    return openai.OpenAI(base_url=f"{server.url}/v1", api_key=KEY, **options)


def test_openai_create_and_write(server: Running, tmp_path: Path) -> None:
    fields = {"model": "tts-1", "voice": "alloy", "input": TEXT, "response_format": "pcm"}
    answer = client(server).audio.speech.create(**fields, extra_body={"seed": 5})
    assert answer.content == pcm(server.csm, TEXT, 5)
    assert answer.response.headers["x-request-id"].startswith("req_")
    answer.write_to_file(tmp_path / "speech.pcm")
    assert (tmp_path / "speech.pcm").read_bytes() == answer.content
    assert "demo" in [model.id for model in client(server).models.list()]


def test_openai_streams(server: Running) -> None:
    speech = client(server).audio.speech
    with speech.with_streaming_response.create(
        model="gpt-4o-mini-tts",
        voice={"id": "alloy"},
        input=TEXT,
        instructions="Cheerfully.",
        response_format="pcm",
        extra_body={"seed": 5},
    ) as answer:
        assert answer.headers["content-type"] == "audio/pcm"
        parts = list(answer.iter_bytes())
    assert b"".join(parts) == pcm(server.csm, TEXT, 5)
    assert len(parts) > 3


def test_openai_async(server: Running) -> None:
    openai = pytest.importorskip("openai")

    async def speak() -> list[bytes]:
        async with openai.AsyncOpenAI(base_url=f"{server.url}/v1", api_key=KEY) as client:
            calls = [
                client.audio.speech.create(
                    model="tts-1",
                    voice="echo",
                    input=TEXT,
                    response_format="pcm",
                    extra_body={"seed": seed},
                )
                for seed in range(4)
            ]
            return [answer.content for answer in await asyncio.gather(*calls)]

    assert asyncio.run(speak()) == [pcm(server.csm, TEXT, seed) for seed in range(4)]


def test_openai_errors(server: Running) -> None:
    openai = pytest.importorskip("openai")
    fields = {"model": "tts-1", "voice": "alloy", "input": "Hi."}
    with pytest.raises(openai.BadRequestError) as bad:
        client(server).audio.speech.create(**{**fields, "voice": "nobody"})
    assert bad.value.param == "voice" and bad.value.code == "voice_not_found"
    with pytest.raises(openai.NotFoundError):
        client(server).audio.speech.create(**{**fields, "model": "other"})
    with pytest.raises(openai.AuthenticationError):
        client(server).with_options(api_key="wrong").audio.speech.create(**fields)


def test_openai_comes_again_after_a_429(server: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    openai = pytest.importorskip("openai")
    fields = {"model": "tts-1", "voice": "alloy", "input": "Hi."}
    whole, refused = server.service.order, 0

    def order(*arguments: Any, **named: Any) -> Any:
        nonlocal refused
        refused += 1
        if refused <= 1:
            raise busy(0.3)
        return whole(*arguments, **named)

    monkeypatch.setattr(server.service, "order", order)
    started = time.perf_counter()
    assert client(server).audio.speech.create(**fields).content
    # As long as Retry-After says.
    assert refused == 2 and time.perf_counter() - started >= 1
    refused = -10
    with pytest.raises(openai.RateLimitError):
        client(server, max_retries=0).audio.speech.create(**fields)


# The WebSocket


def connect(server: Running, key: str = KEY, **headers: str) -> Any:
    sockets = pytest.importorskip("websockets.sync.client")
    sent = {"Authorization": f"Bearer {key}", **headers}
    return sockets.connect(
        f"ws://127.0.0.1:{server.port}/v1/audio/speech/stream", additional_headers=sent
    )


def say(socket: Any, *texts: str, **config: Any) -> None:
    if config:
        socket.send(json.dumps({"type": "session.config", **config}))
    for text in texts:
        socket.send(json.dumps({"type": "input.text", "text": text}))
    socket.send(json.dumps({"type": "input.done"}))


def heard(socket: Any) -> tuple[list[dict[str, Any]], bytes]:
    """Messages up to session.done, and the audio between them."""
    messages, audio = [], b""
    while not messages or messages[-1]["type"] != "session.done":
        message = socket.recv(30)
        if isinstance(message, bytes):
            audio += message
        else:
            messages.append(json.loads(message))
    return messages, audio


def test_websocket_says_what_generate_says(server: Running) -> None:
    with connect(server) as socket:
        say(socket, "Hello there, ", "how are", " you today?", seed=5)
        messages, audio = heard(socket)
        assert [m["type"] for m in messages] == ["audio.start", "audio.done", "session.done"]
        assert (messages[0]["format"], messages[0]["sample_rate"]) == ("pcm", 24_000)
        assert messages[0]["sentence_text"] == TEXT and messages[1]["total_bytes"] == len(audio)
        assert audio == pcm(server.csm, TEXT, 5)
        # The connection goes on, with the same settings.
        say(socket, "Once more.")
        messages, audio = heard(socket)
        assert audio == pcm(server.csm, "Once more.", 5)
        assert messages[-1] == {"type": "session.done", "utterance_index": 1, "total_sentences": 1}
        say(socket)
        assert heard(socket)[0][-1]["total_sentences"] == 0
        socket.send(json.dumps({"type": "session.close"}))


def test_websocket_speaks_while_the_text_still_comes(server: Running) -> None:
    with connect(server) as socket:
        socket.send(json.dumps({"type": "session.config", "seed": 5, "max_seconds": 1}))
        socket.send(json.dumps({"type": "input.text", "text": "This is first. And"}))
        assert json.loads(socket.recv(10))["sentence_text"] == "This is first."
        assert isinstance(socket.recv(10), bytes)
        say(socket, " this is second.")
        messages, _ = heard(socket)
        said = [m["sentence_text"] for m in messages if m["type"] == "audio.start"]
        assert said == ["And this is second."]


def test_how_a_text_is_cut_into_messages_changes_nothing(server: Running) -> None:
    rng = random.Random(2)
    results = []
    for _ in range(3):
        cuts = sorted(rng.sample(range(1, len(STORY)), 6))
        parts = [STORY[a:b] for a, b in zip([0, *cuts], [*cuts, None], strict=True)]
        with connect(server) as socket:
            say(socket, *parts, seed=5, max_seconds=1)
            results.append(heard(socket))
    assert results[0] == results[1] == results[2]


def test_closing_the_websocket_stops_at_once(server: Running) -> None:
    server.csm.watermark = lambda chunk: (time.sleep(0.05), chunk.samples)[1]
    try:
        with connect(server) as socket:
            say(socket, LONG)
            while not isinstance(socket.recv(10), bytes):
                pass
        started = time.perf_counter()
        until(lambda: server.busy() == 0)
        assert time.perf_counter() - started < 0.5
    finally:
        server.csm.watermark = None


@pytest.mark.parametrize(
    "message",
    [
        *("", "x", "[]", "{}", '{"type": "x"}', '{"type": "input.text"}', '{"type": []}'),
        '{"type": "input.text", "text": 5}',
        '{"type": "input.text", "text": "\\ud800"}',
        '{"type": "session.config", "voice": "nobody"}',
        '{"type": "session.config", "speed": 9}',
        '{"type": "session.config", "seed": "x"}',
        json.dumps({"type": "input.text", "text": "x" * 5_000}),
        "[" * 10_000,
    ],
)
def test_websocket_errors_are_told_and_end_nothing(server: Running, message: str) -> None:
    with connect(server) as socket:
        socket.send(message)
        error = json.loads(socket.recv(10))
        assert error["type"] == "error" and error["message"] == error["error"]["message"]
        socket.send(json.dumps({"type": "input.done"}))
        heard(socket)
        say(socket, "Hi.", max_seconds=0.2)
        assert heard(socket)[1]


def test_an_error_amid_a_text_is_told(server: Running) -> None:
    def fail(chunk: Any) -> Any:
        raise RuntimeError("a secret of the server")

    server.csm.watermark = fail
    try:
        with connect(server) as socket:
            say(socket, "Hi.")
            messages, audio = heard(socket)
    finally:
        server.csm.watermark = None
    assert [m["type"] for m in messages] == ["error", "session.done"] and not audio
    assert "secret" not in json.dumps(messages)


def test_websocket_is_guarded(server: Running) -> None:
    exceptions = pytest.importorskip("websockets.exceptions")
    with pytest.raises(exceptions.InvalidStatus):
        connect(server, "wrong")
    with pytest.raises(exceptions.InvalidStatus):
        connect(server, Origin="https://evil.example")
    with connect(server) as socket:
        socket.send(b"\x00")
        with pytest.raises(exceptions.ConnectionClosed):
            socket.recv(10)
    assert server.speak("Hi.").status == 401


@pytest.mark.parametrize("size", [1, 3, 7, 1_000])
def test_pieces_do_not_depend_on_how_the_text_comes(size: int) -> None:
    text = "Dr. Smith went. He saw 3.5 of it! " + STORY + " " + LONG
    reader = SentenceReader()
    pieces = [p for at in range(0, len(text), size) for p in reader.add(text[at : at + size])]
    pieces += reader.finish()
    whole = SentenceReader()
    assert pieces == [*whole.add(text), *whole.finish()]
    assert " ".join(pieces) == text and pieces[0] == "Dr. Smith went."


# Wyoming


def talk(server: Running, *events: Any, until_type: str) -> list[Any]:
    """Send events, and read until one of a type."""
    pytest.importorskip("wyoming")
    from wyoming.client import AsyncTcpClient

    async def run() -> list[Any]:
        assert server.wyoming is not None
        async with AsyncTcpClient("127.0.0.1", server.wyoming) as client:
            for event in events:
                await client.write_event(event.event())
            found = []
            while not found or found[-1].type != until_type:
                event = await asyncio.wait_for(client.read_event(), 30)
                assert event is not None
                found.append(event)
            return found

    return asyncio.run(run())


def wyoming_audio(events: list[Any]) -> bytes:
    return b"".join(event.payload for event in events if event.type == "audio-chunk")


def test_wyoming_describes_itself(server: Running) -> None:
    pytest.importorskip("wyoming")
    from wyoming.info import Describe, Info

    started = time.perf_counter()
    [event] = talk(server, Describe(), until_type="info")
    assert time.perf_counter() - started < 1
    [program] = Info.from_event(event).tts
    assert program.supports_synthesize_streaming and program.installed
    assert {"alloy", "speaker-0"} <= {voice.name for voice in program.voices}


def same_but_seed(server: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    """Wyoming has no field for a seed: the server draws this one."""
    monkeypatch.setattr("csm_ggml.server.service.resolve_seed", lambda seed: 5)


def test_wyoming_says_what_generate_says(server: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("wyoming")
    from wyoming.audio import AudioStart
    from wyoming.tts import Synthesize, SynthesizeVoice

    same_but_seed(server, monkeypatch)
    events = talk(
        server, Synthesize(text=TEXT, voice=SynthesizeVoice(name="nova")), until_type="audio-stop"
    )
    start = AudioStart.from_event(events[0])
    assert (start.rate, start.width, start.channels) == (24_000, 2, 1)
    assert wyoming_audio(events) == pcm(server.csm, TEXT, 5)


def test_wyoming_in_home_assistants_order(server: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    """Start, chunks, the whole text again for older servers, stop."""
    pytest.importorskip("wyoming")
    from wyoming.tts import Synthesize, SynthesizeChunk, SynthesizeStart, SynthesizeStop

    same_but_seed(server, monkeypatch)
    chunks = [SynthesizeChunk(text=part) for part in ("Hello there, how", " are you ", "today?")]
    events = talk(
        server,
        SynthesizeStart(),
        *chunks,
        Synthesize(text=TEXT),
        SynthesizeStop(),
        until_type="synthesize-stopped",
    )
    kinds = [event.type for event in events]
    assert kinds[0] == "audio-start" and kinds[-2:] == ["audio-stop", "synthesize-stopped"]
    assert kinds.count("audio-start") == 1
    assert wyoming_audio(events) == pcm(server.csm, TEXT, 5)


def test_wyoming_errors_and_leaving(server: Running) -> None:
    pytest.importorskip("wyoming")
    from wyoming.tts import Synthesize, SynthesizeVoice

    events = talk(
        server, Synthesize(text="Hi.", voice=SynthesizeVoice(name="nobody")), until_type="error"
    )
    assert "no such voice" in events[-1].data["text"]
    import socket

    assert server.wyoming is not None
    for data in (
        b"\x00\xff\n",
        b"{}\n",
        b'{"type": 5}\n',
        b'{"type":"synthesize"}\n',
        b'{"type":"synthesize","payload_length":1000000000000}\n',
        b'{"type":"synthesize","data_length":-1}\n',
        b"x" * 2_000_000,
    ):
        with socket.create_connection(("127.0.0.1", server.wyoming), timeout=5) as connection:
            connection.sendall(data)
    server.csm.watermark = lambda chunk: (time.sleep(0.05), chunk.samples)[1]
    try:
        talk(server, Synthesize(text=LONG), until_type="audio-chunk")
        until(lambda: server.busy() == 0, 1)
    finally:
        server.csm.watermark = None
