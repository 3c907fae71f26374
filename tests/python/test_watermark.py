"""The watermark hook sees every chunk, in order, before anybody else; what it returns is heard."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from csm_ggml import CSM, Audio

OPTIONS: dict[str, Any] = {"seed": 1, "max_frames": 5}
TEXT = "[0]One. [1]Two."


@pytest.fixture
def csm(path: Path) -> CSM:
    return CSM.from_pretrained(path, device="cpu", threads=1)


def test_every_way_out(csm: CSM, tmp_path: Path) -> None:
    plain = csm.generate(TEXT, **OPTIONS)
    seen: list[Audio] = []

    def halve(chunk: Audio) -> np.ndarray:
        seen.append(chunk)
        return chunk.samples / 2

    def check(samples: np.ndarray, codes: np.ndarray) -> None:
        assert np.array_equal(np.concatenate([c.samples for c in seen]), plain.samples)
        assert np.array_equal(samples, plain.samples / 2)
        assert np.array_equal(codes, plain.codes)
        assert [c.finish_reason for c in seen[:-1]] == [None] * (len(seen) - 1)
        assert seen[-1].finish_reason == "max_frames"
        seen.clear()

    csm.watermark = halve
    audio = csm.generate(TEXT, **OPTIONS)
    check(audio.samples, audio.codes)
    chunks = list(csm.stream(TEXT, first_chunk_frames=2, chunk_frames=1, **OPTIONS))
    assert len(seen) == len(chunks) == 9
    check(np.concatenate([c.samples for c in chunks]), np.concatenate([c.codes for c in chunks]))
    [audio] = csm.generate_batch([TEXT], **OPTIONS)
    check(audio.samples, audio.codes)
    with csm.conversation(**OPTIONS) as talk:
        audio = talk.say(TEXT)
    check(audio.samples, audio.codes)

    csm.generate_to_file("Hi there.", tmp_path / "x.wav", retries=0, **OPTIONS)
    [chunk] = seen
    written, _ = soundfile.read(tmp_path / "x.wav")
    assert np.abs(written).max() == pytest.approx(np.abs(chunk.samples).max() / 2, abs=1e-4)
    csm.watermark = None
    assert np.array_equal(csm.generate(TEXT, **OPTIONS).samples, plain.samples)


def test_what_it_returns_is_checked(csm: CSM) -> None:
    csm.watermark = lambda chunk: chunk.samples[:-1]
    with pytest.raises(ValueError, match="the watermark hook must return"):
        csm.generate("Hi.", **OPTIONS)
    csm.watermark = lambda chunk: chunk.samples * np.nan
    with pytest.raises(ValueError, match="NaN or infinite"):
        csm.generate("Hi.", **OPTIONS)
    csm.watermark = lambda chunk: chunk.samples.tolist()
    assert csm.generate("Hi.", **OPTIONS).samples.dtype == np.float32
