"""The best seconds of a recording, and a draft of what is said in it."""

import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
from csm_ggml import CSM, Voice
from csm_ggml.cli import main
from csm_ggml.voices.trimming import best_span

RATE = 24000


def speech(seconds: float, level: float = 0.3) -> np.ndarray:
    return np.random.default_rng(0).normal(0, level / 3, round(seconds * RATE)).astype(np.float32)


def silence(seconds: float) -> np.ndarray:
    return np.zeros(round(seconds * RATE), np.float32)


def test_a_span_goes_from_pause_to_pause() -> None:
    parts = [silence(2), speech(4), silence(0.5), speech(3), silence(3), speech(6), silence(1)]
    sound = np.concatenate(parts)
    span = best_span(sound, RATE, 10.0)
    assert (span.start / RATE, span.end / RATE) == pytest.approx((1.9, 9.6), abs=0.05)
    assert span.speech > 0.85 and not span.clipped
    span = best_span(sound, RATE, 6.5)
    assert (span.start / RATE, span.end / RATE) == pytest.approx((12.4, 18.6), abs=0.05)


def test_a_span_avoids_clipping() -> None:
    clipped = np.clip(speech(6, 4.0), -1, 1)
    sound = np.concatenate([silence(1), clipped, silence(1), speech(4), silence(1)])
    span = best_span(sound, RATE, 10.0)
    assert not span.clipped and span.start / RATE > 7
    assert best_span(clipped, RATE, 10.0).clipped


def test_a_span_of_speech_without_pauses_and_of_none() -> None:
    span = best_span(np.concatenate([silence(1), speech(30)]), RATE, 10.0)
    assert (span.start / RATE, span.end / RATE) == pytest.approx((0.9, 10.9), abs=0.05)
    span = best_span(speech(3), RATE, 10.0)
    assert (span.end - span.start) / RATE == pytest.approx(3, abs=0.05)
    for nothing in (silence(3), silence(0), speech(0.1)):
        with pytest.raises(ValueError, match="no speech"):
            best_span(nothing, RATE, 10.0)


def test_the_command_trims(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sound = np.concatenate([silence(2), speech(4), silence(1), speech(12)])
    soundfile.write(tmp_path / "long.wav", sound, RATE)
    out = tmp_path / "short.wav"
    assert main(["voice", "trim", str(tmp_path / "long.wav"), "-o", str(out)]) == 0
    assert "of it speech" in capsys.readouterr().err
    assert 4 <= soundfile.info(out).duration <= 10
    soundfile.write(tmp_path / "still.wav", silence(2), RATE)
    before = out.read_bytes()
    assert main(["voice", "trim", str(tmp_path / "still.wav"), "-o", str(out)]) == 1
    assert main(["voice", "trim", str(tmp_path / "gone.wav"), "-o", str(out)]) == 1
    assert main(["voice", "trim", str(out), "-o", str(out)]) == 2
    assert out.read_bytes() == before


def test_transcribing_needs_its_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "faster_whisper", None)
    soundfile.write(tmp_path / "me.wav", speech(2), RATE)
    arguments = ["voice", "create", str(tmp_path / "me.wav"), "-o", str(tmp_path / "me.voice")]
    assert main([*arguments, "--transcribe"]) == 1
    assert "pip install 'csm-ggml[whisper]'" in capsys.readouterr().err
    assert not (tmp_path / "me.voice").exists()


@pytest.mark.whisper
def test_a_draft_is_shown_before_the_voice_is_saved(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    audio = CSM.from_pretrained("demo", device="cpu").generate(
        "[0]The sun comes up early in the summer.", seed=7
    )
    audio.save(tmp_path / "me.wav")
    arguments = ["voice", "create", str(tmp_path / "me.wav"), "-o", str(tmp_path / "me.voice")]
    assert main([*arguments, "--transcribe"]) == 2
    shown = capsys.readouterr()
    assert "summer" in shown.out and "--yes" in shown.err
    assert not (tmp_path / "me.voice").exists()
    assert main([*arguments, "--transcribe", "--yes"]) == 0
    assert Voice.load(tmp_path / "me.voice").transcript == shown.out.strip()
    # Nothing is fetched that was not asked for.
    assert main([*arguments, "--transcribe", "small"]) == 1
    assert "--download" in capsys.readouterr().err
