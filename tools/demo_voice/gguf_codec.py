"""The codec of a finished GGUF: into transformers' MimiModel, its SEANet back again."""

from __future__ import annotations

from pathlib import Path

import gguf
import numpy as np
import torch
from csm_ggml.convert.codec_names import _TRANSFORMERS_BLOCK as BLOCK
from csm_ggml.convert.gguf_file import read_gguf
from torch import Tensor
from transformers import MimiModel

from models import HEAD_DIM, mimi_config

SEANET = "mimi.decoder.layers."


def torch_name(name: str) -> str:
    """Of a tensor of the codec in the file; the codebooks aside."""
    parts = name.split(".")
    if parts[1] in ("decoder", "encoder"):
        return f"{parts[1]}.{parts[1]}_seanet." + ".".join(parts[2:])
    if parts[1] in ("upsample", "downsample"):
        half = "decoder" if parts[1] == "upsample" else "encoder"
        return f"{half}." + name.removeprefix("mimi.")
    if name.startswith("mimi.quantizer."):
        return f"quantizer.{parts[2]}_residual_vector_quantizer.{parts[3]}.weight"
    kind = "scale" if parts[4].endswith("_scale") else parts[5]
    half = parts[1].removesuffix("_transformer")
    return f"{half}.{parts[1]}.layers.{parts[3]}.{BLOCK[parts[4]]}.{kind}"


def half_split(rows: Tensor) -> Tensor:
    """Rows of q or k from neighbouring rotary pairs to transformers' halves of a head."""
    pairs = rows.reshape(-1, HEAD_DIM // 2, 2, rows.shape[-1])
    return pairs.swapaxes(1, 2).reshape(rows.shape)


@torch.no_grad()
def load_codec(path: Path) -> MimiModel:
    """A MimiModel with the file's weights."""
    mimi = MimiModel(mimi_config()).eval()
    own = dict(mimi.named_parameters()) | dict(mimi.named_buffers())
    for name, stored in read_gguf(path)[1].items():
        if not name.startswith("mimi."):
            continue
        values = torch.from_numpy(stored.values().copy()).reshape(stored.shape)
        if name.endswith(".codebook"):
            _, _, part, _, layer, _ = name.split(".")
            where = f"quantizer.{part}_residual_vector_quantizer.layers.{layer}.codebook."
            own[where + "embed_sum"].copy_(values)
            own[where + "cluster_usage"].fill_(1.0)
            continue
        if ".attn_q." in name or ".attn_k." in name:
            values = half_split(values)
        target = own[torch_name(name)]
        target.copy_(values.reshape(target.shape))
    return mimi


def write_seanet(source: Path, output: Path, mimi: MimiModel) -> int:
    """The source's bytes with the SEANet's tensors replaced in place; returns how many."""
    data = bytearray(source.read_bytes())
    own = dict(mimi.named_parameters())
    written = 0
    for tensor in gguf.GGUFReader(source).tensors:
        if not tensor.name.startswith(SEANET):
            continue
        kind = {"F16": np.float16, "F32": np.float32}[tensor.tensor_type.name]
        values = own[torch_name(tensor.name)].detach().numpy().astype(kind).tobytes()
        if len(values) != tensor.n_bytes:
            raise SystemExit(f"{tensor.name}: {len(values)} bytes, expected {tensor.n_bytes}")
        data[tensor.data_offset : tensor.data_offset + len(values)] = values
        written += 1
    output.write_bytes(data)
    return written
