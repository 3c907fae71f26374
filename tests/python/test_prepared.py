"""Presets: a model is converted once into the cache, by one process, whole or not at all."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import checkpoints
import csm_ggml.convert
import pytest
from csm_ggml import CSM, ModelFormatError
from csm_ggml.cli import main
from csm_ggml.cli.common import tell_if_slow
from csm_ggml.convert import quantize_file, types
from csm_ggml.loading.aliases import ALIASES
from safetensors.numpy import save_file
from test_families import MISO
from test_finetunes import FakeHub, write_adapter


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("CSM_GGML_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "models"


@pytest.fixture
def conversions(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Outputs of the conversions that take place."""
    made: list[str] = []
    for name in ("convert", "quantize_file"):
        real = getattr(csm_ggml.convert, name)

        def spy(source: Any, output: Path, *, real: Any = real, **options: Any) -> Any:
            made.append(Path(output).name)
            return real(source, output, **options)

        monkeypatch.setattr(csm_ggml.convert, name, spy)
    return made


def load(name: Any, preset: str | None) -> CSM:
    return CSM.from_pretrained(name, preset=preset, threads=1, device="cpu")


def test_the_second_load_converts_nothing(
    cache: Path, conversions: list[str], tmp_path: Path
) -> None:
    csm = load("demo", "fast")
    assert csm.name == "demo"
    [made] = cache.iterdir()
    assert made.name.startswith("demo-fast-")
    assert csm.model.files == (made,)
    [demo] = load("demo", None).model.files
    quantize_file(demo, tmp_path / "wanted.gguf", preset="fast")
    assert made.read_bytes() == (tmp_path / "wanted.gguf").read_bytes()
    again = load("demo", "fast")
    assert conversions == [made.name]
    assert again.fingerprint == csm.fingerprint
    load("demo", "high")
    assert len(conversions) == len(list(cache.iterdir())) == 2


@pytest.mark.parametrize("form", ["folder", "file", "adapter", "trio", "pair of names"])
def test_whatever_can_be_converted(form: str, conversions: list[str], tmp_path: Path) -> None:
    source: Any = checkpoints.write_transformers(tmp_path / "source")
    if form == "file":
        source = source / "model.safetensors"
    elif form == "adapter":
        source = write_adapter(tmp_path / "tune", source)
    elif form == "trio":
        source = checkpoints.write_llama_csm(tmp_path / "trio")
    elif form == "pair of names":
        source = sorted(checkpoints.write_llama_csm(tmp_path / "trio").iterdir())
    if form in ("folder", "file", "adapter"):
        with pytest.raises(ModelFormatError, match=r"convert them once: .*--preset balanced"):
            load(source, None)
    csm = load(source, "high")
    assert load(source, "high").fingerprint == csm.fingerprint
    assert len(conversions) == 1
    kinds = {kind for kind, _, _ in checkpoints.read(csm.model.files[0]).values()}
    assert "q8_0" in kinds


def test_a_source_that_changes_is_converted_again(conversions: list[str], tmp_path: Path) -> None:
    base = checkpoints.write_transformers(tmp_path / "base")
    source = write_adapter(tmp_path / "tune", base)
    first = load(source, "exact")
    values = {name: v * 2 for name, v in checkpoints.weights().items()}
    checkpoints.write_transformers(base, values)
    assert load(source, "exact").fingerprint != first.fingerprint
    assert len(conversions) == 2


def test_an_interruption_leaves_nothing(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real, calls = types.encode, []

    def encode(*arguments: Any) -> Any:
        calls.append(arguments)
        if len(calls) == 20:
            raise KeyboardInterrupt
        return real(*arguments)

    monkeypatch.setattr(types, "encode", encode)
    with pytest.raises(KeyboardInterrupt):
        load("demo", "fast")
    assert list(cache.iterdir()) == []
    load("demo", "fast")
    assert len(list(cache.iterdir())) == 1


SLOW = """
import sys, time
from csm_ggml.convert import types, writer
real, write = types.encode, writer._header
def encode(*a):
    time.sleep(0.05)
    return real(*a)
def header(*a):
    print("converting", flush=True)
    return write(*a)
types.encode, writer._header = encode, header
from csm_ggml import CSM
print(CSM.from_pretrained("demo", preset="fast", threads=1, device="cpu").fingerprint)
"""


def test_two_processes_do_it_once(cache: Path) -> None:
    both = [
        subprocess.Popen([sys.executable, "-c", SLOW], stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    outputs = [process.communicate(timeout=120)[0].split() for process in both]
    assert sorted(len(lines) for lines in outputs) == [1, 2]
    assert outputs[0][-1] == outputs[1][-1]
    assert sum("converting" in lines for lines in outputs) == 1
    assert len(list(cache.iterdir())) == 1


def test_what_a_killed_process_leaves_hinders_nobody(cache: Path) -> None:
    process = subprocess.Popen([sys.executable, "-c", SLOW], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "converting\n"
    process.kill()
    process.communicate()
    assert not list(cache.glob("*.gguf"))
    load("demo", "fast")
    assert [path.suffix for path in cache.iterdir()] == [".gguf"]


@pytest.mark.skipif(sys.platform == "win32", reason="no terminals to be had")
def test_a_bar_is_shown_on_a_terminal() -> None:
    import fcntl
    import pty
    import struct
    import termios

    main_end, terminal = pty.openpty()
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 100, 0, 0))
    code = SLOW.replace('print("converting", flush=True)', "pass")
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=terminal
    )
    os.close(terminal)
    shown = b""
    while True:
        try:
            part = os.read(main_end, 1 << 16)
        except OSError:
            break
        if not part:
            break
        shown += part
    process.communicate(timeout=60)
    os.close(main_end)
    assert b"demo-fast-" in shown
    assert b"100%" in shown


def test_arguments(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match="preset='quick': expected one of fast, balanced, high"):
        load("demo", "quick")
    (tmp_path / "taken").write_text("a file")
    monkeypatch.setenv("CSM_GGML_CACHE", str(tmp_path / "taken"))
    with pytest.raises(OSError, match="taken"):
        load("demo", "fast")


def test_it_is_pickled_with_its_preset() -> None:
    csm = load("demo", "fast")
    make, arguments = csm.__reduce__()
    again = make(*arguments)
    assert again.fingerprint == csm.fingerprint


# Short names and the command line


def small_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeHub:
    """The repositories of the short names, with small models of their shapes."""
    from reference.checkpoint import draw_tensors
    from reference.recipes import Recipe

    tensors = draw_tensors(Recipe("miso", seed=62, config=MISO))
    whole = checkpoints.write_transformers(tmp_path / "whole", tensors, MISO)
    (miso := tmp_path / "miso").mkdir()
    save_file(checkpoints.original_language(tensors, MISO), miso / "model.safetensors")
    (mimi := tmp_path / "mimi").mkdir()
    save_file(checkpoints.mimi(tensors), mimi / "model.safetensors")
    (mimi / "config.json").write_text(json.dumps(MISO["codec_config"]))
    hub = FakeHub(
        {
            "MisoLabs/MisoTTS": miso,
            "kyutai/mimi": mimi,
            "unsloth/Llama-3.2-1B": whole,
            "Marvis-AI/marvis-tts-250m-v0.1-transformers": whole,
        }
    )
    monkeypatch.setattr("huggingface_hub.snapshot_download", hub.snapshot_download)
    monkeypatch.setattr("huggingface_hub.HfApi", lambda token: hub)
    return hub


@pytest.mark.parametrize(
    ("name", "prompt"),
    [("miso-tts", ("[{speaker}] {text}", False)), ("marvis-250m", ("[{speaker}]{text}", True))],
)
def test_short_names_of_models_that_are_converted(
    name: str,
    prompt: tuple[str, bool],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    small_hub(tmp_path, monkeypatch)
    with pytest.raises(ModelFormatError, match=f"csm-ggml convert {name} -o"):
        load(name, None)
    csm = load(name, "exact")
    assert csm.name == name
    assert (csm.model.prompt.text, csm.model.prompt.voice_match) == prompt
    assert main(["download", name, "--preset", "exact"]) == 0
    assert capsys.readouterr().out.split() == [str(csm.model.files[0])]
    output = str(tmp_path / "out.gguf")
    assert main(["convert", name, "-o", output, "--preset", "exact"]) == 0
    assert Path(output).read_bytes() == csm.model.files[0].read_bytes()


def test_the_commands(cache: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["download", "demo"]) == 0
    assert capsys.readouterr().out.strip().endswith("demo.gguf")
    arguments = ["speak", "Hi.", "-o", "hi.wav", "--max-frames", "2", "--preset", "fast"]
    assert main([*arguments, "-o", str(cache.parent.parent / "hi.wav")]) == 0
    assert "preset fast: demo is converted into the cache" in capsys.readouterr().err
    assert main(["models"]) == 0
    shown = capsys.readouterr().out
    for name in ALIASES:
        assert name in shown
    assert "demo-fast-" in shown
    assert main(["models", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert [model["name"] for model in document["models"]] == list(ALIASES)
    assert document["models"][0]["here"]
    assert len(document["converted"]) == 1
    assert main(["models", "--clear"]) == 0
    assert list(cache.iterdir()) == []
    assert main(["speak", "Hi.", "--preset", "quick"]) == 2
    assert "there is no preset 'quick', expected one of fast" in capsys.readouterr().err


def test_speech_that_is_slower_than_real_time_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    args: Any = argparse.Namespace(preset=None)
    tell_if_slow(args, 4.0, 2.0)
    shown = capsys.readouterr().err
    assert "slower than real time (0.50 times); --preset fast, or a GPU, makes it quicker" in shown
    tell_if_slow(argparse.Namespace(preset="fast"), 4.0, 2.0)
    assert "--preset" not in capsys.readouterr().err
    for seconds, speech in ((1.0, 2.0), (1.0, 0.0)):
        tell_if_slow(args, seconds, speech)
    assert capsys.readouterr().err == ""
