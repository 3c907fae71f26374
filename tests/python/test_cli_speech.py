"""`csm-ggml speak` beyond one file: voices, streams, pipes, turns apart, long texts; `voice`."""

import io
import os
import struct
import subprocess
import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from csm_ggml import CSM, LongForm, Voice
from csm_ggml.cli import main
from fakes import say_nothing_of

LONG = "This is a sentence of some length, and it is followed by another one. " * 10


@pytest.fixture(scope="module")
def csm(path: Path) -> CSM:
    return CSM.from_pretrained(path, device="cpu", threads=1)


@pytest.fixture
def arguments(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("CSM_GGML_DEBUG", raising=False)
    model = ["-m", str(path), "--device", "cpu", "--threads", "1"]
    return ["-q", *model, "--seed", "1", "--max-frames", "4"]


def pipe(*arguments: str) -> bytes:
    command = [sys.executable, "-m", "csm_ggml", "speak", *arguments]
    result = subprocess.run(command, capture_output=True, check=True, env=dict(os.environ))
    assert result.stderr == b""
    return result.stdout


def pcm(path: str | io.BytesIO) -> np.ndarray:
    samples, rate = soundfile.read(path, dtype="int16")
    assert rate == 24000
    return samples


def test_voices(csm: CSM, arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    model = arguments[1:7]
    noise = np.random.default_rng(0).normal(0, 0.1, 8 * 1920)
    soundfile.write("me.wav", noise, 24000, subtype="FLOAT")
    Path("words.txt").write_text("What I\nsay.\n")
    create = ["voice", "create", "me.wav", *model]
    assert main([*create, "-o", "me.voice", "-t", "What I say.", "--speaker", "3"]) == 0
    assert capsys.readouterr().err.splitlines()[-1] == "csm-ggml: me.voice: 0.64 s of speaker 3"
    assert main([*create, "-q", "-o", "you.voice", "-f", "words.txt", "--prefix"]) == 0
    me, you = Voice.load("me.voice"), Voice.load("you.voice")
    assert (me.speaker, you.speaker, you.transcript) == (3, 0, "What I say.")
    assert np.array_equal(me.codes, csm.encode(noise.astype(np.float32)))
    assert main(["voice", "info", "you.voice"]) == 0
    text = capsys.readouterr().out
    assert "speaker     0\n" in text and "0.64 s, 8 frames\n" in text
    assert f"of tiny.gguf (fingerprint {csm.fingerprint})" in text

    assert main(["speak", "Hi.", "--voice", "me.voice", "-o", "x.wav", *arguments]) == 0
    expected = csm.generate("[3]Hi.", voice=me, seed=1, max_frames=4)
    assert np.array_equal(pcm("x.wav"), expected.pcm16())
    Path("talk.txt").write_text("[0]One.\n[3]Two.\n")
    both = ["--voice", "me.voice", "--voice", "you.voice"]
    assert main(["speak", "-f", "talk.txt", *both, "-o", "x.wav", *arguments]) == 0
    expected = csm.generate("[0]One.[3]Two.", voice=[me, you], seed=1, max_frames=4)
    assert np.array_equal(pcm("x.wav"), expected.pcm16())


def test_pipes(csm: CSM, arguments: list[str]) -> None:
    text = "[0]One.[1]Two."
    expected = csm.generate(text, seed=1, max_frames=4).pcm16()
    wav = pipe(text, "--stream", "-o", "-", *arguments)
    assert np.array_equal(pcm(io.BytesIO(wav)), expected)
    raw = pipe(text, "--raw", "-o", "-", *arguments)
    assert np.array_equal(np.frombuffer(raw, "<i2"), expected)


def test_a_reader_that_goes_away_is_no_accident(arguments: list[str]) -> None:
    command = [sys.executable, "-m", "csm_ggml", "speak", "Hi.", "--raw", "-o", "-", *arguments]
    command[-1] = "400"
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None and process.stderr is not None
        process.stdout.read(1920)
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait(timeout=60) == 1


def test_stream_to_a_file_and_split(csm: CSM, arguments: list[str]) -> None:
    Path("talk.txt").write_text("[0]One.\n[1]Two.\nThree.\n")
    whole = csm.generate("[0]One.[1]Two.[1]Three.", seed=1, max_frames=4).pcm16()
    assert main(["speak", "-f", "talk.txt", "--stream", "-o", "x.flac", *arguments]) == 0
    assert np.array_equal(pcm("x.flac"), whole)
    assert main(["speak", "-f", "talk.txt", "--split", "-o", "talk.wav", *arguments]) == 0
    parts = [pcm(f"talk-00{n}.wav") for n in (1, 2, 3)]
    assert np.array_equal(np.concatenate(parts), whole)
    assert not Path("talk.wav").exists()


def test_long_texts(
    csm: CSM, arguments: list[str], monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    Path("book.txt").write_text(LONG)
    form = LongForm(pause=0.05, batch_size=2)
    options: dict[str, Any] = {"seed": 1, "max_frames": 4}
    expected = csm.generate(LONG, long_form=form, **options).pcm16()
    settings = ["--pause", "0.05", "--batch-size", "2"]
    assert main(["speak", "-f", "book.txt", "-o", "x.flac", *settings, *arguments[1:]]) == 0
    assert np.array_equal(pcm("x.flac"), expected)
    last = capsys.readouterr().err.splitlines()[-1]
    assert "5 pieces (finish reasons: 5 max_frames), seed 1" in last
    raw = pipe("-f", "book.txt", "--raw", "-o", "-", *settings, *arguments)
    assert np.array_equal(np.frombuffer(raw, "<i2"), expected)
    assert main(["speak", "Hi. Ho.", "--long-form", "chain", "-o", "y.wav", *arguments]) == 0
    chain = csm.generate("Hi. Ho.", long_form="chain", **options)
    assert np.array_equal(pcm("y.wav"), chain.pcm16())
    assert main(["speak", "-f", "book.txt", "--long-form", "off", *arguments]) == 0
    assert len(pcm("speech.wav")) == 4 * 1920

    add = "csm_ggml.longform.journal.Journal.add"
    original = csm.generate_to_file.__globals__["record"].__globals__["Journal"].add
    records: list[object] = []

    def interrupt(self: Any, record: Any) -> None:
        original(self, record)
        records.append(record)
        if len(records) == 3:
            raise KeyboardInterrupt

    again = ["speak", "-f", "book.txt", "-o", "z.flac", *settings, *arguments[1:]]
    with monkeypatch.context() as patch:
        patch.setattr(add, interrupt)
        assert main(again) == 130
    assert Path("z.flac.progress").exists()
    assert main(again) == 0
    assert "5 pieces, 3 of them before" in capsys.readouterr().err
    assert np.array_equal(pcm("z.flac"), expected)


@pytest.mark.parametrize(
    "more",
    [
        [],
        ["--stream"],
        ["--split"],
        ["-o", "-"],
        ["-o", "-", "--stream"],
        ["--long-form", "batch"],
        ["--long-form", "chain", "-o", "-"],
    ],
)
def test_nothing_said_is_an_error_and_no_file(
    arguments: list[str],
    monkeypatch: pytest.MonkeyPatch,
    capfdbinary: pytest.CaptureFixture[bytes],
    more: list[str],
) -> None:
    say_nothing_of(monkeypatch, "")
    words = ["speak", "[0]Hello. [1]Hi.", "-o", "x.flac", *more, *arguments]
    assert main(words) == 1
    out, err = capfdbinary.readouterr()
    assert err.decode().startswith("csm-ggml: error: the model has nothing to say to this text")
    assert out == b"" and not list(Path().iterdir())


def test_formats_and_bits(arguments: list[str], csm: CSM) -> None:
    audio = csm.generate("Hi.", seed=1, max_frames=4)
    for name, flags, subtype in (
        ("x.mp3", [], "MPEG_LAYER_III"),
        ("x.opus", ["--stream"], "OPUS"),
        ("x.wav", ["--bits", "24"], "PCM_24"),
        ("y.wav", ["--bits", "float", "--stream"], "FLOAT"),
        ("z.flac", ["--bits", "24", "--long-form", "batch"], "PCM_24"),
    ):
        assert main(["speak", "Hi.", "-o", name, *flags, *arguments]) == 0
        assert soundfile.info(name).subtype == subtype
    assert np.array_equal(soundfile.read("y.wav", dtype="float32")[0], audio.samples)
    for name, flags in (("x.mp3", []), ("x.flac", ["--stream"])):
        words = ["speak", "Hi.", "-o", name, "--bits", "float", *flags, *arguments]
        assert main(words) == 2
    np.save("codes.npy", audio.codes)
    decode = ["decode", "codes.npy", "-o", "d.wav", "--bits", "24", *arguments[1:7]]
    assert main(decode) == 0
    assert soundfile.info("d.wav").subtype == "PCM_24"


def test_a_stream_into_a_file_tells_its_length(arguments: list[str], csm: CSM) -> None:
    expected = csm.generate("Hi.", seed=1, max_frames=4).pcm16()
    command = [sys.executable, "-m", "csm_ggml", "speak", "Hi.", "--stream", "-o", "-", *arguments]
    for mode in ("wb", "r+b", "ab"):
        with open("s.wav", mode) as file:
            file.seek(0, 2)
            before = file.tell()
            subprocess.run(command, stdout=file, check=True)
            file.flush()
            # What is written behind it stays behind it.
            subprocess.run([sys.executable, "-c", "print('x', end='')"], stdout=file, check=True)
        data = Path("s.wav").read_bytes()[before:]
        sizes = struct.unpack_from("<I", data, 4) + struct.unpack_from("<I", data, 40)
        true = (2 * len(expected) + 36, 2 * len(expected))
        # What is appended to cannot be gone back in.
        assert sizes == ((2**32 - 1, 2**32 - 1) if mode == "ab" else true)
        assert data[44:] == expected.tobytes() + b"x"


def test_names_of_many_turns_sort_as_the_turns_do(arguments: list[str]) -> None:
    Path("script.txt").write_text("[0]Hi.\n" * 1001)
    words = ["speak", "-f", "script.txt", "--split", "-o", "t.wav", *arguments, "--max-frames", "1"]
    assert main(words) == 0
    names = sorted(path.name for path in Path().glob("t-*.wav"))
    assert len(names) == 1001
    assert [names[0], names[999], names[-1]] == ["t-0001.wav", "t-1000.wav", "t-1001.wav"]


def test_a_turn_without_speech_is_told(
    arguments: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    say_nothing_of(monkeypatch, "Hi")
    for more in ([], ["--stream"], ["--split"]):
        words = ["speak", "[0]Hello. [1]Hi. [0]So.", "-o", "x.wav", *more, *arguments[1:]]
        assert main(words) == 0
        told = "turn 2 of 3 has no speech (finish reason empty; --retries draws it again): 'Hi.'"
        assert told in capsys.readouterr().err
    assert {path.name for path in Path().iterdir()} == {"x.wav", "x-001.wav", "x-003.wav"}
    assert len(pcm("x.wav")) == 8 * 1920


@pytest.mark.parametrize("length", [1, 12])
def test_a_file_without_tags_is_prose_whatever_its_length(
    csm: CSM, arguments: list[str], capsys: pytest.CaptureFixture[str], length: int
) -> None:
    wrapped = "This is a sentence of some length, and it\nis followed by another one.\n" * length
    Path("prose.txt").write_text(wrapped)
    form = LongForm() if length > 9 else None
    joined = wrapped.replace("\n", " ")
    expected = csm.generate(joined, long_form=form, seed=1, max_frames=4).pcm16()
    assert main(["speak", "-f", "prose.txt", "-o", "x.wav", *arguments[1:]]) == 0
    assert np.array_equal(pcm("x.wav"), expected)
    spoken = f"as a long text of {len(wrapped)} characters" if form else "as a short text"
    assert f"csm-ggml: prose.txt: prose, spoken {spoken}\n" in capsys.readouterr().err


def test_which_files_are_scripts(
    csm: CSM, arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    """One footnote mark makes no script of a book, and it can be said which it is."""
    Path("book.txt").write_text(
        f"{'It is late. ' * 30}As shown.[1] It was so [12]. {'It is late. ' * 30}"
    )
    Path("script.txt").write_bytes("[0]Hello.\r[1]As [12] says.\r".encode("utf-16"))
    for name, flags, told in (
        ("book.txt", [], "book.txt: prose, spoken as a long text"),
        ("book.txt", ["--tags"], "book.txt: a script of 3 lines, speakers [0], [1], [12]"),
        ("script.txt", [], "script.txt: a script of 2 lines, speakers [0], [1]"),
        ("script.txt", ["--no-tags"], "script.txt: prose, spoken as a short text"),
    ):
        words = ["speak", "-f", name, *flags, *arguments[1:]]
        assert main([*words, "-o", "x.wav", "--max-frames", "1"]) == 0
        assert told in capsys.readouterr().err
    expected = csm.generate("[0]Hello. [1]As [12] says.", seed=1, max_frames=1, tags=False)
    assert np.array_equal(pcm("x.wav"), expected.pcm16())


def test_normalizing_and_a_lexicon(
    csm: CSM, arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    Path("words.txt").write_text("gif -> jif\n")
    flags = ["--normalize", "--lexicon", "words.txt"]
    expected = csm.generate("Two jifs, five dollars.", seed=1, max_frames=4).pcm16()
    assert main(["speak", "Two GIFs, $5.", *flags, "-o", "x.wav", *arguments]) == 0
    assert np.array_equal(pcm("x.wav"), expected)
    said = csm.generate("Two GIFs, $5.", seed=1, max_frames=4, normalize="en", lexicon="words.txt")
    assert np.array_equal(said.pcm16(), expected)
    form = LongForm()
    long = csm.generate("Two jifs, five dollars.", seed=1, max_frames=4, long_form=form).pcm16()
    batch = ["--long-form", "batch", *arguments]
    assert main(["speak", "Two GIFs, $5.", *flags, "-o", "x.wav", *batch]) == 0
    assert np.array_equal(pcm("x.wav"), long)
    Path("words.txt").write_text("gif\n")
    assert main(["speak", "Hi.", *flags, "-o", "x.wav", *arguments]) == 1
    assert "words.txt, line 1: expected 'word -> respelling'" in capsys.readouterr().err


def test_long_texts_are_offered_pieces(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    """Whatever is more than one utterance should hold, in an argument or in a line of a script."""
    words = "This is long. " * 45
    Path("script.txt").write_text(f"[0]Hello.\n[1]{words}\n")
    advice = "are more than the model says well in one go, --long-form batch speaks them in pieces"
    texts = ([words], 12), (["-f", "script.txt"], 13), ([f"[0]Hello. [1]{words}"], 13)
    for text, pieces in texts:
        main(["speak", *text, "-o", "x.wav", *arguments[1:]])
        assert advice in capsys.readouterr().err
        batch = ["--long-form", "batch", "--piece-characters", "60", "--max-frames", "1"]
        assert main(["speak", *text, "-o", "x.wav", *arguments[1:], *batch]) == 0
        err = capsys.readouterr().err
        assert advice not in err
        assert f" {pieces} pieces" in err
    assert main(["speak", f"[0]{words[:500]}[1]Hi.", "-o", "x.wav", *arguments[1:]]) == 0
    assert advice not in capsys.readouterr().err
    assert main(["speak", words * 3, "-o", "x.wav", *arguments]) == 1
    assert "--long-form batch" in capsys.readouterr().err


def test_what_has_no_sound_is_told(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    Path("script.txt").write_text("[0]Hello.\n[1]...\n[0]Well.\n")
    assert main(["speak", "-f", "script.txt", "-o", "x.wav", *arguments[1:]]) == 0
    said = "csm-ggml: note: left out, with a pause, what has no letter or digit: '...'\n"
    assert said in capsys.readouterr().err
    assert main(["speak", "...", "-o", "x.wav", *arguments]) == 1
    assert "no letter or digit" in capsys.readouterr().err


def test_playing(csm: CSM, arguments: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    played: list[np.ndarray] = []

    class OutputStream:
        def __init__(self, samplerate: int, channels: int, dtype: str) -> None:
            assert (samplerate, channels, dtype) == (24000, 1, "int16")

        def start(self) -> None: ...
        def stop(self) -> None:
            played.append(np.zeros((0, 1), np.int16))

        def close(self) -> None: ...
        def write(self, samples: np.ndarray) -> None:
            played.append(samples)

    fake = types.SimpleNamespace(OutputStream=OutputStream, PortAudioError=RuntimeError)
    monkeypatch.setitem(sys.modules, "sounddevice", fake)
    assert main(["speak", "Hi.", "--play", *arguments]) == 0
    expected = csm.generate("Hi.", seed=1, max_frames=4).pcm16()
    assert np.array_equal(np.concatenate(played)[:, 0], expected)
    assert not Path("speech.wav").exists()
    assert main(["speak", "Hi.", "--play", "-o", "x.wav", *arguments]) == 0
    assert np.array_equal(pcm("x.wav"), expected)


def test_watermark(csm: CSM, arguments: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    Path("marks.py").write_text("def halve(chunk):\n    return chunk.samples / 2\nvalue = 3\n")
    monkeypatch.syspath_prepend(".")
    marked = ["speak", "Hi.", "-o", "x.wav", *arguments, "--watermark"]
    assert main([*marked, "marks:halve"]) == 0
    samples = csm.generate("Hi.", seed=1, max_frames=4).samples
    expected = np.round(np.clip(samples / 2, -1, 1) * 32767)
    assert np.abs(pcm("x.wav") - expected).max() <= 1
    for wrong in ("marks:none", "nomodule:f", "marks", "marks:value"):
        assert main([*marked, wrong]) == 2


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["speak", "Hi.", "--raw"], 2, "--raw goes with -o -"),
        (["speak", "Hi.", "--split", "-o", "-"], 2, "--split needs -o FILE"),
        (["speak", "Hi.", "--voice", "no.voice"], 1, "no.voice: No such file"),
        (["speak", "Hi.", "--voice", "bad.voice"], 1, "bad.voice: not a voice file"),
        (["speak", "Hi.", "--retries", "-1"], 2, "retries must be 0 to 100"),
        (["speak", "Hi.", "--long-form", "batch", "--pause", "-1"], 2, "pause must be 0 to 60"),
        (["speak", "Hi.", "--play"], 2, "pip install 'csm-ggml[play]'"),
        (["voice", "info", "bad.voice"], 1, "bad.voice: not a voice file"),
        (["voice", "create", "no.wav", "-o", "x.voice", "-t", "Hi."], 1, "no such audio file"),
        (["voice", "create", "bad.voice", "-o", "x.voice", "-t", "Hi."], 1, "not an audio file"),
        (["voice", "create", "bad.voice", "-o", "x.voice"], 2, "--transcript"),
        (["voice"], 2, "ACTION"),
    ],
)
def test_errors(
    arguments: list[str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    words: list[str],
    code: int,
    message: str,
) -> None:
    Path("bad.voice").write_text("bad")
    monkeypatch.setitem(sys.modules, "sounddevice", None)
    if words[:2] != ["voice", "info"] and len(words) > 1:
        words = [*words, *(arguments[1:7])]
    assert main(words) == code
    out, err = capsys.readouterr()
    assert out == ""
    assert message in err
    assert "Traceback" not in err
