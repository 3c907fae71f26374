"""Files are written whole or not at all, whatever is in the way: every writer, one mechanism."""

import contextlib
import errno
import gc
import os
import signal
import socket
import stat
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from csm_ggml import Audio, Voice, files
from csm_ggml.audio.audio import save_samples
from csm_ggml.audio.encoder import Encoder
from csm_ggml.audio.writer import AudioWriter
from csm_ggml.cli.codes_file import write_codes
from csm_ggml.convert import make_random
from csm_ggml.files import OutputFile, check_output, write_file

POSIX = pytest.mark.skipif(sys.platform == "win32", reason="POSIX files")
VOICE = Voice(0, "Hi.", np.ones((3, 2), np.int32), 24000, 1920)
TONE = np.sin(np.arange(120_000) / 9).astype(np.float32) / 2


def stream(path: Path) -> None:
    with AudioWriter(path, 24000) as writer:
        for part in np.array_split(TONE, 5):
            writer.write(part)


# One of each kind: how it is written, and to what name.
WRITERS: dict[str, Callable[[Path], Any]] = {
    "save.wav": lambda path: save_samples(path, TONE, 24000),
    "save.flac": lambda path: save_samples(path, TONE, 24000),
    "save.ogg": lambda path: save_samples(path, TONE, 24000),
    "stream.wav": stream,
    "stream.flac": stream,
    "stream.ogg": stream,
    "x.voice": VOICE.save,
    "codes.npy": lambda path: write_codes(str(path), np.ones((20_000, 8), np.int32)),
    "codes.txt": lambda path: write_codes(str(path), np.ones((20_000, 8), np.int32)),
    "model.gguf": lambda path: make_random(path, progress=False),
}
writers = pytest.mark.parametrize("name", WRITERS)


@contextlib.contextmanager
def largest_file(size: int) -> Iterator[None]:
    """As a disk that is full when a file has this size."""
    import resource

    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)


@writers
@POSIX
def test_a_full_disk_keeps_the_old_file(
    tmp_path: Path, name: str, capfd: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / name
    path.write_bytes(b"the old one")
    with largest_file(100), pytest.raises(OSError, match="too large") as caught:
        WRITERS[name](path)
    assert caught.value.errno == errno.EFBIG
    assert caught.value.filename == str(path)
    assert path.read_bytes() == b"the old one"
    assert list(tmp_path.iterdir()) == [path]
    assert capfd.readouterr() == ("", "")


@writers
@POSIX
def test_links_are_followed_and_rights_kept(tmp_path: Path, name: str) -> None:
    real = tmp_path / "folder" / name
    real.parent.mkdir()
    real.write_bytes(b"the old one")
    real.chmod(0o640)
    link = tmp_path / name
    link.symlink_to(real)
    WRITERS[name](link)
    assert link.is_symlink()
    assert stat.S_IMODE(real.stat().st_mode) == 0o640
    assert real.stat().st_size > 20
    assert sorted(tmp_path.rglob("*")) == sorted([link, real.parent, real])
    # A link that leads nowhere yet is followed, too.
    real.unlink()
    WRITERS[name](link)
    assert link.is_symlink() and real.is_file()


@writers
@POSIX
def test_devices_and_pipes_are_written_through(tmp_path: Path, name: str) -> None:
    null = tmp_path / name
    null.symlink_to("/dev/null")
    WRITERS[name](null)
    assert stat.S_ISCHR(os.stat("/dev/null").st_mode)
    null.unlink()
    regular = tmp_path / f"regular-{name}"
    WRITERS[name](regular)
    pipe = tmp_path / name
    os.mkfifo(pipe)
    got: list[bytes] = []
    reader = threading.Thread(target=lambda: got.append(pipe.read_bytes()))
    reader.start()
    WRITERS[name](pipe)
    reader.join(10)
    assert stat.S_ISFIFO(pipe.stat().st_mode)
    if name == "stream.wav":  # its header cannot be completed
        assert got[0][44:] == regular.read_bytes()[44:]
    else:
        assert got[0] == regular.read_bytes()


@writers
def test_names_of_other_kinds_of_files_are_refused(tmp_path: Path, name: str) -> None:
    own = os.path.splitext(name)[1]
    for extension in {".wav", ".gguf", ".voice", ".npy", ".json", ".png", ".safetensors"} - {own}:
        path = tmp_path / f"x{extension}"
        path.write_bytes(b"of another kind")
        same = {".npy", ".txt"} if "codes" in name else {".gguf", ".safetensors"}
        if {own, extension} <= same or (own in (".flac", ".ogg") and extension == ".wav"):
            continue
        with pytest.raises(ValueError, match=extension):
            WRITERS[name](path)
        assert path.read_bytes() == b"of another kind"


@writers
def test_what_cannot_be_a_file(tmp_path: Path, name: str) -> None:
    folder = tmp_path / name
    folder.mkdir()
    with pytest.raises(IsADirectoryError, match="is a folder"):
        WRITERS[name](folder)
    with pytest.raises(FileNotFoundError, match="there is no folder"):
        WRITERS[name](tmp_path / "nowhere" / name)
    with pytest.raises(ValueError, match="zero byte"):
        WRITERS[name](Path(f"a\0{name}"))
    assert list(tmp_path.iterdir()) == [folder]


@POSIX
def test_sockets_loops_and_disks_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind("socket")
        with pytest.raises(OSError, match="expected a file, FIFO or terminal"):
            write_file("socket", b"x")
    Path("loop").symlink_to("loop")
    with pytest.raises(OSError, match="loop"):
        write_file("loop", b"x")
    assert sorted(os.listdir()) == ["loop", "socket"]


def test_an_input_is_no_output(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_bytes(b"read me")
    os.link(path, tmp_path / "same")
    for name in ("x", "same"):
        for make in (OutputFile, check_output):
            with pytest.raises(ValueError, match="is one of the files to be read"):
                make(tmp_path / name, inputs=["nothing", path])
    check_output(tmp_path / "other", inputs=[path])
    assert path.read_bytes() == b"read me"


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError, SystemExit])
def test_an_error_keeps_the_old_file(tmp_path: Path, error: type[BaseException]) -> None:
    path = tmp_path / "x.wav"
    path.write_bytes(b"the old one")

    def fail(writer: Any, data: Any) -> None:
        with writer:
            writer.write(data)
            raise error

    with pytest.raises(error):
        fail(OutputFile(path), b"new")
    with pytest.raises(error):
        fail(AudioWriter(path, 24000), TONE)
    assert path.read_bytes() == b"the old one"
    assert list(tmp_path.iterdir()) == [path]


def test_what_a_killed_process_left_is_swept(tmp_path: Path) -> None:
    path = tmp_path / "x.bin"
    code = (
        "import os, sys; from csm_ggml.files import OutputFile\n"
        "file = OutputFile(sys.argv[1]); file.write(b'x'); file.flush(); os._exit(9)"
    )
    subprocess.run([sys.executable, "-c", code, path], check=False)
    [left] = tmp_path.iterdir()
    assert left.name.startswith(".x.bin.") and left.name.endswith(".partial")
    (tmp_path / ".other.1.partial").touch()
    with OutputFile(path) as one:
        assert not left.exists()
        # Another writer of the same name is none that was killed.
        with OutputFile(path) as two:
            two.write(b"two")
        assert path.read_bytes() == b"two"
        one.write(b"one")
    assert path.read_bytes() == b"one"
    assert {entry.name for entry in tmp_path.iterdir()} == {"x.bin", ".other.1.partial"}


def test_long_names(tmp_path: Path) -> None:
    path = tmp_path / ("n" * 255)
    write_file(path, b"x")
    assert list(tmp_path.iterdir()) == [path]


@POSIX
@pytest.mark.parametrize("name", ["\u0437\u0432\u0443\u043a", "\u97f3", "caf\udce9"])
@pytest.mark.parametrize("extension", ["wav", "flac", "ogg"])
def test_names_that_are_not_ascii_nor_utf_8(tmp_path: Path, name: str, extension: str) -> None:
    from csm_ggml.audio.load import load_audio

    path = tmp_path / f"{name}.{extension}"
    save_samples(path, TONE, 24000)
    assert np.abs(load_audio(path, 24000)[:1000] - TONE[:1000]).max() < 0.1


@POSIX
def test_a_locked_file_has_one_owner(tmp_path: Path) -> None:
    path = tmp_path / "x"
    first = files.open_locked(path)
    assert first is not None
    assert files.open_locked(path) is None
    # Whoever comes after the owner has removed it gets a new file, not the removed one.
    path.unlink()
    second = files.open_locked(path)
    assert second is not None
    first.close()
    assert files.open_locked(path) is None
    second.close()


@pytest.mark.parametrize("moment", range(4))
@pytest.mark.parametrize("extension", ["wav", "flac", "ogg"])
def test_an_interruption_of_libsndfile_prints_nothing(
    tmp_path: Path,
    extension: str,
    moment: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Ctrl-C when libsndfile has begun, written or completed, and nobody has heard of it yet."""
    calls, run = iter(range(4)), Encoder._run

    def interrupted(self: Encoder, work: Callable[[], Any]) -> Any:
        result = run(self, work)
        if next(calls) == moment:
            raise KeyboardInterrupt
        return result

    printed: list[Any] = []
    monkeypatch.setattr(sys, "unraisablehook", printed.append)
    monkeypatch.setattr(Encoder, "_run", interrupted)
    with (
        contextlib.suppress(KeyboardInterrupt),
        AudioWriter(tmp_path / f"x.{extension}", 24000) as writer,
    ):
        writer.write(TONE)
        writer.write(TONE)
    gc.collect()
    assert list(tmp_path.iterdir()) == []
    assert printed == []


@pytest.mark.parametrize("seconds", [0, 0.1, 30])
def test_equal_sounds_are_equal_ogg_files(tmp_path: Path, seconds: float) -> None:
    noise = np.random.default_rng(0).normal(0, 0.2, int(24000 * seconds)).astype(np.float32)
    for name in ("one.ogg", "two.ogg"):
        save_samples(tmp_path / name, noise, 24000)
    one = (tmp_path / "one.ogg").read_bytes()
    assert one == (tmp_path / "two.ogg").read_bytes()
    # Its checksums are right: a reader takes it.
    assert soundfile.info(tmp_path / "one.ogg").frames == len(noise)
    assert len(soundfile.read(tmp_path / "one.ogg")[0]) == len(noise)


def test_a_part_of_one_utterance_is_no_part_of_the_next() -> None:
    from test_audio import audio

    one = audio(np.zeros(1920, np.float32))
    joined = Audio.concatenate([one, one])
    assert [(turn.start, turn.frames) for turn in joined.turns] == [(0, 1), (1, 1)]
