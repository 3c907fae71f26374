"""Every form of one checkpoint becomes the same file, with what docs/GGUF.md asks for."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import checkpoints
import numpy as np
import pytest
from csm_ggml import _core
from csm_ggml.convert import convert, tensors
from safetensors.numpy import save_file


def split_codec(folder: Path) -> tuple[Path, Path]:
    """transformers' language models and a codec file of its own, with its own configuration."""
    both = checkpoints.weights()
    codec = checkpoints.mimi(both)
    language = {n: v for n, v in both.items() if not n.startswith("codec_model.")}
    checkpoints.write_transformers(folder / "language", language)
    (folder / "codec").mkdir()
    save_file(codec, folder / "codec" / "model.safetensors")
    settings = checkpoints.CONFIG["codec_config"]
    (folder / "codec" / "config.json").write_text(json.dumps(settings))
    return folder / "language", folder / "codec"


def untied(folder: Path, *, keep: str) -> Path:
    """Only one of the two models holds the audio table, as save_pretrained writes tied ones."""
    values = checkpoints.weights()
    for name in (
        "backbone_model.embed_tokens.embed_audio_tokens.weight",
        "depth_decoder.model.embed_tokens.weight",
    ):
        if not name.startswith(keep):
            del values[name]
    return checkpoints.write_transformers(folder, values)


def hub(folder: Path) -> Path:
    """Both formats in one folder like sesame/csm-1b; the original's weights are others."""
    strange = {n: v + 1 for n, v in checkpoints.original_language(checkpoints.weights()).items()}
    checkpoints.write_transformers(folder, shards=2, prefix="transformers")
    save_file(strange, folder / "model.safetensors")
    return folder


def original_beside_codec(folder: Path) -> tuple[Path, Path]:
    source = checkpoints.write_original(folder / "original")
    codec = folder / "mimi.safetensors"
    (source / "tokenizer-e351c8d8-checkpoint125.safetensors").rename(codec)
    return source, codec


FORMS: dict[str, Callable[[Path], Path | tuple[Path, Path]]] = {
    "transformers": checkpoints.write_transformers,
    "transformers, file": lambda f: checkpoints.write_transformers(f) / "model.safetensors",
    "transformers, newer names": lambda f: checkpoints.write_transformers(f, nested=True),
    "transformers, sharded": lambda f: checkpoints.write_transformers(f, shards=5),
    "transformers, backbone's table": lambda f: untied(f, keep="backbone_model"),
    "transformers, depth decoder's table": lambda f: untied(f, keep="depth_decoder"),
    "transformers, codec apart": split_codec,
    "hub folder": hub,
    "original": checkpoints.write_original,
    "original, codec apart": original_beside_codec,
    "llama-csm": checkpoints.write_llama_csm,
    "llama-csm, backbone file": lambda f: (
        checkpoints.write_llama_csm(f) / "sesame-csm-backbone.gguf"
    ),
    "llama-csm, one empty page": lambda f: checkpoints.write_llama_csm(f, pages=1),
}


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The checkpoint converted from transformers' flat names."""
    folder = tmp_path_factory.mktemp("plain")
    source = checkpoints.write_transformers(folder / "source")
    return convert(source, folder / "plain.gguf", type="f32", name="conversion").path


@pytest.mark.parametrize("form", FORMS)
def test_every_form_becomes_the_same_file(form: str, plain: Path, tmp_path: Path) -> None:
    made = FORMS[form](tmp_path / "source")
    source, codec = made if isinstance(made, tuple) else (made, None)
    output = tmp_path / "out.gguf"
    convert(source, output, type="f32", mimi=codec, name="conversion")
    assert checkpoints.read(output) == checkpoints.read(plain)
    assert checkpoints.read_keys(output) == checkpoints.read_keys(plain)
    assert output.read_bytes() == plain.read_bytes()


def test_the_engine_loads_it(plain: Path) -> None:
    model = _core.Model([str(plain)], device="cpu", threads=1)
    assert model.config["csm.codebooks"] == checkpoints.CODEBOOKS
    assert model.config["mimi.has_encoder"]
    assert len(model.tokenizer["tokens"]) == checkpoints.TEXT_VOCAB


def test_shapes_and_types_are_those_of_the_format(plain: Path) -> None:
    found = checkpoints.read(plain)
    assert {kind for kind, _, _ in found.values()} == {"f32"}
    shapes = {name: shape for name, (_, shape, _) in found.items()}
    assert shapes["text_embd.weight"] == (checkpoints.TEXT_VOCAB, 96)
    assert shapes["audio_embd.weight"] == (4 * 35, 96)
    assert shapes["backbone.blk.1.attn_q.weight"] == (128, 96)
    assert shapes["backbone.blk.1.attn_k.weight"] == (64, 96)
    assert shapes["backbone.blk.1.attn_output.weight"] == (96, 128)
    assert shapes["backbone.rope_freqs.weight"] == (32,)
    assert shapes["depth.rope_freqs.weight"] == (64,)
    assert shapes["depth.projection.weight"] == (64, 96)
    assert shapes["depth.heads.weight"] == (3, 35, 64)
    assert shapes["mimi.decoder.layers.0.conv.weight"] == (32, 64, 5)
    assert shapes["mimi.decoder.layers.2.conv.weight"] == (32, 16, 8)
    assert shapes["mimi.upsample.conv.weight"] == (64, 1, 4)
    assert shapes["mimi.quantizer.acoustic.input_proj.weight"] == (16, 64)
    assert shapes["mimi.quantizer.acoustic.layers.2.codebook"] == (32, 16)


def test_values(plain: Path) -> None:
    source, made = checkpoints.weights(), checkpoints.read_values(plain)
    # half-split to neighbouring pairs: head 1 of two, 64 wide, pair 5
    theirs = source["backbone_model.layers.0.self_attn.q_proj.weight"]
    ours = made["backbone.blk.0.attn_q.weight"]
    np.testing.assert_array_equal(ours[64 + 10], theirs[64 + 5])
    np.testing.assert_array_equal(ours[64 + 11], theirs[64 + 32 + 5])
    value = "backbone_model.layers.0.self_attn.v_proj.weight"
    np.testing.assert_array_equal(made["backbone.blk.0.attn_v.weight"], source[value])
    # heads: (in, out) to (out, in)
    heads = source["depth_decoder.codebooks_head.weight"]
    np.testing.assert_array_equal(made["depth.heads.weight"][2], heads[2].T)
    # codebooks: sums over counts, which are clamped at 1e-5
    book = "codec_model.quantizer.acoustic_residual_vector_quantizer.layers.1.codebook."
    sums, usage = source[book + "embed_sum"], source[book + "cluster_usage"]
    assert (usage < 1e-5).any()
    np.testing.assert_array_equal(
        made["mimi.quantizer.acoustic.layers.1.codebook"],
        sums / np.maximum(usage, np.float32(1e-5))[:, None],
    )


def test_small_slices_give_the_same_file(
    plain: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tensors, "ROUGH_CHUNK", 1000)
    source = checkpoints.write_transformers(tmp_path / "source")
    output = tmp_path / "out.gguf"
    convert(source, output, type="f32", name="conversion")
    assert output.read_bytes() == plain.read_bytes()


def test_bfloat16_source(tmp_path: Path) -> None:
    source = checkpoints.write_transformers(tmp_path / "source")
    _store_as_bfloat16(source / "model.safetensors")
    convert(source, tmp_path / "out.gguf", type="bf16")
    kind, _, data = checkpoints.read(tmp_path / "out.gguf")["backbone.blk.0.ffn_up.weight"]
    wanted = checkpoints.weights()["backbone_model.layers.0.mlp.up_proj.weight"]
    assert kind == "bf16"
    np.testing.assert_array_equal(
        np.frombuffer(data, np.uint16), wanted.reshape(-1).view(np.uint32) >> 16
    )


def _store_as_bfloat16(path: Path) -> None:
    """Cut the lower halves of all numbers off."""
    header: dict[str, object] = {}
    body = b""
    for name, values in checkpoints.weights().items():
        data = (values.view(np.uint32) >> 16).astype(np.uint16).tobytes()
        span = [len(body), len(body) + len(data)]
        header[name] = {"dtype": "BF16", "shape": values.shape, "data_offsets": span}
        body += data
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + body)


def test_keys(plain: Path) -> None:
    keys = checkpoints.read_keys(plain)
    assert keys["general.architecture"] == "csm"
    assert keys["general.name"] == "conversion"
    assert keys["csm.format_version"] == 1
    assert keys["csm.audio_vocab_size"] == 35
    assert keys["csm.depth.attention.head_dim"] == 128
    assert keys["csm.backbone.rope.freq_base"] == 500000.0
    assert keys["mimi.upsampling_ratios"] == [4, 3, 2]
    assert keys["mimi.resample_stride"] == 2
    assert keys["mimi.transformer.attention.sliding_window"] == 250
    assert keys["csm.bos_token_id"] == keys["tokenizer.ggml.tokens"].index("<|begin_of_text|>")
    assert keys["csm.eos_token_id"] == keys["tokenizer.ggml.tokens"].index("<|end_of_text|>")
    kinds = keys["tokenizer.ggml.token_type"]
    assert kinds[keys["csm.bos_token_id"]] == 3
    assert kinds[0] == 1
    assert not [key for key in keys if key.startswith("csm.generation.")]


@pytest.mark.parametrize(
    ("settings", "wanted"),
    [
        (
            {
                "do_sample": True,
                "temperature": 0.8,
                "top_k": 40,
                "top_p": 0.95,
                "depth_decoder_do_sample": True,
                "depth_decoder_temperature": 0.7,
                "depth_decoder_top_k": 30,
                "depth_decoder_top_p": 0.9,
            },
            {
                "temperature": 0.8,
                "top_k": 40,
                "top_p": 0.95,
                "depth_temperature": 0.7,
                "depth_top_k": 30,
                "depth_top_p": 0.9,
            },
        ),
        # transformers samples at 1 where no temperature is given, and takes the best code without
        # do_sample
        (
            {"do_sample": True, "depth_decoder_do_sample": False, "depth_decoder_temperature": 0.9},
            {"temperature": 1.0, "depth_temperature": 0.0},
        ),
        ({"bos_token_id": 1}, {}),
    ],
)
def test_generation_defaults(
    settings: dict[str, object], wanted: dict[str, float], tmp_path: Path
) -> None:
    source = checkpoints.write_transformers(tmp_path / "source")
    (source / "generation_config.json").write_text(json.dumps(settings))
    convert(source, tmp_path / "out.gguf", type="f16")
    keys = checkpoints.read_keys(tmp_path / "out.gguf")
    prefix = "csm.generation."
    found = {k.removeprefix(prefix): v for k, v in keys.items() if k.startswith(prefix)}
    assert found == pytest.approx(wanted)


def test_a_codec_with_more_codebooks_than_are_spoken(plain: Path, tmp_path: Path) -> None:
    more = checkpoints.config(codec_num_quantizers=6)
    values = checkpoints.weights()
    book = "codec_model.quantizer.acoustic_residual_vector_quantizer.layers.{}.codebook.{}"
    for layer in (3, 4):
        for part in ("embed_sum", "cluster_usage", "initialized"):
            values[book.format(layer, part)] = values[book.format(0, part)]
    source = checkpoints.write_transformers(tmp_path / "source", values, more)
    report = convert(source, tmp_path / "out.gguf", type="f32", name="conversion")
    assert (tmp_path / "out.gguf").read_bytes() == plain.read_bytes()
    assert any("codebooks beyond the 4" in note for note in report.notes)


def test_a_codec_without_encoder(tmp_path: Path) -> None:
    prefixes = ("encoder.", "encoder_transformer.", "downsample.")
    values = {
        n: v
        for n, v in checkpoints.weights().items()
        if not n.removeprefix("codec_model.").startswith(prefixes)
    }
    source = checkpoints.write_transformers(tmp_path / "source", values)
    report = convert(source, tmp_path / "out.gguf", type="f32")
    assert any("no encoder" in note for note in report.notes)
    model = _core.Model([str(report.path)], device="cpu", threads=1)
    assert not model.config["mimi.has_encoder"]


def test_a_codec_whose_widths_need_no_projection(tmp_path: Path) -> None:
    settings = checkpoints.config(
        codec_codebook_dim=64, codec_vector_quantization_hidden_dimension=64
    )
    values = {n: v for n, v in checkpoints.weights(settings).items() if "put_proj" not in n}
    source = checkpoints.write_transformers(tmp_path / "source", values, settings)
    convert(source, tmp_path / "out.gguf")
    made = checkpoints.read_values(tmp_path / "out.gguf")
    np.testing.assert_array_equal(made["mimi.quantizer.semantic.output_proj.weight"], np.eye(64))


def test_older_configurations(plain: Path, tmp_path: Path) -> None:
    """rope_theta and rope_scaling, a stated frame rate, defaults left out."""
    settings = checkpoints.config(codec_frame_rate=24000 / 48)
    for part in (settings, settings["depth_decoder_config"]):
        rope = part.pop("rope_parameters")
        part["rope_theta"] = rope.pop("rope_theta")
        part["rope_scaling"] = rope
        del part["rms_norm_eps"]
    source = checkpoints.write_transformers(tmp_path / "source", checkpoints.weights(), settings)
    convert(source, tmp_path / "out.gguf", type="f32", name="conversion")
    assert (tmp_path / "out.gguf").read_bytes() == plain.read_bytes()


def test_an_original_with_layer_sizes_in_its_configuration(plain: Path, tmp_path: Path) -> None:
    """The hub's config.json serves both formats; its sizes count, not csm-1b's head widths."""
    source = checkpoints.write_original(tmp_path / "source")
    (source / "config.json").write_text(json.dumps(checkpoints.CONFIG))
    report = convert(source, tmp_path / "out.gguf", type="f32", name="conversion")
    assert (tmp_path / "out.gguf").read_bytes() == plain.read_bytes()
    assert report.notes == ()


def test_report(tmp_path: Path) -> None:
    source = checkpoints.write_transformers(tmp_path / "some model")
    report = convert(source, tmp_path / "out.gguf", type="f16")
    assert report.path == tmp_path / "out.gguf"
    assert report.bytes == report.path.stat().st_size
    assert report.tensors == len(checkpoints.read(report.path))
    assert set(report.types) == {"f16", "f32"}
    assert sum(report.types.values()) <= report.bytes
    assert checkpoints.read_keys(report.path)["general.name"] == "some model"
