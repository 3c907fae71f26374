"""Who may ask the server for what, and what it does with hostile requests."""

from __future__ import annotations

import io
import json
import re
import struct
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("fastapi")
pytest.importorskip("prometheus_client")

import soundfile
from csm_ggml.cli import main
from csm_ggml.csm import CSM
from csm_ggml.server import security
from csm_ggml.server.settings import Settings, is_loopback, key_digest, read_keys
from csm_ggml.server.voicestore import VoiceStore
from csm_ggml.voices.voice import Voice, VoicePrefix
from server_harness import Answer, Running, load, running, until

KEY = "sk-test-1234567890"
BOUNDARY = "boundary"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    settings = Settings(
        keys=read_keys([KEY, "", "# a comment", "another key"]),
        voices=tmp_path_factory.mktemp("voices"),
        body_seconds=1.0,
        origins=("https://friend.example",),
    )
    with running(settings, slots=4) as found:
        yield found


def with_key(key: str = KEY, **more: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}", **more}


def speech(server: Running, headers: dict[str, str] | None = None, **fields: Any) -> Answer:
    body = {"model": "tts-1", "input": "Hi.", "max_seconds": 0.2, **fields}
    return server.ask("POST", "/v1/audio/speech", body, with_key() if headers is None else headers)


# Keys


def test_without_a_key_only_what_tells_nothing_is_open(server: Running) -> None:
    for path in ("/", "/health", "/ready", "/version", "/v1/", "/docs", "/openapi.json"):
        assert server.ask("GET", path).status == 200, path
    for method, path in (
        *(("GET", "/metrics"), ("GET", "/v1/models"), ("GET", "/v1/audio/voices")),
        *(("GET", "/v1/audio/models"), ("POST", "/v1/audio/speech"), ("GET", "/nothing")),
        *(("POST", "/v1/audio/speech/batch"), ("POST", "/v1/audio/voices")),
        *(("DELETE", "/v1/audio/voices/x"), ("POST", "/"), ("OPTIONS", "/v1/audio/speech")),
    ):
        answer = server.ask(method, path)
        assert answer.status == 401, (method, path)
        assert answer.json["error"]["code"] == "invalid_api_key"


@pytest.mark.parametrize("value", ["", "Bearer", "Bearer ", "Bearer wrong", f"Basic {KEY}", KEY])
def test_wrong_keys(server: Running, value: str) -> None:
    assert speech(server, {"Authorization": value}).status == 401


def test_several_keys(server: Running) -> None:
    for key in (KEY, "another key"):
        assert speech(server, with_key(key)).status == 200
    assert speech(server, with_key("# a comment")).status == 401


def test_keys_are_compared_in_constant_time_as_hashes(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[bytes, bytes]] = []

    def compare(one: bytes, other: bytes) -> bool:
        seen.append((one, other))
        return one == other

    monkeypatch.setattr(security.hmac, "compare_digest", compare)
    keys = [key_digest("a"), key_digest("b"), key_digest("c")]
    assert security._known("a", keys)
    # All of them, also after the right one, and digests alone.
    assert [other for _, other in seen] == keys
    assert {len(part) for pair in seen for part in pair} == {32}


def test_a_body_is_not_read_before_the_key(server: Running) -> None:
    connection = server.raw(
        b"POST /v1/audio/voices HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9000000\r\n\r\n"
    )
    assert connection.recv(100).startswith(b"HTTP/1.1 401")
    connection.close()


def test_lists_and_metrics_may_be_public() -> None:
    settings = Settings(keys=(key_digest(KEY),), public_lists=True, public_metrics=True)
    with running(settings, slots=1) as server:
        for path in ("/v1/models", "/v1/audio/models", "/v1/audio/voices", "/metrics"):
            assert server.ask("GET", path).status == 200
        assert server.ask("POST", "/v1/audio/voices").status == 401


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.4", "example.org"])
def test_beyond_this_machine_a_key_is_required(
    host: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CSM_GGML_API_KEYS", raising=False)
    assert not is_loopback(host)
    assert main(["serve", "--host", host]) == 2
    assert "a key is required" in capsys.readouterr().err


def test_this_machine_alone_is_the_default(capsys: pytest.CaptureFixture[str]) -> None:
    assert all(map(is_loopback, ("127.0.0.1", "127.8.8.8", "::1", "localhost")))
    assert main(["serve", "--help"]) == 0
    told = " ".join(capsys.readouterr().out.split())
    assert "listens at 127.0.0.1" in told and "a key is required" in told


def test_empty_key_files_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "keys"
    file.write_text("# none yet\n")
    assert main(["serve", "--api-key-file", str(file)]) == 2
    assert "holds no key" in capsys.readouterr().err


# Names and origins


@pytest.mark.parametrize(
    "host", ["evil.example", "localhost.evil.example", "127.0.0.1.evil.example"]
)
def test_other_hosts_are_refused(server: Running, host: str) -> None:
    """As a page does that has had its own name point to this machine."""
    for method, path in (("GET", "/v1/models"), ("POST", "/v1/audio/speech"), ("GET", "/")):
        assert server.ask(method, path, headers=with_key(Host=host)).status == 403


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:1", "127.0.0.1:9", "[::1]:80"])
def test_names_of_this_machine(server: Running, host: str) -> None:
    assert server.ask("GET", "/v1/models", headers=with_key(Host=host)).status == 200


@pytest.mark.parametrize(
    "origin", ["https://evil.example", "null", "http://localhost:1", "x", "[", ""]
)
def test_pages_of_other_origins_may_change_nothing(server: Running, origin: str) -> None:
    for method, path in (("POST", "/v1/audio/speech"), ("DELETE", "/v1/audio/voices/x")):
        assert server.ask(method, path, headers=with_key(Origin=origin)).status == 403


def test_own_and_named_origins(server: Running) -> None:
    own = with_key(Origin=server.url)
    assert speech(server, own).status == 200
    friend = speech(server, with_key(Origin="https://friend.example"))
    assert friend.status == 200
    assert friend.headers["access-control-allow-origin"] == "https://friend.example"
    asked = {"Origin": "https://friend.example", "Access-Control-Request-Method": "POST"}
    assert server.ask("OPTIONS", "/v1/audio/speech", headers=asked).status == 200


def test_no_cors_by_default() -> None:
    with running(slots=1) as server:
        answer = server.ask("GET", "/v1/models", headers={"Origin": "https://evil.example"})
        assert not [name for name in answer.headers if name.startswith("access-control")]
        simple = {"Content-Type": "text/plain"}
        assert server.ask("POST", "/v1/audio/speech", b'{"input":"x"}', simple).status == 400


# Bodies


def test_bodies_have_limits(server: Running) -> None:
    large = {"Content-Length": str(2 << 20)}
    assert server.ask("POST", "/v1/audio/speech", headers=with_key(**large)).status == 413
    large = {"Content-Length": str(11 << 20)}
    assert server.ask("POST", "/v1/audio/voices", headers=with_key(**large)).status == 413
    huge = {"Content-Length": "9" * 30}
    assert server.ask("POST", "/v1/audio/speech", headers=with_key(**huge)).status in (400, 413)


def test_chunked_bodies_are_counted(server: Running) -> None:
    head = "POST /v1/audio/speech HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n"
    connection = server.raw(f"{head}Authorization: Bearer {KEY}\r\n\r\n".encode())
    connection.settimeout(5)
    try:
        for _ in range(40):
            connection.sendall(b"10000\r\n" + b"x" * 0x10000 + b"\r\n")
    except OSError:
        pass
    assert connection.recv(100).startswith(b"HTTP/1.1 413")
    connection.close()


def test_slow_bodies_are_given_up(server: Running) -> None:
    head = f"POST /v1/audio/speech HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {KEY}\r\n"
    connection = server.raw(f"{head}Content-Length: 100\r\n\r\n{{".encode())
    started = time.perf_counter()
    assert connection.recv(100).startswith(b"HTTP/1.1 408")
    assert time.perf_counter() - started < 5
    connection.close()


def test_slow_headers_are_given_up(server: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    from csm_ggml.server import run

    monkeypatch.setattr(run, "HEADER_SECONDS", 0.3)
    first = server.raw(b"GET /health HTTP/1.1\r\nHost: loc")
    silent = server.raw(b"")
    second = server.raw(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")
    assert second.recv(100).startswith(b"HTTP/1.1 200")
    second.sendall(b"GET /hea")
    for connection in (first, silent, second):
        connection.settimeout(5)
        while connection.recv(1_000):
            pass
        connection.close()
    # A request whose answer takes longer is not slow.
    assert speech(server, input="This takes its time to be said.", max_seconds=2).status == 200


# Voices


def upload(server: Running, sample: bytes, **fields: str) -> Answer:
    parts = []
    for name, value in {
        "name": "Anna",
        "consent": "cons_1",
        "transcript": "Words.",
        **fields,
    }.items():
        parts.append(
            f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'
        )
    head = "".join(parts) + (
        f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="audio_sample"; '
        f'filename="../../x.wav"\r\nContent-Type: audio/wav\r\n\r\n'
    )
    body = head.encode() + sample + f"\r\n--{BOUNDARY}--\r\n".encode()
    kind = {"Content-Type": f"multipart/form-data; boundary={BOUNDARY}"}
    return server.ask("POST", "/v1/audio/voices", body, with_key(**kind))


def recording(
    seconds: float = 1.0, rate: int = 24_000, channels: int = 1, format: str = "WAV"
) -> bytes:
    rng = np.random.default_rng(0)
    samples = rng.normal(0, 0.05, (round(seconds * rate), channels)).astype(np.float32)
    buffer = io.BytesIO()
    soundfile.write(buffer, samples, rate, format=format)
    return buffer.getvalue()


def test_an_uploaded_voice_speaks_and_goes(server: Running) -> None:
    made = upload(server, recording()).json
    assert made["object"] == "audio.voice" and made["name"] == "Anna" and made["created_at"] > 0
    assert re.fullmatch("voice_[0-9a-f]{24}", made["id"])
    listed = server.ask("GET", "/v1/audio/voices", headers=with_key()).json["voices"]
    assert made["id"] in [voice["id"] for voice in listed]
    expected = server.csm.create_voice(soundfile_read(recording()), "Words.")
    said = server.csm.generate("Hi.", voice=expected, seed=3, max_seconds=0.2).pcm16().tobytes()
    for voice in (made["id"], "Anna", {"id": made["id"]}):
        assert speech(server, voice=voice, seed=3, response_format="pcm").body == said
    assert upload(server, recording()).status == 409
    deleted = server.ask("DELETE", f"/v1/audio/voices/{made['id']}", headers=with_key())
    assert deleted.json["deleted"] is True
    assert speech(server, voice=made["id"]).status == 400
    assert server.ask("DELETE", "/v1/audio/voices/speaker-0", headers=with_key()).status == 404
    assert not list(folder(server).iterdir())


def soundfile_read(data: bytes) -> tuple[Any, int]:
    return soundfile.read(io.BytesIO(data), dtype="float32", always_2d=True)


def folder(server: Running) -> Path:
    assert server.service.settings.voices is not None
    return server.service.settings.voices


@pytest.mark.parametrize(
    "name",
    ["../../etc/passwd", "/etc/passwd", "..", "a\x01b", "\u202egnp.exe", "x" * 90, "CON", "ü"],
)
def test_names_are_data(server: Running, name: str) -> None:
    made = upload(server, recording(), name=name)
    assert made.status == 200, made.body
    found = {path.name for path in folder(server).iterdir()}
    assert found == {f"{made.json['id']}.voice", f"{made.json['id']}.json"}
    server.ask("DELETE", f"/v1/audio/voices/{made.json['id']}", headers=with_key())


@pytest.mark.parametrize(
    "voice", ["../x", "..%2fx", "/etc/passwd", "a\x00b", ".", "http://127.0.0.1/"]
)
def test_voices_of_requests_are_looked_up_and_not_opened(server: Running, voice: str) -> None:
    assert speech(server, voice=voice).status == 400
    path = f"/v1/audio/voices/{voice}".replace("\x00", "%00")
    assert server.ask("DELETE", path, headers=with_key()).status in (404, 405)


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"consent": ""}, "consent"),
        ({"consent": "false"}, "consent"),
        ({"name": ""}, "name"),
        ({"name": "x" * 101}, "name"),
        ({"transcript": ""}, "transcript"),
        ({"transcript": "x" * 2_001}, "transcript"),
    ],
)
def test_uploads_need_consent_name_and_words(
    server: Running, fields: dict[str, str], param: str
) -> None:
    answer = upload(server, recording(), **fields)
    assert answer.status == 400 and answer.json["error"]["param"] == param


def wav_that_claims(frames: int) -> bytes:
    data = bytearray(recording(0.6))
    data[40:44] = struct.pack("<I", frames * 2)
    return bytes(data)


BOMBS = {
    "empty": b"",
    "text": b"hello",
    "too long": recording(61, 8_000),
    # An hour of silence in a few kilobytes.
    "bomb": b"",
    "too short": recording(0.1),
    "many channels": recording(0.6, channels=8),
    "low rate": recording(0.6, rate=4_000),
    "high rate": recording(0.6, rate=384_000),
    "cut": recording()[:30],
    "voice file": b"CSMVOICE" + bytes(100),
}


def bomb() -> bytes:
    buffer = io.BytesIO()
    with soundfile.SoundFile(buffer, "w", 8_000, 1, format="FLAC", subtype="PCM_16") as file:
        for _ in range(3_600):
            file.write(np.zeros(8_000, np.int16))
    return buffer.getvalue()


@pytest.mark.parametrize("kind", BOMBS)
def test_recordings_are_read_with_suspicion(server: Running, kind: str) -> None:
    sample = bomb() if kind == "bomb" else BOMBS[kind]
    started = time.perf_counter()
    answer = upload(server, sample)
    assert answer.status == 400, answer.body
    assert answer.json["error"]["param"] == "audio_sample"
    assert time.perf_counter() - started < 5
    assert not list(folder(server).iterdir())


def test_a_header_that_claims_more_than_there_is(server: Running) -> None:
    answer = upload(server, wav_that_claims(1 << 30))
    assert answer.status == 200
    server.ask("DELETE", f"/v1/audio/voices/{answer.json['id']}", headers=with_key())


def test_keys_and_values_of_a_voice_file_are_dropped(server: Running) -> None:
    voice = server.csm.create_voice(soundfile_read(recording()), "Words.")
    poison = VoicePrefix("demo", server.csm.fingerprint, b"\xff" * 1_000)
    answer = upload(server, replace(voice, prefix=poison).to_bytes())
    assert answer.status == 200
    [kept] = folder(server).glob("*.voice")
    assert Voice.load(kept).prefix is None
    said = speech(server, voice=answer.json["id"], seed=3, response_format="pcm")
    expected = server.csm.generate("Hi.", voice=voice, seed=3, max_seconds=0.2)
    assert said.body == expected.pcm16().tobytes()
    server.ask("DELETE", f"/v1/audio/voices/{answer.json['id']}", headers=with_key())


def test_without_a_folder_nothing_is_kept() -> None:
    with running(Settings(keys=(key_digest(KEY),)), slots=1) as server:
        assert upload(server, recording()).status == 403


def test_saved_voices_default_and_aliases(tmp_path: Path) -> None:
    with load() as csm:
        voice = csm.create_voice(soundfile_read(recording()), "Words.")
        voice.save(tmp_path / "anna.voice")
        expected = csm.generate("Hi.", voice=voice, seed=3, max_seconds=0.2).pcm16().tobytes()
        other = csm.generate("Hi.", speaker=1, seed=3, max_seconds=0.2).pcm16().tobytes()
    settings = Settings(voices=tmp_path, default_voice="anna", aliases={"echo": "speaker-1"})
    with running(settings, slots=1) as server:
        fields = {"seed": 3, "response_format": "pcm"}
        for name in ("anna", "alloy", None):
            assert speech(server, {}, voice=name, **fields).body == expected
        assert speech(server, {}, voice="echo", **fields).body == other
        assert server.ask("DELETE", "/v1/audio/voices/anna").status == 403
    with pytest.raises(ValueError, match="no voice 'bert'"):
        VoiceStore(Settings(voices=tmp_path, default_voice="bert"))


def test_servers_may_share_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("csm_ggml.server.voicestore._LOOK_SECONDS", 0.0)
    one, other = (VoiceStore(Settings(voices=tmp_path)) for _ in range(2))
    with load() as csm:
        voice = csm.create_voice(soundfile_read(recording()), "Words.")
    made = one.add(voice, "Anna", "yes")
    assert isinstance(other.get("Anna"), Voice) and made in other.entries()
    (tmp_path / "broken.voice").write_bytes(b"x")
    assert "broken" not in {entry.id for entry in other.entries()}
    other.remove(made.id)
    assert made not in one.entries()


def test_where_a_model_is_stays_unknown(path: Path) -> None:
    with running(loader=lambda: CSM.from_pretrained(path, threads=1, slots=1)) as server:
        for where in ("/ready", "/v1/models", "/v1/audio/models"):
            body = server.ask("GET", where).body.decode()
            assert path.name in body and str(path.parent) not in body


# Logs, labels, pages


def test_logs_are_lines_of_json_without_secrets_and_texts(
    server: Running, caplog: pytest.LogCaptureFixture
) -> None:
    from csm_ggml.server.journal import JsonLines

    caplog.set_level("INFO", logger="csm_ggml.server")
    speech(server, input="A private matter.", voice="alloy")
    speech(server, with_key("wrong-secret"), input="A private matter.")
    server.ask("GET", "/v1/models/private-name?key=private-query", headers=with_key())
    until(lambda: sum("request" in record.message for record in caplog.records) >= 3)
    lines = [JsonLines().format(record) for record in caplog.records]
    parsed = [json.loads(line) for line in lines]
    assert {"event", "id", "status", "seconds", "endpoint"} <= set(parsed[0])
    for secret in (KEY, "wrong-secret", "private"):
        assert not any(secret in line for line in lines)
    assert "private" not in server.ask("GET", "/metrics", headers=with_key()).body.decode()


def test_texts_are_logged_if_asked_for(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", logger="csm_ggml.server")
    with running(Settings(log_texts=True), slots=1) as server:
        speech(server, {}, input="Not private.")
        until(lambda: any("request" in record.message for record in caplog.records))
    fields = [getattr(record, "fields", {}) for record in caplog.records]
    assert "Not private." in [field.get("text") for field in fields]


def test_pages_load_nothing_from_elsewhere(server: Running) -> None:
    for path in ("/", "/docs"):
        answer = server.ask("GET", path)
        assert "default-src 'self'" in answer.headers["content-security-policy"]
        assert answer.headers["x-content-type-options"] == "nosniff"
        page = answer.body.decode()
        assert "://" not in re.sub(r'xmlns="[^"]*"', "", page)
        for inline in ("<style", "style=", "onclick=", "javascript:"):
            assert inline not in page
        for script in re.findall(r"<script[^>]*>", page):
            assert 'src="/page/' in script
        for file in re.findall(r'(?:src|href)="(/page/[^"]+)"', page):
            text = server.ask("GET", file).body.decode()
            assert "innerHTML" not in text and "eval(" not in text and "://" not in text
