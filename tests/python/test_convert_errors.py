"""What is wrong with a checkpoint is said by name, before anything is written."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import checkpoints
import numpy as np
import pytest
from checkpoints import config
from csm_ggml import ModelFormatError, _core
from csm_ggml.convert import convert, quantize_file
from reference.checkpoint import Tensors
from safetensors.numpy import save_file


def fails(source: Path | list[Path], match: str, folder: Path, **options: Any) -> None:
    with pytest.raises(ModelFormatError, match=match):
        convert(source, folder / "out.gguf", **options)
    assert not list(folder.glob("*.gguf*"))
    assert not list(folder.glob(".*.partial"))


Q = "backbone_model.layers.1.self_attn.q_proj.weight"


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (lambda t: t.pop(Q), rf"tensor '{Q}' of shape \[128, 96\] is missing"),
        (
            lambda t: t.update({Q: t[Q][:64]}),
            rf"model\.safetensors: tensor '{Q}' has shape \[64, 96\], expected \[128, 96\]",
        ),
        (
            lambda t: t.update({Q: t[Q].astype(np.int32)}),
            rf"tensor '{Q}' is of type I32; expected one of f32",
        ),
        (
            lambda t: t.update({"backbone_model.layers.2.mlp.extra": t[Q]}),
            r"1 tensors that a CSM model .* 'backbone_model\.layers\.2\.mlp\.extra' \[128, 96\]",
        ),
        (
            lambda t: t.update({"codec_model.encoder.layers.99.conv.bias": t[Q]}),
            r"tensors that .* 'encoder\.layers\.99\.conv\.bias'",
        ),
        (
            lambda t: t.update(
                {"depth_decoder.model.embed_tokens.weight": t["embed_text_tokens.weight"][:140]}
            ),
            r"embed_audio_tokens\.weight' and 'depth_decoder\.model\.embed_tokens\.weight' differ",
        ),
        (
            lambda t: t.pop(
                "codec_model.quantizer.acoustic_residual_vector_quantizer.input_proj.weight"
            ),
            r"acoustic_residual_vector_quantizer\.input_proj\.weight' is missing",
        ),
        (
            lambda t: t.pop("depth_decoder.codebooks_head.weight"),
            r"'depth_decoder\.codebooks_head\.weight' is missing",
        ),
    ],
)
def test_tensors(change: Callable[[Tensors], Any], match: str, tmp_path: Path) -> None:
    values = checkpoints.weights()
    change(values)
    fails(checkpoints.write_transformers(tmp_path / "source", values), match, tmp_path)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_values_that_are_no_numbers(value: float, tmp_path: Path) -> None:
    values = checkpoints.weights()
    values[Q][70, 3] = value
    source = checkpoints.write_transformers(tmp_path / "source", values)
    match = r"backbone\.blk\.1\.attn_q\.weight: rows 0 to 127 hold values that are not finite"
    fails(source, match, tmp_path)


def test_buffers_that_follow_from_the_rest_are_ignored(tmp_path: Path) -> None:
    values = checkpoints.weights()
    frequencies = np.zeros(32, np.float32)
    values["backbone_model.rotary_emb.inv_freq"] = frequencies
    values["depth_decoder.model.layers.0.self_attn.rotary_emb.inv_freq"] = frequencies
    values["codec_model.decoder_transformer.layers.0.self_attn.rotary_emb.inv_freq"] = frequencies
    values["backbone_model.embed_tokens.audio_tokens_offsets"] = np.zeros(4, np.int64)
    source = checkpoints.write_transformers(tmp_path / "source", values)
    convert(source, tmp_path / "out.gguf")


LINEAR = {"rope_type": "linear", "factor": 2.0, "rope_theta": 500000.0}


@pytest.mark.parametrize(
    ("settings", "match"),
    [
        (config(model_type="llama"), r"config\.json: model_type is 'llama', expected 'csm'"),
        (config(hidden_act="gelu"), r"hidden_act is 'gelu', expected 'silu'"),
        (config(attention_bias=True), r"attention_bias is True, expected False"),
        (config(depth_mlp_bias=True), r"depth_decoder_config: mlp_bias is True, expected False"),
        (config(depth_num_codebooks=5), r"depth_decoder_config: num_codebooks is 5, expected 4"),
        (config(depth_vocab_size=36), r"depth_decoder_config: vocab_size is 36, expected 35"),
        (config(depth_backbone_hidden_size=64), r"backbone_hidden_size is 64, expected 96"),
        (config(hidden_size="wide"), r"hidden_size is 'wide', expected a positive integer"),
        (config(num_hidden_layers=-1), r"num_hidden_layers is -1, expected a positive integer"),
        (config(rms_norm_eps=0), r"rms_norm_eps is 0, expected a positive number"),
        (config(depth_decoder_config=[1]), r"depth_decoder_config is \[1\], expected an object"),
        (
            config(num_key_value_heads=3),
            r"backbone has 2 query heads, expected a multiple of its 3",
        ),
        (config(rope_parameters=LINEAR), r"rope_type is 'linear', expected 'default' or 'llama3'"),
        (
            config(depth_rope_parameters={"rope_type": "llama3", "rope_theta": 5e5}),
            r"depth_decoder_config: factor is None, expected a positive number",
        ),
        (config(partial_rotary_factor=0.5), r"partial_rotary_factor is 0\.5, expected 1"),
        (config(codec_model_type="encodec"), r"codec_config: model_type is 'encodec'"),
        (config(codec_use_conv_shortcut=True), r"use_conv_shortcut is True, expected False"),
        (config(codec_use_causal_conv=False), r"use_causal_conv is False, expected True"),
        (config(codec_pad_mode="reflect"), r"pad_mode is 'reflect', expected 'constant'"),
        (config(codec_trim_right_ratio=0.5), r"trim_right_ratio is 0\.5, expected 1\.0"),
        (config(codec_audio_channels=2), r"audio_channels is 2, expected 1"),
        (config(codec_upsample_groups=1), r"upsample_groups is 1, expected 64"),
        (config(codec_hidden_act="relu"), r"hidden_act is 'relu', expected 'gelu'"),
        (config(codec_attention_bias=True), r"attention_bias is True, expected False"),
        (
            config(codec_vector_quantization_hidden_dimension=32),
            r"vector_quantization_hidden_dimension is 32, expected 16",
        ),
        (
            config(codec_upsampling_ratios=[4, 0]),
            r"upsampling_ratios is \[4, 0\], expected 1 to 8",
        ),
        (config(codec_frame_rate=1000.0), r"frame_rate is 1000\.0, expected less than 1000"),
        (
            config(codec_num_semantic_quantizers=4),
            r"4 codebooks, expected more than the 4 semantic",
        ),
        (config(codec_codebook_size=64), r"35 audio codes .* expected at least the codec's 64"),
        (
            config(codec_rope_parameters=checkpoints.LLAMA3_BACKBONE),
            r"codec_config: rope_type is 'llama3', expected 'default'",
        ),
    ],
)
def test_configurations(settings: dict[str, Any], match: str, tmp_path: Path) -> None:
    source = checkpoints.write_transformers(tmp_path / "source", checkpoints.weights(), settings)
    fails(source, match, tmp_path)


def test_damaged_configuration(tmp_path: Path) -> None:
    source = checkpoints.write_transformers(tmp_path / "source")
    (source / "config.json").write_text("{")
    fails(source, r"config\.json: not JSON", tmp_path)
    (source / "config.json").unlink()
    fails(source, r"config\.json: missing", tmp_path)


@pytest.mark.parametrize("left", [0, 3, 8, 100, 50_000, -1])
def test_truncated_safetensors(left: int, tmp_path: Path) -> None:
    source = checkpoints.write_transformers(tmp_path / "source") / "model.safetensors"
    source.write_bytes(source.read_bytes()[:left])
    fails(source, r"model\.safetensors: .*truncated", tmp_path)


@pytest.mark.parametrize(
    ("entry", "match"),
    [
        ({"dtype": "F32", "shape": [2], "data_offsets": [0, 4]}, "has 4 bytes, expected 8"),
        ({"dtype": "F32", "shape": [1], "data_offsets": [4, 8]}, "ends at byte .* truncated"),
        ({"dtype": "F32", "shape": [-1], "data_offsets": [0, 4]}, "damaged table entry"),
        ({"dtype": "F32", "shape": [1]}, "damaged table entry"),
        ("nothing", "damaged table entry"),
    ],
)
def test_damaged_safetensors(entry: object, match: str, tmp_path: Path) -> None:
    text = json.dumps({"lm_head.weight": entry}).encode()
    source = tmp_path / "model.safetensors"
    source.write_bytes(len(text).to_bytes(8, "little") + text + bytes(4))
    fails(source, match, tmp_path)


def test_not_a_weights_file(tmp_path: Path) -> None:
    source = tmp_path / "model.safetensors"
    source.write_bytes((20).to_bytes(8, "little") + b"<html>not this</html>")
    fails(source, "header is not JSON", tmp_path)
    source.write_bytes((2).to_bytes(8, "little") + b"[]")
    fails(source, "not a JSON object", tmp_path)


@pytest.mark.parametrize("left", [0, 4, 20, 700, 5000, -3000])
def test_truncated_gguf(left: int, tmp_path: Path) -> None:
    folder = checkpoints.write_llama_csm(tmp_path / "source")
    backbone = folder / "sesame-csm-backbone.gguf"
    backbone.write_bytes(backbone.read_bytes()[:left])
    fails(folder, r"backbone\.gguf: .*(truncated|bytes left|not a safetensors)", tmp_path)


def test_random_damage_is_an_error_or_harmless(tmp_path: Path) -> None:
    """Whatever a byte of the header is changed to, nothing but ModelFormatError comes out."""
    folder = checkpoints.write_llama_csm(tmp_path / "source")
    decoder = folder / "sesame-csm-decoder.gguf"
    whole = decoder.read_bytes()
    random = np.random.default_rng(1)
    for _ in range(150):
        damaged = bytearray(whole)
        for at in random.integers(0, 4000, 3):
            damaged[at] = random.integers(256)
        decoder.write_bytes(damaged)
        with contextlib.suppress(ModelFormatError):
            convert(folder, tmp_path / "out.gguf")


def test_two_shards_with_the_same_tensor(tmp_path: Path) -> None:
    source = checkpoints.write_transformers(tmp_path / "source", shards=2)
    (source / "copy.safetensors").write_bytes(
        (source / "model-00001-of-00002.safetensors").read_bytes()
    )
    fails(source, r"is also in .*copy\.safetensors; name the file", tmp_path)


def test_incomplete_trio(tmp_path: Path) -> None:
    folder = checkpoints.write_llama_csm(tmp_path / "source")
    (folder / "sesame-csm-decoder.gguf").unlink()
    fails(folder, "CSM decoder of llama.cpp pull request 12648: none; expected one", tmp_path)


def test_wrong_number_of_head_pages(tmp_path: Path) -> None:
    folder = checkpoints.write_llama_csm(tmp_path / "source", pages=0)
    fails(folder, r"'audio_head\.weight' has shape \[1, 35, 64\], expected \[5, 35, 64\]", tmp_path)


def test_no_codec(tmp_path: Path) -> None:
    source = checkpoints.write_original(tmp_path / "source")
    (source / "tokenizer-e351c8d8-checkpoint125.safetensors").unlink()
    fails(source, r"no Mimi weights found; pass mimi= \(--mimi\)", tmp_path)
    fails(source, "no Mimi weights found there", tmp_path, mimi=source / "model.safetensors")


def test_no_tokenizer(tmp_path: Path) -> None:
    source = checkpoints.write_transformers(tmp_path / "source")
    aside = tmp_path / "tokenizer.json"
    (source / "tokenizer.json").rename(aside)
    fails(source, r"tokenizer\.json: missing; pass tokenizer= \(--tokenizer\)", tmp_path)
    convert(source, tmp_path / "out.gguf", tokenizer=aside)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (lambda c: c["model"].update(type="Unigram"), "the tokenizer is a Unigram, expected BPE"),
        (lambda c: c.pop("model"), r"not a BPE tokenizer\.json: model is None"),
        (lambda c: c.update(normalizer={"type": "NFC"}), "has the normalizer .*NFC.*expected none"),
        (
            lambda c: c.update(pre_tokenizer={"type": "Whitespace"}),
            "cuts text by .*Whitespace.*expected one of",
        ),
        (
            lambda c: c["model"]["vocab"].update(many=400),
            "401 tokens, expected at most the 320 rows",
        ),
        (lambda c: c["model"]["vocab"].update(many=1 << 40), "id of token 'many' is 1099511627776"),
        (lambda c: c["model"]["vocab"].update(many=1 << 20), "token ids up to"),
    ],
)
def test_tokenizers(change: Callable[[dict[str, Any]], Any], match: str, tmp_path: Path) -> None:
    source = checkpoints.write_transformers(tmp_path / "source")
    path = source / "tokenizer.json"
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))
    fails(source, match, tmp_path)


def test_marks_of_another_name(tmp_path: Path) -> None:
    source = checkpoints.write_transformers(tmp_path / "source")
    path = source / "tokenizer.json"
    path.write_text(path.read_text().replace("<|begin_of_text|>", "<s>"))
    fails(source, r"no token '<\|begin_of_text\|>'; name the bos_token", tmp_path)
    (source / "tokenizer_config.json").write_text(json.dumps({"bos_token": {"content": "<s>"}}))
    convert(source, tmp_path / "out.gguf")
    keys = checkpoints.read_keys(tmp_path / "out.gguf")
    assert keys["tokenizer.ggml.tokens"][keys["csm.bos_token_id"]] == "<s>"


def test_other_models(tmp_path: Path) -> None:
    other = tmp_path / "other.safetensors"
    save_file({"model.layers.0.weight": np.zeros((2, 2), np.float32)}, other)
    fails(other, r"no CSM checkpoint \(other\.safetensors: none of them\)", tmp_path)


def test_our_own_file(tmp_path: Path) -> None:
    folder = tmp_path / "made"
    folder.mkdir()
    source = checkpoints.write_transformers(tmp_path / "source")
    convert(source, folder / "model.gguf")
    fails(folder / "model.gguf", "already a csm-ggml file.*csm-ggml quantize", tmp_path)


def test_missing_paths(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"absent: no such file or folder"):
        convert(tmp_path / "absent", tmp_path / "out.gguf")
    source = checkpoints.write_transformers(tmp_path / "source")
    with pytest.raises(FileNotFoundError, match=r"there is no folder .*out\.gguf"):
        convert(source, tmp_path / "absent" / "out.gguf")


def test_a_failure_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = checkpoints.write_transformers(tmp_path / "source")
    output = tmp_path / "out.gguf"
    output.write_bytes(b"old")
    calls = iter(range(20))

    def failing(*args: Any) -> Any:
        if next(calls) == 10:
            raise KeyboardInterrupt
        return np.zeros((args[0].shape[0], 34 * args[0].shape[1] // 32), np.uint8)

    monkeypatch.setattr("csm_ggml._core.quantize", failing)
    with pytest.raises(KeyboardInterrupt):
        convert(source, output, type="q8_0")
    assert output.read_bytes() == b"old"
    assert not list(tmp_path.glob(".*"))


def test_files_that_the_engine_refuses_are_no_sources(tmp_path: Path) -> None:
    """One reader checks GGUF headers, for loading and for converting."""
    source = checkpoints.write_transformers(tmp_path / "source")
    whole = convert(source, tmp_path / "model.gguf").path.read_bytes()
    path = tmp_path / "damaged.gguf"
    for damaged in (whole + bytes(64), whole[:-64], b"GGUF\x00\x00\x00\x03" + whole[8:]):
        path.write_bytes(damaged)
        with pytest.raises(ModelFormatError) as loading:
            _core.Model([str(path)], device="cpu", threads=1)
        with pytest.raises(ModelFormatError) as converting:
            quantize_file(path, tmp_path / "out.gguf", "q8_0")
        assert str(converting.value) == str(loading.value)
