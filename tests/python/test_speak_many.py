"""`csm-ggml speak-many`: a table to a folder that does not tell how it was made."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import soundfile
from csm_ggml import CSM
from csm_ggml.cli import main
from csm_ggml.cli.collection import MANIFEST, file_names
from csm_ggml.cli.table import read_table
from csm_ggml.files import open_locked
from fakes import say_nothing_of

ROWS = [
    {"id": "b", "text": "One two three.", "n": 1},
    {"id": "a", "text": "Hello.", "n": 2},
    {"id": "c d", "text": "This is a longer text.", "n": None},
]


@pytest.fixture
def model(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("CSM_GGML_DEBUG", raising=False)
    return ["-m", str(path), "--device", "cpu", "--threads", "1", "--max-seconds", "0.3"]


def write(rows: list[dict[str, Any]], name: str = "in.jsonl") -> str:
    Path(name).write_text("".join(json.dumps(row) + "\n" for row in rows))
    return name


def manifest(folder: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in Path(folder, MANIFEST).read_text().splitlines()]


def content(folder: str) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in Path(folder).iterdir()}


def test_a_file_for_each_row_and_a_line_in_their_order(
    model: list[str], path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["speak-many", write(ROWS), "-o", "out", *model, "--seed", "3"]) == 0
    lines = manifest("out")
    assert [line["id"] for line in lines] == ["b", "a", "c d"]
    assert [line["n"] for line in lines] == [1, 2, None]
    assert lines[0]["file"] == "b.flac"
    assert "3 rows, 0.72 s of speech" in capsys.readouterr().err
    csm = CSM.from_pretrained(path, device="cpu", threads=1)
    for line in lines:
        samples, _ = soundfile.read(Path("out", line["file"]), dtype="int16")
        audio = csm.generate(line["text"], seed=line["seed"], max_seconds=0.3)
        assert samples.tolist() == audio.pcm16().tolist()


def test_the_folder_is_the_same_whatever_the_batch_and_the_order(model: list[str]) -> None:
    assert main(["speak-many", write(ROWS), "-o", "one", *model, "-q"]) == 0
    assert main(["speak-many", "in.jsonl", "-o", "two", *model, "-q", "--batch-size", "1"]) == 0
    assert content("one") == content("two")
    write(ROWS[::-1], "back.jsonl")
    assert main(["speak-many", "back.jsonl", "-o", "three", *model, "-q"]) == 0
    assert manifest("three") == manifest("one")[::-1]
    for line in manifest("one"):
        assert content("three")[line["file"]] == content("one")[line["file"]]


def test_the_same_command_goes_on(model: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["speak-many", write(ROWS), "-o", "whole", *model]) == 0
    assert main(["speak-many", write(ROWS[:1]), "-o", "out", *model]) == 0
    # A crash while a line was written, and a file without its line.
    with open("out/manifest.jsonl", "ab") as file:
        file.write(b'{"id": "a", "text"')
    Path("out/a.flac").write_bytes(b"half")
    capsys.readouterr()
    assert main(["speak-many", write(ROWS), "-o", "out", *model]) == 0
    assert "3 rows, 1 of them before" in capsys.readouterr().err
    assert content("out") == content("whole")
    # Nothing is spoken again; a row that has changed is.
    before = os.stat("out/b.flac").st_mtime_ns
    changed = [*ROWS[:2], ROWS[2] | {"text": "Something else."}]
    assert main(["speak-many", write(changed), "-o", "out", *model]) == 0
    assert "3 rows, 2 of them before" in capsys.readouterr().err
    assert os.stat("out/b.flac").st_mtime_ns == before
    assert [line["text"] for line in manifest("out")] == [row["text"] for row in changed]


@pytest.mark.skipif(sys.platform == "win32", reason="has no SIGTERM to catch")
def test_an_interruption_keeps_what_is_done(model: list[str]) -> None:
    rows = [{"id": n, "text": f"Number {n}."} for n in range(60)]
    longer = [*model[:-1], "3"]
    command = ["speak-many", write(rows), "-o", "out", *longer, "--batch-size", "2"]
    process = subprocess.Popen(
        [sys.executable, "-m", "csm_ggml", *command], stderr=subprocess.PIPE, text=True
    )
    end = time.monotonic() + 60
    while time.monotonic() < end and len(list(Path("out").glob("*.flac"))) < 5:
        time.sleep(0.02)
    process.send_signal(signal.SIGTERM)
    _, message = process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGTERM
    assert "the same command speaks the" in message
    kept = manifest("out")
    assert 5 <= len(kept) < 60
    assert not [name for name in os.listdir("out") if name.endswith(".partial")]
    assert main([*command, "-q"]) == 0
    assert main(["speak-many", "in.jsonl", "-o", "whole", *longer, "-q"]) == 0
    assert content("out") == content("whole")


def test_rows_that_cannot_be_spoken(model: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    rows = [*ROWS, {"id": "e", "text": ""}, {"id": "f"}]
    assert main(["speak-many", write(rows), "-o", "out", *model, "-q"]) == 1
    assert "2 rows could not be spoken, such as e: nothing to say" in capsys.readouterr().err
    lines = manifest("out")
    assert [bool(line["error"]) for line in lines] == [False, False, False, True, True]
    assert [line["file"] for line in lines][3:] == ["", ""]
    assert main(["speak-many", "in.jsonl", "-o", "x", *model, "--on-error", "raise"]) == 1
    assert "nothing to say" in capsys.readouterr().err or manifest("x") is not None
    # Mended rows are spoken; the lines of their errors are gone.
    assert main(["speak-many", write(ROWS), "-o", "out", *model, "-q"]) == 0
    assert [line["id"] for line in manifest("out")] == ["b", "a", "c d"]


def test_a_row_that_is_answered_with_nothing_is_an_error(
    model: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    say_nothing_of(monkeypatch, "Unsayable")
    rows = [*ROWS, {"id": "u", "text": "Unsayable."}]
    assert main(["speak-many", write(rows), "-o", "out", *model, "-q"]) == 1
    line = manifest("out")[-1]
    assert line["file"] == "" and "nothing to say to this text" in line["error"]
    assert not list(Path("out").glob("u*"))
    # The next run tries it again.
    monkeypatch.undo()
    assert main(["speak-many", write(rows), "-o", "out", *model, "-q"]) == 0
    assert manifest("out")[-1]["file"] == "u.flac"


def test_a_folder_holds_one_kind_of_run(
    model: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["speak-many", write(ROWS[:1]), "-o", "out", *model]) == 0
    assert main(["speak-many", "in.jsonl", "-o", "out", *model, "--seed", "1"]) == 2
    assert "another run, with seed 0 instead of 1" in capsys.readouterr().err
    assert main(["speak-many", "in.jsonl", "-o", "in.jsonl", *model]) == 2
    assert "is a file, expected a folder" in capsys.readouterr().err
    with open_locked(tmp_path / "out" / "speak-many.json"):  # type: ignore[union-attr]
        assert main(["speak-many", "in.jsonl", "-o", "out", *model]) == 1
    assert "another process speaks into this folder" in capsys.readouterr().err


@pytest.mark.parametrize("format", ["flac", "wav", "mp3", "opus"])
def test_formats(model: list[str], format: str) -> None:
    assert main(["speak-many", write(ROWS[:1]), "-o", "out", *model, "-q", "--format", format]) == 0
    samples, _ = soundfile.read(f"out/b.{format}")
    assert len(samples) >= 3 * 1920


def test_tables(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write(ROWS)
    assert read_table("in.jsonl") == ROWS
    Path("in.csv").write_text('\ufeffid,text\n1,"a, ""b""\nc"\n\n2,d\n', encoding="utf-8")
    assert read_table("in.csv") == [{"id": "1", "text": 'a, "b"\nc'}, {"id": "2", "text": "d"}]
    Path("in.tsv").write_text("id\ttext\n1\ta, b\n")
    assert read_table("in.tsv") == [{"id": "1", "text": "a, b"}]
    pyarrow = pytest.importorskip("pyarrow")
    pytest.importorskip("pyarrow.parquet").write_table(
        pyarrow.Table.from_pylist(ROWS), "in.parquet"
    )
    assert read_table("in.parquet") == ROWS


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("in.jsonl", b'{"id": 1}\n[]\n', "in.jsonl, line 2: expected an object"),
        ("in.jsonl", b'{"id": 1}\n\n{"id"', "in.jsonl, line 3: not JSON"),
        ("in.jsonl", b"[" * 100_000, "in.jsonl, line 1: not JSON"),
        ("in.jsonl", b"\xff\n", "in.jsonl: not UTF-8"),
        ("in.jsonl", b"", "there are no rows"),
        (
            "in.jsonl",
            b'{"id": 1, "text": "a"}\n{"id": "1", "text": "b"}',
            "rows 1 and 2 have the same",
        ),
        ("in.jsonl", b'{"id": 1.5, "text": "a"}', "row 1: an id must be a string or a whole"),
        ("in.jsonl", b'{"id": 1, "txt": "a"}', "has no column 'text', only id, txt"),
        ("in.csv", b"id,text\n1\n", "line 2: 1 fields, expected 2: id, text"),
        ("in.csv", b"id,id\n1,2\n", "two columns have the same name"),
        ("in.csv", b'id,text\n1,"a\n', "in.csv, line"),
        ("in.txt", b"Hello.", "expected a table by its extension"),
        ("none.csv", None, "none.csv: No such file"),
    ],
)
def test_tables_that_are_none(
    model: list[str],
    capsys: pytest.CaptureFixture[str],
    name: str,
    data: bytes | None,
    message: str,
) -> None:
    if data is not None:
        Path(name).write_bytes(data)
    assert main(["speak-many", name, "-o", "out", *model]) in (1, 2)
    assert message in capsys.readouterr().err
    assert not Path("out").exists()


def test_rows_without_ids_are_numbered(model: list[str]) -> None:
    assert main(["speak-many", write([{"text": "Hello."}] * 2), "-o", "out", *model, "-q"]) == 0
    assert [line["file"] for line in manifest("out")] == ["000001.flac", "000002.flac"]
    assert content("out")["000001.flac"] != content("out")["000002.flac"]


def test_names_of_files() -> None:
    ids = ["plain-1.x", "Aa", "aA", "../etc", "", "nul", ".hidden", "é", "x" * 300, "a/b", "a_b"]
    names = file_names(ids, ".wav")
    assert names["plain-1.x"] == "plain-1.x.wav"
    assert len({name.lower() for name in names.values()}) == len(ids)
    for name in names.values():
        assert "/" not in name
        assert not name.startswith(".")
        assert len(name) < 130
    assert names["nul"].startswith("nul-")
