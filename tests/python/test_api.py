"""`CSM` with the real core and a small random checkpoint."""

import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import csm_ggml
import numpy as np
import pytest
import soundfile
from csm_ggml import (
    CSM,
    Audio,
    ContextLengthError,
    ModelFormatError,
    ModelNotFoundError,
    Segment,
    Turn,
)
from csm_ggml.convert import make_random
from csm_ggml.speech.options import Sampling

TEXT = "[0]Hello there."


@pytest.fixture(scope="module")
def csm(path: Path) -> CSM:
    return CSM.from_pretrained(path, device="cpu", threads=1)


def same(a: Audio, b: Audio) -> bool:
    return (
        np.array_equal(a.samples, b.samples)
        and np.array_equal(a.codes, b.codes)
        and (a.turns, a.finish_reason, a.seed) == (b.turns, b.finish_reason, b.seed)
    )


# What a result is


def test_generate(csm: CSM) -> None:
    audio = csm.generate(TEXT, seed=7, max_frames=10)
    assert audio.codes.dtype == np.int32
    assert audio.codes.shape == (10, csm.codebooks)
    assert audio.codes.min() >= 0
    assert audio.codes.max() < 128
    assert audio.samples.dtype == np.float32
    assert audio.samples.shape == (10 * csm.frame_size,)
    assert np.isfinite(audio.samples).all()
    assert audio.sample_rate == 24000
    assert (audio.seed, audio.finish_reason) == (7, "max_frames")
    assert audio.stats.frames == 10
    assert audio.stats.prefill_rows == len(csm.tokenize(TEXT))
    assert audio.stats.lm_seconds > 0
    assert audio.stats.codec_seconds > 0


def test_a_seed_says_everything(csm: CSM) -> None:
    first = csm.generate(TEXT, seed=7, max_frames=10)
    assert same(first, csm.generate(TEXT, seed=7, max_frames=10))
    assert not np.array_equal(first.codes, csm.generate(TEXT, seed=8, max_frames=10).codes)
    drawn = csm.generate(TEXT, max_frames=10)
    assert same(drawn, csm.generate(TEXT, seed=drawn.seed, max_frames=10))


def test_a_shorter_limit_gives_the_beginning(csm: CSM) -> None:
    long = csm.generate(TEXT, seed=7, max_frames=12)
    short = csm.generate(TEXT, seed=7, max_seconds=0.4)
    assert len(short.codes) == 5
    assert np.array_equal(long.codes[:5], short.codes)
    assert np.array_equal(long.samples[: len(short.samples)], short.samples)


def test_temperature_zero_is_greedy(csm: CSM) -> None:
    greedy = csm.generate_codes(TEXT, seed=1, temperature=0, max_frames=6)
    assert np.array_equal(greedy, csm.generate_codes(TEXT, seed=2, temperature=0, max_frames=6))
    top1 = csm.generate_codes(TEXT, seed=3, top_k=1, depth_top_k=1, max_frames=6)
    assert np.array_equal(greedy, top1)
    drawn = csm.generate_codes(
        TEXT, seed=4, temperature=0, depth_temperature=1.5, depth_top_k=0, max_frames=6
    )
    assert drawn[0, 0] == greedy[0, 0]
    assert not np.array_equal(drawn, greedy)


def test_codes_are_those_of_generate(csm: CSM) -> None:
    audio = csm.generate("[0]One. [1]Two.", seed=5, max_frames=6)
    codes = csm.generate_codes("[0]One. [1]Two.", seed=5, max_frames=6)
    assert codes.dtype == np.int32
    assert np.array_equal(codes, audio.codes)


# Turns and context


def test_turns_are_one_audio(csm: CSM) -> None:
    audio = csm.generate("[0]One. [1]Two.", seed=5, max_frames=6)
    assert [(t.speaker, t.text, t.start, t.frames) for t in audio.turns] == [
        (0, "One.", 0, 6),
        (1, "Two.", 6, 6),
    ]
    alone = csm.generate("[0]One.", seed=5, max_frames=6)
    assert np.array_equal(audio.codes[:6], alone.codes)
    assert np.array_equal(audio.samples[: len(alone.samples)], alone.samples)
    assert not np.array_equal(audio.codes[6:], csm.generate_codes("[1]Two.", seed=5, max_frames=6))


def test_pauses_are_silence_before_a_turn(csm: CSM) -> None:
    plain = csm.generate([Turn(0, "One."), Turn(1, "Two.")], seed=5, max_frames=6)
    turns = [Turn(0, "One.", 0.25), Turn(1, "Two.", 0.5)]
    audio = csm.generate(turns, seed=5, max_frames=6)
    assert np.array_equal(audio.codes, plain.codes)
    half = csm.sample_rate // 2
    assert len(audio.samples) == len(plain.samples) + half + half // 2
    assert audio.stats.audio_seconds == pytest.approx(audio.duration)
    for number in (0, 1):
        ours, theirs = audio.turn(number), plain.turn(number)
        assert np.array_equal(ours.samples, theirs.samples)
        assert np.array_equal(ours.codes, theirs.codes)
        span = audio.turns[number]
        silence = half // 2 if number == 0 else half
        assert not audio.samples[span.sample_start - silence : span.sample_start].any()
    chunks = list(csm.stream(turns, seed=5, max_frames=6, chunk_frames=2))
    assert same(Audio.concatenate(chunks), audio)
    with pytest.raises(IndexError):
        audio.turn(2)


def test_a_turn_before_is_context(csm: CSM) -> None:
    # Keeping the cache from turn to turn is the same as evaluating everything again (greedy, F32).
    both = csm.generate("[0]One. [1]Two.", temperature=0, max_frames=6)
    segment = Segment(0, "One.", codes=both.codes[:6])
    again = csm.generate("[1]Two.", context=[segment], temperature=0, max_frames=6)
    assert np.array_equal(both.codes[6:], again.codes)
    assert not np.array_equal(
        again.codes, csm.generate_codes("[1]Two.", temperature=0, max_frames=6)
    )


def test_context_takes_speech_samples_and_files(csm: CSM, tmp_path: Path) -> None:
    spoken = csm.generate("[0]One.", seed=1, max_frames=6)
    rate = csm.sample_rate
    soundfile.write(tmp_path / "one.wav", spoken.samples, rate, subtype="FLOAT")
    codes = csm.encode(spoken.samples)
    options: dict[str, Any] = {"temperature": 0, "max_frames": 4}
    by_codes = csm.generate_codes("Two.", context=[Segment(0, "One.", codes=codes)], **options)
    for audio in (spoken.samples, (spoken.samples, rate), tmp_path / "one.wav"):
        assert np.array_equal(
            csm.generate_codes("Two.", context=[Segment(0, "One.", audio)], **options), by_codes
        )
    own = csm.generate_codes("Two.", context=[Segment(0, "One.", spoken)], **options)
    given = csm.generate_codes("Two.", context=[Segment(0, "One.", codes=spoken.codes)], **options)
    assert np.array_equal(own, given)


def test_context_length(csm: CSM) -> None:
    rows = csm.context_length
    with pytest.raises(ContextLengthError, match=rf"model's context has {rows}") as caught:
        csm.generate("a " * 600)
    assert caught.value.needed == len(csm.tokenize("a " * 600)) + 1
    assert caught.value.available == rows

    codes = np.ones((rows - 40, csm.codebooks), np.int32)
    audio = csm.generate("Hi.", context=[Segment(0, "Hi.", codes=codes)], max_frames=100, seed=1)
    text_rows = len(csm.tokenize("Hi."))
    assert len(audio.codes) == 40 - 1 - 2 * text_rows
    assert audio.finish_reason == "max_frames"


# Streams and batches


@pytest.mark.parametrize(("first", "later"), [(1, 6), (3, 1), (50, 50)])
def test_a_stream_is_generate_in_chunks(csm: CSM, first: int, later: int) -> None:
    text = "[0]One. [1]Two."
    whole = csm.generate(text, seed=3, max_frames=9)
    chunks = list(
        csm.stream(text, seed=3, max_frames=9, first_chunk_frames=first, chunk_frames=later)
    )
    assert same(Audio.concatenate(chunks), whole)
    assert len(chunks[0].codes) == min(first, 9)
    assert all(len(chunk.samples) == len(chunk.codes) * csm.frame_size for chunk in chunks)


def test_a_dropped_stream_leaves_nothing_behind(csm: CSM) -> None:
    expected = csm.generate(TEXT, seed=3, max_frames=4)
    for _ in range(5):
        stream = csm.stream(TEXT, seed=9, max_frames=50)
        next(stream)
        stream.close()
    assert same(csm.generate(TEXT, seed=3, max_frames=4), expected)


def test_wrong_arguments_of_a_stream_show_at_once(csm: CSM) -> None:
    with pytest.raises(ValueError, match="text is empty"):
        csm.stream("")
    with pytest.raises(ValueError, match="chunk_frames must be 1 to 1000000 frames, got 0"):
        csm.stream(TEXT, chunk_frames=0)


@pytest.mark.parametrize("batch_size", [1, 2, 8])
def test_a_batch_is_each_alone(csm: CSM, batch_size: int) -> None:
    texts = ["[0]Hi.", "[1]A rather longer sentence than the others.", "[0]One. [1]Two."]
    limits = [3, 8, 5]
    batch = csm.generate_batch(
        texts,
        seed=[1, 2, 3],
        batch_size=batch_size,
        max_frames=limits,
        temperature=[None, 0, 1.2],
    )
    for text, seed, limit, temperature, audio in zip(
        texts, (1, 2, 3), limits, (0.9, 0, 1.2), batch, strict=True
    ):
        alone = csm.generate(text, seed=seed, max_frames=limit, temperature=temperature)
        assert same(audio, alone)


def test_seeds_of_a_batch(csm: CSM) -> None:
    audios = csm.generate_batch([TEXT, TEXT], seed=5, max_frames=3)
    assert [audio.seed for audio in audios] == [5, 6]
    drawn = csm.generate_batch([TEXT, TEXT], max_frames=3)
    assert drawn[0].seed != drawn[1].seed
    assert csm.generate_batch([]) == []


def test_errors_in_a_batch_name_the_text(csm: CSM) -> None:
    with pytest.raises(ValueError, match="text 1: nothing to say"):
        csm.generate_batch([TEXT, ""])
    with pytest.raises(ContextLengthError, match="text 1: the text needs"):
        csm.generate_batch([TEXT, "a " * 600])
    with pytest.raises(TypeError, match="sequence of str"):
        csm.generate_batch(TEXT)


# Mimi alone


def test_decode_is_what_generate_decodes(csm: CSM) -> None:
    audio = csm.generate(TEXT, seed=7, max_frames=30)
    decoded = csm.decode(audio.codes)
    assert decoded.shape == audio.samples.shape
    assert decoded.dtype == np.float32
    assert np.abs(decoded - audio.samples).max() < 1e-5
    assert csm.decode(audio.codes[:, :1].tolist()).shape == audio.samples.shape
    assert csm.decode(audio.codes[:0]).shape == (0,)


@pytest.mark.parametrize(
    ("codes", "message"),
    [
        (np.zeros((2, 9), np.int32), r"shape \(frames, 1 to 8\)"),
        (np.zeros((2, 0), np.int32), r"shape \(frames, 1 to 8\)"),
        (np.zeros(8, np.int32), r"shape \(frames, 1 to 8\)"),
        (np.zeros((2, 8), np.float32), "whole numbers"),
        (np.full((2, 8), 128), r"0\.\.127, got 128\.\.128"),
        (np.full((2, 8), -1), r"0\.\.127, got -1\.\.-1"),
        (np.full((2, 8), 2**40), r"0\.\.127"),
    ],
)
def test_decode_checks_codes(csm: CSM, codes: np.ndarray, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        csm.decode(codes)


def test_encode(csm: CSM, tmp_path: Path) -> None:
    noise = np.random.default_rng(0).normal(0, 0.1, 5 * csm.frame_size + 1).astype(np.float32)
    codes = csm.encode(noise)
    assert codes.dtype == np.int32
    assert codes.shape == (6, csm.codebooks)
    assert np.array_equal(csm.encode(np.stack([noise, noise], axis=1), csm.sample_rate), codes)
    assert csm.encode(noise, 48000).shape == (3, csm.codebooks)
    soundfile.write(tmp_path / "x.wav", noise, csm.sample_rate, subtype="FLOAT")
    assert np.array_equal(csm.encode(tmp_path / "x.wav"), codes)
    with pytest.raises(ValueError, match="NaN"):
        csm.encode(np.array([np.nan]))
    with pytest.raises(ValueError, match="no samples"):
        csm.encode(np.zeros(0))
    with pytest.raises(ValueError, match="a file knows its own"):
        csm.encode(tmp_path / "x.wav", 24000)


def test_long_audio_is_encoded_in_parts(csm: CSM, monkeypatch: pytest.MonkeyPatch) -> None:
    noise = np.random.default_rng(0).normal(0, 0.1, 9 * csm.frame_size + 7).astype(np.float32)
    whole = csm.encode(noise)
    monkeypatch.setattr("csm_ggml.loading.codec.ENCODE_FRAMES", 2)
    assert np.array_equal(csm.encode(noise), whole)


def test_a_file_without_encoder(tmp_path: Path) -> None:
    make_random(tmp_path / "x.gguf", encoder=False, progress=False)
    speaker = CSM.from_pretrained(tmp_path / "x.gguf", device="cpu", threads=1)
    assert len(speaker.generate(TEXT, seed=1, max_frames=2).codes) == 2
    with pytest.raises(ModelFormatError, match="holds no Mimi encoder"):
        speaker.encode(np.zeros(1920))


# Text


def test_tokenize(csm: CSM) -> None:
    bos, eos = csm.config["csm.bos_token_id"], csm.config["csm.eos_token_id"]
    ids = csm.tokenize("[0]Hello.\n")
    assert ids[0] == bos
    assert ids[-1] == eos
    assert csm.tokenize("Hello.") == ids
    assert csm.tokenize("[0]Hello. [1]Hi!") == ids + csm.tokenize("Hi!", speaker=1)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"temprature": 1}, TypeError, "unknown option 'temprature', expected one of"),
        ({"temperature": -1}, ValueError, "temperature"),
        ({"max_frames": 1, "max_seconds": 1}, ValueError, "not both"),
        ({"seed": -1}, ValueError, "seed"),
        ({"speaker": -1}, ValueError, "speaker"),
        ({"context": "hello"}, TypeError, "list of Segment"),
        (
            {"context": [Segment(0, "a", codes=np.ones((1, 3), np.int32))]},
            ValueError,
            r"the codes of the segment of speaker 0 must be whole numbers of shape \(frames, 8\)",
        ),
    ],
)
def test_options_are_checked(
    csm: CSM, options: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        csm.generate("Hello.", **options)


# Loading


def test_what_it_is(csm: CSM, path: Path) -> None:
    assert csm.name == str(path)
    assert csm.device == "CPU"
    assert csm.threads == 1
    assert (csm.frame_size, csm.frame_rate, csm.codebooks) == (1920, 12.5, 8)
    assert csm.config["mimi.sample_rate"] == csm.sample_rate
    assert "MB of weights" in repr(csm)


def test_loading_errors(tmp_path: Path, path: Path) -> None:
    with pytest.raises(ModelNotFoundError, match="no such file or folder"):
        CSM.from_pretrained(tmp_path / "nothing.gguf")
    (tmp_path / "text.gguf").write_text("hello")
    with pytest.raises(ModelFormatError, match=r"text\.gguf"):
        CSM.from_pretrained(tmp_path / "text.gguf", device="cpu")
    (tmp_path / "cut.gguf").write_bytes(path.read_bytes()[:-1000])
    with pytest.raises(ModelFormatError, match=r"cut\.gguf"):
        CSM.from_pretrained(tmp_path / "cut.gguf", device="cpu")
    with pytest.raises((ValueError, RuntimeError), match="toaster"):
        CSM.from_pretrained(path, device="toaster")
    for threads in (0, -1, 1.5, True):
        with pytest.raises((ValueError, TypeError), match="threads must be"):
            CSM.from_pretrained(path, threads=threads)  # type: ignore[arg-type]


def test_threads_do_not_change_the_codes(csm: CSM, path: Path) -> None:
    two = CSM.from_pretrained(path, device="cpu", threads=2)
    codes = two.generate_codes(TEXT, seed=7, max_frames=4)
    assert np.array_equal(codes, csm.generate_codes(TEXT, seed=7, max_frames=4))


# Side by side


def test_several_threads(csm: CSM) -> None:
    expected = [csm.generate(TEXT, seed=seed, max_frames=6) for seed in range(4)]
    with ThreadPoolExecutor(4) as pool:
        for _ in range(3):
            got = pool.map(lambda seed: csm.generate(TEXT, seed=seed, max_frames=6), range(4))
            assert all(same(a, b) for a, b in zip(got, expected, strict=True))


def test_computing_lets_other_threads_run(csm: CSM) -> None:
    done = threading.Event()
    worker = threading.Thread(
        target=lambda: (csm.generate(TEXT, seed=1, max_frames=60), done.set())
    )
    worker.start()
    ticks = 0
    while not done.is_set():
        time.sleep(0.001)
        ticks += 1
    worker.join()
    assert ticks > 5


INTERRUPTED = """
import sys
from csm_ggml import CSM
csm = CSM.from_pretrained(sys.argv[1], device="cpu", threads=1)
expected = csm.generate_codes("Hello.", seed=1, max_frames=3)
print("ready", flush=True)
try:
    while True:
        csm.generate("Hello.", seed=1, max_frames=400)
except KeyboardInterrupt:
    again = csm.generate_codes("Hello.", seed=1, max_frames=3)
    print("same" if (again == expected).all() else "different", flush=True)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="no SIGINT for one process on Windows")
def test_ctrl_c_stops_soon_and_leaves_the_model_usable(path: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", INTERRUPTED, str(path)],
        stdout=subprocess.PIPE,
        text=True,
        # A shell starts what runs in its background with Ctrl-C ignored, and a child inherits that.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    time.sleep(0.3)
    process.send_signal(signal.SIGINT)
    assert process.communicate(timeout=30)[0] == "same\n"


# The package


def test_public_names() -> None:
    assert set(csm_ggml.__all__) <= set(dir(csm_ggml))
    for name in csm_ggml.__all__:
        assert getattr(csm_ggml, name) is not None
    with pytest.raises(AttributeError, match="nonsense"):
        csm_ggml.nonsense  # noqa: B018
    with pytest.warns(DeprecationWarning, match=r"now csm_ggml\.TurnSpan"):
        assert csm_ggml.SpokenTurn is csm_ggml.TurnSpan


@pytest.fixture(scope="module", autouse=True)
def _no_leftovers(csm: CSM) -> Iterator[None]:
    yield
    # Every slot is free, and nothing waits.
    loop = csm.scheduler._runner.loop
    assert not loop.busy and loop._engine is not None
    slots = [loop._engine.open(seed=0, **Sampling().as_dict()) for _ in range(csm.scheduler.slots)]
    assert len(set(slots)) == csm.scheduler.slots
