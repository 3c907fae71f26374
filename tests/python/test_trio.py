"""The three files of llama.cpp's converter load as they are, and speak as ours of them does."""

from __future__ import annotations

from pathlib import Path

import checkpoints
import numpy as np
import pytest
from csm_ggml import CSM, ModelFormatError, ModelNotFoundError
from csm_ggml.convert import convert


@pytest.fixture(scope="module")
def trio(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("trio")
    checkpoints.write_llama_csm(folder)
    return folder


@pytest.mark.parametrize("given", ["folder", "backbone", "list"])
def test_speaks_as_its_conversion(given: str, trio: Path, tmp_path: Path) -> None:
    names = ("sesame-csm-backbone.gguf", "sesame-csm-decoder.gguf", "kyutai-mimi.gguf")
    source: str | list[str] = {
        "folder": str(trio),
        "backbone": str(trio / names[0]),
        "list": [str(trio / name) for name in names],
    }[given]
    direct = CSM.from_pretrained(source, threads=1)
    assert direct.config["layout"] == "llama-csm"
    converted = convert(trio, tmp_path / "one.gguf", type="f32").path
    through_file = CSM.from_pretrained(str(converted), threads=1)
    codes = direct.generate_codes("[0]Hi. [1]Ho.", temperature=0, max_frames=12)
    assert len(codes) > 0
    np.testing.assert_array_equal(
        codes, through_file.generate_codes("[0]Hi. [1]Ho.", temperature=0, max_frames=12)
    )
    np.testing.assert_allclose(direct.decode(codes), through_file.decode(codes), atol=1e-6)


def test_projections_of_the_codec_in_8_bits(trio: Path, tmp_path: Path) -> None:
    """As the pull request's README has its Mimi file made: `--outtype q8_0`."""
    # The rows of these are whole blocks in this small codec.
    coarse = checkpoints.write_llama_csm(tmp_path / "q8_0", mimi_q8_0="input_proj")
    exact, rounded = (CSM.from_pretrained(str(folder), threads=1) for folder in (trio, coarse))
    codes = exact.generate_codes("[0]Hi.", temperature=0, max_frames=12)
    sound = exact.decode(codes)
    assert np.array_equal(rounded.decode(codes), sound)
    ours, theirs = rounded.encode(sound), exact.encode(sound)
    assert ours.shape == theirs.shape and np.mean(ours[:, 0] == theirs[:, 0]) > 0.8


def test_a_missing_file_is_named(trio: Path, tmp_path: Path) -> None:
    for name in ("sesame-csm-backbone.gguf", "sesame-csm-decoder.gguf"):
        (tmp_path / name).write_bytes((trio / name).read_bytes())
    with pytest.raises((ModelFormatError, FileNotFoundError), match=r"(?i)mimi"):
        CSM.from_pretrained(str(tmp_path / "sesame-csm-backbone.gguf"), threads=1)


@pytest.mark.parametrize("way", ["file", "folder", "list"])
@pytest.mark.parametrize(
    ("there", "missing"),
    [
        (("sesame-csm-backbone.gguf",), ("decoder", "mimi")),
        (("kyutai-mimi.gguf",), ("backbone", "decoder")),
        (("sesame-csm-decoder.gguf", "kyutai-mimi.gguf"), ("backbone",)),
    ],
)
def test_a_part_of_a_model_says_what_is_missing(
    trio: Path, tmp_path: Path, way: str, there: tuple[str, ...], missing: tuple[str, ...]
) -> None:
    for name in there:
        (tmp_path / name).write_bytes((trio / name).read_bytes())
    paths = [tmp_path / name for name in there]
    given = {"file": paths[0], "folder": tmp_path, "list": paths}[way]
    if way == "list" and len(paths) == 1:
        return  # the same as the file for the core, whose message it is
    match = f"no {' and no '.join(missing)} file"
    with pytest.raises(ModelNotFoundError, match=match):
        CSM.from_pretrained(given, threads=1)
