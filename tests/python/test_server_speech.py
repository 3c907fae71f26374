"""The server's HTTP face: what is said equals what `CSM.generate` says, in every form."""

from __future__ import annotations

import base64
import io
import json
import random
import struct
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

pytest.importorskip("fastapi")
pytest.importorskip("prometheus_client")

import soundfile
from csm_ggml.audio.encoders import FORMATS, MEDIA_TYPES
from csm_ggml.server.settings import Settings
from csm_ggml.text.lexicon import Lexicon
from fakes import say_nothing_of
from server_harness import LONG, TEXT, Running, running


@pytest.fixture(scope="module")
def server() -> Iterator[Running]:
    with running(slots=8) as found:
        yield found


def events(body: bytes) -> list[dict[str, Any]]:
    """The data of server-sent events, each of which has an event line and a data line."""
    found = []
    for block in body.decode().split("\n\n")[:-1]:
        event, data = block.split("\n")
        value = json.loads(data.removeprefix("data: "))
        assert event == f"event: {value['type']}"
        found.append(value)
    return found


def spoken(server: Running, text: str = TEXT, seed: int = 5, **options: Any) -> bytes:
    return server.csm.generate(text, seed=seed, **options).pcm16().astype("<i2").tobytes()


def sse_audio(body: bytes) -> bytes:
    *deltas, done = events(body)
    assert done["type"] == "speech.audio.done"
    assert all(delta["type"] == "speech.audio.delta" for delta in deltas)
    return b"".join(base64.b64decode(delta["audio"]) for delta in deltas)


def test_every_form_says_what_generate_says(server: Running) -> None:
    expected = spoken(server)
    fields = {"seed": 5, "response_format": "pcm"}
    assert server.speak(**fields).body == expected
    assert server.speak(**fields, stream=False).body == expected
    assert server.speak(**fields, speed=1.0).body == expected
    assert server.speak(**fields, priority="bulk").body == expected
    assert sse_audio(server.speak(**fields, stream_format="sse").body) == expected
    assert server.speak(seed=5, response_format="wav").body[44:] == expected
    batch = server.ask(
        "POST", "/v1/audio/speech/batch", {"items": [{"input": TEXT}], **fields}
    ).json
    assert base64.b64decode(batch["results"][0]["audio_data"]) == expected


@pytest.mark.parametrize("form", [{}, {"stream": False}, {"stream_format": "sse"}, {"items": 1}])
def test_neighbours_change_nothing(server: Running, form: dict[str, Any]) -> None:
    expected = spoken(server)

    def ask() -> bytes:
        fields = {"seed": 5, "response_format": "pcm"}
        if "items" in form:
            body = {"items": [{"input": "Yes."}, {"input": TEXT}], **fields}
            answer = server.ask("POST", "/v1/audio/speech/batch", body)
            return base64.b64decode(answer.json["results"][1]["audio_data"])
        body = server.speak(**fields, **form).body
        return sse_audio(body) if "stream_format" in form else body

    rng = random.Random(1)
    with ThreadPoolExecutor(9) as pool:
        ours = pool.submit(ask)
        others = []
        for _ in range(8):
            text = " ".join(rng.choices(["one", "two", "three", "hello", "again"], k=6)) + "."
            format = rng.choice(["mp3", "pcm", "opus"])
            others.append(pool.submit(server.speak, text, response_format=format))
        assert ours.result() == expected
        assert [other.result().status for other in others] == [200] * 8


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("stream", [True, False])
def test_formats(server: Running, format: str, stream: bool) -> None:
    if format == "aac":
        pytest.importorskip("av")
    samples = server.csm.generate(TEXT, seed=5).samples
    answer = server.speak(seed=5, response_format=format, stream=stream)
    assert answer.status == 200
    assert answer.headers["content-type"] == MEDIA_TYPES[format]
    assert answer.headers["cache-control"] == "no-cache"
    assert answer.headers["x-accel-buffering"] == "no"
    assert answer.headers["x-csm-seed"] == "5"
    assert answer.headers["x-request-id"].startswith("req_")
    assert ("content-length" in answer.headers) == (not stream)
    assert ("transfer-encoding" in answer.headers) == stream
    if format == "pcm":
        described = [
            answer.headers[f"x-{name}"] for name in ("sample-rate", "channels", "bit-depth")
        ]
        assert described == ["24000", "1", "16"]
        assert len(answer.body) == 2 * len(samples)
    elif format == "wav":
        data_bytes = struct.unpack("<I", answer.body[40:44])[0]
        assert data_bytes == (0xFFFFFFFF if stream else len(answer.body) - 44)
    elif format in ("mp3", "opus"):
        heard, rate = soundfile.read(io.BytesIO(answer.body))
        assert rate == 24_000 and len(samples) <= len(heard) <= len(samples) + 2_881
    if not stream:
        assert answer.headers["x-csm-finish-reason"] == "eos"


def test_mp3_is_the_default(server: Running) -> None:
    answer = server.speak()
    assert answer.headers["content-type"] == "audio/mpeg" and answer.body[:2] == b"\xff\xf3"


@pytest.mark.parametrize("format", ["mp3", "pcm", "opus"])
def test_events_hold_the_format_that_was_asked_for(server: Running, format: str) -> None:
    answer = server.speak(seed=5, stream_format="sse", response_format=format)
    assert answer.headers["content-type"] == "text/event-stream"
    inside, plain = sse_audio(answer.body), server.speak(seed=5, response_format=format).body
    if format == "opus":
        assert np.array_equal(*(soundfile.read(io.BytesIO(data))[0] for data in (inside, plain)))
    else:
        assert inside == plain
    usage = events(answer.body)[-1]["usage"]
    assert set(usage) == {"input_tokens", "output_tokens", "total_tokens"}
    assert usage["total_tokens"] == usage["input_tokens"] + usage["output_tokens"] > 0


def test_speed_changes_the_duration(server: Running) -> None:
    pytest.importorskip("av")
    plain = len(server.speak(seed=5, response_format="pcm").body)
    for speed in (0.5, 2.0):
        answer = server.speak(seed=5, response_format="pcm", speed=speed)
        assert abs(len(answer.body) - plain / speed) < 0.1 * 48_000


def test_options_are_those_of_generate(server: Running) -> None:
    options = {"temperature": 0.5, "top_k": 10, "max_seconds": 0.8}
    expected = spoken(server, **options)
    assert server.speak(seed=5, response_format="pcm", **options).body == expected
    greedy = server.speak(temperature=0, response_format="pcm", max_seconds=0.8)
    assert greedy.body == spoken(server, temperature=0, max_seconds=0.8)


def test_seeds_that_were_drawn_are_told(server: Running) -> None:
    first = server.speak(response_format="pcm")
    seed = int(first.headers["x-csm-seed"])
    assert server.speak(response_format="pcm", seed=seed).body == first.body


def test_tags_are_text_unless_asked_for(server: Running) -> None:
    text = "As we know [1] this is so."
    plain = server.speak(text, seed=5, response_format="pcm").body
    assert plain == spoken(server, text, tags=False)
    turns = server.speak(text, seed=5, response_format="pcm", dialogue=True).body
    assert turns == spoken(server, text, tags=True) and turns != plain


def test_texts_are_normalized_if_asked_for() -> None:
    text = "It costs $5 at GGML."
    settings = Settings(normalize="en", lexicon=Lexicon({"GGML": "gee gee em el"}))
    with running(settings, slots=1) as server:
        fields = {"seed": 5, "response_format": "pcm"}
        options = {"tags": False, "lexicon": settings.lexicon}
        expected = spoken(server, text, normalize="en", **options)
        assert server.speak(text, **fields).body == expected
        assert server.speak(text, **fields, normalize="off").body == spoken(server, text, **options)


def test_long_texts_flow_as_one_stream(server: Running) -> None:
    assert len(LONG) > 500
    text = LONG + " " + LONG
    fields = {"seed": 5, "response_format": "pcm", "max_seconds": 1.0}
    streamed = server.speak(text, **fields)
    assert streamed.status == 200
    assert server.speak(text, **fields, stream=False).body == streamed.body
    assert len(streamed.body) > 48_000 * 8
    # It begins with the first piece, spoken as if it were alone.
    first = spoken(server, "This one sentence is said again and again.", max_seconds=1.0)
    assert streamed.body.startswith(first)


def test_a_text_that_is_answered_with_nothing_is_an_error(
    server: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    say_nothing_of(monkeypatch, "unsayable")
    text = "This is unsayable."
    for form in ({}, {"stream": False}, {"stream_format": "sse"}, {"response_format": "pcm"}):
        answer = server.speak(text, **form)
        assert answer.status == 422
        error = answer.json["error"]
        assert (error["code"], error["param"]) == ("no_speech", "input")
        assert "the model has nothing to say to this text" in error["message"]
    batch = {"items": [{"input": "One."}, {"input": text}]}
    one, two = server.ask("POST", "/v1/audio/speech/batch", batch).json["results"]
    assert one["status"] == "success"
    assert two["status"] == "error" and two["error"]["code"] == "no_speech"


def test_batches_tell_what_failed_and_keep_the_rest(server: Running) -> None:
    items = [{"input": "One."}, {"input": "Two.", "response_format": "flac", "seed": 3}]
    answer = server.ask("POST", "/v1/audio/speech/batch", {"items": items, "seed": 1}).json
    assert (answer["total"], answer["succeeded"], answer["failed"]) == (2, 2, 0)
    one, two = answer["results"]
    assert (one["media_type"], two["media_type"]) == ("audio/mpeg", "audio/flac")
    assert (one["seed"], two["seed"]) == (1, 3)
    samples, _ = soundfile.read(io.BytesIO(base64.b64decode(two["audio_data"])), dtype="int16")
    assert np.array_equal(samples, server.csm.generate("Two.", seed=3).pcm16())
    bad = server.ask("POST", "/v1/audio/speech/batch", {"items": [*items, {"input": " "}]})
    assert bad.status == 400 and bad.json["error"]["param"] == "items[2].input"
    assert server.ask("POST", "/v1/audio/speech/batch", {"items": []}).status == 400


# Lists and small things


def test_lists_have_the_shapes_that_clients_read(server: Running) -> None:
    models = server.ask("GET", "/v1/models").json
    assert models["object"] == "list" and models["data"][0]["id"] == "demo"
    assert {"tts-1", "tts-1-hd", "gpt-4o-mini-tts"} <= {model["id"] for model in models["data"]}
    assert server.ask("GET", "/v1/models/tts-1").json["object"] == "model"
    missing = server.ask("GET", "/v1/models/none")
    assert missing.status == 404 and missing.json["error"]["code"] == "model_not_found"
    audio = server.ask("GET", "/v1/audio/models").json["models"]
    voices = server.ask("GET", "/v1/audio/voices?model=tts-1").json["voices"]
    assert all(entry["id"] and entry["name"] for entry in [*audio, *voices])
    names = {voice["id"] for voice in voices}
    assert {"alloy", "nova", "cedar", "speaker-0", "speaker-1"} <= names
    for name in ("alloy", "marin", "speaker-1"):
        assert server.speak("Hi.", voice=name).status == 200
    assert server.speak("Hi.", voice={"id": "alloy"}).status == 200


def test_health_version_and_documents(server: Running) -> None:
    assert server.ask("GET", "/health").json == {"status": "ok"}
    ready = server.ask("GET", "/ready").json
    assert ready["status"] == "ready" and ready["slots"] == 8 and 1 <= ready["live_streams"] <= 8
    assert server.ask("GET", "/version").json["name"] == "csm-ggml"
    for path in ("/v1", "/v1/", "/docs", "/openapi.json", "/"):
        assert server.ask("GET", path).status == 200, path


def test_metrics_count_what_happened(server: Running) -> None:
    before = server.metric("csm_finish_total", reason="eos")
    server.speak("Hi.")
    text = server.ask("GET", "/metrics").body.decode()
    assert server.metric("csm_finish_total", reason="eos") == before + 1
    for name in (
        *("csm_requests_total", "csm_request_seconds_bucket", "csm_queue_wait_seconds_bucket"),
        *("csm_time_to_first_audio_seconds_bucket", "csm_real_time_factor_bucket"),
        *("csm_audio_seconds_total", "csm_underrun_seconds_total", "csm_continuity_ok_total"),
        *("csm_step_seconds", "csm_step_requests", "csm_slots", "csm_slots_busy"),
        *("csm_queue_depth", "csm_finish_total", "csm_voice_prefix_total"),
    ):
        assert name in text, name


# What cannot be done


@pytest.mark.parametrize(
    ("fields", "status", "param"),
    [
        ({"input": ""}, 400, "input"),
        ({"input": "   \n"}, 400, "input"),
        ({"input": "a" * 4097}, 400, "input"),
        ({"input": 5}, 400, "input"),
        ({"input": None}, 400, "input"),
        ({"model": "other"}, 404, "model"),
        ({"voice": "nobody"}, 400, "voice"),
        ({"voice": {"name": "alloy"}}, 400, "voice"),
        ({"voice": "../../etc/passwd"}, 400, "voice"),
        ({"voice": ["alloy", "echo"]}, 400, "voice"),
        ({"response_format": "ogg"}, 400, "response_format"),
        ({"speed": 5}, 400, "speed"),
        ({"speed": 0.2}, 400, "speed"),
        ({"seed": -1}, 400, "seed"),
        ({"seed": 2**64}, 400, "seed"),
        ({"temperature": -1}, 400, "temperature"),
        ({"top_k": -1}, 400, "top_k"),
        ({"max_seconds": 0}, 400, "max_seconds"),
        ({"stream_format": "websocket"}, 400, "stream_format"),
        ({"priority": "urgent"}, 400, "priority"),
        ({"instructions": "x" * 4097}, 400, "instructions"),
    ],
)
def test_errors_have_openais_envelope(
    server: Running, fields: dict[str, Any], status: int, param: str
) -> None:
    answer = server.ask("POST", "/v1/audio/speech", {"model": "tts-1", "input": "Hi.", **fields})
    assert answer.status == status, answer.body
    error = answer.json["error"]
    assert set(error) == {"type", "message", "param", "code"}
    assert error["type"] == "invalid_request_error" and error["param"] == param and error["message"]


def test_fields_of_other_servers_are_ignored(server: Running) -> None:
    extra = {"backend": "x", "language": "en", "instructions": "Cheerfully!", "voice": None}
    assert server.speak("Hi.", **extra, speed=None, response_format=None).status == 200
    assert server.ask("POST", "/v1/audio/speech", {"input": "Hi."}).status == 200


def test_other_paths_and_methods(server: Running) -> None:
    for method, path, status in (
        ("GET", "/v1/audio/speech", 405),
        ("GET", "/nothing", 404),
        ("POST", "/v1/chat/completions", 404),
        ("GET", "/page/../../settings.py", 404),
    ):
        answer = server.ask(method, path)
        assert answer.status == status, path
        assert set(answer.json["error"]) == {"type", "message", "param", "code"}
