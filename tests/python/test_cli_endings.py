"""However a command ends: one line, the right exit code, no partial file, no old file lost."""

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import soundfile
from csm_ggml import CSM
from csm_ggml.cli import main
from test_files import largest_file

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="POSIX descriptors and signals")

# Both kinds of signals in turn.
MOMENTS = int(os.environ.get("CSM_GGML_TEST_MOMENTS", "10"))
LONG = "This is a sentence of some length, and it is followed by another one. " * 20

# Commands that write a file: the name of their output, and their arguments.
FILES = {
    "speak": ("x.wav", "speak -q Hi. -o OUT MODEL --max-frames 40 --seed 1"),
    "stream": ("x.flac", "speak -q Hi. --stream -o OUT MODEL --max-frames 40 --seed 1"),
    "long": ("x.ogg", "speak -q -f book.txt -o OUT MODEL --max-frames 20 --seed 1"),
    "voice": ("x.voice", "voice create me.wav -t Hi. -q -o OUT MODEL --prefix"),
    "encode": ("x.npy", "encode me.wav -o OUT MODEL"),
    "decode": ("x.wav", "decode codes.txt -o OUT MODEL"),
    "quantize": ("x.gguf", "quantize model.gguf OUT --type q8_0"),
    "make-random": ("x.gguf", "make-random -o OUT"),
    "bench": ("x.json", "bench -m model.gguf --batch 1 --frames 2 --rounds 1 --json OUT"),
}
# Commands whose product is standard output.
PRINTING = {
    "speak": "speak -q Hi. -o - MODEL --max-frames 4 --seed 1",
    "raw": "speak -q Hi. --raw -o - MODEL --max-frames 4 --seed 1",
    "encode": "encode me.wav MODEL",
    "decode": "decode codes.txt -o - MODEL",
    "info": "info model.gguf --tensors",
    "voice info": "voice info me.voice",
    "doctor": "doctor",
}


@pytest.fixture(scope="module")
def materials(path: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with what the commands read."""
    folder = tmp_path_factory.mktemp("materials")
    (folder / "model.gguf").symlink_to(path)
    (folder / "book.txt").write_text(LONG)
    noise = np.random.default_rng(0).normal(0, 0.1, 24 * 1920)
    soundfile.write(folder / "me.wav", noise, 24000)
    csm = CSM.from_pretrained(path, device="cpu", threads=1)
    np.savetxt(folder / "codes.txt", csm.encode(folder / "me.wav"), fmt="%d")
    csm.create_voice(folder / "me.wav", "Hi.").save(folder / "me.voice")
    return folder


@pytest.fixture
def folder(materials: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(materials)
    monkeypatch.delenv("CSM_GGML_DEBUG", raising=False)
    return tmp_path


def words(text: str, out: Path | str = "") -> list[str]:
    model = "-m model.gguf --device cpu --threads 1"
    return [str(out) if w == "OUT" else w for w in text.replace("MODEL", model).split()]


def run(
    text: str, out: Path | str = "", *, before: Callable[[], None] | None = None, stdout: int = -1
) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [sys.executable, "-m", "csm_ggml", *words(text, out)],
        stdin=subprocess.DEVNULL,
        stdout=stdout,
        stderr=subprocess.PIPE,
        preexec_fn=before,
        check=False,
    )


def messages(err: bytes | str) -> list[str]:
    """The lines on standard error that are no reports of work done."""
    text = err if isinstance(err, str) else err.decode()
    reports = ("csm-ggml: round 1 of 1", "csm-ggml: load average")
    return [line for line in text.splitlines() if not line.startswith(reports)]


@pytest.mark.parametrize("name", FILES)
def test_a_full_disk(folder: Path, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    file, text = FILES[name]
    out = folder / file
    out.write_bytes(b"the old one")
    with largest_file(200):
        assert main(words(text, out)) == 1
    shown = messages(capsys.readouterr().err)
    assert [line.startswith(f"csm-ggml: error: {out}") for line in shown] == [True], shown
    assert shown[0].endswith("File too large")
    assert out.read_bytes() == b"the old one"
    # The journal of a long text could not be begun either.
    assert list(folder.iterdir()) == [out]


@pytest.mark.parametrize("name", FILES)
def test_a_folder_that_cannot_be_written(
    folder: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    file, text = FILES[name]
    if os.geteuid() == 0:  # who may write everywhere, but not here
        folder = Path("/sys")
    else:
        folder.chmod(0o555)
    assert main(words(text, folder / file)) == 1
    shown = messages(capsys.readouterr().err)
    assert [line.startswith(f"csm-ggml: error: {folder / file}: ") for line in shown] == [True]
    assert not (folder / file).exists()


@pytest.mark.parametrize("name", [name for name in FILES if name != "bench"])
def test_messages_never_get_into_a_file(folder: Path, name: str) -> None:
    file, text = FILES[name]
    out, expected = folder / file, folder / f"expected-{file}"
    assert main(words(text, expected)) == 0
    # Any one of them gives its number to the next file that is opened.
    for closed in ((0, 1, 2), (1,), (2,))[: 3 if name == "speak" else 1]:
        result = run(text, out, before=lambda closed=closed: [os.close(n) for n in closed])
        assert result.returncode == 0, result.stderr
        assert out.read_bytes() == expected.read_bytes()
    assert sorted(folder.iterdir()) == sorted([out, expected])


def test_a_report_that_nobody_gets_does_not_cost_the_file(folder: Path) -> None:
    file, text = FILES["bench"]
    result = run(text, folder / file, before=lambda: [os.close(n) for n in (0, 1, 2)])
    assert result.returncode == 1
    assert (folder / file).stat().st_size > 100


@pytest.mark.parametrize("name", PRINTING)
def test_a_result_that_nobody_gets_is_an_error(folder: Path, name: str) -> None:
    for reason, before in (
        ("Bad file descriptor", lambda: os.close(1)),
        ("No space left on device", lambda: os.dup2(os.open("/dev/full", os.O_WRONLY), 1)),
    ):
        result = run(PRINTING[name], before=before)
        shown = messages(result.stderr)
        assert shown == [f"csm-ggml: error: standard output: {reason}"]
        assert result.returncode == 1
    # Nor does a broken standard error break the result.
    expected = run(PRINTING[name]).stdout
    broken = run(PRINTING[name], before=lambda: os.dup2(os.open("/dev/full", os.O_WRONLY), 2))
    assert broken.returncode == 0
    if name != "doctor":  # measures times
        assert broken.stdout == expected


def begin(text: str, out: Path) -> tuple[subprocess.Popen[bytes], float]:
    """Start a command; returns it, and the time when its own code begins to run."""
    ready, write = os.pipe()
    code = (
        "import os, signal, sys\n"
        "from csm_ggml.__main__ import main\n"
        f"os.close({write})\n"
        "sys.exit(main())"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code, *words(text, out)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        pass_fds=[write],
        # A shell starts what runs in its background with Ctrl-C ignored, and a child inherits that.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    os.close(write)
    os.read(ready, 1)
    os.close(ready)
    return process, time.monotonic()


@pytest.mark.parametrize("name", FILES)
def test_signals_at_any_moment(folder: Path, name: str) -> None:
    file, text = FILES[name]
    expected = folder / "expected" / file
    expected.parent.mkdir()
    process, started = begin(text, expected)
    _, err = process.communicate()
    assert process.returncode == 0, err
    whole = time.monotonic() - started
    draw = random.Random(name)

    def interrupt(number: int) -> None:
        wanted = (signal.SIGINT, signal.SIGTERM)[number % 2]
        out = folder / str(number) / file
        out.parent.mkdir()
        out.write_bytes(b"the old one")
        process, _ = begin(text, out)
        time.sleep(draw.uniform(0.01, 1.1) * whole)
        process.send_signal(wanted)
        _, err = process.communicate(timeout=60)
        shown = messages(err)
        left = {entry.name for entry in out.parent.iterdir()}
        if process.returncode == 0:
            assert out.read_bytes() != b"the old one"
            assert left == {file}
            return
        where = f"{name}, {wanted.name}: {err.decode()}"
        assert left <= {file, f"{file}.progress"}, where
        # Ended before or after the command had the signals in its hands.
        if process.returncode == -wanted == -signal.SIGTERM:
            assert not shown, where
        else:
            assert process.returncode == 128 + wanted, where
            said = "interrupted" if wanted == signal.SIGINT else "terminated"
            assert len(shown) == 1 and f"csm-ggml: {said}" in shown[0], where
            if f"{file}.progress" in left:
                assert "the same command goes on where this was" in shown[0]
        assert out.read_bytes() == b"the old one" or left == {file}, where

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(interrupt, range(MOMENTS if name != "bench" else -(-MOMENTS // 5))))


def test_ctrl_c_while_python_imports(folder: Path) -> None:
    """The first tenths of a second, before there is anything to clean up."""
    for number in range(3):
        process, _ = begin("speak Hi. -o OUT MODEL", folder / "x.wav")
        time.sleep(0.02 + 0.03 * number)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=60)
        assert process.returncode == 130
        assert err.decode().splitlines()[-1:] == ["csm-ggml: interrupted"], err
        assert b"Traceback" not in err
    assert not list(folder.iterdir())
