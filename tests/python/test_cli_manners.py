"""`csm-ggml`: usage, names, and what is printed."""

import json
import os
import struct
import subprocess
import sys
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest
from csm_ggml import Voice
from csm_ggml.cli import COMMANDS, main
from csm_ggml.convert import make_random
from csm_ggml.convert.gguf_file import read_gguf


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("CSM_GGML_DEBUG", raising=False)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["speak", "Hi.", "--no-such-flag"], "unrecognized arguments: --no-such-flag"),
        (["speak", "-hello"], "unrecognized argument '-hello'; a text that begins with - goes"),
        (["speak", "-hello there, -q"], "unrecognized argument '-hello there, -q'"),
        (["speak", "Hi.", "-qx"], "unrecognized argument '-qx'"),
        (["speak", "Hi.", "-o", "x.wma"], "no audio format for the extension '.wma'"),
        (["speak", "Hi.", "-o", "x.gguf"], "no audio format for the extension '.gguf'"),
        (["speak", "Hi.", "--seed", "-1"], "seed must be 0 to 18446744073709551615, got -1"),
        (["speak", "Hi.", "--seed", "9" * 5000], "seed must be"),
        (["speak", "Hi.", "--loop-seconds", "1e9"], "loop_seconds must be 0 (never) or 0.001 to"),
        (["speak", "Hi.", "--max-seconds", "1e308"], "max_seconds must be 0.001 to 36000"),
        (["speak", "Hi.", "--temperature", "1e39"], "temperature must be 0 (the most likely"),
        (["speak", "Hi.", "--top-p", "1e-50"], "top_p must be 1e-06 to 1"),
        (["speak", "Hi.", "--retries", "1000000000"], "retries must be 0 to 100"),
        (["speak", "Hi.", "--batch-size", "2000"], "batch_size must be 1 to 256"),
        (["speak", "Hi.", "--speaker", "x"], "a speaker must be a whole number"),
        (["speak", "Hi.", "--threads", "100000"], "threads must be 1 to 1024"),
        (["decode", "c.txt", "-o", "x.voice"], "no audio format for the extension '.voice'"),
        (["encode", "a.wav", "-o", "a.wav"], ".wav is the name of a file of another kind"),
        (["voice", "create", "a.wav", "-t", "x", "-o", "a.wav"], ".wav is the name of a file"),
        (["make-random", "-o", "x.wav"], ".wav is the name of a file of another kind (audio)"),
        (["make-random", "-o", "x.gguf", "--type", "q99"], "there is no type 'q99'"),
        (["quantize", "demo", "x.voice", "--type", "q8_0"], ".voice is the name of a file"),
        (["bench", "--json", "x.gguf"], ".gguf is the name of a file of another kind"),
    ],
)
def test_wrong_usage(words: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("a.wav", "c.txt"):
        Path(name).write_bytes(b"what was there")
    assert main(words) == 2
    out, err = capsys.readouterr()
    assert out == ""
    subcommand = " ".join(words[: 2 if words[0] == "voice" else 1])
    assert err.startswith(f"usage: csm-ggml {subcommand} [-h]")
    assert message in err
    assert {path.read_bytes() for path in Path().iterdir()} == {b"what was there"}


def test_a_text_that_begins_with_a_dash() -> None:
    arguments = ["-q", "--max-frames", "1", "--device", "cpu"]
    assert main(["speak", *arguments, "--", "-hello"]) == 0
    assert main(["speak", "-5 degrees.", *arguments]) == 0
    assert main(["speak", "Hi.", "-qox.wav", *arguments[1:]]) == 0
    assert Path("x.wav").exists()


def test_an_input_is_no_output(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("words").write_text("Hi.")
    Path("sound").write_bytes(b"what was there")
    Path("model").write_bytes(b"what was there")
    for words in (
        ["voice", "create", "sound", "-t", "Hi.", "-o", "./sound"],
        ["voice", "create", "sound", "-f", "words", "-o", "words"],
        ["encode", "sound", "-o", "sound"],
        ["encode", "sound", "-m", "model", "-o", "model"],
        ["quantize", "model", "model", "--type", "q8_0"],
        ["convert", "model", "-o", "model"],
        ["bench", "-m", "model", "--json", "model"],
    ):
        assert main(words) == 2, words
        assert "is one of the files to be read" in capsys.readouterr().err
    assert Path("sound").read_bytes() == Path("model").read_bytes() == b"what was there"


def test_the_demo_goes_by_its_name_everywhere(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["quantize", "demo", "q.gguf", "--type", "q8_0"]) == 0
    assert Path("q.gguf").stat().st_size > 1e6
    capsys.readouterr()
    assert main(["convert", "demo", "-o", "c.gguf"]) == 1
    assert "demo.gguf: already a csm-ggml file" in capsys.readouterr().err


def test_a_watermark_in_the_current_folder() -> None:
    Path("marks.py").write_text("def half(chunk):\n    return chunk.samples / 2\n")
    words = ["speak", "Hi.", "-q", "--max-frames", "1", "--watermark", "marks:half"]
    # As an installed command, whose folder is its own.
    code = "import sys; sys.path.remove(''); from csm_ggml.__main__ import main; sys.exit(main())"
    result = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, check=False)
    assert (result.returncode, result.stderr) == (0, b"")


ESCAPE = "\x1b]0;mine\x07\x1b[2J\x9b31m"


def test_files_do_not_speak_to_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    def check(*words: str, code: int = 0) -> None:
        assert main(words) == code
        out, err = capsys.readouterr()
        assert not {"\x1b", "\x07", "\x9b"} & set(out + err), words

    make_random("a.gguf", overrides={"general.name": ESCAPE}, progress=False)
    assert read_gguf(Path("a.gguf"))[0]["general.name"] == ESCAPE
    check("info", "a.gguf", "--tensors")
    check("info", "a.gguf", "--json")
    Voice(0, f"Hi{ESCAPE}", np.ones((1, 2), np.int32), 24000, 1920).save("a.voice")
    check("voice", "info", "a.voice")
    check("info", f"{ESCAPE}.gguf", code=1)
    check("speak", "Hi.", f"--{ESCAPE}", code=2)
    header = json.dumps({"speaker": 0, "transcript": ESCAPE, "frames": ESCAPE}).encode()
    content = struct.pack("<8sII", b"CSMVOICE", 1, len(header)) + header
    Path("b.voice").write_bytes(content + sha256(content).digest())
    check("voice", "info", "b.voice", code=1)
    Path("codes.txt").write_text(f"1 {ESCAPE}\n")
    check("decode", "codes.txt", "-o", "x.wav", code=1)


@pytest.mark.skipif(sys.platform != "linux", reason="names that are bytes")
def test_names_that_are_not_utf_8(path: Path, capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    name = os.fsdecode(b"caf\xe9.gguf")
    Path(name).write_bytes(path.read_bytes())
    for words in (
        ["info", name],
        ["info", name, "--json"],
        ["quantize", name, os.fsdecode(b"\xff.gguf"), "--type", "q8_0"],
        ["convert", name, "-o", os.fsdecode(b"\xfe.gguf")],
        ["speak", "Hi.", "-q", "--max-frames", "1", "-o", os.fsdecode(b"\xff.wav")],
        ["encode", os.fsdecode(b"\xff.wav"), "-o", os.fsdecode(b"\xff.npy")],
        ["decode", os.fsdecode(b"\xff.npy"), "-o", os.fsdecode(b"\xfe.wav")],
    ):
        command = [sys.executable, "-m", "csm_ggml", *words]
        result = subprocess.run(command, capture_output=True, check=False)
        refused = words[0] == "convert"  # it is converted already
        assert result.returncode == (1 if refused else 0), result.stderr
        assert b"Traceback" not in result.stderr
        (result.stdout + result.stderr).decode()


def broken_core(*words: str) -> subprocess.CompletedProcess[str]:
    code = (
        "import sys; sys.modules['csm_ggml._core'] = None\n"
        "from csm_ggml.__main__ import main; sys.exit(main())"
    )
    return subprocess.run(
        [sys.executable, "-c", code, *words], capture_output=True, text=True, check=False
    )


def test_what_works_without_the_compiled_module() -> None:
    version = broken_core("--version")
    assert version.returncode == 0
    assert version.stdout.startswith("csm-ggml ")
    assert "compiled module cannot be loaded" in version.stdout
    for name in COMMANDS:
        assert broken_core(name.replace("_", "-"), "--help").returncode == 0


def test_doctor_imports_what_it_reports(monkeypatch: pytest.MonkeyPatch) -> None:
    from csm_ggml.cli import doctor

    assert "soundfile" in doctor._libraries()
    monkeypatch.setitem(sys.modules, "soxr", None)
    with pytest.raises(RuntimeError, match="cannot be imported: soxr"):
        doctor._libraries()


def test_help_names_values_in_short(capsys: pytest.CaptureFixture[str]) -> None:
    for name in (*COMMANDS, "voice create"):
        assert main([*name.replace("_", "-").split(), "--help"]) == 0
        usage = capsys.readouterr().out.split("\n\n")[0]
        long = [w.strip("[]()") for w in usage.split() if w.strip("[]()|").isupper()]
        assert all(len(word) <= 11 for word in long), (name, long)
