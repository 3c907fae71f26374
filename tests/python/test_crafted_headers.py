"""Headers that are well-formed and wrong: what stands in them is of another kind, huge, or deep.

Every value of a header in turn becomes one that a careless reader trips over; what comes of it is
one of our errors, or a file that is read all the same.
"""

import copy
import json
import random
import struct
import tracemalloc
from collections.abc import Callable, Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any

import checkpoints
import numpy as np
import pytest
import soundfile
from csm_ggml import AudioFileError, ModelFormatError, Voice, VoiceFileError
from csm_ggml.audio.audio import save_samples
from csm_ggml.audio.load import load_audio
from csm_ggml.convert import convert, make_random, quantize_file
from csm_ggml.convert.config import from_metadata, to_metadata
from csm_ggml.convert.gguf_file import read_gguf
from csm_ggml.convert.readers import open_origin
from csm_ggml.convert.safetensors_file import read_safetensors
from csm_ggml.convert.tokenizer import Vocabulary, read_metadata, read_tokenizer_json
from csm_ggml.convert.writer import _header
from csm_ggml.voices.voice import VoicePrefix

DEEP = json.loads("[" * 400 + "]" * 400)
HUGE = 10**400
WRONG: tuple[Any, ...] = (
    *(None, True, "", "x", "\ud800", 0, -1, 1, 1 << 31, 1 << 63, 10**9, HUGE, 0.5, -0.0),
    *(float("inf"), float("nan"), 1e308, 5e-324, [], {}, [1], [[]], {"a": 1}, DEEP),
)


def places(value: Any) -> Iterator[tuple[Any, ...]]:
    """The path to every value inside."""
    items = value.items() if isinstance(value, dict) else enumerate(value)
    for key, inner in items:
        yield (key,)
        if isinstance(inner, dict | list):
            yield from ((key, *rest) for rest in places(inner))


def changed(document: Any, place: tuple[Any, ...], value: Any) -> Any:
    made = copy.deepcopy(document)
    inner = made
    for key in place[:-1]:
        inner = inner[key]
    inner[place[-1]] = value
    return made


def mutations(document: Any, count: int) -> Iterator[Any]:
    """The document with one value changed: all such changes, or so many of them."""
    draw = random.Random(0)
    all_of_them = [(place, value) for place in places(document) for value in WRONG]
    for place, value in draw.sample(all_of_them, min(count, len(all_of_them))):
        yield changed(document, place, value)
    yield from (value for value in WRONG if not isinstance(value, dict))


def only(error: type[Exception], read: Callable[[], Any]) -> bool:
    """Whether it was refused; any other error than ours fails."""
    try:
        read()
    except error as refused:
        message = str(refused)
    else:
        return False
    assert 0 < len(message) < 2000
    return True


def test_voices() -> None:
    voice = Voice(
        3, "Hi.", np.ones((3, 2), np.int32), 24000, 1920, VoicePrefix("m", "f", b"x"), (0.5,)
    )
    data = voice.to_bytes()
    size = struct.unpack_from("<8sII", data)[2]
    header = json.loads(data[16 : 16 + size])

    def again(header: Any) -> Voice:
        text = json.dumps(header).encode()
        content = struct.pack("<8sII", b"CSMVOICE", 1, len(text)) + text + data[16 + size : -32]
        return Voice.from_bytes(content + sha256(content).digest())

    assert again(header).to_bytes() == data
    refused = sum(only(VoiceFileError, lambda h=h: again(h)) for h in mutations(header, 10_000))
    assert refused > 200
    for name in ("frames", "codebooks", "sample_rate", "frame_size"):
        with pytest.raises(VoiceFileError, match=f"{name} is 0, expected"):
            again({**header, name: 0})
    deep = b"[" * 100_000
    content = struct.pack("<8sII", b"CSMVOICE", 1, len(deep)) + deep
    with pytest.raises(VoiceFileError, match="no valid voice"):
        Voice.from_bytes(content + sha256(content).digest())


@pytest.mark.parametrize("name", ["/home/me/models/csm", "models/csm", r"C:\me\csm", "/a/csm/"])
def test_no_folder_gets_into_a_voice(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "models" / "csm").mkdir(parents=True)
    assert VoicePrefix(name, "f", b"").model == "csm"
    assert VoicePrefix("/a/b.gguf, /a/c.gguf", "f", b"").model == "b.gguf, c.gguf"
    assert VoicePrefix("owner/name", "f", b"").model == "owner/name"


def test_prefixes_are_told_apart_by_their_content() -> None:
    one, same, other = (VoicePrefix("m", "f", data) for data in (b"x", b"x", b"y"))
    assert one.digest == same.digest != other.digest


def test_safetensors(tmp_path: Path) -> None:
    source = checkpoints.write_transformers(tmp_path / "source") / "model.safetensors"
    content = source.read_bytes()
    size = struct.unpack_from("<Q", content)[0]
    header = json.loads(content[8 : 8 + size])
    few = {name: header[name] for name in list(header)[:3]}
    path = tmp_path / "x.safetensors"

    def read(text: bytes) -> None:
        path.write_bytes(struct.pack("<Q", len(text)) + text + content[8 + size :])
        for stored in read_safetensors(path).values():
            stored.values()

    assert not only(ModelFormatError, lambda: read(json.dumps(few).encode()))
    refused = sum(
        only(ModelFormatError, lambda h=h: read(json.dumps(h).encode()))
        for h in mutations(few, 600)
    )
    assert refused > 300
    with pytest.raises(ModelFormatError, match="not JSON"):
        read(b"[" * 100_000)


def test_tokenizers_and_configurations(tmp_path: Path) -> None:
    source = checkpoints.write_transformers(tmp_path / "source")
    vocabulary = json.loads((source / "tokenizer.json").read_text())
    model = vocabulary["model"]
    model["vocab"] = dict(list(model["vocab"].items())[-3:])
    model["merges"] = model["merges"][:2]

    def write(vocabulary: Vocabulary) -> None:
        """What every vocabulary must be able to do: be a key of our file."""
        _header(vocabulary.to_metadata(), [])

    for document in mutations(vocabulary, 1_200):
        (tmp_path / "tokenizer.json").write_text(json.dumps(document))
        only(ModelFormatError, lambda: write(read_tokenizer_json(tmp_path / "tokenizer.json")))
    for name, count in (("config.json", 250), ("generation_config.json", 50)):
        path = source / name
        text = path.read_text() if path.exists() else '{"temperature": 1, "top_k": 3}'
        for document in mutations(json.loads(text), count):
            path.write_text(json.dumps(document))
            only(ModelFormatError, lambda: open_origin(source, None, None))
        path.write_text(text)


def test_keys_of_our_own_files(tmp_path: Path) -> None:
    make_random(tmp_path / "m.gguf", progress=False)
    keys, _ = read_gguf(tmp_path / "m.gguf")
    for name in ("tokens", "merges", "token_type"):
        keys[f"tokenizer.ggml.{name}"] = keys[f"tokenizer.ggml.{name}"][:2]
    keys |= {"csm.bos_token_id": 0, "csm.eos_token_id": 1, "csm.generation.top_k": 3}

    def read(changed: Any) -> None:
        _header(to_metadata(from_metadata(changed, "x.gguf")), [])
        _header(read_metadata(changed, "x.gguf").to_metadata(), [])

    read(keys)
    for document in mutations(keys, 2_000):
        if isinstance(document, dict):
            only(ModelFormatError, lambda changed=document: read(changed))


def test_a_configuration_of_very_many_layers_is_refused_at_once(tmp_path: Path) -> None:
    source = checkpoints.write_transformers(tmp_path / "source")
    settings = json.loads((source / "config.json").read_text())
    settings["num_hidden_layers"] = 10**8
    (source / "config.json").write_text(json.dumps(settings))
    with pytest.raises(ModelFormatError, match="block_count is 100000000, expected 1 to 512"):
        convert(source, tmp_path / "x.gguf")
    make_random(tmp_path / "m.gguf", progress=False)
    key = b"csm.backbone.block_count"
    data = bytearray((tmp_path / "m.gguf").read_bytes())
    at = data.index(key) + len(key) + 4
    data[at : at + 4] = struct.pack("<I", 10**8)
    (tmp_path / "m.gguf").write_bytes(data)
    with pytest.raises(ModelFormatError, match="block_count is 100000000, expected 1 to 512"):
        quantize_file(tmp_path / "m.gguf", tmp_path / "x.gguf", "q8_0")


def test_a_source_that_shrinks_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "m.gguf"
    make_random(path, progress=False)
    _, tensors = read_gguf(path)
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size // 2)
    with pytest.raises(ModelFormatError, match="truncated while it was read"):
        [stored.values() for stored in tensors.values()]


@pytest.mark.parametrize("extension", ["wav", "flac", "ogg"])
def test_audio(tmp_path: Path, extension: str) -> None:
    path = tmp_path / f"x.{extension}"
    save_samples(path, np.sin(np.arange(4000) / 9).astype(np.float32), 24000)
    data = path.read_bytes()
    draw = random.Random(extension)
    for _ in range(400):
        changed = bytearray(data)
        for _ in range(draw.choice((1, 1, 4))):
            changed[draw.randrange(min(len(data), 200))] = draw.choice((0, 1, 0x7F, 0xFF))
        path.write_bytes(changed[: draw.choice((len(data), len(data), 60))])
        only(AudioFileError, lambda: load_audio(path, 24000))


def test_a_length_that_is_not_there(tmp_path: Path) -> None:
    """A header that claims 2**31 samples costs what the samples cost that are there."""
    path = tmp_path / "x.flac"
    save_samples(path, np.sin(np.arange(4000) / 9).astype(np.float32), 24000)
    data = bytearray(path.read_bytes())
    data[22:26] = b"\x7f\xff\xff\xff"
    path.write_bytes(data)
    assert soundfile.info(path).frames > 2**30
    tracemalloc.start()
    try:
        only(AudioFileError, lambda: load_audio(path, 24000))
        assert tracemalloc.get_traced_memory()[1] < 64e6
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("rate", [0, 1, 999, 768_001, 2**31 - 1])
def test_rates_in_headers(tmp_path: Path, rate: int) -> None:
    path = tmp_path / "x.wav"
    save_samples(path, np.zeros(4000, np.float32), 24000)
    data = bytearray(path.read_bytes())
    data[24:28] = struct.pack("<I", rate)
    path.write_bytes(data)
    with pytest.raises(AudioFileError, match=r"x\.wav: "):
        load_audio(path, 24000)
