"""Audio files sent while they grow: nothing is missing or rewritten, and they begin at once."""

from __future__ import annotations

import io
import struct

import numpy as np
import numpy.typing as npt
import pytest
import soundfile
from csm_ggml.audio.audio import to_pcm16
from csm_ggml.audio.encoders import FORMATS, encode_whole, make_encoder
from csm_ggml.audio.tempo import Tempo

RATE = 24_000
FRAME = 1_920
# What codecs put before the sound (MP3: decoder and encoder; AAC: encoder), and the block that
# the end is filled up to, in samples.
DELAY = {"mp3": 529 + 2 * 576, "aac": 1_024}
BLOCK = {"mp3": 576, "aac": 1_024}


def speech(seconds: float) -> npt.NDArray[np.float32]:
    """Two bursts, one right at the start and one right at the end, and a quiet tone between."""
    time = np.arange(round(seconds * RATE)) / RATE
    samples = 0.05 * np.sin(2 * np.pi * 180 * time)
    edge = RATE // 10
    samples[:edge] += 0.4 * np.sin(2 * np.pi * 440 * time[:edge])
    samples[-edge:] += 0.4 * np.sin(2 * np.pi * 660 * time[-edge:])
    return samples.astype(np.float32)


def stream(format: str, samples: npt.NDArray[np.float32], size: int = FRAME) -> list[bytes]:
    encoder = make_encoder(format, RATE)
    parts = [encoder.encode(samples[at : at + size]) for at in range(0, len(samples), size)]
    return [*parts, encoder.finish()]


def decode(format: str, data: bytes) -> npt.NDArray[np.float32]:
    if format == "pcm":
        return np.frombuffer(data, "<i2").astype(np.float32) / 32767
    if format == "wav":
        assert data[:4] == b"RIFF" and data[36:40] == b"data"
        return np.frombuffer(data[44:], "<i2").astype(np.float32) / 32767
    if format in ("aac", "flac"):
        # libsndfile cannot read a FLAC stream of unknown length.
        av = pytest.importorskip("av")

        with av.open(io.BytesIO(data)) as container:
            frames = [frame.to_ndarray() for frame in container.decode(audio=0)]
        heard = np.concatenate(frames, axis=1)[0]
        return heard / 32768 if heard.dtype == np.int16 else heard
    with soundfile.SoundFile(io.BytesIO(data)) as file:
        assert file.samplerate == RATE and file.channels == 1
        return file.read(dtype="float32")


def available(format: str) -> None:
    if format == "aac":
        pytest.importorskip("av")


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("seconds", [0.08, 0.4, 2.56])
def test_start_and_end_of_a_streamed_file_are_intact(format: str, seconds: float) -> None:
    available(format)
    samples = speech(seconds)
    heard = decode(format, b"".join(stream(format, samples)))
    delay, block = DELAY.get(format, 0), BLOCK.get(format, 1)
    # The same length, but for the delay of the encoder and the end of its last block.
    assert len(samples) <= len(heard) <= len(samples) + delay + 2 * block
    heard = heard[delay : delay + len(samples)]
    assert len(heard) == len(samples)
    if format in ("pcm", "wav", "flac"):
        assert np.abs(heard - samples).max() < 1e-3
        return
    edge = min(RATE // 10, len(samples))
    for part in (slice(0, edge), slice(len(samples) - edge, None)):
        same = np.corrcoef(heard[part], samples[part])[0, 1]
        assert same > 0.95, (format, part, same)


@pytest.mark.parametrize(("format", "frames"), [("mp3", 1), ("opus", 1), ("flac", 1), ("aac", 2)])
def test_first_bytes_come_with_the_first_frames(format: str, frames: int) -> None:
    available(format)
    parts = stream(format, speech(2))
    assert any(parts[:frames])
    # And then they flow: no half second without any.
    silent = [not part for part in parts[frames:-1]]
    assert not any(all(silent[at : at + 6]) for at in range(len(silent) - 5))
    if format in ("mp3", "opus", "flac"):
        heard = decode(format, b"".join(parts[:8]))
        assert len(heard) >= 4 * FRAME


# An Ogg stream has a random serial number: its sound is compared below.
@pytest.mark.parametrize("format", [format for format in FORMATS if format != "opus"])
def test_bytes_do_not_depend_on_how_the_stream_is_cut(format: str) -> None:
    available(format)
    samples = speech(1)
    assert b"".join(stream(format, samples)) == b"".join(stream(format, samples, 777))


def test_opus_sounds_the_same_however_the_stream_is_cut() -> None:
    samples = speech(1)
    whole, cut = (decode("opus", b"".join(stream("opus", samples, n))) for n in (FRAME, 777))
    assert np.array_equal(whole, cut)


def test_mp3_has_neither_table_nor_tags_and_files_may_be_joined() -> None:
    samples = speech(1)
    one = b"".join(stream("mp3", samples))
    assert one[:2] == b"\xff\xf3"  # MPEG-2 layer III, no ID3 before it
    for mark in (b"Xing", b"Info", b"ID3", b"TAG"):
        assert mark not in one
    twice = decode("mp3", one + one)
    assert len(twice) == 2 * len(decode("mp3", one))


def test_streamed_wav_has_a_plain_header_of_44_bytes() -> None:
    first, *_ = stream("wav", speech(0.2))
    assert len(first) == 44 + 2 * FRAME
    assert struct.unpack("<4sI4s4sIHHIIHH4sI", first[:44]) == (
        *(b"RIFF", 0xFFFFFFFF, b"WAVE", b"fmt ", 16, 1, 1, RATE, 2 * RATE, 2, 16),
        *(b"data", 0xFFFFFFFF),
    )


def test_flac_says_that_its_length_is_unknown() -> None:
    data = b"".join(stream("flac", speech(0.5)))
    assert data[:4] == b"fLaC"
    info = data[8:42]
    assert int.from_bytes(info[13:18], "big") & 0xFFFFFFFFF == 0 and not any(info[18:34])


@pytest.mark.parametrize("format", FORMATS)
def test_nothing_said_is_still_a_file(format: str) -> None:
    available(format)
    encoder = make_encoder(format, RATE)
    data = encoder.encode(np.zeros(0, np.float32)) + encoder.finish()
    assert format in ("pcm", "mp3", "aac", "flac") or data


@pytest.mark.parametrize("format", ["wav", "flac"])
def test_whole_files_know_their_length(format: str) -> None:
    samples = speech(0.5)
    data = encode_whole(format, samples, RATE)
    read, _ = soundfile.read(io.BytesIO(data), dtype="int16")
    assert np.array_equal(read, to_pcm16(samples))


@pytest.mark.parametrize("format", FORMATS)
def test_an_encoder_may_be_dropped_amid_a_stream(format: str) -> None:
    available(format)
    encoder = make_encoder(format, RATE)
    encoder.encode(speech(0.2))
    encoder.close()


def test_unknown_formats_are_named() -> None:
    with pytest.raises(ValueError, match=r"'ogg'.*mp3, opus, aac, flac, wav, pcm"):
        make_encoder("ogg", RATE)


def test_speed_one_touches_nothing() -> None:
    samples = speech(0.3)
    tempo = Tempo(1.0, RATE)
    assert tempo.change(samples) is samples
    assert not len(tempo.finish())


@pytest.mark.parametrize("speed", [0.25, 0.3, 0.8, 1.25, 2.0, 4.0])
def test_speed_changes_the_length_and_not_the_pitch(speed: float) -> None:
    pytest.importorskip("av")
    time = np.arange(3 * RATE) / RATE
    tone = (0.4 * np.sin(2 * np.pi * 220 * time)).astype(np.float32)

    def changed(size: int) -> npt.NDArray[np.float32]:
        tempo = Tempo(speed, RATE)
        parts = [tempo.change(tone[at : at + size]) for at in range(0, len(tone), size)]
        return np.concatenate([*parts, tempo.finish()])

    slow = changed(FRAME)
    assert np.array_equal(slow, changed(5_000))
    assert abs(len(slow) - len(tone) / speed) < 0.15 * RATE
    middle = slow[len(slow) // 4 : -len(slow) // 4]
    spectrum = np.abs(np.fft.rfft(middle * np.hanning(len(middle))))
    assert abs(np.argmax(spectrum) * RATE / len(middle) - 220) < 4
