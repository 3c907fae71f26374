"""Random checkpoints: reproducible, in any format, at any size, and sane enough to run."""

from __future__ import annotations

import tracemalloc
from pathlib import Path
from typing import Any

import checkpoints
import numpy as np
import pytest
from csm_ggml import ModelFormatError, _core
from csm_ggml.convert import PRESETS, WEIGHT_TYPES, make_random
from csm_ggml.convert.presets import byte_alphabet, synthetic_vocabulary

# csm-1b's widths with one layer of each kind, to be written in seconds
SHALLOW = {
    "csm.text_vocab_size": 32_000,
    "csm.backbone.block_count": 1,
    "csm.depth.block_count": 1,
    "mimi.transformer.block_count": 1,
}


@pytest.mark.parametrize("kind", WEIGHT_TYPES)
def test_the_engine_loads_every_format(kind: str, tmp_path: Path) -> None:
    path = make_random(tmp_path / "x.gguf", type=kind).path
    model = _core.Model([str(path)], device="cpu", threads=1)
    assert model.config["csm.codebooks"] == 8
    assert model.config["mimi.frame_size"] == 1920


def test_same_arguments_same_file(tmp_path: Path) -> None:
    files = [
        make_random(tmp_path / f"{n}.gguf", type="q8_0", seed=seed).path.read_bytes()
        for n, seed in enumerate((3, 3, 4))
    ]
    assert files[0] == files[1]
    assert files[0] != files[2]


def test_a_file_of_a_few_megabytes(tmp_path: Path) -> None:
    assert make_random(tmp_path / "x.gguf", type="f16").bytes < 8e6


@pytest.mark.parametrize("kind", ["f32", "q8_0", "q4_k", "iq4_nl", "mxfp4"])
def test_codes_that_the_codec_lacks_have_zero_rows(kind: str, tmp_path: Path) -> None:
    values = checkpoints.read_values(make_random(tmp_path / "x.gguf", type=kind).path)
    for name in ("codebook0_head.weight", "depth.heads.weight"):
        head = values[name].reshape(-1, 131, values[name].shape[-1])
        assert not head[:, 128:].any()
        assert head[:, :128].any(axis=2).all()


def test_rows_differ(tmp_path: Path) -> None:
    values = checkpoints.read_values(make_random(tmp_path / "x.gguf", type="q4_0").path)
    for name, matrix in values.items():
        if matrix.ndim == 2 and "embd" not in name:
            rows = np.abs(matrix[: min(64, len(matrix))].astype(np.float64))
            assert len(np.unique(rows.sum(axis=1))) > len(rows) / 2, name


def test_activations_are_of_order_one(tmp_path: Path) -> None:
    path = make_random(tmp_path / "x.gguf").path
    model = _core.Model([str(path)], device="cpu", threads=1)
    engine = _core.Engine(model)
    slot = engine.open(seed=1)
    rows = 12
    text = np.arange(rows, dtype=np.int32)
    logits = engine.append(slot, text, np.zeros((rows, 8), np.int32), return_logits=True)
    assert logits is not None
    assert 0.5 < logits[:, :128].std() < 2
    codes = np.random.default_rng(0).integers(0, 128, (20, 8), dtype=np.int32)
    samples = _core.MimiDecoder(model).decode(codes)
    assert 0.003 < samples.std() < 0.3
    assert np.abs(samples).max() < 1


def test_overrides(tmp_path: Path) -> None:
    changed: dict[str, Any] = {
        "csm.codebooks": 4,
        "mimi.upsampling_ratios": [5, 4],
        "csm.generation.top_k": 7,
    }
    with pytest.raises(ValueError, match=r"unknown csm\.generation\.top_k; expected keys such as"):
        make_random(tmp_path / "x.gguf", overrides=changed)
    del changed["csm.generation.top_k"]
    path = make_random(tmp_path / "x.gguf", overrides=changed).path
    model = _core.Model([str(path)], device="cpu", threads=1)
    assert model.config["csm.codebooks"] == 4
    assert model.config["mimi.frame_size"] == 40
    with pytest.raises(ModelFormatError, match=r"overrides: .*4 query heads, expected a multiple"):
        make_random(tmp_path / "x.gguf", overrides={"csm.backbone.attention.head_count_kv": 3})


def test_without_encoder(tmp_path: Path) -> None:
    path = make_random(tmp_path / "x.gguf", encoder=False).path
    assert not _core.Model([str(path)], device="cpu", threads=1).config["mimi.has_encoder"]


def test_wrong_arguments(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="preset='huge': expected one of tiny, csm-1b"):
        make_random(tmp_path / "x.gguf", preset="huge")
    with pytest.raises(ValueError, match="seed=-1: expected 0 or more"):
        make_random(tmp_path / "x.gguf", seed=-1)


@pytest.mark.parametrize("preset", PRESETS)
def test_vocabularies_encode_any_text(preset: str) -> None:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    chosen = PRESETS[preset]
    vocabulary = synthetic_vocabulary(chosen.config.text_vocab_size, chosen.specials)
    assert len(vocabulary.tokens) == len(set(vocabulary.tokens)) == chosen.config.text_vocab_size
    ids = {token: n for n, token in enumerate(vocabulary.tokens)}
    merges = [(left, right) for left, right in (m.split(" ") for m in vocabulary.merges)]
    tokenizer = Tokenizer(models.BPE(vocab=ids, merges=merges, ignore_merges=True))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    for text in ("[0]Hello there.", "naïve café 日本語 \x00\x7f", "  two  spaces"):
        encoded = tokenizer.encode(text).ids
        assert tokenizer.decode(encoded) == text
        assert len(encoded) <= len(text.encode())
    if preset == "csm-1b":
        assert (vocabulary.bos, vocabulary.eos) == (128_000, 128_001)
        assert len(tokenizer.encode("[0]Hello there, how are you today?").ids) < 24


def test_the_alphabet_is_gpt2s() -> None:
    from tokenizers import pre_tokenizers

    assert set(byte_alphabet()) == set(pre_tokenizers.ByteLevel.alphabet())
    assert byte_alphabet()[ord(" ")] == "Ġ"


def test_a_vocabulary_too_small() -> None:
    with pytest.raises(ValueError, match="expected at least 258"):
        synthetic_vocabulary(257, 2)


def test_a_large_checkpoint_needs_little_memory(tmp_path: Path) -> None:
    tracemalloc.start()
    report = make_random(tmp_path / "x.gguf", preset="csm-1b", type="q4_0", overrides=SHALLOW)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert report.bytes > 400e6
    assert peak < 150e6
