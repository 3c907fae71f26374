"""Sound in: any file, averaged and resampled. Sound out: formats, clipping, what cannot be."""

import base64
import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
from csm_ggml import Audio, AudioFileError, Stats, TurnSpan
from csm_ggml.audio.audio import to_pcm16
from csm_ggml.audio.load import load_audio, to_mono
from csm_ggml.audio.writer import AudioWriter

RATE = 24000
STATS = Stats(
    frames=1,
    codebooks=2,
    audio_seconds=0.08,
    prefill_rows=7,
    prefill_seconds=0.01,
    lm_seconds=0.02,
    codec_seconds=0.01,
    time_to_first_audio=0.03,
    total_seconds=0.04,
)


def audio(samples: np.ndarray) -> Audio:
    turn = TurnSpan(0, 0, "Hi", 0, 1, "eos", 1)
    return Audio(samples, RATE, np.ones((1, 2), np.int32), "eos", 7, (turn,), STATS)


def tone(rate: int, frequency: float, seconds: float = 1.0) -> np.ndarray:
    return np.sin(2 * np.pi * frequency * np.arange(int(rate * seconds)) / rate).astype(np.float32)


@pytest.mark.parametrize(
    ("extension", "format", "subtype", "tolerance"),
    [
        (".wav", "WAV", "PCM_16", 1 / 32767),
        (".flac", "FLAC", "PCM_16", 1 / 32767),
        (".OGG", "OGG", "VORBIS", 0.1),
        (".mp3", "MP3", "MPEG_LAYER_III", 0.1),
        (".opus", "OGG", "OPUS", 0.1),
    ],
)
def test_extension_picks_the_format(
    tmp_path: Path, extension: str, format: str, subtype: str, tolerance: float
) -> None:
    path = tmp_path / f"x{extension}"
    samples = 0.5 * tone(RATE, 440)
    audio(samples).save(path)
    with AudioWriter(path.with_name(f"y{extension}"), RATE) as writer:
        for start in range(0, len(samples), 1920):
            writer.write(samples[start : start + 1920])
    assert soundfile.info(path.with_name(f"y{extension}")).frames == soundfile.info(path).frames
    again = audio(samples).to_bytes(extension[1:].lower())
    assert again == path.read_bytes()
    info = soundfile.info(path)
    assert (info.format, info.subtype, info.channels, info.samplerate) == (format, subtype, 1, RATE)
    back, _ = soundfile.read(path, dtype="float32")
    if extension == ".mp3":  # its first block fades in
        back, samples = back[1200:], samples[1200:]
    if extension == ".opus":  # speech is what it keeps, not the phase of a tone
        back, samples = np.abs(np.fft.rfft(back)), np.abs(np.fft.rfft(samples))
        assert back.argmax() == samples.argmax()
        back, samples = back / back.max(), samples / samples.max()
    assert np.abs(back[: len(samples)] - samples).max() <= tolerance


@pytest.mark.parametrize(
    ("name", "samples", "subtype"),
    [("x.wav", "24", "PCM_24"), ("x.flac", "24", "PCM_24"), ("x.wav", "float", "FLOAT")],
)
def test_samples_of_more_than_16_bits(
    tmp_path: Path, name: str, samples: str, subtype: str
) -> None:
    tone_ = np.append(0.3 * tone(RATE, 440), np.float32(1.5))
    with AudioWriter(tmp_path / name, RATE, samples=samples) as writer:
        writer.write(tone_)
    assert soundfile.info(tmp_path / name).subtype == subtype
    back, _ = soundfile.read(tmp_path / name, dtype="float64")
    assert np.abs(back - tone_)[:-1].max() < 2**-23
    assert back[-1] == (1.5 if samples == "float" else pytest.approx(1, abs=1e-6))
    for other in ("x.ogg", "x.mp3", "x.opus"):
        with pytest.raises(AudioFileError, match="files have samples of"):
            AudioWriter(tmp_path / other, RATE, samples=samples)
    with pytest.raises(AudioFileError, match=r"x\.flac: only WAV files have samples of floating"):
        AudioWriter(tmp_path / "x.flac", RATE, samples="float")


def test_bytes_of_files() -> None:
    speech = audio(0.5 * tone(RATE, 440))
    assert speech.to_bytes("pcm") == speech.pcm16().astype("<i2").tobytes()
    assert soundfile.info(io.BytesIO(speech.to_bytes(subtype="FLOAT"))).subtype == "FLOAT"
    assert soundfile.info(io.BytesIO(speech.to_bytes("flac", subtype="PCM_24"))).format == "FLAC"
    for wrong in ("m4a", "WAV/../x", ""):
        with pytest.raises(AudioFileError, match="no audio format for the extension"):
            speech.to_bytes(wrong)


def test_resampling_keeps_turns_where_they_are() -> None:
    turns = (
        TurnSpan(0, 0, "Hi", 0, 1, "eos", 1, 0, 1920),
        TurnSpan(1, 1, "Ho", 1, 2, "eos", 1, 2400, 3840),
    )
    samples = np.concatenate([np.zeros(1920), np.zeros(480), 0.5 * tone(RATE, 440, 0.16)])
    speech = replace(audio(samples.astype(np.float32)), turns=turns)
    for rate in (8000, 16000, 44100, 48000):
        other = speech.resample(rate)
        assert (other.sample_rate, other.duration) == (rate, pytest.approx(speech.duration, 1e-3))
        second = other.turn(1)
        assert len(second.samples) == pytest.approx(0.16 * rate, abs=1)
        inner = slice(rate // 100, -rate // 100)
        wanted = 0.5 * tone(rate, 440, 0.16)[: len(second.samples)]
        assert np.abs(second.samples[: len(wanted)] - wanted)[inner].max() < 1e-2
        assert np.array_equal(other.codes, speech.codes)
    assert speech.resample(RATE) is speech
    assert not len(replace(speech, samples=samples[:0].astype(np.float32)).resample(8000).samples)
    with pytest.raises(ValueError, match="sample_rate must be 1000 to 768000"):
        speech.resample(10)
    with pytest.raises(TypeError, match="sample_rate must be an int"):
        speech.resample(8000.5)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"one sample rate can be joined, got \[8000, 24000\] Hz"):
        Audio.concatenate([speech, speech.resample(8000)])


def test_a_player_in_notebooks() -> None:
    shown = audio(0.5 * tone(RATE, 440))._repr_html_()
    head, data = shown.split("base64,")
    assert head == '<audio controls src="data:audio/wav;'
    samples, _ = soundfile.read(io.BytesIO(base64.b64decode(data.split('"')[0])), dtype="int16")
    assert np.array_equal(samples, audio(0.5 * tone(RATE, 440)).pcm16())
    assert "finish_reason=&#x27;eos&#x27;" in shown
    long = audio(0.5 * tone(RATE, 440, 40))._repr_html_()
    assert long.startswith('<audio controls src="data:audio/mpeg;') and len(long) < 1_000_000


def test_samples_beyond_full_scale_are_clipped(tmp_path: Path) -> None:
    loud = np.array([-3.0, -1.0, -0.5, 0.0, 0.5, 1.0, 3.0], np.float32)
    expected = [-32767, -32767, -16384, 0, 16384, 32767, 32767]
    assert audio(loud).pcm16().tolist() == expected
    assert audio(loud).pcm16().dtype == np.int16
    audio(loud).save(tmp_path / "x.wav")
    assert soundfile.read(tmp_path / "x.wav", dtype="int16")[0].tolist() == expected
    audio(loud).save(tmp_path / "float.wav", subtype="FLOAT")
    assert soundfile.read(tmp_path / "float.wav", dtype="float32")[0].tolist() == loud.tolist()


@pytest.mark.parametrize("extension", [".wav", ".ogg"])
def test_no_samples_make_a_file_too(tmp_path: Path, extension: str) -> None:
    path = tmp_path / f"x{extension}"
    audio(np.zeros(0, np.float32)).save(path)
    assert soundfile.info(path).frames == 0


def test_saving_long_vorbis(tmp_path: Path) -> None:
    audio(0.1 * tone(RATE, 440, 60)).save(tmp_path / "x.ogg")
    assert soundfile.info(tmp_path / "x.ogg").duration == pytest.approx(60, abs=0.1)


def test_saving_into_an_open_file() -> None:
    file = io.BytesIO()
    audio(tone(RATE, 440)).save(file, format="WAV")
    file.seek(0)
    assert soundfile.info(file).frames == RATE
    with pytest.raises(AudioFileError, match="needs a format"):
        audio(tone(RATE, 440)).save(io.BytesIO())


def test_what_cannot_be_saved(tmp_path: Path) -> None:
    one = audio(tone(RATE, 440))
    with pytest.raises(AudioFileError, match=r"extension '\.mid', expected one of \.wav, \.flac"):
        one.save(tmp_path / "x.mid")
    with pytest.raises(AudioFileError, match="cannot write VORBIS samples into a WAV"):
        one.save(tmp_path / "x.wav", subtype="VORBIS")
    with pytest.raises(AudioFileError, match="a FLAC file cannot be empty"):
        audio(np.zeros(0, np.float32)).save(tmp_path / "x.flac")
    assert not list(tmp_path.iterdir())
    with pytest.raises(FileNotFoundError, match="nowhere"):
        one.save(tmp_path / "nowhere" / "x.wav")


def test_for_people() -> None:
    one = audio(tone(RATE, 440, 0.08))
    assert repr(one) == "Audio(0.08 s at 24000 Hz, 1 frames, finish_reason='eos', seed=7)"
    assert one.duration == 0.08
    assert "rtf=0.500" in repr(one.stats)
    assert one.stats.codes_per_second == pytest.approx(50)


def test_loading_averages_channels_and_resamples(tmp_path: Path) -> None:
    path = tmp_path / "x.wav"
    left = 0.5 * tone(44100, 1000)
    soundfile.write(path, np.stack([left, 0.5 * left], axis=1), 44100, subtype="FLOAT")
    mono = load_audio(path, RATE)
    assert mono.dtype == np.float32
    assert mono.shape == (RATE,)
    inner = slice(200, -200)
    assert np.abs(mono - 0.375 * tone(RATE, 1000))[inner].max() < 1e-4


def test_same_rate_keeps_samples_as_they_are(tmp_path: Path) -> None:
    samples = 2 * tone(RATE, 440)
    soundfile.write(tmp_path / "x.wav", samples, RATE, subtype="FLOAT")
    assert np.array_equal(load_audio(tmp_path / "x.wav", RATE), samples)


def test_integers_are_scaled() -> None:
    mono = to_mono(np.array([-32768, 0, 16384], np.int16), RATE, RATE)
    assert mono.tolist() == [-1.0, 0.0, 0.5]


@pytest.mark.parametrize(
    ("samples", "rate", "message"),
    [
        (np.zeros(0), RATE, "no samples"),
        (np.array([0.0, np.nan]), RATE, "NaN or infinite"),
        (np.array([0.0, np.inf]), RATE, "NaN or infinite"),
        (np.zeros((2, 100)), RATE, "transposed"),
        (np.zeros((2, 2, 2)), RATE, r"shape \(n,\)"),
        (np.zeros(10, np.uint8), RATE, "float or signed"),
        (np.zeros(10), 0, "sample_rate must be 1000 to 768000 Hz, got 0"),
    ],
)
def test_samples_are_checked(samples: np.ndarray, rate: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        to_mono(samples, rate, RATE)


def test_files_are_checked(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no such audio file"):
        load_audio(tmp_path / "nothing.wav", RATE)
    (tmp_path / "text.wav").write_text("hello")
    with pytest.raises(AudioFileError, match=r"text\.wav: not an audio file"):
        load_audio(tmp_path / "text.wav", RATE)
    soundfile.write(tmp_path / "empty.wav", np.zeros(0), RATE)
    with pytest.raises(AudioFileError, match=r"empty\.wav: there are no samples"):
        load_audio(tmp_path / "empty.wav", RATE)
    soundfile.write(tmp_path / "nan.wav", np.full(9, np.nan), RATE, subtype="FLOAT")
    with pytest.raises(AudioFileError, match=r"nan\.wav: some samples are NaN"):
        load_audio(tmp_path / "nan.wav", RATE)


def test_rounding() -> None:
    assert to_pcm16(np.array([0.5 / 32767, 0.6 / 32767], np.float32)).tolist() == [0, 1]


def test_nothing_to_join() -> None:
    with pytest.raises(ValueError, match="no chunks"):
        Audio.concatenate([])
