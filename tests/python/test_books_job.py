"""Books are spoken in a job folder that survives anything, and pieces are spoken again."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bookfiles import simple_epub
from csm_ggml import CSM, BookFileError, LongForm, Voice
from csm_ggml.books import Audiobook, Book, BookProgress, Chapter, SpokenPiece, read_book
from csm_ggml.books.plan import parse_numbers, spoken_text
from csm_ggml.convert import make_random

CHAPTERS = {
    "The First Chapter": "It began in the rain. It went on in the rain.\n\nThen the sun came out.",
    "II": "He went home. She stayed where she was.\n\n* * *\n\nNobody spoke of it.",
    "The Last Chapter": "All was well again. That is the end of it.",
}
FORM = LongForm(piece_characters=40, batch_size=3, pause=0.1, paragraph_pause=0.2)
OPTIONS: dict[str, Any] = {"max_frames": 4, "retries": 0}


@pytest.fixture(scope="module")
def csm(tmp_path_factory: pytest.TempPathFactory) -> CSM:
    out = tmp_path_factory.mktemp("model") / "tiny.gguf"
    make_random(out, preset="tiny", type="f32", seed=0, progress=False)
    return CSM.from_pretrained(out, device="cpu", threads=1)


@pytest.fixture(scope="module")
def book(tmp_path_factory: pytest.TempPathFactory) -> Book:
    return read_book(simple_epub(tmp_path_factory.mktemp("book") / "b.epub", CHAPTERS))


def begun(csm: CSM, book: Book, folder: Path, **more: Any) -> Audiobook:
    return Audiobook(csm, book, folder, **{"seed": 5, "long_form": FORM, **OPTIONS, **more})


def spoken(audiobook: Audiobook) -> list[SpokenPiece]:
    return [piece for planned in audiobook.planned for piece in audiobook.pieces(planned)]


def journals(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in sorted(folder.glob("*.pieces"))}


@pytest.fixture(scope="module")
def whole(csm: CSM, book: Book, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A job that nothing has interrupted."""
    folder = tmp_path_factory.mktemp("whole") / "job"
    with begun(csm, book, folder) as audiobook:
        audiobook.speak()
    return folder


# Plans


def test_titles_have_a_pause_of_their_own_unless_they_are_too_short() -> None:
    def said(title: str, language: str = "en") -> str:
        return spoken_text(Chapter(3, title, "Text."), language=language, title_pause=1.5)

    assert said("The Start") == "The Start.\n\n[pause 1.5s]\n\nText."
    assert said("Who Goes There?") == "Who Goes There?\n\n[pause 1.5s]\n\nText."
    assert said("IV.") == "Chapter IV.\n\n[pause 1.5s]\n\nText."
    assert said("12") == "Chapter 12.\n\n[pause 1.5s]\n\nText."
    assert said("IV", "de") == "IV.\n\nText."
    assert said("Emma") == "Emma.\n\nText."
    assert said("") == "Text."


def test_numbers_and_ranges() -> None:
    assert parse_numbers("3-5, 1,4", 9, "x") == [1, 3, 4, 5]
    assert parse_numbers("7-", 9, "x") == [7, 8, 9]
    for wrong in ("", "a", "0", "10", "5-3", "1-10", "1,,2", "-3", "1-2-3", "9" * 30):
        with pytest.raises(ValueError, match=r"^x: "):
            parse_numbers(wrong, 9, "x")


def test_pieces_are_numbered_through_the_book(csm: CSM, book: Book, tmp_path: Path) -> None:
    with begun(csm, book, tmp_path / "job", chapters=[2]) as audiobook:
        assert [planned.first for planned in audiobook.plan] == [1, 5, 8]
        assert audiobook.speak() == 3
        pieces = spoken(audiobook)
        assert [piece.number for piece in pieces] == [5, 6, 7]
        assert [piece.piece.turn.text for piece in pieces] == [
            "Chapter II.",
            "He went home. She stayed where she was.",
            "Nobody spoke of it.",
        ]
        # Pauses of the title and of the scene's end.
        starts = [piece.speech_start for piece in pieces]
        rate = csm.sample_rate
        assert starts[1] >= round(1.2 * rate) and starts[2] >= round(1.2 * rate)
        with pytest.raises(ValueError, match="chapter 1 was not spoken"):
            list(audiobook.pieces(audiobook.plan[0]))
    # The same chapter of the whole book is the same.
    with begun(csm, book, tmp_path / "job") as audiobook:
        before = journals(tmp_path / "job")
        audiobook.speak()
        after = journals(tmp_path / "job")
        assert before.items() <= after.items() and len(after) == 3


# Interruptions


def test_an_interrupted_job_goes_on_byte_for_byte(
    csm: CSM, book: Book, whole: Path, tmp_path: Path
) -> None:
    class Stop(Exception):  # noqa: N818
        pass

    def stop(state: BookProgress) -> None:
        assert 0 < state.characters <= state.total_characters
        raise Stop

    folder = tmp_path / "job"
    runs = 0
    while True:
        with begun(csm, book, folder, seed=None if runs else 5) as audiobook:
            try:
                audiobook.speak(stop)
                break
            except Stop:
                runs += 1
    assert runs == 10
    assert journals(folder) == journals(whole)
    assert (folder / "speaker-0.voice").read_bytes() == (whole / "speaker-0.voice").read_bytes()


@pytest.mark.filterwarnings("ignore:.*pieces are whole")
def test_a_damaged_journal_is_spoken_again(
    csm: CSM, book: Book, whole: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "job"
    with begun(csm, book, folder) as audiobook:
        audiobook.speak()
    for name, change in (
        ("chapter-001.pieces", lambda data: data[:-7]),
        ("chapter-002.pieces", lambda data: data[:400] + bytes([data[400] ^ 1]) + data[401:]),
        ("chapter-003.pieces", lambda data: b""),
    ):
        (folder / name).write_bytes(change((folder / name).read_bytes()))
    (folder / "times.json").write_bytes(b"{")
    with begun(csm, book, folder) as audiobook:
        audiobook.speak()
    assert journals(folder) == journals(whole)


@pytest.mark.skipif(sys.platform == "win32", reason="kills with a POSIX signal")
def test_killed_at_random_and_resumed_byte_for_byte(tmp_path: Path) -> None:
    """With the demo voice, on the command line, from the book's file to the finished audiobook."""
    pytest.importorskip("av")
    pytest.importorskip("mutagen")
    path = simple_epub(tmp_path / "b.epub", {title: f"{t} {t}" for title, t in CHAPTERS.items()})

    def command(out: str) -> list[str]:
        words = [sys.executable, "-m", "csm_ggml", "read", str(path), "-o", str(tmp_path / out)]
        return [*words, "--seed", "3", "--threads", "1", "-q", "--subtitles", "vtt"]

    subprocess.run(command("whole.m4b"), check=True, timeout=300)
    folder = tmp_path / "killed.m4b.job"
    kills = 0
    rng = np.random.default_rng(0)
    for at in sorted(rng.integers(1, 9, 4)):
        process = subprocess.Popen(command("killed.m4b"))
        until = time.monotonic() + 120
        while process.poll() is None and time.monotonic() < until:
            size = sum(len(data) for data in journals(folder).values())
            if size > at * 30_000:
                process.kill()
                kills += 1
                break
            time.sleep(0.002)
        process.wait()
        assert process.returncode in (0, -signal.SIGKILL)
    assert kills
    subprocess.run(command("killed.m4b"), check=True, timeout=300)
    for suffix in ("m4b", "vtt"):
        assert (tmp_path / f"killed.{suffix}").read_bytes() == (
            tmp_path / f"whole.{suffix}"
        ).read_bytes()
    assert journals(folder) == journals(tmp_path / "whole.m4b.job")
    assert not [file for file in os.listdir(folder) if file.startswith(("output", "."))]


def test_one_process_at_a_time(csm: CSM, book: Book, tmp_path: Path) -> None:
    with (
        begun(csm, book, tmp_path / "job"),
        pytest.raises(BlockingIOError, match="another process is working on this book"),
    ):
        begun(csm, book, tmp_path / "job")
    begun(csm, book, tmp_path / "job").close()


def test_the_folder_of_another_job_is_refused(csm: CSM, book: Book, tmp_path: Path) -> None:
    folder = tmp_path / "job"
    begun(csm, book, folder).close()
    begun(csm, book, folder, seed=None).close()
    # How many are spoken side by side changes nothing.
    begun(csm, book, folder, long_form=LongForm(**{**vars(FORM), "batch_size": 1})).close()
    voice = Voice(0, "Hello.", np.zeros((3, csm.codebooks), np.int32), 24000, 1920)
    for change, message in (
        ({"seed": 6}, "seed was 5, is 6"),
        ({"temperature": 0.5}, "temperature was nothing, is 0.5"),
        ({"max_frames": None}, "max_frames was 4, is nothing"),
        ({"long_form": LongForm("batch", piece_characters=50)}, "piece_characters was 40, is 50"),
        ({"voice": voice}, "voices was nothing, is .0. "),
    ):
        with pytest.raises(ValueError, match=message):
            begun(csm, book, folder, **change)
    (folder / "job.json").write_text("{}")
    with pytest.raises(BookFileError, match="is damaged, of a later version"):
        begun(csm, book, folder)
    (tmp_path / "file").write_text("")
    with pytest.raises(FileExistsError):
        begun(csm, book, tmp_path / "file")


@pytest.mark.filterwarnings("ignore:.*kept as")
def test_a_changed_chapter_is_spoken_again_the_others_stay(
    csm: CSM, book: Book, whole: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "job"
    with begun(csm, book, folder) as audiobook:
        audiobook.speak()
    last = book.chapters[2]
    changed = Chapter(last.number, last.title, last.text.replace("well", "good"))
    other = Book(**{**vars(book), "chapters": (*book.chapters[:2], changed)})
    with begun(csm, other, folder) as audiobook:
        assert audiobook.speak() == 3
    now, then = journals(folder), journals(whole)
    assert [name for name in then if now[name] != then[name]] == ["chapter-003.pieces"]


# Voices


def test_speakers_without_a_voice_get_one_for_the_whole_book(
    csm: CSM, whole: Path, tmp_path: Path
) -> None:
    voice = Voice.load(whole / "speaker-0.voice")
    assert voice.speaker == 0
    assert (
        voice.transcript == "The First Chapter."
        or voice.transcript in CHAPTERS["The First Chapter"] + CHAPTERS["II"]
    )
    text = "[0]Who goes there? [1]It is only me.\n\n[0]Come in, then.\n\n[1]Thank you very much."
    talk = Book("Talk", "", "en", (Chapter(1, "", text),), source="talk.txt")
    folder = tmp_path / "job"
    with begun(csm, talk, folder, tags=None, voice_map={1: voice}) as audiobook:
        audiobook.speak()
        pieces = spoken(audiobook)
    assert [piece.piece.turn.speaker for piece in pieces] == [0, 1, 0, 1]
    assert [file.name for file in folder.glob("*.voice")] == ["speaker-0.voice"]
    # Without tags the numbers are read.
    with begun(csm, talk, tmp_path / "other") as audiobook:
        assert {p.turn.speaker for plan in audiobook.plan for p in plan.pieces} == {0}
    with pytest.raises(ValueError, match="not both"):
        begun(csm, talk, tmp_path / "other", voice=voice, voice_map={0: voice})


# Once more


@pytest.mark.parametrize("mode", ["batch", "chain"])
def test_single_pieces_are_spoken_again(csm: CSM, book: Book, tmp_path: Path, mode: str) -> None:
    folder = tmp_path / "job"
    form = LongForm(**{**vars(FORM), "mode": mode})
    with begun(csm, book, folder, long_form=form) as audiobook:
        with pytest.raises(ValueError, match="piece 2 was not spoken yet"):
            audiobook.redo([2])
        audiobook.speak()
        before = spoken(audiobook)
        for wrong in ([0], [99]):
            with pytest.raises(ValueError, match="is not within 1 to 10"):
                audiobook.redo(wrong)
        changed = audiobook.redo([6, 2, 6])
        assert [piece.number for piece in changed] == [2, 6]
        assert audiobook.speak() == 0
        after = spoken(audiobook)
        again = audiobook.redo([6])
    for old, new in zip(before, after, strict=True):
        assert old.number == new.number
        same = np.array_equal(old.record.samples, new.record.samples)
        assert same == (old.number not in (2, 6)), old.number
        assert new.record.seed == old.record.seed + (old.number in (2, 6))
        assert new.drawn_again == (old.number in (2, 6))
        assert new.speech_start >= 0
    assert again[0].record.seed == after[5].record.seed + 1
    if mode == "batch":
        # The same seed gives what it would have given at once.
        [piece] = [piece for piece in changed if piece.number == 6]
        spoken_alone = csm.generate(
            [piece.piece.turn],
            seed=piece.record.seed,
            voice=folder / "speaker-0.voice",
            **OPTIONS,
        )
        assert np.array_equal(spoken_alone.codes, piece.record.codes)


def test_options_that_are_not_right(csm: CSM, book: Book, tmp_path: Path) -> None:
    for change, message in (
        ({"title_pause": -1}, "title_pause must be 0 to 60"),
        ({"chapters": [0]}, "chapters: 0 is not within 1 to 3"),
        ({"chapters": [4]}, "chapters: 4 is not within"),
        ({"context": []}, "context is not for books"),
        ({"normalize": "xx"}, "chapter 1 .*normalize must be"),
    ):
        with pytest.raises(ValueError, match=message):
            begun(csm, book, tmp_path / "job", **change)
    assert not (tmp_path / "job").exists()
    broken = Book("B", "", "", (Chapter(1, "Bad", "A [pause 99h] b."),))
    with pytest.raises(ValueError, match=r"chapter 1 \(Bad\): \[pause 99h\] is no pause"):
        begun(csm, broken, tmp_path / "job")
