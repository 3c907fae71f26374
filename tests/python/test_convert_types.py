"""Number formats: which tensor gets which, what does not fit, changing them in a file of ours."""

from __future__ import annotations

from pathlib import Path

import checkpoints
import gguf
import numpy as np
import pytest
from csm_ggml import ModelFormatError
from csm_ggml.convert import (
    QUANTIZATION_PRESETS,
    WEIGHT_TYPES,
    convert,
    make_random,
    quantize_file,
)
from csm_ggml.convert import types as number_types

# widths that every format's block divides, at a size that is quantized in no time
DIVISIBLE = {
    "csm.backbone.block_count": 1,
    "csm.depth.block_count": 1,
    "csm.depth.embedding_length": 256,
    "csm.depth.attention.head_count": 8,
    "mimi.transformer.block_count": 1,
}


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return checkpoints.write_transformers(tmp_path_factory.mktemp("types") / "source")


@pytest.fixture(scope="module")
def divisible(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("types") / "divisible.gguf"
    return make_random(path, type="f32", overrides=DIVISIBLE).path


def kinds(path: Path) -> dict[str, str]:
    return {name: kind for name, (kind, _, _) in checkpoints.read(path).items()}


@pytest.mark.parametrize("kind", WEIGHT_TYPES)
def test_policy(kind: str, divisible: Path, tmp_path: Path) -> None:
    report = quantize_file(divisible, tmp_path / "out.gguf", kind)
    found = kinds(report.path)
    matrices = [
        "backbone.blk.0.attn_q.weight",
        "backbone.blk.0.ffn_down.weight",
        "depth.blk.0.attn_output.weight",
    ]
    assert {found[name] for name in matrices} == {kind}
    table = kind if kind in ("f32", "f16", "bf16") else "q8_0"
    heads = ["codebook0_head.weight", "depth.projection.weight", "depth.heads.weight"]
    assert {found[name] for name in heads} == {table}
    assert found["text_embd.weight"] == found["audio_embd.weight"] == table
    others = {n: k for n, k in found.items() if n.startswith("mimi.") or "norm" in n or "rope" in n}
    assert set(others.values()) == {"f32"}
    assert report.notes == ()


@pytest.mark.parametrize("kind", [t for t in WEIGHT_TYPES if t not in ("f32", "f16", "bf16")])
def test_quantized_values_are_near(kind: str, divisible: Path, tmp_path: Path) -> None:
    quantize_file(divisible, tmp_path / "out.gguf", kind)
    name = "backbone.blk.0.ffn_up.weight"
    exact = checkpoints.read_values(divisible)[name].astype(np.float64)
    made = checkpoints.read_values(tmp_path / "out.gguf")[name]
    error = np.sqrt(np.mean((made - exact) ** 2) / np.mean(exact**2))
    bits = 8 * number_types.row_bytes(kind, 256) / 256
    # one bit less doubles the error; random weights at 8.5 bits have 0.5 percent
    assert error < 0.011 * 2 ** (8.5 - bits)


@pytest.mark.parametrize("kind", ["q8_0", "q4_0", "q5_1", "q4_1", "q5_0"])
def test_blocks_are_those_of_the_gguf_library(kind: str, divisible: Path, tmp_path: Path) -> None:
    """An independent implementation of the simple formats reads the same values.

    Its own blocks have no smaller error: it takes scales from the largest value, as the formats'
    definition does, where ours are searched for the least error.
    """
    quantize_file(divisible, tmp_path / "out.gguf", kind)
    name = "depth.blk.0.ffn_gate.weight"
    exact = checkpoints.read_values(divisible)[name]
    made = checkpoints.read_values(tmp_path / "out.gguf")[name]
    library = gguf.GGMLQuantizationType[kind.upper()]
    blocks = np.frombuffer(checkpoints.read(tmp_path / "out.gguf")[name][2], np.uint8)
    read = gguf.dequantize(blocks.reshape(len(exact), -1), library)
    np.testing.assert_array_equal(made, read)
    theirs = gguf.dequantize(gguf.quantize(exact, library), library)
    assert np.square(made - exact).mean() <= np.square(theirs - exact).mean() * (1 + 1e-6)


def test_depth_type_and_codec_type(source: Path, tmp_path: Path) -> None:
    report = convert(source, tmp_path / "out.gguf", type="q8_0", depth_type="F16", codec_type="f16")
    found = kinds(report.path)
    assert found["backbone.blk.0.attn_q.weight"] == "q8_0"
    assert found["depth.blk.0.attn_q.weight"] == "f16"
    assert found["depth.heads.weight"] == found["depth.projection.weight"] == "f16"
    assert found["mimi.decoder.layers.0.conv.weight"] == "f16"
    assert found["mimi.decoder_transformer.blk.0.ffn_up.weight"] == "f16"
    assert found["mimi.decoder.layers.0.conv.bias"] == "f32"
    assert found["mimi.quantizer.semantic.layers.0.codebook"] == "f32"


def test_rows_that_do_not_fit_the_block(source: Path, tmp_path: Path) -> None:
    report = convert(source, tmp_path / "out.gguf", type="q4_k")
    found = kinds(report.path)
    # rows of 96 values: blocks of 256 do not divide them, q8_0's 32 do
    assert found["backbone.blk.0.attn_q.weight"] == "q8_0"
    assert (
        "backbone.blk.0.attn_q.weight and 11 other tensors: "
        "rows of 96 values do not fit q4_k, stored as q8_0" in report.notes
    )


def test_rows_that_fit_no_block(tmp_path: Path) -> None:
    output = tmp_path / "out.gguf"
    report = make_random(output, type="q4_0", overrides={"csm.depth.feed_forward_length": 40})
    assert kinds(output)["depth.blk.0.ffn_down.weight"] == "f16"
    assert any("rows of 40 values" in note for note in report.notes)


@pytest.mark.parametrize("kind", ["f32", "bf16", "q8_0", "q4_0"])
def test_quantizing_a_file_is_converting_to_the_type(
    kind: str, source: Path, tmp_path: Path
) -> None:
    convert(source, tmp_path / "f32.gguf", type="f32")
    quantize_file(tmp_path / "f32.gguf", tmp_path / "by file.gguf", kind)
    convert(source, tmp_path / "direct.gguf", type=kind)
    assert (tmp_path / "by file.gguf").read_bytes() == (tmp_path / "direct.gguf").read_bytes()


def test_tensors_that_keep_their_type_keep_their_bytes(divisible: Path, tmp_path: Path) -> None:
    first = quantize_file(divisible, tmp_path / "first.gguf", "q4_k", "q8_0")
    again = quantize_file(first.path, tmp_path / "again.gguf", "q4_k", "q8_0")
    assert first.path.read_bytes() == again.path.read_bytes()
    other = quantize_file(first.path, tmp_path / "other.gguf", "q4_k", "f16")
    before, after = checkpoints.read(first.path), checkpoints.read(other.path)
    assert after["backbone.blk.0.attn_q.weight"] == before["backbone.blk.0.attn_q.weight"]
    assert after["depth.blk.0.attn_q.weight"][0] == "f16"
    assert other.notes == ("made from q8_0 weights: their loss stays; a float source gives more",)


@pytest.mark.parametrize("preset", QUANTIZATION_PRESETS)
def test_a_preset_is_the_types_it_stands_for(
    preset: str, source: Path, divisible: Path, tmp_path: Path
) -> None:
    policy = QUANTIZATION_PRESETS[preset]
    for make, made in ((convert, source), (quantize_file, divisible)):
        short = make(made, tmp_path / "short.gguf", preset=preset, codec_type="f16").path
        types = {"type": policy.type, "depth_type": policy.depth_type, "codec_type": "f16"}
        long = make(made, tmp_path / "long.gguf", **types).path
        assert short.read_bytes() == long.read_bytes()


def test_a_preset_beside_types(source: Path, divisible: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.gguf"
    with pytest.raises(ValueError, match=r"preset='slow': expected one of fast, .*exact"):
        convert(source, out, preset="slow")
    with pytest.raises(ValueError, match=r"preset='fast' says the types .* already: leave out"):
        convert(source, out, preset="fast", type="q8_0")
    with pytest.raises(ValueError, match=r"preset='fast' says the types .* already: leave out"):
        quantize_file(divisible, out, depth_type="q8_0", preset="fast")
    with pytest.raises(ValueError, match="expected a type, such as 'q8_0', or a preset: fast, "):
        quantize_file(divisible, out)
    assert not out.exists()


def test_unknown_type(source: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"type='q9_k'.*expected one of f32, f16, bf16, q8_0"):
        convert(source, tmp_path / "out.gguf", type="q9_k")
    with pytest.raises(ValueError, match="depth_type='i32'"):
        convert(source, tmp_path / "out.gguf", depth_type="i32")
    with pytest.raises(ValueError, match="codec_type='q8_0': expected one of"):
        convert(source, tmp_path / "out.gguf", codec_type="q8_0")


def test_quantizing_something_else(source: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelFormatError, match=r"model\.safetensors: CSM in transformers' format"):
        quantize_file(source / "model.safetensors", tmp_path / "out.gguf", "q8_0")


def test_quantizing_onto_itself(divisible: Path) -> None:
    with pytest.raises(ValueError, match=r"divisible\.gguf: is one of the files to be read"):
        quantize_file(divisible, divisible, "q8_0")
