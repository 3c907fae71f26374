"""Arguments out of bounds, or of a wrong kind: named, with what was got, before any computing."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from csm_ggml import CSM, Audio, Voice
from csm_ggml.audio.load import load_audio

HUGE = 10**400


@pytest.fixture(scope="module")
def csm(path: Path) -> CSM:
    return CSM.from_pretrained(path, device="cpu", threads=1)


@pytest.mark.parametrize(
    ("option", "values"),
    [
        ("temperature", (-1, 1e39, 1e-9, float("nan"), float("inf"), HUGE)),
        ("depth_temperature", (-1, 1e39)),
        ("top_k", (-1, 2**31, HUGE)),
        ("top_p", (0, 1e-50, 1.1, float("nan"))),
        ("depth_top_p", (0, 1e-50)),
        ("max_seconds", (0, -1, 1e308, float("inf"), HUGE)),
        ("max_frames", (0, 10**9, HUGE)),
        ("silence_seconds", (-1, 1e9)),
        ("silence_db", (1, -1e9, float("-inf"))),
        ("loop_seconds", (-1, 1e9, HUGE)),
        ("retries", (-1, 10**9)),
        ("seed", (-1, 2**64, HUGE)),
    ],
)
def test_options_have_bounds(csm: CSM, option: str, values: tuple[Any, ...]) -> None:
    for value in values:
        with pytest.raises(ValueError, match=rf"^{option} must be .*, got ") as caught:
            csm.submit("Hi.", **{option: value})
        assert len(str(caught.value)) < 200
    for value in ("1", None if option == "seed" else [1], {}, b"1", True):
        if value is not None:
            with pytest.raises(TypeError, match=rf"^{option} must be "):
                csm.submit("Hi.", **{option: value})


def test_counts_have_bounds(csm: CSM) -> None:
    with pytest.raises(ValueError, match="batch_size must be 1 to 256 utterances"):
        csm.generate_batch(["Hi."], batch_size=2000)
    for name in ("first_chunk_frames", "chunk_frames"):
        with pytest.raises(ValueError, match=f"{name} must be 1 to 1000000 frames, got 0"):
            csm.stream("Hi.", **{name: 0})
    for threads in (0, 100_000, 10**20):
        with pytest.raises(ValueError, match="threads must be 1 to 1024"):
            CSM.from_pretrained("demo", threads=threads)


@pytest.mark.parametrize("rate", [0, 1, 999, 768_001, 1e300, float("nan"), float("inf"), HUGE])
def test_rates_have_bounds(csm: CSM, rate: Any) -> None:
    with pytest.raises(ValueError, match="sample_rate must be 1000 to 768000 Hz, got"):
        csm.encode(np.zeros(4000, np.float32), rate)


def test_extreme_rates_are_read(csm: CSM) -> None:
    for rate in (1000, 768_000, 44_100.0):
        assert len(csm.encode(np.zeros(int(rate), np.float32), rate)) == 13


def test_wrong_kinds(csm: CSM, tmp_path: Path) -> None:
    one = csm.generate("Hi.", max_frames=1)
    calls: list[tuple[Any, str]] = [
        (lambda: CSM.from_pretrained(5), "a model is a name, a path or a list of paths, got 5"),
        (lambda: CSM.from_pretrained("demo", device=5), "device must be a str .* got 5"),
        (lambda: CSM.from_pretrained("demo", threads="2"), "threads must be an int, got '2'"),
        (lambda: csm.encode(np.zeros(4000), "24000"), "sample_rate must be a number, got '24000'"),
        (lambda: csm.encode(np.zeros(4000), [1]), r"sample_rate must be a number, got \[1\]"),
        (lambda: Voice.load(5), "the path of a voice file must be a str or a Path, got 5"),
        (lambda: load_audio(5, 24000), "the path of an audio file must be a str or a Path, got 5"),
        (lambda: one.save(5), "path must be a file name or an open binary file, got 5"),
        (lambda: one.save(tmp_path / "x.wav", format=5), "format must be a str, got 5"),
        (lambda: one.save(tmp_path / "x.wav", subtype=5), "subtype must be a str, got 5"),
        (lambda: Audio.concatenate([one, 5]), "chunks must be Audio, got 5"),
        (lambda: Voice.from_bytes("x"), "a voice file is bytes, got str"),
    ]
    for call, message in calls:
        with pytest.raises(TypeError, match=message):
            call()
    assert not list(tmp_path.iterdir())
