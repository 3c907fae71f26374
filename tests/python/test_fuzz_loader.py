"""Damaged and malicious files are refused: no crash, no hang, no absurd memory."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import checkpoints
import pytest
from csm_ggml import _core
from csm_ggml.convert import convert
from reference.checkpoint import write_checkpoint
from reference.gguf_document import parse
from reference.recipes import TINY

pytestmark = pytest.mark.skipif(
    not Path("/proc/self/statm").exists(), reason="limits memory with /proc and setrlimit"
)

FILES = 10_000
TRIO_FILES = 1_500
# Attempts of one process; short enough that a crash costs little.
SHARE = 1_250
SECONDS = 240


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A valid file of all parts, a few dozen kilobytes long."""
    folder = tmp_path_factory.mktemp("fuzz")
    convert(write_checkpoint(TINY, folder / "checkpoint"), folder / "tiny.gguf", type="f32")
    return folder / "tiny.gguf"


def attempts(first: int, count: int, target: int, files: list[Path]) -> list[str]:
    """Failures of a process that loads damaged files; seeds first to first + count - 1."""
    command = [sys.executable, "-m", "reference.fuzz_worker", str(first), str(count), str(target)]
    try:
        done = subprocess.run(
            [*command, *map(str, files)],
            cwd=Path(__file__).parent,
            env={"PYTHONPATH": ":".join(path for path in sys.path if path), "PATH": ""},
            capture_output=True,
            text=True,
            timeout=SECONDS,
        )
    except subprocess.TimeoutExpired as expired:
        output = expired.stdout or b""
        last = (output if isinstance(output, bytes) else output.encode()).split()[-1:]
        return [f"not done after {SECONDS} s, at seed {last}"]
    lines = done.stdout.splitlines()
    failures = [line for line in lines if line.startswith("FAIL")]
    if done.returncode:
        seeds = [line for line in lines if line.isdigit()]
        at = seeds[-1] if seeds else "none"
        failures.append(
            f"process ended with {done.returncode} (a signal if negative) at seed {at}: "
            + done.stderr[-600:]
        )
        # the rest is tried, too, so that one crash does not hide others
        if seeds and int(at) + 1 < first + count:
            failures += attempts(int(at) + 1, first + count - int(at) - 1, target, files)
    return failures


def check(files: list[Path], shares: list[tuple[int, int, int]]) -> None:
    with ThreadPoolExecutor(2) as pool:
        found = list(pool.map(lambda share: attempts(*share, files), shares))
    failures = [failure for share in found for failure in share]
    assert not failures, f"{len(failures)} failures:\n" + "\n".join(failures[:20])


def test_damaged_files(tiny: Path) -> None:
    check([tiny], [(first, SHARE, 0) for first in range(0, FILES, SHARE)])


def test_damaged_trios(tmp_path: Path) -> None:
    """Each file of a llama.cpp conversion in turn, beside the two intact ones."""
    folder = checkpoints.write_llama_csm(tmp_path)
    files = sorted(folder.glob("*.gguf"))
    assert len(files) == 3
    share = TRIO_FILES // 3
    check(files, [(FILES + target * share, share, target) for target in range(3)])


def test_the_files_are_valid_until_damaged(tiny: Path) -> None:
    """Taking a file apart and building it again changes nothing."""
    data = tiny.read_bytes()
    assert len(data) < 300_000
    assert parse(data).build() == data


def test_every_prefix_is_refused(tiny: Path, tmp_path: Path) -> None:
    """A file that ends too early, wherever that is in its header."""
    data = tiny.read_bytes()
    part = tmp_path / "part.gguf"
    for end in [*range(0, 200), *range(200, parse(data).header_size, 97), len(data) - 1]:
        part.write_bytes(data[:end])
        with pytest.raises(_core.ModelFormatError, match=r"part\.gguf"):
            _core.Model([str(part)], device="cpu", threads=1)


@pytest.mark.parametrize("extra", [1, 31, 32, 10_000])
def test_every_oversized_file_is_refused(tiny: Path, tmp_path: Path, extra: int) -> None:
    """Bytes that the header does not account for."""
    longer = tmp_path / "longer.gguf"
    longer.write_bytes(tiny.read_bytes() + b"x" * extra)
    with pytest.raises(
        _core.ModelFormatError, match=r"longer\.gguf: oversized.*" + str(len(tiny.read_bytes()))
    ):
        _core.Model([str(longer)], device="cpu", threads=1)


@pytest.mark.parametrize("what", ["folder", "missing", "empty", "two", "none"])
def test_what_is_no_file(tiny: Path, tmp_path: Path, what: str) -> None:
    empty = tmp_path / "empty.gguf"
    empty.write_bytes(b"")
    files: dict[str, Callable[[], list[str]]] = {
        "folder": lambda: [str(tmp_path)],
        "missing": lambda: [str(tmp_path / "missing.gguf")],
        "empty": lambda: [str(empty)],
        "two": lambda: [str(tiny), str(tiny)],
        "none": lambda: [],
    }
    with pytest.raises((_core.ModelFormatError, FileNotFoundError, ValueError), match=r"\w"):
        _core.Model(files[what](), device="cpu", threads=1)
