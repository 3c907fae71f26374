"""Recordings as people have them: silent, faint, clipped, with odd channels and wrong headers."""

import io
import struct
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from csm_ggml import CSM, AudioFileError, ContextLengthError, Segment
from csm_ggml.audio.containers import mended
from csm_ggml.audio.load import load_audio, open_sound, to_mono

RATE = 24000
WORDS = "This is what I say."


def speech(seconds: float = 1.5, gain: float = 0.2) -> np.ndarray:
    """Noise that comes and goes as syllables do."""
    at = np.arange(int(RATE * seconds)) / RATE
    noise = np.random.default_rng(0).normal(0, 1, len(at)) * np.abs(np.sin(12 * at))
    return (gain * noise / np.abs(noise).max()).astype(np.float32)


@pytest.fixture(scope="module")
def csm(path: Path) -> CSM:
    return CSM.from_pretrained(path, device="cpu", threads=1)


# What is wrong with the sound


@pytest.mark.parametrize("sound", [np.zeros(30000), speech(gain=3e-5)], ids=["digital", "dither"])
def test_silence_is_nobodys_voice(csm: CSM, sound: np.ndarray, tmp_path: Path) -> None:
    sound = sound.astype(np.float32)
    with pytest.raises(ValueError, match="no sound in it, only silence"):
        csm.create_voice(sound, WORDS)
    soundfile.write(tmp_path / "x.wav", sound, RATE)
    with pytest.raises(AudioFileError, match=r"x\.wav: there is no sound in it"):
        csm.generate("Hi.", context=[Segment(0, WORDS, tmp_path / "x.wav")], max_frames=1)
    assert len(csm.encode(sound)) == -(-len(sound) // 1920)  # the codec alone takes anything


CLIPPED = np.clip(speech(gain=2.0), -0.9, 0.9)


@pytest.mark.parametrize(
    ("sound", "told"),
    [
        (speech(gain=0.01), r"faint \(-5\d dB of full scale\)"),
        (CLIPPED, "clipped"),
        ((CLIPPED * 32768).astype(np.int16), "clipped"),
        (speech(gain=20000), "samples of up to 2e.04, but full scale is 1"),
        (np.stack([speech(), -speech()], 1), "2 channels cancel .* the loudest is taken, channel"),
        (np.stack([0 * speech(), speech()], 1), "channel 1 of 2 left out, being empty"),
        (speech(20), "14 letters for 20.0 s of sound, less than anybody says"),
        (speech(0.3), "14 letters for 0.3 s of sound, more than anybody says"),
    ],
)
def test_what_spoils_a_voice_is_told(csm: CSM, sound: np.ndarray, told: str) -> None:
    with pytest.warns(UserWarning, match=f"the recording: .*{told}"):
        csm.create_voice(sound, WORDS)


def test_good_recordings_are_taken_without_a_word(csm: CSM, tmp_path: Path) -> None:
    soundfile.write(tmp_path / "x.wav", speech(), RATE)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        voice = csm.create_voice(tmp_path / "x.wav", WORDS)
        csm.create_voice(np.stack([speech()] * 2, 1), WORDS)
        csm.create_voice((0.9 * np.sin(np.arange(36000) / 9)).astype(np.float32), WORDS)
        csm.create_voice(1.1 * speech(gain=1.0), WORDS)
    assert len(voice.codes) == 19


def test_channels_that_do_no_good_are_left_out() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        sound, other = speech(), speech()[::-1].copy()
        for channels, expected in (
            ([sound, -sound], sound),
            ([0.5 * sound, -sound], -sound),
            ([0 * sound, sound], sound),
            ([sound, 1e-5 * other], sound),
            ([sound, 0 * sound, other], (sound + other) / 2),
        ):
            mono = to_mono(np.stack(channels, 1), RATE, RATE)
            assert np.abs(mono - expected).max() < 1e-6
        warnings.simplefilter("error")
        assert np.abs(to_mono(np.stack([sound, other], 1), RATE, RATE)).max() < 0.2
        assert not to_mono(np.zeros((9, 2)), RATE, RATE).any()


def test_length_is_checked_before_a_recording_is_encoded(
    csm: CSM, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def encode(*_: object) -> None:
        raise AssertionError("it was encoded")

    monkeypatch.setattr(type(csm.model.codec), "encode_samples", encode)
    rows = len(csm.tokenize(WORDS)) + 1 + 4
    longest = (512 - rows) * 0.08
    said = rf"context has 512; use a shorter recording, of at most {longest:.1f} s"
    soundfile.write(tmp_path / "x.wav", np.tile(speech(10), 60), RATE)
    for sound in (tmp_path / "x.wav", np.tile(speech(10), 6)):
        with pytest.raises(ContextLengthError, match=said):
            csm.create_voice(sound, WORDS)
    # Of ten minutes no more is read than might have fit.
    assert len(load_audio(tmp_path / "x.wav", RATE, most_seconds=1)) < 20 * RATE
    monkeypatch.undo()
    fits = np.tile(speech(10), 5)[: (512 - rows) * 1920]
    with pytest.warns(UserWarning, match="letters for"):
        assert len(csm.create_voice(fits, WORDS).codes) == 512 - rows


# Files


def chunk(name: bytes, data: bytes, size: int | None = None) -> bytes:
    claimed = len(data) if size is None else size
    return name + struct.pack("<I", claimed) + data + b"\0" * (len(data) % 2)


def riff(*chunks: bytes, size: int | None = None, name: bytes = b"RIFF") -> bytes:
    body = b"WAVE" + b"".join(chunks)
    return name + struct.pack("<I", len(body) if size is None else size) + body


FORM = chunk(b"fmt ", struct.pack("<HHIIHH", 1, 1, RATE, 2 * RATE, 2, 16))
PCM = np.round(speech() * 32767).astype("<i2")
DATA = PCM.tobytes()
INFO = b"INFO" + b"ISFT" + struct.pack("<I", 300_000) + b"x" * 300_000
DS64 = chunk(b"ds64", struct.pack("<QQQI", 0, 0, 0, 0))

WAVS: dict[str, bytes] = {
    "large list before": riff(FORM, chunk(b"LIST", INFO), chunk(b"data", DATA)),
    "list before the form": riff(chunk(b"LIST", INFO), FORM, chunk(b"data", DATA)),
    "list behind": riff(FORM, chunk(b"data", DATA), chunk(b"LIST", INFO)),
    "list with a false size": riff(FORM, chunk(b"LIST", INFO, 5 << 20), chunk(b"data", DATA)),
    "odd chunk without padding": riff(FORM, chunk(b"note", b"abc")[:-1], chunk(b"data", DATA)),
    "broken off at once": riff(FORM, chunk(b"data", DATA, 0), size=0),
    "streamed": riff(FORM, chunk(b"data", DATA, 2**32 - 1), size=2**32 - 1),
    "streamed, as some do": riff(FORM, chunk(b"data", DATA, 2**32 - 256), size=2**32 - 220),
    "size of the first block": riff(FORM, chunk(b"data", DATA, 4096)),
    "larger than it is": riff(FORM, chunk(b"data", DATA, len(DATA) + 10_000)),
    "RF64 broken off": riff(DS64, FORM, chunk(b"data", DATA, 2**32 - 1), name=b"RF64"),
    "with a tag before": b"ID3\4\0\0\0\0\1\0" + b"\0" * 128 + riff(FORM, chunk(b"data", DATA)),
    "rubbish behind": riff(FORM, chunk(b"data", DATA)) + b"rubbish" * 99,
}


@pytest.mark.parametrize("name", WAVS)
def test_wav_files_of_recorders(tmp_path: Path, name: str) -> None:
    path = tmp_path / "x.wav"
    path.write_bytes(WAVS[name])
    expected = PCM.astype(np.float32) / 32768
    assert np.array_equal(load_audio(path, RATE), expected)
    # And as the server gets them.
    with open_sound(io.BytesIO(WAVS[name])) as reader:
        assert np.array_equal(reader.read()[:, 0], expected)


def test_an_empty_wav_file_is_empty(tmp_path: Path) -> None:
    for number, data in enumerate(
        (
            riff(FORM, chunk(b"data", b"")),
            riff(FORM, chunk(b"data", b""), chunk(b"LIST", b"INFO")),
        )
    ):
        path = tmp_path / f"{number}.wav"
        path.write_bytes(data)
        with pytest.raises(AudioFileError, match="there are no samples"):
            load_audio(path, RATE)


@pytest.mark.parametrize(
    "data",
    [
        riff(b"JUNK\0\0\0\0" * 1_000_000),
        riff((b"fmt " + struct.pack("<I", 2**31)) * 1_000_000),
        riff((b"JUN\xff" + struct.pack("<I", 2**31) + b"fmt ") * 600_000),
        b"ID3\4\0\0\0\0\0\0" * 800_000,
    ],
    ids=["chunks", "forms", "false chunks", "tags"],
)
def test_headers_without_end_take_no_time(data: bytes) -> None:
    started = time.perf_counter()
    assert mended(io.BytesIO(data)) is None or data.startswith(b"ID3")
    assert time.perf_counter() - started < 2


def id3(frames: bytes, version: int, flags: int = 0) -> bytes:
    size = len(frames)
    sizes = bytes([size >> 21 & 127, size >> 14 & 127, size >> 7 & 127, size & 127])
    footer = b"3DI" + bytes([version, 0, flags]) + sizes if flags & 0x10 else b""
    return b"ID3" + bytes([version, 0, flags]) + sizes + frames + footer


# Bytes that look like the beginning of a frame of MP3, as pictures have them.
PICTURE = b"\xff\xd8\xff\xe0" + b"\xff\xfb\x90\x64" * 50_000
COVER = b"\0image/jpeg\0\3\0" + PICTURE
TAGS: dict[str, bytes] = {
    "2.2": id3(b"TT2\0\0\6\0Title", 2),
    "2.3 with a cover": id3(b"APIC" + struct.pack(">I", len(COVER)) + b"\0\0" + COVER, 3),
    "2.4 with a footer": id3(b"\0" * 300, 4, flags=0x10),
    "two": id3(b"\0" * 100, 3) + id3(PICTURE, 4),
}


@pytest.mark.parametrize("name", TAGS)
def test_mp3_files_with_tags(tmp_path: Path, name: str, capfd: Any) -> None:
    plain, path = tmp_path / "plain.mp3", tmp_path / "x.mp3"
    soundfile.write(plain, speech(), RATE)
    expected = load_audio(plain, RATE)
    for behind in (b"", b"TAG" + b"x" * 125):
        path.write_bytes(TAGS[name] + plain.read_bytes() + behind)
        assert np.array_equal(load_audio(path, RATE)[: len(expected)], expected)
    assert capfd.readouterr().err == ""


def made_by_ffmpeg(path: Path, format: str, codec: str) -> None:
    av = pytest.importorskip("av")
    with av.open(str(path), "w", format=format) as container:
        rate = RATE if codec == "aac" else 48000
        stream = container.add_stream(codec, rate=rate)
        stream.layout, stream.bit_rate = "mono", 64_000
        pcm = np.round(np.repeat(speech(), rate // RATE) * 32767).astype(np.int16)
        for start in range(0, len(pcm), 960):
            frame = av.AudioFrame.from_ndarray(pcm[None, start : start + 960], "s16", "mono")
            frame.sample_rate, frame.pts = rate, start
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


@pytest.mark.parametrize(
    ("name", "format", "codec"),
    [
        ("x.m4a", "ipod", "aac"),
        ("x.mp4", "mp4", "aac"),
        ("x.aac", "adts", "aac"),
        ("x.webm", "webm", "libopus"),
        ("x.wma", "asf", "wmav2"),
    ],
)
def test_files_of_phones_and_browsers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, format: str, codec: str
) -> None:
    path = tmp_path / name
    made_by_ffmpeg(path, format, codec)
    sound = load_audio(path, RATE)
    assert len(sound) == pytest.approx(1.5 * RATE, abs=0.1 * RATE)
    level = np.sqrt(np.mean(np.square(sound)))
    assert level == pytest.approx(np.sqrt(np.mean(np.square(speech()))), rel=0.3)
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(AudioFileError, match=f"{name}: "):
        load_audio(path, RATE)
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(AudioFileError, match=r"csm-ggml\[av\].*ffmpeg -i FILE recording\.wav"):
        load_audio(path, RATE)


def test_what_claims_to_be_a_list_of_files_opens_none(tmp_path: Path) -> None:
    """FFmpeg would follow names in a playlist: formats are taken by their first bytes alone."""
    secret = tmp_path / "secret.wav"
    soundfile.write(secret, speech(), RATE)
    lists: list[Callable[[], bytes]] = [
        lambda: b"ffconcat version 1.0\nfile '" + bytes(secret) + b"'\n",
        lambda: b"#EXTM3U\n#EXTINF:1,\n" + bytes(secret) + b"\n",
    ]
    for number, make in enumerate(lists):
        path = tmp_path / f"{number}.m4a"
        path.write_bytes(make())
        with pytest.raises(AudioFileError, match="not an audio file"):
            load_audio(path, RATE)
