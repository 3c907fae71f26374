"""Files that are read whole: whatever a name stands for, memory is bounded and errors name it."""

import io
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from csm_ggml import ModelFormatError, Voice, inputs
from csm_ggml.audio.load import load_audio
from csm_ggml.books import read_book
from csm_ggml.cli.codes_file import read_codes
from csm_ggml.cli.table import read_table
from csm_ggml.convert.sources import open_sources
from csm_ggml.convert.transformers_config import read_json
from csm_ggml.text.lexicon import Lexicon

POSIX = pytest.mark.skipif(sys.platform == "win32", reason="devices are files on POSIX")
READERS: dict[str, tuple[str, Callable[[Path], Any]]] = {
    "voice": ("a.voice", Voice.load),
    "lexicon": ("a.txt", Lexicon.load),
    "codes": ("a.txt", lambda path: read_codes(str(path))),
    "table": ("a.csv", read_table),
    "book": ("a.txt", read_book),
    "settings": ("config.json", read_json),
    "recording": ("a.wav", lambda path: load_audio(path, 24000)),
    "checkpoint": ("a.safetensors", open_sources),
}
# Those that read_whole reads; recordings and checkpoints are read in parts.
WHOLE = ("voice", "lexicon", "codes", "table", "book", "settings")
# The command line in a process that may take 3 GiB of addresses.
BOUNDED = """
import resource, sys
resource.setrlimit(resource.RLIMIT_AS, (3 << 30, 3 << 30))
from csm_ggml.__main__ import main
sys.exit(main())
"""


@pytest.mark.parametrize("name", WHOLE)
def test_large_files_are_refused_unread(name: str, tmp_path: Path) -> None:
    filename, read = READERS[name]
    path = tmp_path / filename
    with path.open("wb") as file:
        file.truncate(2 << 30)
    with pytest.raises((ValueError, ModelFormatError), match=f"{filename}: is larger than .* MiB"):
        read(path)


# One has no end, the other cannot be read.
@pytest.mark.parametrize("device", ["/dev/zero", "/proc/self/mem"])
@pytest.mark.parametrize("name", READERS)
def test_errors_of_devices_name_the_file(name: str, device: str, tmp_path: Path) -> None:
    if not os.path.exists(device):
        pytest.skip(f"no {device} on this system")
    filename, read = READERS[name]
    path = tmp_path / filename
    path.symlink_to(device)
    with pytest.raises((ValueError, OSError, ModelFormatError), match=filename):
        read(path)


@POSIX
@pytest.mark.parametrize(
    "arguments",
    [
        ["speak", "-f", "/dev/zero", "-o", "a.wav"],
        ["speak", "Hi.", "--voice", "/dev/zero", "-o", "a.wav"],
        ["speak", "Hi.", "--lexicon", "/dev/zero", "-o", "a.wav"],
        ["voice", "info", "/dev/zero"],
        ["decode", "/dev/zero", "-o", "a.wav"],
        ["voice", "create", "a.wav", "--transcript-file", "/dev/zero", "-o", "a.voice"],
        ["serve", "--api-key-file", "/dev/zero"],
    ],
    ids=" ".join,
)
def test_no_command_reads_for_ever(arguments: list[str], tmp_path: Path) -> None:
    ran = subprocess.run(
        [sys.executable, "-c", BOUNDED, *arguments],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert ran.returncode in (1, 2), ran
    assert "/dev/zero" in ran.stderr and "Traceback" not in ran.stderr, ran
    assert not list(tmp_path.iterdir())


@POSIX
def test_a_fifo_is_read_to_its_end(tmp_path: Path) -> None:
    path = tmp_path / "fifo"
    os.mkfifo(path)
    content = os.urandom(3 << 20)
    writer = threading.Thread(target=path.write_bytes, args=(content,))
    writer.start()
    assert inputs.read_whole(path) == content
    writer.join()


def test_limits_are_exact(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes(b"x" * 1000)
    assert len(inputs.read_whole(path, 1000)) == 1000
    with pytest.raises(ValueError, match=r"a\.txt"):
        inputs.read_whole(path, 999)
    stdin = io.TextIOWrapper(io.BytesIO(b"x" * 1000))
    monkeypatch.setattr(sys, "stdin", stdin)
    with pytest.raises(ValueError, match="standard input"):
        inputs.read_standard_input(999)
