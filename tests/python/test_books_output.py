"""Audiobooks as files: marks, tags, covers, loudness, subtitles, the report, the command."""

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("av")
pytest.importorskip("mutagen")
import mutagen
import soundfile
from bookfiles import PNG, simple_epub
from csm_ggml import CSM, AudioFileError
from csm_ggml.books import Audiobook, read_book, save_book
from csm_ggml.books.loudness import LoudnessMeter, gain_for, limited, true_peak
from csm_ggml.books.report import write_report
from csm_ggml.books.subtitles import Cue, sentence_spans, subtitles
from csm_ggml.books.survey import survey
from csm_ggml.cli import main
from mutagen import id3

CHAPTERS = {
    "The First <Chapter> & more": "It began in the rain. It went on in the rain.\n\nThe sun came.",
    "II": "He went home. She stayed where she was.\n\nNobody spoke of it.",
    "The Last Chapter": "All was well again. That is the end of it.",
}
RATE = 24000


@pytest.fixture(scope="module")
def csm() -> CSM:
    return CSM.from_pretrained("demo", device="cpu", threads=1)


@pytest.fixture(scope="module")
def spoken(csm: CSM, tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp("book")
    book = read_book(simple_epub(folder / "b.epub", CHAPTERS))
    with Audiobook(csm, book, folder / "job", seed=1) as audiobook:
        audiobook.speak()
        yield audiobook


def samples_of(audiobook: Audiobook, pause: float = 2.0) -> np.ndarray:
    """The book as it was spoken."""
    parts: list[np.ndarray] = []
    for planned in audiobook.planned:
        if parts:
            parts.append(np.zeros(round(pause * RATE), np.int16))
        parts += [piece.record.samples for piece in audiobook.pieces(planned)]
    return np.concatenate(parts)


# Files


@pytest.mark.parametrize("kind", ["m4b", "m4a", "mp3", "opus", "flac"])
def test_marks_tags_and_cover_are_read_back(spoken: Audiobook, tmp_path: Path, kind: str) -> None:
    shares: list[float] = []
    saved = save_book(spoken, tmp_path / f"b.{kind}", progress=shares.append)
    assert saved.paths == [tmp_path / f"b.{kind}"] and shares[-1] == 1.0
    assert [mark.title for mark in saved.marks] == list(CHAPTERS)
    seconds = [mark.start / RATE for mark in saved.marks]
    file = mutagen.File(saved.paths[0])
    assert file.info.length == pytest.approx(saved.duration, abs=0.12)
    if kind in ("m4b", "m4a"):
        assert [chapter.title for chapter in file.chapters] == list(CHAPTERS)
        marks = [chapter.start for chapter in file.chapters]
        tags = {"title": file["\xa9nam"], "artist": file["\xa9ART"], "album": file["\xa9alb"]}
        cover = bytes(file["covr"][0])
        assert file["stik"] == [2]
    elif kind == "mp3":
        found = sorted(file.tags.getall("CHAP"), key=lambda chapter: chapter.start_time)
        assert [str(chapter.sub_frames["TIT2"]) for chapter in found] == list(CHAPTERS)
        marks = [chapter.start_time / 1000 for chapter in found]
        [contents] = file.tags.getall("CTOC")
        assert contents.child_element_ids == [chapter.element_id for chapter in found]
        tags = {
            "title": [str(file["TIT2"])],
            "artist": [str(file["TPE1"])],
            "album": [str(file["TALB"])],
        }
        cover = file["APIC:"].data
        assert file["APIC:"].type == id3.PictureType.COVER_FRONT
    else:
        names = [file[f"chapter{n:03}name"][0] for n in range(3)]
        assert names == list(CHAPTERS)
        texts = [file[f"chapter{n:03}"][0].split(":") for n in range(3)]
        marks = [3600 * int(h) + 60 * int(m) + float(s) for h, m, s in texts]
        tags = {name: file[name] for name in ("title", "artist", "album")}
        if kind == "flac":
            cover = file.pictures[0].data
        else:
            import base64

            from mutagen.flac import Picture

            cover = Picture(base64.b64decode(file["metadata_block_picture"][0])).data
    assert tags == {"title": ["The Book"], "artist": ["Ann Author"], "album": ["The Book"]}
    assert marks == pytest.approx(seconds, abs=0.002)
    assert cover == PNG
    # Equal speech gives equal files.
    again = save_book(spoken, tmp_path / f"again.{kind}")
    assert again.paths[0].read_bytes() == saved.paths[0].read_bytes()
    assert sorted(p.name for p in tmp_path.iterdir()) == [f"again.{kind}", f"b.{kind}"]


def test_flac_without_a_gain_is_what_was_spoken(spoken: Audiobook, tmp_path: Path) -> None:
    save_book(spoken, tmp_path / "b.flac", loudness=None, chapter_pause=0.5)
    samples, rate = soundfile.read(tmp_path / "b.flac", dtype="int16")
    assert rate == RATE and np.array_equal(samples, samples_of(spoken, 0.5))


def test_a_file_for_each_chapter(spoken: Audiobook, tmp_path: Path) -> None:
    whole = save_book(spoken, tmp_path / "b.flac", loudness=None)
    saved = save_book(spoken, tmp_path / "b.flac", loudness=None, split=True, subtitles="vtt")
    assert [path.name for path in saved.paths] == ["b-01.flac", "b-02.flac", "b-03.flac"]
    assert [path.name for path in saved.subtitles] == ["b-01.vtt", "b-02.vtt", "b-03.vtt"]
    files = [mutagen.File(path) for path in saved.paths]
    assert [file["title"][0] for file in files] == list(CHAPTERS)
    assert [file["tracknumber"][0] for file in files] == ["1", "2", "3"]
    assert "chapter000" not in files[0] and files[0]["tracktotal"] == ["3"]
    parts = [soundfile.read(path, dtype="int16")[0] for path in saved.paths]
    assert np.array_equal(np.concatenate(parts), soundfile.read(whole.paths[0], dtype="int16")[0])
    assert "00:00:00.000 -->" in saved.subtitles[1].read_text()


def test_a_book_that_cannot_be_saved_leaves_the_old_one(
    spoken: Audiobook, csm: CSM, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "b.mp3"
    out.write_bytes(b"old")
    for name, options, error, message in (
        ("b.wav", {}, AudioFileError, "no format of audiobooks for the extension '.wav'"),
        ("b.mp3", {"subtitles": "ass"}, ValueError, "subtitles must be srt or vtt"),
        ("b.mp3", {"loudness": -3}, ValueError, "loudness must be -40 to -9"),
        ("b.mp3", {"chapter_pause": 99}, ValueError, "chapter_pause must be 0 to 60"),
        ("no/b.mp3", {}, FileNotFoundError, "no folder"),
    ):
        with pytest.raises(error, match=message):
            save_book(spoken, tmp_path / name, **options)

    def stop(share: float) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        save_book(spoken, out, progress=stop)
    with (
        Audiobook(csm, spoken.book, tmp_path / "empty", seed=1) as nothing,
        pytest.raises(ValueError, match="was not spoken to its end"),
    ):
        save_book(nothing, out)
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(ImportError, match=r"pip install 'csm-ggml\[books\]'"):
        save_book(spoken, out)
    assert out.read_bytes() == b"old"
    assert not list(spoken.folder.path.glob("output*"))


# Loudness


def tone(decibels: float, seconds: float = 10.0, hertz: float = 997.0) -> np.ndarray:
    t = np.arange(round(seconds * RATE)) / RATE
    return np.round(32767 * 10 ** (decibels / 20) * np.sin(2 * np.pi * hertz * t)).astype(np.int16)


def test_loudness_is_that_of_the_standard() -> None:
    """BS.1770: a sine of 997 Hz at 0 dB in one channel is -3.01 LUFS."""
    for decibels in (0.0, -20.0, -40.0):
        meter = LoudnessMeter(RATE)
        for part in np.array_split(tone(decibels), 7):
            meter.add(part)
        assert meter.loudness() == pytest.approx(decibels - 3.01, abs=0.1)
    meter = LoudnessMeter(RATE)
    assert meter.loudness() == -np.inf
    meter.add(np.zeros(RATE, np.int16))
    assert meter.loudness() == -np.inf and gain_for(-np.inf, -18) == 1.0
    # The gate: silence between does not count (EBU Tech 3341, case 3).
    meter = LoudnessMeter(RATE)
    for decibels, seconds in ((-33.0, 10.0), (-20.0, 60.0), (-33.0, 10.0)):
        meter.add(tone(decibels, seconds))
    assert meter.loudness() == pytest.approx(-23.0, abs=0.2)


def test_the_true_peak_lies_between_samples() -> None:
    """A sine at a quarter of the rate whose samples all miss its peaks by 3 dB."""
    t = np.arange(4000)
    samples = (0.5 * np.sin(np.pi * t / 2 + np.pi / 4)).astype(np.float32)
    samples *= np.hanning(len(t)).astype(np.float32) ** 0.25
    assert np.abs(samples).max() < 0.36
    assert true_peak(samples, RATE) == pytest.approx(0.5, rel=0.02)


def test_the_limiter_touches_nothing_but_peaks() -> None:
    rng = np.random.default_rng(0)
    quiet = (rng.normal(0, 0.1, RATE)).clip(-0.5, 0.5).astype(np.float32)
    assert limited(quiet, RATE) is quiet
    loud = quiet.copy()
    loud[12000:12020] = 3.0
    done = limited(loud, RATE)
    assert true_peak(done, RATE) <= 10 ** (-1.4 / 20)
    far = np.abs(np.arange(RATE) - 12010) > 1000
    assert np.array_equal(done[far], loud[far])
    for noise in (rng.normal(0, 1.5, RATE), np.ones(RATE), np.sign(rng.normal(0, 1, RATE))):
        assert true_peak(limited(noise.astype(np.float32), RATE), RATE) <= 10 ** (-1.3 / 20)


@pytest.mark.parametrize("target", [-18.0, -15.0])
def test_a_book_gets_the_loudness_that_was_asked_for(
    spoken: Audiobook, tmp_path: Path, target: float
) -> None:
    saved = save_book(spoken, tmp_path / "b.flac", loudness=target)
    samples, _ = soundfile.read(tmp_path / "b.flac", dtype="int16")
    meter = LoudnessMeter(RATE)
    meter.add(samples)
    assert meter.loudness() == pytest.approx(target, abs=0.5)
    assert saved.loudness is not None
    assert saved.gain_db == pytest.approx(target - saved.loudness, abs=0.01)
    assert true_peak(samples / 32768, RATE) < 10 ** (-1.0 / 20)


# Subtitles


def test_subtitle_files() -> None:
    cues = [Cue(0.0, 1.25, "One & <two>."), Cue(3661.0005, 3662.5, "A --> b.")]
    assert subtitles(cues, "srt") == (
        "1\n00:00:00,000 --> 00:00:01,250\nOne & <two>.\n\n"
        "2\n01:01:01,000 --> 01:01:02,500\nA -> b.\n"
    )
    assert subtitles(cues, "vtt") == (
        "WEBVTT\n\n1\n00:00:00.000 --> 00:00:01.250\nOne &amp; &lt;two>.\n\n"
        "2\n01:01:01.000 --> 01:01:02.500\nA -> b.\n"
    )


def test_sentences_are_found_within_50_ms(csm: CSM) -> None:
    """Sentences that were spoken alone and joined with pauses of known length."""
    sentences = [
        *("The sun comes up early in the summer.", "He did.", "We can take the bus, can we?"),
        *("My brother has a dog and three cats.", "No.", "She put the book back on the shelf."),
    ]
    audios = csm.generate_batch([f"[0]{text}" for text in sentences], seed=range(6))
    from csm_ggml.longform.reading import trim_silence

    speech = [trim_silence(audio.samples, RATE) for audio in audios]
    rng = np.random.default_rng(0)
    errors = []
    for _ in range(20):
        order = [int(n) for n in rng.permutation(len(sentences))[:4]]
        parts: list[np.ndarray] = []
        edges: list[tuple[float, float]] = []
        at = 0
        for number in order:
            if parts:
                pause = round(rng.uniform(0.15, 0.5) * RATE)
                parts.append(np.zeros(pause, np.float32))
                at += pause
            edges.append((at / RATE, (at + len(speech[number])) / RATE))
            parts.append(speech[number])
            at += len(speech[number])
        sound = (32767 * np.concatenate(parts)).astype(np.int16)
        text = " ".join(sentences[number] for number in order)
        spans = sentence_spans(text, sound, RATE)
        assert [span[0] for span in spans] == [sentences[number] for number in order]
        # 40 ms of each end are breath, which may count or not.
        errors += [abs(s[1] - e[0]) - 0.04 for s, e in zip(spans, edges, strict=True)]
        errors += [abs(s[2] - e[1]) - 0.04 for s, e in zip(spans, edges, strict=True)]
    assert np.mean(np.array(errors) < 0.05) >= 0.98, sorted(errors)[-6:]


def test_sentences_without_a_pause_are_placed_by_their_length() -> None:
    sound = np.full(4 * RATE, 9000, np.int16)
    spans = sentence_spans("Aaaa aaaa. Bbbb bbbb. Cccc. Dddd.", sound, RATE)
    assert [round(start, 1) for _, start, _ in spans] == [0.0, 1.3, 2.7, 3.3]
    assert sentence_spans("One alone.", sound, RATE) == [("One alone.", 0.0, 4.0)]
    for nothing in (np.zeros(0, np.int16), np.zeros(RATE, np.int16)):
        spans = sentence_spans("One is. Two is.", nothing, RATE)
        assert len(spans) == 2 and spans[1][2] == len(nothing) / RATE


def test_subtitles_follow_the_pieces(spoken: Audiobook, tmp_path: Path) -> None:
    saved = save_book(spoken, tmp_path / "b.mp3", subtitles="srt", loudness=None)
    text = saved.subtitles[0].read_text("utf-8")
    said = re.findall(r"--> .*\n(.*)\n", text)
    assert said[0] == "The First <Chapter> & more." and said[-1] == "That is the end of it."
    times = [
        3600 * int(h) + 60 * int(m) + int(s) + int(ms) / 1000
        for h, m, s, ms in re.findall(r"(\d\d):(\d\d):(\d\d),(\d{3})", text)
    ]
    assert times == sorted(times) and times[-1] <= saved.duration
    # A piece's speech begins where its first sentence does.
    chapter = saved.survey.chapters[1]
    assert chapter.cues[0].start == chapter.pieces[0].start / RATE


# The report


def test_the_report_is_one_file_and_names_what_to_listen_to(
    spoken: Audiobook, tmp_path: Path
) -> None:
    found = survey(spoken, chapter_pause=2, loudness=False, cues=False, wave=True)
    pieces = found.chapters[0].pieces
    assert all(0 <= value <= 1 for chapter in found.chapters for value in chapter.wave)
    from dataclasses import replace

    from csm_ggml.books.survey import _doubt

    pieces[0] = replace(pieces[0], finish_reason="loop")
    pieces[1] = replace(pieces[1], samples=0)
    found.chapters[1].pieces[1] = replace(
        found.chapters[1].pieces[1], samples=60 * RATE, text="x" * 40
    )
    _doubt(found.chapters, RATE)
    assert [piece.number for piece in found.doubtful][:2] == [1, 2]
    assert found.doubtful[0].doubts == ("ended by loop",)
    assert found.doubtful[1].doubts == ("empty",)
    assert "times as long as usual" in found.doubtful[2].doubts[0]
    path = tmp_path / "report.html"
    write_report(path, spoken.book, found, seed=1, times=spoken.folder.times())
    text = path.read_text("utf-8")
    assert "--redo 1,2," in text and "The First &lt;Chapter&gt; &amp; more" in text
    assert "<Chapter>" not in text
    assert "http" not in text and "src=" not in text and "url(" not in text
    assert len(re.findall("<svg", text)) == 3 and "<rect" in text
    # Real-time factors are there.
    assert re.search(r'<td class="n">0\.\d{3}</td>', text)


# The command


def run(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "csm_ggml", "read", *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=300,
    )


def test_the_command_lists(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = simple_epub(tmp_path / "b.epub", {**CHAPTERS, "Index": "Rain, 1"})
    assert main(["read", str(path), "--list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "The Book, by Ann Author"
    assert re.fullmatch(r" +1 +14 words +0:00:05  The First <Chapter> & more", lines[1])
    assert lines[4].split()[:2] == ["36", "words"]
    assert lines[5] == "left out: Index (index, 2 words)"
    assert main(["read", str(path), "--list", "--all", "--chapters", "4"]) == 0
    assert "Index" in capsys.readouterr().out.splitlines()[1]


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        ([], 2, "give -o FILE"),
        (["-o", "b.wav"], 2, "no format of audiobooks"),
        (["-o", "no/b.mp3"], 2, "there is no folder"),
        (["--list", "--chapters", "9"], 2, "--chapters: 9 is not within 1 to 3"),
        (["-o", "b.mp3", "--loudness", "-3"], 2, "must be -40 to -9 LUFS, or off"),
        (["-o", "b.mp3", "--voice-map", "0:a"], 2, "expected numbers and files such as"),
        (["-o", "b.mp3", "--voice-map", "0=a,0=b"], 2, "speaker 0 has two voices"),
        (["-o", "b.mp3", "--voice-map", "0=gone.voice"], 1, "gone.voice"),
        (["-o", "b.mp3", "--subtitles", "ass"], 2, "invalid choice"),
    ],
)
def test_wrong_use_is_told(
    arguments: list[str],
    code: int,
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    simple_epub(tmp_path / "b.epub", CHAPTERS)
    assert main(["read", "b.epub", *arguments]) == code
    assert message in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["b.epub"]


def test_the_command_reads_redoes_and_reports(tmp_path: Path) -> None:
    path = simple_epub(tmp_path / "b.epub", CHAPTERS)
    out = tmp_path / "b.opus"
    first = run(path, "-o", out, "--chapters", "2-3", "--seed", 1, "--threads", 1)
    assert first.returncode == 0, first.stderr
    assert "chapter 3 (The Last Chapter) is spoken" in first.stderr
    assert "in 2 chapters" in first.stderr and "seed 1" in first.stderr
    before = out.read_bytes()
    assert (tmp_path / "b.opus.job" / "report.html").exists()
    redone = run(path, "-o", out, "--chapters", "2-3", "--redo", "5", "--threads", 1)
    assert redone.returncode == 0, redone.stderr
    assert "piece 5: " in redone.stderr and out.read_bytes() != before
    wrong = run(path, "-o", out, "--redo", "99", "-q")
    assert wrong.returncode == 2 and "--redo: 99 is not within" in wrong.stderr
