"""GGUF files of other programs: recognised, with an error that says which files work."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
from csm_ggml import CSM, ModelFormatError
from csm_ggml.cli import main
from csm_ggml.convert import convert, quantize_file

# Architecture, keys, tensors and what it is, as their makers describe them.
FOREIGN: dict[str, tuple[str, dict[str, int], str, str]] = {
    "CrispASR": ("csm-tts", {"csm.backbone.n_layers": 16}, "depth.token_embd.weight", "CrispASR"),
    "codec.cpp, backbone": ("llama", {"llama.block_count": 16}, "token_embd.weight", "codec.cpp"),
    "codec.cpp, codec": ("mimi", {"codec.n_q": 32}, "lm.c0_head.weight", "codec.cpp"),
    "csm.rs": ("csm", {"csm.audio_num_codebooks": 32}, "backbone.norm.scale", "csm.rs or candle"),
    "unknown": ("qwen3", {"qwen3.block_count": 28}, "token_embd.weight", "of another kind"),
}
WORKING = r"sesame-csm-backbone\.gguf, sesame-csm-decoder\.gguf, kyutai-mimi\.gguf; `-m csm-1b`"


def write(path: Path, kind: str) -> str:
    architecture, keys, tensor, what = FOREIGN[kind]
    writer = gguf.GGUFWriter(path, architecture)
    for key, value in keys.items():
        writer.add_uint32(key, value)
    writer.add_tensor(tensor, np.ones((2, 32), np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return rf"general\.architecture is '{architecture}': .*{what}.*{WORKING}"


@pytest.mark.parametrize("kind", FOREIGN)
def test_every_way_in_says_what_it_is(
    kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "model.gguf"
    match = write(path, kind)
    ways: dict[str, Any] = {
        "load": lambda: CSM.from_pretrained(path),
        "load, folder": lambda: CSM.from_pretrained(tmp_path),
        "load, preset": lambda: CSM.from_pretrained(path, preset="fast"),
        "convert": lambda: convert(path, tmp_path / "out" / "o.gguf"),
        "quantize": lambda: quantize_file(path, tmp_path / "out" / "o.gguf", "q8_0"),
    }
    for way in ways.values():
        with pytest.raises(ModelFormatError, match=match):
            way()
    assert main(["speak", "Hi.", "-m", str(path), "-o", str(tmp_path / "hi.wav")]) == 1
    assert "ggml-org/sesame-csm-1b-GGUF" in capsys.readouterr().err
    assert main(["info", str(path)]) == 0


def test_a_folder_with_a_pair_of_another_program(tmp_path: Path) -> None:
    write(tmp_path / "csm-1b-q8_0.gguf", "codec.cpp, backbone")
    match = write(tmp_path / "codec.gguf", "codec.cpp, codec")
    with pytest.raises(ModelFormatError, match=match):
        CSM.from_pretrained(tmp_path)
