"""Long texts: pieces, joins, what a piece is conditioned on, files that survive interruptions."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from csm_ggml import (
    CSM,
    Audio,
    AudioFileError,
    LongForm,
    NoSpeechError,
    Progress,
    Recording,
    Segment,
    Turn,
    Voice,
)
from csm_ggml.audio.writer import AudioWriter, wav_header
from csm_ggml.convert import make_random, quantize_file
from csm_ggml.longform.journal import Journal, Record
from csm_ggml.longform.pieces import split_pieces
from csm_ggml.longform.reading import LongReading, trim_silence
from csm_ggml.longform.recording import job_digest
from fakes import say_nothing_of
from reference import devices

TEXT = """The first sentence is here. The second one follows it.

[1]Somebody else says this, and it is quite a long sentence. So he does.
* * *

[0]Then the first one speaks again. And that is all there is to be told.
"""
PIECES = [
    (0, "The first sentence is here.", True),
    (0, "The second one follows it.", False),
    (1, "Somebody else says this,", True),
    (1, "and it is quite a long sentence.", False),
    (1, "So he does.", False),
    (0, "Then the first one speaks again.", True),
    (0, "And that is all there is to be told.", False),
]
FORM = LongForm(piece_characters=40, batch_size=3, pause=0.1, paragraph_pause=0.25)
CHAIN = LongForm("chain", piece_characters=40, pause=0.1, paragraph_pause=0.25)
OPTIONS: dict[str, Any] = {"max_frames": 5, "retries": 0}
GREEDY: dict[str, Any] = {**OPTIONS, "temperature": 0}


# What the rule in TEXT is left out with.
pytestmark = pytest.mark.filterwarnings("ignore:left out")


@pytest.fixture(scope="module")
def csm(tmp_path_factory: pytest.TempPathFactory) -> CSM:
    out = tmp_path_factory.mktemp("model") / "tiny.gguf"
    make_random(out, preset="tiny", type="f32", seed=0, progress=False)
    return CSM.from_pretrained(out, device=devices.SPEECH, threads=1)


@pytest.fixture(scope="module")
def voices(csm: CSM) -> list[Voice]:
    noise = np.random.default_rng(0).normal(0, 0.1, (2, 8 * 1920))
    return [csm.create_voice(own, f"Voice {n}.", speaker=n) for n, own in enumerate(noise)]


# Pieces


def test_pieces() -> None:
    with pytest.warns(UserWarning, match="no letter or digit: '\\* \\* \\*'"):
        pieces = split_pieces(TEXT, speaker=0, characters=40)
    assert [(p.turn.speaker, p.turn.text, p.paragraph) for p in pieces] == PIECES
    # A speaker goes on until the next tag, over paragraphs, too.
    more = split_pieces(
        "This is one.\n \nThis is two.\nAnd three.\n\n[2]This is four.\n\nThis is five.\n[2]Six.",
        speaker=7,
        characters=99,
    )
    assert [(p.turn.speaker, p.turn.text, p.paragraph) for p in more] == [
        (7, "This is one.", True),
        (7, "This is two. And three.", True),
        (2, "This is four.", True),
        (2, "This is five. Six.", True),
    ]
    for nothing, message in (("", "text is empty"), (" \n\n ", "empty"), ("* * *", "no letter")):
        with pytest.raises(ValueError, match=message):
            split_pieces(nothing, speaker=0, characters=99)


@pytest.mark.parametrize(
    ("text", "pieces"),
    [
        ("Chapter One\nIt was late. Very late.", ["Chapter One", "It was late. Very late."]),
        ("# The Storm\n\nIt was late, they say.", ["# The Storm", "It was late, they say."]),
        ("IV\n\nThe Storm\n\nIt was late.", ["IV. The Storm", "It was late."]),
        ("Prologue\nIt was late.", ["Prologue. It was late."]),
        (
            "It was dark, and the rain fell and fell\non Mr Thomas\nEdison too.\nThe End Of It",
            ["It was dark, and the rain fell and fell on Mr Thomas Edison too.", "The End Of It"],
        ),
        ("Milk and bread\nEggs and ham", ["Milk and bread", "Eggs and ham"]),
        (
            "\u201cNo.\u201d\n\n\u201cYes.\u201d\n\nHe left her.",
            ["\u201cNo.\u201d \u201cYes.\u201d", "He left her."],
        ),
        ("They left the house. Why?", ["They left the house. Why?"]),
        ("The end of the story.\n\nEnd.", ["The end of the story. End."]),
        ("One and a half.\n\n[1]Yes.\n\n[0]And again.", ["One and a half.", "Yes.", "And again."]),
    ],
)
def test_headings_stand_alone_and_snippets_do_not(text: str, pieces: list[str]) -> None:
    assert [p.turn.text for p in split_pieces(text, speaker=0, characters=80)] == pieces


def test_pauses_of_the_text() -> None:
    text = "This is one. [pause 2s] This is two.\n\nThis is three. [pause 0s] Four."
    pieces = split_pieces(text, speaker=0, characters=80)
    assert [(p.turn.text, p.paragraph, p.pause) for p in pieces] == [
        ("This is one.", True, None),
        ("This is two.", False, 2.0),
        ("This is three.", True, None),
        ("Four.", False, 0.0),
    ]


def test_turns_and_tags_of_a_long_text() -> None:
    turns = [Turn(0, "As [1] says, this is one.\n\nThis is two."), Turn(1, "This is three.", 1.5)]
    pieces = split_pieces(turns, speaker=0, characters=80)
    assert [(p.turn.speaker, p.turn.text, p.pause) for p in pieces] == [
        (0, "As [1] says, this is one.", None),
        (0, "This is two.", None),
        (1, "This is three.", 1.5),
    ]
    book = "This is a book. [0] It cites. [1] It goes on."
    assert len(split_pieces(book, speaker=0, characters=80, tags=False)) == 1
    assert len(split_pieces(book, speaker=0, characters=80, tags=True)) == 2


def test_trimming() -> None:
    rate = 1000
    loud = np.full(100, 0.1, np.float32)
    quiet = np.full(500, 1e-4, np.float32)
    keep = np.full(40, 1e-4, np.float32)
    trimmed = trim_silence(np.concatenate([quiet, loud, quiet, loud, quiet]), rate)
    assert np.array_equal(trimmed, np.concatenate([keep, loud, quiet, loud, keep]))
    assert np.array_equal(trim_silence(loud, rate), loud)
    assert len(trim_silence(quiet, rate)) == len(trim_silence(quiet[:0], rate)) == 0


@pytest.mark.parametrize("milliseconds", [1, 5, 10])
def test_the_click_of_a_cold_codec_is_no_speech(milliseconds: int) -> None:
    rate = 1000
    click = np.zeros(10, np.float32)
    click[:milliseconds] = 0.3
    loud = np.full(100, 0.1, np.float32)
    quiet = np.full(200, 1e-4, np.float32)
    trimmed = trim_silence(np.concatenate([click, quiet, loud, quiet]), rate)
    assert np.array_equal(trimmed, np.concatenate([quiet[:40], loud, quiet[:40]]))
    # Speech may begin before the silence to keep is over: the click goes all the same.
    trimmed = trim_silence(np.concatenate([click, quiet[:20], loud]), rate)
    assert np.array_equal(trimmed, np.concatenate([quiet[:20], loud]))
    assert len(trim_silence(np.concatenate([click, quiet]), rate)) == 0


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"mode": "loud"}, "long_form must be one of batch, chain, got 'loud'"),
        ({"pause": -1}, "pause must be 0 to 60 seconds, got -1"),
        ({"piece_characters": 3}, "piece_characters must be 20 to 100000"),
        ({"batch_size": 0}, "batch_size must be 1 to 256"),
    ],
)
def test_settings(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        LongForm(**settings)


def test_pieces_are_as_long_as_the_model_file_says(tmp_path: Path) -> None:
    text = "This is a sentence of some length. " * 20
    first = make_random(tmp_path / "x.gguf", piece_characters=80, progress=False).path
    quantize_file(first, tmp_path / "y.gguf", "q8_0", progress=False)
    for path in (first, tmp_path / "y.gguf"):
        csm = CSM.from_pretrained(path, device=devices.SPEECH, threads=1)
        assert csm.config["csm.generation.piece_characters"] == 80
        lengths = {
            most: max(
                len(piece.turn.text)
                for piece in csm._reading(text, 1, LongForm(piece_characters=most), {}).pieces
            )
            for most in (None, 120)
        }
        assert lengths[None] == 69 and lengths[120] == 104
    # Without the key, and for a stream of the server.
    plain = {"csm.generation.top_k": 7}
    assert (LongForm().characters(plain), LongForm().characters(csm.config)) == (200, 80)
    for wrong in (19, 100_001):
        with pytest.raises(ValueError, match="piece_characters must be 20 to 100000 characters"):
            make_random(tmp_path / "z.gguf", piece_characters=wrong)


# What is said


def check_joins(csm: CSM, audio: Audio, alone: Callable[[int], np.ndarray]) -> None:
    """Each piece has the codes it should have, and its trimmed sound follows the pause."""
    at = 0
    for index, (speaker, text, paragraph) in enumerate(PIECES):
        turn = audio.turns[index]
        assert (turn.index, turn.speaker, turn.text) == (index, speaker, text)
        codes = audio.codes[turn.start : turn.start + turn.frames]
        assert np.array_equal(codes, alone(index))
        if index:
            pause = round((0.25 if paragraph else 0.1) * csm.sample_rate)
            assert not audio.samples[at : at + pause].any()
            at += pause
        sound = trim_silence(csm.decode(codes), csm.sample_rate)
        assert np.abs(audio.samples[at : at + len(sound)] - sound).max() < 1e-5
        at += len(sound)
    assert at == len(audio.samples)
    assert audio.stats.frames == len(audio.codes)
    assert audio.stats.audio_seconds == pytest.approx(audio.duration)


def test_batch(csm: CSM, voices: list[Voice]) -> None:
    audio = csm.generate(TEXT, seed=7, long_form=FORM, voice=voices, **OPTIONS)
    assert (audio.seed, audio.finish_reason) == (7, "max_frames")

    def alone(index: int) -> np.ndarray:
        speaker, text, _ = PIECES[index]
        said = f"[{speaker}]{text}"
        return csm.generate_codes(said, seed=7 + index, voice=voices, **OPTIONS)

    check_joins(csm, audio, alone)


def test_without_a_voice_a_piece_of_each_speaker_is_the_voice(csm: CSM) -> None:
    audio = csm.generate(TEXT, long_form=FORM, **GREEDY)
    # The longest at the beginning of each.
    anchors: list[Segment] = []
    wanted: dict[int, np.ndarray] = {}
    for index in (6, 3):
        speaker, text, _ = PIECES[index]
        codes = csm.generate_codes(f"[{speaker}]{text}", context=anchors, **GREEDY)
        wanted[index] = codes
        anchors.append(Segment(speaker, text, codes=codes))

    def alone(index: int) -> np.ndarray:
        if index in wanted:
            return wanted[index]
        speaker, text, _ = PIECES[index]
        return csm.generate_codes(f"[{speaker}]{text}", context=anchors, **GREEDY)

    check_joins(csm, audio, alone)


@pytest.mark.parametrize("form", [FORM, CHAIN], ids=["batch", "chain"])
def test_what_went_wrong_is_nobodys_voice(
    csm: CSM, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, form: LongForm
) -> None:
    """The voice of a speaker is that of the longest piece that ends well, also when resumed."""
    say = LongReading._say

    def failing(self: LongReading, request: Any) -> Audio:
        audio = say(self, request)
        alone = not request.conditioning.segments
        return replace(audio, finish_reason="loop") if alone and len(spoken_alone) < 1 else audio

    def counted(self: LongReading, request: Any) -> Audio:
        audio = failing(self, request)
        if not request.conditioning.segments:
            spoken_alone.append(request.turns[0].text)
        return audio

    monkeypatch.setattr(LongReading, "_say", counted)
    spoken_alone: list[str] = []
    audio = csm.generate(TEXT, long_form=form, **GREEDY)
    assert spoken_alone == [PIECES[6][1], PIECES[5][1]]
    anchors: list[Segment] = []
    for index in (5, 3):
        speaker, text, _ = PIECES[index]
        codes = csm.generate_codes(f"[{speaker}]{text}", context=anchors, **GREEDY)
        turn = audio.turns[index]
        assert np.array_equal(codes, audio.codes[turn.start : turn.start + turn.frames])
        anchors.append(Segment(speaker, text, codes=codes))
    if form is FORM:
        again = csm.generate_codes(f"[0]{PIECES[6][1]}", context=anchors, **GREEDY)
        assert np.array_equal(again, audio.codes[audio.turns[6].start :])
    path = tmp_path / "x.wav"
    arguments: dict[str, Any] = {"long_form": form, "seed": 1, **GREEDY}
    for pieces in (2, 5, 6):
        spoken_alone.clear()
        with pytest.raises(KeyboardInterrupt):
            csm.generate_to_file(TEXT, path, progress=interrupt_after(pieces), **arguments)
    spoken_alone.clear()
    assert csm.generate_to_file(TEXT, path, **arguments).resumed == 6
    assert spoken_alone == []
    assert np.array_equal(soundfile.read(path, dtype="int16")[0], audio.pcm16())


def test_words_are_not_lost_in_silence(
    csm: CSM, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    say_nothing_of(monkeypatch, "So he does")
    form = LongForm("chain", piece_characters=40)
    with pytest.warns(UserWarning, match=r"piece 5 of 7 has no speech in any of 1 .*So he does"):
        recording = csm.generate_to_file(TEXT, tmp_path / "x.wav", long_form=form, **OPTIONS)
    assert recording.finish_reasons == {"max_frames": 6, "empty": 1}
    assert recording.finish_reason == "empty"
    say_nothing_of(monkeypatch, "")
    (tmp_path / "old.flac").write_bytes(b"old")
    with (
        pytest.warns(UserWarning, match="has no speech"),
        pytest.raises(NoSpeechError, match=r"nothing to say to this text.*The first sentence"),
    ):
        csm.generate_to_file(TEXT, tmp_path / "old.flac", long_form=form, **OPTIONS)
    assert (tmp_path / "old.flac").read_bytes() == b"old"
    assert {entry.name for entry in tmp_path.iterdir()} == {"old.flac", "x.wav"}


def test_chain(csm: CSM, voices: list[Voice]) -> None:
    audio = csm.generate(TEXT, long_form=CHAIN, voice=voices, **GREEDY)
    before: list[Segment] = []

    def alone(index: int) -> np.ndarray:
        speaker, text, _ = PIECES[index]
        codes = csm.generate_codes(f"[{speaker}]{text}", voice=voices, context=before, **GREEDY)
        before[:] = [Segment(speaker, text, codes=codes)]
        return codes

    check_joins(csm, audio, alone)


@pytest.mark.parametrize("form", [FORM, CHAIN], ids=["batch", "chain"])
def test_a_stream_is_the_same_in_pieces(csm: CSM, form: LongForm) -> None:
    whole = csm.generate(TEXT, seed=3, long_form=form, **OPTIONS)
    chunks = list(csm.stream(TEXT, seed=3, long_form=form, **OPTIONS))
    assert len(chunks) == len(PIECES)
    assert [chunk.finish_reason for chunk in chunks[:-1]] == [None] * (len(PIECES) - 1)
    assert np.array_equal(Audio.concatenate(chunks).samples, whole.samples)
    # Closed early, it gives everything back.
    stream = csm.stream(TEXT, seed=3, long_form=form, **OPTIONS)
    next(stream)
    stream.close()
    assert np.array_equal(csm.generate(TEXT, seed=3, long_form=form, **OPTIONS).codes, whole.codes)


def test_batch_is_the_short_name_and_wrong_ones_are_errors(csm: CSM) -> None:
    short = csm.generate("One. Two.", seed=1, long_form="batch", **OPTIONS)
    assert np.array_equal(
        short.samples, csm.generate("One. Two.", seed=1, long_form=LongForm(), **OPTIONS).samples
    )
    with pytest.raises(ValueError, match="long_form must be one of batch, chain"):
        csm.generate("Hi.", long_form="serial")
    with pytest.raises(ValueError, match="temperature"):
        csm.stream("Hi.", long_form="batch", temperature=-1)


# Files


def interrupt_after(pieces: int) -> Callable[[Progress], None]:
    def check(progress: Progress) -> None:
        if progress.pieces == pieces:
            raise KeyboardInterrupt

    return check


@pytest.mark.parametrize("form", [FORM, CHAIN], ids=["batch", "chain"])
@pytest.mark.parametrize("name", ["x.wav", "x.flac", "x.ogg"])
def test_an_interrupted_file_goes_on(csm: CSM, tmp_path: Path, form: LongForm, name: str) -> None:
    arguments: dict[str, Any] = {"long_form": form, **OPTIONS}
    whole = csm.generate_to_file(TEXT, tmp_path / f"whole-{name}", seed=5, **arguments)
    assert (whole.resumed, whole.pieces, whole.seed) == (0, 7, 5)
    path = tmp_path / name
    for pieces in (1, 3, 4):
        with pytest.raises(KeyboardInterrupt):
            csm.generate_to_file(TEXT, path, seed=5, progress=interrupt_after(pieces), **arguments)
        # What was spoken is in the journal: the name is that of a whole recording or of none.
        assert {entry.name for entry in tmp_path.iterdir()} == {f"whole-{name}", f"{name}.progress"}
    rest = csm.generate_to_file(TEXT, path, **arguments)
    assert (rest.resumed, rest.seed, rest.finish_reasons) == (4, 5, {"max_frames": 7})
    assert rest.duration == whole.duration
    samples, rate = soundfile.read(path, dtype="int16")
    assert np.array_equal(samples, soundfile.read(tmp_path / f"whole-{name}", dtype="int16")[0])
    assert rate == 24000
    assert not list(tmp_path.glob("*.progress"))
    if name != "x.ogg":
        audio = csm.generate(TEXT, seed=5, **arguments)
        assert np.array_equal(samples, audio.pcm16())


def test_another_job_starts_anew_and_keeps_the_interrupted_one(csm: CSM, tmp_path: Path) -> None:
    path = tmp_path / "x.wav"

    def speak(text: str = TEXT, **options: Any) -> Recording:
        arguments = {**OPTIONS, "seed": 5, **options}
        return csm.generate_to_file(text, path, long_form=FORM, **arguments)

    with pytest.raises(KeyboardInterrupt):
        speak(progress=interrupt_after(3))
    other: list[dict[str, Any]] = [
        {"seed": 6},
        {"temperature": 0.5},
        {"text": TEXT + "More."},
        {"resume": False},
    ]
    kept = tmp_path / "x.wav.progress.1"
    for pieces, change in enumerate(other, start=4):
        with pytest.warns(UserWarning, match=r"x\.wav: an interrupted recording.* is kept as"):
            assert speak(**change).resumed == 0
        assert kept.exists()
        with pytest.raises(KeyboardInterrupt):
            speak(progress=interrupt_after(pieces))
        assert not kept.exists()
    csm.watermark = lambda chunk: chunk.samples / 2
    with pytest.warns(UserWarning, match="kept as"):
        assert speak().resumed == 0
    csm.watermark = None
    assert speak().resumed == 7
    assert [entry.name for entry in tmp_path.iterdir()] == ["x.wav"]


def test_an_output_has_one_writer(csm: CSM, tmp_path: Path) -> None:
    path = tmp_path / "x.wav"

    def meanwhile(progress: Progress) -> None:
        if progress.pieces == 2:
            with pytest.raises(BlockingIOError, match="another process is recording there"):
                csm.generate_to_file("Hi.", path, long_form=FORM, **OPTIONS)

    recording = csm.generate_to_file(TEXT, path, long_form=FORM, progress=meanwhile, **OPTIONS)
    assert recording.pieces == 7
    assert [entry.name for entry in tmp_path.iterdir()] == ["x.wav"]


def test_a_hook_is_part_of_the_job(csm: CSM) -> None:
    reading = csm._reading(TEXT, 1, FORM, OPTIONS)
    hooks: list[Callable[[Audio], np.ndarray] | None] = [
        None,
        lambda chunk: chunk.samples / 2,
        lambda chunk: chunk.samples / 3,
    ]
    digests = [job_digest(reading, "model", hook) for hook in hooks]
    assert len(set(digests)) == 3
    assert digests == [job_digest(reading, "model", hook) for hook in hooks]


def test_progress(csm: CSM, tmp_path: Path) -> None:
    seen: list[Progress] = []
    recording = csm.generate_to_file(
        TEXT, tmp_path / "x.wav", long_form=FORM, progress=seen.append, **OPTIONS
    )
    assert [p.pieces for p in seen] == list(range(1, 8))
    assert [p.total_pieces for p in seen] == [7] * 7
    assert seen[-1].characters == seen[-1].total_characters == sum(len(t) for _, t, _ in PIECES)
    assert seen[-1].remaining == 0
    assert all(p.remaining is not None and p.remaining > 0 for p in seen[:-1])
    assert seen[-1].audio_seconds == recording.duration


def test_errors_come_before_the_work(csm: CSM, tmp_path: Path) -> None:
    with pytest.raises(AudioFileError, match=r"no audio format for the extension '\.mp4'"):
        csm.generate_to_file(TEXT, tmp_path / "x.mp4")
    with pytest.raises(ValueError, match="text is empty"):
        csm.generate_to_file("", tmp_path / "x.wav")
    with pytest.raises(FileNotFoundError):
        csm.generate_to_file("Hi.", tmp_path / "nowhere" / "x.wav")
    assert not list(tmp_path.iterdir())


CODES, SAMPLES = np.arange(6, dtype=np.int32).reshape(3, 2), np.arange(-5, 5, dtype=np.int16)


def written_journal(path: Path) -> tuple[bytes, bytes]:
    """The content of a journal with one record and with two."""
    with Journal(path) as journal:
        assert journal.begin("job", 7) == 7
        journal.add(Record(CODES, SAMPLES, "eos"))
        complete = path.read_bytes()
        journal.add(Record(CODES[:0], SAMPLES[:0], "loop"))
    return complete, path.read_bytes()


def test_a_journal_goes_on_with_its_job_alone(tmp_path: Path) -> None:
    path = tmp_path / "x.progress"
    _, both = written_journal(path)
    with Journal(path) as journal:
        assert journal.begin("job", 8, seed_given=False) == 7
        assert [record.finish_reason for record in journal.records()] == ["eos", "loop"]
    assert path.read_bytes() == both
    for job, seed in (("job", 8), ("other", 7)):
        with Journal(path) as journal:
            with pytest.warns(UserWarning, match="kept as"):
                journal.begin(job, seed)
            assert list(journal.records()) == []
        # What holds nothing is not left behind, and the old one is taken again.
        assert not path.exists()
        with Journal(path) as journal:
            assert journal.begin("job", 7) == 7
            assert len(list(journal.records())) == 2
        assert path.read_bytes() == both


@pytest.mark.filterwarnings("ignore:.*pieces are whole")
def test_a_cut_record_is_dropped(tmp_path: Path) -> None:
    path = tmp_path / "x.progress"
    complete, both = written_journal(path)
    for end in range(len(complete), len(both)):
        path.write_bytes(both[:end])
        with Journal(path) as journal:
            assert journal.begin("job", 7) == 7
            [record] = journal.records()
            assert np.array_equal(record.codes, CODES) and np.array_equal(record.samples, SAMPLES)
            assert path.read_bytes() == complete
            journal.add(Record(CODES[:0], SAMPLES[:0], "loop"))
        assert path.read_bytes() == both


@pytest.mark.filterwarnings("ignore:.*pieces are whole", "ignore:.*kept as")
def test_no_changed_bit_gets_into_the_audio(tmp_path: Path) -> None:
    complete, both = written_journal(tmp_path / "x.progress")
    for bit in range(8 * len(both)):
        changed = bytearray(both)
        changed[bit // 8] ^= 1 << bit % 8
        path = tmp_path / str(bit) / "x.progress"
        path.parent.mkdir()
        path.write_bytes(changed)
        with Journal(path) as journal:
            assert journal.begin("job", 7) == 7
            records = list(journal.records())
            # A changed header is another job: the run is kept under another name.
            header = bit // 8 < both.index(b"\n") + 1
            assert len(records) == (0 if header or bit // 8 < len(complete) else 1)
            assert (path.parent / "x.progress.1").exists() == header
            for record in records:
                assert np.array_equal(record.samples, SAMPLES)


def test_damage_is_said(tmp_path: Path) -> None:
    path = tmp_path / "x.progress"
    complete, both = written_journal(path)
    path.write_bytes(
        both[: len(complete)] + bytes([both[len(complete)] ^ 1]) + both[len(complete) + 1 :]
    )
    with Journal(path) as journal:
        journal.begin("job", 7)
        with pytest.warns(UserWarning, match="1 pieces are whole; what follows them is incomplete"):
            records = list(journal.records())
        assert len(records) == 1


def test_memory_does_not_grow_with_the_text(csm: CSM) -> None:
    """At no time are there more pieces than run side by side."""
    made: list[int] = []

    def take(speech: Iterator[Audio]) -> int:
        most = 0
        for number, _ in enumerate(speech, start=1):
            stats = csm.scheduler.stats()
            most = max(most, stats.queued + stats.prefilling + stats.speaking)
            made.append(number)
        return most

    text = "A short sentence is here. " * 40
    assert take(csm.stream(text, seed=1, long_form=FORM, max_frames=1)) <= FORM.batch_size
    assert len(made) == 40


# Writing


def test_writer_and_wav_stream(tmp_path: Path) -> None:
    samples = np.linspace(-1.5, 1.5, 1000, dtype=np.float32)
    with AudioWriter(tmp_path / "x.flac", 24000) as writer:
        for start in range(0, 1000, 300):
            writer.write(samples[start : start + 300])
    read, rate = soundfile.read(tmp_path / "x.flac", dtype="int16")
    assert np.array_equal(read, np.round(np.clip(samples, -1, 1) * 32767)) and rate == 24000
    with AudioWriter(tmp_path / "none.wav", 24000):
        pass
    assert not (tmp_path / "none.wav").exists()
    pcm = np.arange(100, dtype="<i2")
    (tmp_path / "stream.wav").write_bytes(wav_header(24000) + pcm.tobytes())
    read, rate = soundfile.read(tmp_path / "stream.wav", dtype="int16")
    assert np.array_equal(read, pcm) and rate == 24000
