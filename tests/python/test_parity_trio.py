"""The three files of a llama.cpp conversion compute what the converted checkpoint does.

Their weights are interleaved already, their codec has no hyper-parameters, and their RoPE no
scaling. Matrices are F16 on both sides, since products with F16 matrices round what they are
multiplied with.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import checkpoints
import numpy as np
import pytest
from csm_ggml import _core
from csm_ggml.convert import convert
from numpy.typing import NDArray
from reference import draws, engines, scenes
from reference.recipes import BOS


@pytest.fixture(scope="module", params=[1, 2], ids="{} empty head pages".format)
def trio(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("trio")
    return sorted(checkpoints.write_llama_csm(folder, pages=request.param).glob("*.gguf"))


@pytest.fixture(scope="module")
def wanted(tmp_path_factory: pytest.TempPathFactory) -> _core.Model:
    folder = tmp_path_factory.mktemp("converted")
    convert(
        checkpoints.write_transformers(folder / "source"),
        folder / "whole.gguf",
        type="f16",
        codec_type="f16",
    )
    return _core.Model([str(folder / "whole.gguf")], device="cpu", threads=1)


def load(files: list[Path]) -> _core.Model:
    return _core.Model([str(path) for path in files], device="cpu", threads=1)


def test_configuration(trio: list[Path], wanted: _core.Model) -> None:
    """What shapes and keys tell is what the converter wrote; the order of the files does not
    matter.
    """
    for files in (trio, trio[::-1]):
        config = load(files).config
        assert config["layout"] == "llama-csm"
        for key, value in wanted.config.items():
            if key not in ("layout", "general.name"):
                assert config[key] == pytest.approx(value), key


def test_language_models(trio: list[Path], wanted: _core.Model) -> None:
    text = draws.integers(1, "trio text", (30,), BOS)
    codes = draws.integers(1, "trio codes", (12, checkpoints.CODEBOOKS), checkpoints.CODES)
    prompt = scenes.join(
        scenes.text_rows(text, checkpoints.CODEBOOKS),
        scenes.audio_rows(codes),
        scenes.text_rows(text, checkpoints.CODEBOOKS),
    )
    runs: list[Callable[[_core.Model], NDArray[np.float32]]] = [
        lambda model: engines.prefill_logits(model, prompt),
        lambda model: engines.forced_logits(model, prompt, codes),
    ]
    for run in runs:
        ours, theirs = run(load(trio)), run(wanted)
        error = np.abs(ours - theirs).max(axis=-1) / np.ptp(theirs, axis=-1)
        assert error.max() < 2e-4


def test_codec(trio: list[Path], wanted: _core.Model) -> None:
    """Convolutions are F16 in the trio, and exact."""
    codes = draws.integers(2, "trio codes", (20, checkpoints.CODEBOOKS), checkpoints.CODES)
    sound = _core.MimiDecoder(wanted).decode(codes)
    np.testing.assert_allclose(
        _core.MimiDecoder(load(trio)).decode(codes), sound, atol=1e-4 * max(np.abs(sound).max(), 1)
    )
    noise = draws.centred(3, "trio sound", (len(sound),)) * np.float32(0.3)
    ours, theirs = (
        _core.MimiEncoder(m).encode(noise, return_latents=True) for m in (load(trio), wanted)
    )
    np.testing.assert_allclose(ours[1], theirs[1], atol=1e-4 * np.ptp(theirs[1]))
    assert (ours[0] == theirs[0]).mean() > 0.95
