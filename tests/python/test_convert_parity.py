"""What transformers itself saves, however it names, ties and splits it, converts to one file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import checkpoints
import pytest
from csm_ggml import ModelFormatError
from csm_ggml.convert import convert
from reference.checkpoint import write_tokenizer

if TYPE_CHECKING:
    from transformers import CsmForConditionalGeneration

pytestmark = pytest.mark.parity


@pytest.fixture(scope="module")
def csm(tmp_path_factory: pytest.TempPathFactory) -> CsmForConditionalGeneration:
    from transformers import CsmForConditionalGeneration

    source = checkpoints.write_transformers(tmp_path_factory.mktemp("loaded"))
    model, report = CsmForConditionalGeneration.from_pretrained(source, output_loading_info=True)
    assert not report["missing_keys"]
    assert not report["unexpected_keys"]
    return model


def converted(folder: Path, **options: Any) -> dict[str, tuple[str, tuple[int, ...], bytes]]:
    convert(folder, folder / "out.gguf", type="f32", **options)
    return checkpoints.read(folder / "out.gguf")


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"max_shard_size": "100KB"},
        {"save_original_format": False},
        {"save_original_format": False, "max_shard_size": "100KB"},
    ],
    ids=str,
)
def test_saved_models(
    options: dict[str, Any], csm: CsmForConditionalGeneration, tmp_path: Path
) -> None:
    wanted = converted(checkpoints.write_transformers(tmp_path / "plain"))
    saved = tmp_path / "saved"
    csm.save_pretrained(saved, **options)
    write_tokenizer(saved / "tokenizer.json")
    shards = list(saved.glob("*.safetensors"))
    assert (len(shards) > 1) == ("max_shard_size" in options)
    assert converted(saved) == wanted


@pytest.mark.parametrize("flat", [True, False])
def test_saved_codec(flat: bool, csm: CsmForConditionalGeneration, tmp_path: Path) -> None:
    """The codec on its own, beside the language models in their original names."""
    wanted = converted(checkpoints.write_transformers(tmp_path / "plain"))
    source = checkpoints.write_original(tmp_path / "original")
    (source / "tokenizer-e351c8d8-checkpoint125.safetensors").unlink()
    csm.codec_model.save_pretrained(tmp_path / "codec", save_original_format=flat)
    assert converted(source, mimi=tmp_path / "codec") == wanted


def test_tables_that_training_pulled_apart(
    csm: CsmForConditionalGeneration, tmp_path: Path
) -> None:
    import torch

    source = checkpoints.write_transformers(tmp_path / "source")
    settings = json.loads((source / "config.json").read_text())
    settings["tie_codebooks_embeddings"] = False
    (source / "config.json").write_text(json.dumps(settings))
    model = type(csm).from_pretrained(source)
    table = model.backbone_model.embed_tokens.embed_audio_tokens
    model.save_pretrained(tmp_path / "equal")
    write_tokenizer(tmp_path / "equal" / "tokenizer.json")
    assert converted(tmp_path / "equal") == converted(source)
    table.weight = torch.nn.Parameter(table.weight.detach() + 1)
    model.save_pretrained(tmp_path / "apart")
    write_tokenizer(tmp_path / "apart" / "tokenizer.json")
    with pytest.raises(ModelFormatError, match="differ, expected one audio table"):
        converted(tmp_path / "apart")
