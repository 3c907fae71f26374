"""`csm-ggml`: what comes out, where, and with which exit code."""

import io
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from csm_ggml import CSM, _core
from csm_ggml.cli import main
from csm_ggml.convert import QUANTIZATION_PRESETS

MODEL = ["--device", "cpu", "--threads", "1"]


@pytest.fixture(scope="module")
def model(path: Path) -> str:
    return str(path)


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("CSM_GGML_DEBUG", raising=False)


def command(
    *arguments: str, stdin: bytes = b"", **environment: str
) -> subprocess.CompletedProcess[bytes]:
    """The command as users run it, in a process."""
    return subprocess.run(
        [sys.executable, "-m", "csm_ggml", *arguments],
        input=stdin,
        capture_output=True,
        env={**os.environ, **environment},
        check=False,
    )


def test_speak(model: str, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["speak", "[0]Hello.", "-m", model, *MODEL, "--seed", "7", "--max-frames", "5"]
    assert main([*arguments, "-o", "hello.wav"]) == 0
    out, err = capsys.readouterr()
    assert out == ""
    first, last = err.splitlines()
    assert first == f"csm-ggml: model {model}"
    assert last.startswith("csm-ggml: hello.wav: 0.40 s of speech in ")
    assert last.endswith("finish reason max_frames, seed 7")

    samples, rate = soundfile.read("hello.wav", dtype="int16")
    csm = CSM.from_pretrained(model, device="cpu", threads=1)
    expected = csm.generate("[0]Hello.", seed=7, max_frames=5)
    assert rate == 24000
    assert np.array_equal(samples, expected.pcm16())


def test_words_need_no_quotes_and_the_output_has_a_name(model: str) -> None:
    arguments = ["-q", "-m", model, *MODEL, "--seed", "1", "--max-frames", "2"]
    assert main(["speak", "Hello", "there.", *arguments]) == 0
    spoken, _ = soundfile.read("speech.wav")
    assert main(["speak", "Hello there.", *arguments, "-o", "quoted.flac"]) == 0
    quoted, _ = soundfile.read("quoted.flac")
    assert np.array_equal(spoken, quoted)


def test_quiet(model: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["speak", "-q", "Hi.", "-m", model, *MODEL, "--max-frames", "1"]) == 0
    assert capsys.readouterr() == ("", "")


def test_a_file_and_stdin_hold_one_turn_a_line(model: str, tmp_path: Path) -> None:
    script = "[1]One.\r\n\r\nTwo.\n[0]Three.\n"
    (tmp_path / "script.txt").write_bytes(b"\xef\xbb\xbf" + script.encode())
    arguments = ["-q", "-m", model, *MODEL, "--seed", "1", "--max-frames", "2"]
    assert main(["speak", "-f", "script.txt", "-o", "file.wav", *arguments]) == 0
    assert main(["speak", "[1]One.[pause 0.7s]Two.[0]Three.", "-o", "text.wav", *arguments]) == 0
    piped = command("speak", "-o", "pipe.wav", *arguments, stdin=script.encode())
    assert piped.returncode == 0
    dash = command("speak", "-", "-o", "dash.wav", *arguments, stdin=script.encode())
    assert dash.returncode == 0
    contents = {(tmp_path / f"{n}.wav").read_bytes() for n in ("file", "text", "pipe", "dash")}
    assert len(contents) == 1


def test_audio_to_a_pipe(model: str) -> None:
    result = command("speak", "Hi.", "-o", "-", "-m", model, *MODEL, "--max-frames", "3")
    assert result.returncode == 0
    samples, rate = soundfile.read(io.BytesIO(result.stdout))
    assert (len(samples), rate) == (3 * 1920, 24000)
    assert b"standard output: 0.24 s of speech" in result.stderr


def test_options_reach_the_model(model: str) -> None:
    csm = CSM.from_pretrained(model, device="cpu", threads=1)
    options: dict[str, Any] = {
        "temperature": 0.7,
        "top_k": 5,
        "top_p": 0.9,
        "depth_temperature": 0.3,
        "depth_top_k": 7,
        "depth_top_p": 0.8,
        "max_seconds": 0.4,
        "speaker": 3,
    }
    flags = [w for k, v in options.items() for w in (f"--{k.replace('_', '-')}", str(v))]
    assert main(["speak", "-q", "Hi.", "-m", model, *MODEL, "--seed", "2", *flags]) == 0
    expected = csm.generate("Hi.", seed=2, **options)
    assert np.array_equal(soundfile.read("speech.wav", dtype="int16")[0], expected.pcm16())


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["speak", ""], 1, "nothing to say: the text is empty"),
        (["speak", "[1]"], 1, "nothing to say for speaker [1]"),
        (["speak", "Hi.", "--temperature", "-1"], 2, "temperature must be 0 (the"),
        (["speak", "Hi.", "-f", "x.txt"], 2, "give the text or -f FILE, not both"),
        (["speak", "-f", "nothing.txt"], 1, "nothing.txt: No such file or directory"),
        (["speak", "Hi.", "-o", "x.mp4"], 2, "no audio format for the extension '.mp4'"),
        (["speak", "Hi.", "-o", "nowhere/x.wav"], 2, "there is no folder"),
        (["speak", "Hi.", "-m", "nothing.gguf"], 1, "nothing.gguf: no such file or folder"),
        (["speak", "Hi.", "--threads", "0"], 2, "threads must be 1 to 1024"),
        (["speak", "Hi.", "--seed", "x"], 2, "seed must be a whole number"),
        (["speak", "word " * 600], 1, "the model's context has 512"),
        (["decode", "nothing.txt", "-o", "x.wav"], 1, "nothing.txt: No such file"),
        (["encode", "nothing.wav"], 1, "nothing.wav: no such audio file"),
        (["info", "nothing.gguf"], 1, "no such file or folder"),
        (["convert", "nothing", "-o", "x.gguf"], 1, "nothing"),
        (["convert", "nothing"], 2, "-o"),
        (["make-random", "--preset", "huge", "-o", "x.gguf"], 2, "huge"),
        (["make-random", "-o", "nowhere/x.gguf"], 2, "there is no folder"),
        (["quantize", "nothing.gguf", "x.gguf", "--type", "q8_0"], 1, "nothing.gguf"),
        (
            ["quantize", "demo", "x.gguf", "--preset", "fast", "--depth-type", "f16"],
            2,
            "--preset says the type of the depth decoder",
        ),
        (
            ["convert", "demo", "-o", "x.gguf", "--preset", "fast", "--depth-type", "f16"],
            2,
            "--preset says the type of the depth decoder",
        ),
        (["sing"], 2, "invalid choice"),
        ([], 2, "speak"),
    ],
)
def test_errors(
    model: str,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    code: int,
    message: str,
) -> None:
    if arguments[:1] == ["speak"] and "-m" not in arguments:
        arguments = [*arguments, "-m", model]
    if arguments[:1] == ["encode"]:
        arguments = [*arguments, "-m", model]
    assert main(arguments) == code
    out, err = capsys.readouterr()
    assert out == ""
    assert message in err
    assert "Traceback" not in err
    if code == 1:
        assert err.splitlines()[-1].startswith("csm-ggml: error: ")


def test_broken_text(model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "latin.txt").write_bytes("[0]caf\u00e9".encode("latin-1"))
    assert main(["speak", "-f", "latin.txt", "-m", model]) == 1
    assert "latin.txt is not UTF-8 text: byte 6 is 0xe9" in capsys.readouterr().err
    (tmp_path / "script.txt").write_text("[0]One.\n[1]\n")
    assert main(["speak", "-f", "script.txt", "-m", model]) == 1
    assert "script.txt: line 2: nothing to say for speaker [1]" in capsys.readouterr().err


def test_debugging_shows_where(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CSM_GGML_DEBUG", "1")
    with pytest.raises(FileNotFoundError):
        main(["info", "nothing.gguf"])


def test_ctrl_c(model: str, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(CSM, "generate", interrupt)
    assert main(["speak", "Hi.", "-m", model, *MODEL]) == 130
    assert "interrupted" in capsys.readouterr().err
    assert not Path("speech.wav").exists()


@pytest.mark.skipif(sys.platform == "win32", reason="no SIGINT for one process on Windows")
def test_ctrl_c_in_a_process(model: str) -> None:
    process = subprocess.Popen(
        [
            sys.executable,
            "-m",
            "csm_ggml",
            "speak",
            "-",
            "-m",
            model,
            *MODEL,
            "--max-frames",
            "400",
        ],
        stdin=subprocess.PIPE,
        stderr=subprocess.PIPE,
        # A shell starts what runs in its background with Ctrl-C ignored, and a child inherits that.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    assert process.stdin is not None
    assert process.stderr is not None
    process.stdin.write("\n".join(f"[{n % 2}]Hello." for n in range(500)).encode())
    process.stdin.close()
    process.stderr.readline()  # how the text is read
    process.stderr.readline()  # the model is being loaded
    time.sleep(1)
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=30) == 130
    assert process.stderr.read().decode().splitlines()[-1] == "csm-ggml: interrupted"
    process.stderr.close()


def test_decode_and_encode(model: str, capsys: pytest.CaptureFixture[str]) -> None:
    csm = CSM.from_pretrained(model, device="cpu", threads=1)
    codes = csm.generate_codes("Hi.", seed=1, max_frames=4)
    np.savetxt("codes.txt", codes, fmt="%d", header="a comment")
    np.save("codes.npy", codes)
    for name in ("codes.txt", "codes.npy"):
        assert main(["decode", name, "-o", "x.wav", "-m", model, *MODEL]) == 0
        samples, _ = soundfile.read("x.wav", dtype="int16")
        assert np.abs(samples / 32767 - np.clip(csm.decode(codes), -1, 1)).max() < 1e-4
    assert "x.wav: 0.32 s from 4 frames" in capsys.readouterr().err

    expected = csm.encode("x.wav")
    assert main(["encode", "x.wav", "-m", model, *MODEL]) == 0
    printed = capsys.readouterr().out
    assert np.array_equal(np.loadtxt(io.StringIO(printed), dtype=int), expected)
    assert main(["encode", "x.wav", "-o", "y.npy", "-m", model, *MODEL]) == 0
    assert np.array_equal(np.load("y.npy"), expected)

    piped = command("decode", "-", "-o", "-", "-m", model, *MODEL, stdin=printed.encode())
    assert piped.returncode == 0
    assert len(soundfile.read(io.BytesIO(piped.stdout))[0]) == 4 * 1920


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("1 2 3\n4 5\n", "line 2: expected 3 codes as in the first frame, got 2"),
        ("1 2 x\n", "line 1: expected whole numbers, got '1 2 x'"),
        ("1 2 -3\n", "line 1: codes must be in 0..2**31-1"),
        ("# nothing\n\n", "holds no codes"),
        ("999 1 1\n", "codes must be in 0..127"),
    ],
)
def test_broken_codes(
    model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], content: str, message: str
) -> None:
    (tmp_path / "codes.txt").write_text(content)
    assert main(["decode", "codes.txt", "-o", "x.wav", "-m", model, *MODEL]) == 1
    assert message in capsys.readouterr().err


def test_info(model: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["info", model]) == 0
    text = capsys.readouterr().out
    assert "csm.codebooks" in text
    assert "320 entries" in text
    assert "mimi.decoder" in text
    assert "backbone.blk.0.attn_q.weight" not in text
    assert main(["info", model, "--tensors"]) == 0
    assert "backbone.blk.0.attn_q.weight" in capsys.readouterr().out
    assert main(["info", model, "--json"]) == 0
    [file] = json.loads(capsys.readouterr().out)
    assert file["metadata"]["csm.codebooks"] == 8
    assert {"name", "type", "shape", "bytes"} <= set(file["tensors"][0])


def test_making_and_quantizing(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["make-random", "-o", "a.gguf", "--type", "f16", "--seed", "3"]) == 0
    assert main(["quantize", "a.gguf", "b.gguf", "--type", "q8_0", "--depth-type", "f16"]) == 0
    lines = capsys.readouterr().err.splitlines()
    assert lines[-1].startswith("csm-ggml: b.gguf: ")
    assert "q8_0" in lines[-1]
    assert Path("b.gguf").stat().st_size < Path("a.gguf").stat().st_size
    assert main(["speak", "-q", "Hi.", "-m", "b.gguf", *MODEL, "--max-frames", "2"]) == 0


@pytest.mark.parametrize("command", ["convert", "quantize"])
def test_presets_are_listed(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([command, "--help"]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    for name, policy in QUANTIZATION_PRESETS.items():
        mixed = policy.depth_type != policy.type
        types = policy.type + (f", depth decoder {policy.depth_type}" if mixed else "")
        assert f"{name} ({types})" in shown


def test_quantizing_with_a_preset(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["make-random", "-o", "a.gguf"]) == 0
    assert main(["quantize", "a.gguf", "b.gguf", "--preset", "high", "--type", "q4_0"]) == 2
    assert "--type: not allowed with argument --preset" in capsys.readouterr().err
    assert main(["quantize", "a.gguf", "b.gguf"]) == 2
    assert "one of the arguments --type --preset is required" in capsys.readouterr().err
    assert main(["quantize", "a.gguf", "b.gguf", "--preset", "balanced"]) == 0
    assert "q8_0" in capsys.readouterr().err.splitlines()[-1]


def test_doctor(tmp_path: Path) -> None:
    result = command("doctor", CSM_GGML_CACHE=str(tmp_path), CSM_GGML_THREADS="1")
    text = result.stdout.decode()
    assert result.returncode == 0, text
    for word in ("csm-ggml", "ggml", "devices", "CPU features", "threads", "memory", "self-test"):
        assert f"\n{word}" in f"\n{text}"
    assert "ok, model demo on" in text


def test_doctor_says_which_instruction_set_is_used(tmp_path: Path) -> None:
    sets = _core.instruction_sets()
    if not sets:
        pytest.skip("this build has no kernels of its own")
    assert sets[-1] == "portable"
    for name in sets:
        text = command("doctor", CSM_GGML_CACHE=str(tmp_path), CSM_GGML_ISA=name).stdout.decode()
        assert f"\nkernels       {name} (of {name}" in text
        assert "ok, model demo on" in text


@pytest.mark.parametrize(("name", "why"), [("sse9", "no instruction set"), ("dotprod", "lacks")])
def test_an_instruction_set_that_is_not_there_is_an_error(name: str, why: str) -> None:
    if name in _core.instruction_sets():
        pytest.skip(f"this processor has {name}")
    result = command("speak", "[0]Hi.", "-o", "hi.wav", CSM_GGML_ISA=name)
    message = result.stderr.decode()
    assert result.returncode == 1
    assert f"CSM_GGML_ISA is '{name}', which" in message and why in message
    assert ", ".join(_core.instruction_sets()) in message
    assert "Traceback" not in message


def test_doctor_and_errors_where_the_compiled_module_does_not_load(tmp_path: Path) -> None:
    broken = (
        "import sys; sys.modules['csm_ggml._core'] = None\n"
        "from csm_ggml.cli import main; sys.exit(main(sys.argv[1:]))"
    )

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-c", broken, *arguments], capture_output=True, text=True, check=False
        )

    doctor = run("doctor")
    assert doctor.returncode == 1
    assert "devices       FAILED" in doctor.stdout
    assert "libraries     numpy" in doctor.stdout
    speak = run("speak", "Hi.")
    assert speak.returncode == 1
    assert "`csm-ggml doctor` shows what is installed" in speak.stderr
    assert "Traceback" not in speak.stderr


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.startswith("csm-ggml ")


def test_help_is_quick() -> None:
    # Nothing that is slow to import may be loaded before a subcommand needs it.
    check = (
        "import sys; from csm_ggml.cli import main; main(['speak', '--help']); "
        "slow = {'numpy', 'soundfile', 'tokenizers', 'huggingface_hub', 'gguf', 'tqdm', 'soxr'}; "
        "sys.exit(', '.join(sorted(slow & set(sys.modules))) or 0)"
    )
    result = subprocess.run([sys.executable, "-c", check], capture_output=True, check=False)
    assert result.returncode == 0, result.stderr


def test_speaking_loads_only_what_it_needs(model: str) -> None:
    check = (
        "import sys; from csm_ggml.cli import main; "
        "main(['speak', '-q', 'Hi.', '--max-frames', '1', '-m', sys.argv[1]]); "
        "slow = {'huggingface_hub', 'gguf', 'tqdm', 'soxr', 'safetensors'}; "
        "sys.exit(', '.join(sorted(slow & set(sys.modules))) or 0)"
    )
    result = subprocess.run([sys.executable, "-c", check, model], capture_output=True, check=False)
    assert result.returncode == 0, result.stderr


def test_verbose(model: str, tmp_path: Path) -> None:
    out = str(tmp_path / "x.wav")
    command = [sys.executable, "-m", "csm_ggml", "speak", "Hi.", "--max-frames", "2", "-o", out]
    for flag, told in (("-v", ["loaded"]), ("-vv", ["loaded", "job 1 has slot 0", "job 1 ends"])):
        done = subprocess.run(
            [*command, "-m", model, flag], capture_output=True, text=True, timeout=60
        )
        assert done.returncode == 0, done.stderr
        assert all(words in done.stderr for words in told)
    done = subprocess.run([*command, "-m", model], capture_output=True, text=True, timeout=60)
    assert "weights on" not in done.stderr
