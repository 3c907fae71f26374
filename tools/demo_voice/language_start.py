"""The language models of a finished GGUF, for codes whose acoustic books have changed.

Reading stays: the backbone, the text and codebook 0 with its head are taken over. Embeddings of
the new acoustic codes are those that old codes of the same sound had, by linear regression from
the log-mel that a code stands for. The depth decoder's heads begin anew.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from csm_ggml.convert.gguf_file import read_gguf
from torch import Tensor

from codec_start import both_vectors
from features import Quantizer
from file_codebooks import books_of
from gguf_codec import half_split
from lm_model import Speech
from models import CODEBOOKS, CODES

NAMES = {
    "text_embd.weight": "text.weight",
    "audio_embd.weight": "audio.weight",
    "codebook0_head.weight": "head.weight",
    "depth.projection.weight": "project.weight",
    "backbone.output_norm.weight": "backbone.norm.weight",
    "depth.output_norm.weight": "depth.norm.weight",
}
BLOCK = {
    "attn_norm": "input_layernorm",
    "ffn_norm": "post_attention_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
NEW_HEADS = 0.02
RIDGE = 0.3


def load_language(model: Speech, path: Path) -> None:
    """Writes the file's backbone and depth decoder into the model; the phone head stays."""
    own = dict(model.named_parameters())
    for name, stored in read_gguf(path)[1].items():
        parts = name.split(".")
        if parts[0] == "mimi" or parts[1] == "rope_freqs":
            continue
        values = torch.from_numpy(stored.values().copy()).reshape(stored.shape).float()
        if name == "depth.heads.weight":
            own["depth_heads"].data.copy_(values.transpose(1, 2))
            continue
        if parts[1] == "blk":
            if parts[3] in ("attn_q", "attn_k"):
                values = half_split(values)
            target = own[f"{parts[0]}.layers.{parts[2]}.{BLOCK[parts[3]]}.weight"]
        else:
            target = own[NAMES[name]]
        target.data.copy_(values)


def regression(given: Tensor, wanted: Tensor) -> Tensor:
    """[n, a] and [n, b], both centred -> [a, b]."""
    square = given.T @ given
    square += RIDGE * square.trace() / len(square) * torch.eye(len(square))
    return torch.linalg.solve(square, given.T @ wanted)


@torch.no_grad()
def continue_from(model: Speech, path: Path, work_dir: Path, quantizer: Quantizer) -> None:
    """Fills the model from the file, for the quantizer's codes."""
    load_language(model, path)
    old = torch.from_numpy(books_of(path))
    table = model.audio.weight.view(CODEBOOKS, CODES + 3, -1)
    meant = old[1:].flatten(0, 1)
    means = table[1:, :CODES].mean(1, keepdim=True)
    spelled = (table[1:, :CODES] - means).flatten(0, 1)
    sound = regression(meant, spelled)
    rest = spelled - meant @ sound
    print(f"embeddings by sound: R2 {1 - rest.var() / spelled.var():.2f}")
    # before: e0(code 0) + sound(vector - code 0); now the acoustic codes are the whole vector
    table[0, :CODES] -= old[0] @ sound
    own, new = both_vectors(work_dir, quantizer)
    to_old = torch.from_numpy(np.linalg.lstsq(new, own, rcond=None)[0].astype(np.float32))
    books = torch.from_numpy(quantizer.acoustic.books.astype(np.float32))
    noise = rest.std() * 0.5
    table[1:, :CODES] = books @ to_old @ sound + means
    table[1:, :CODES] += noise * torch.randn(table[1:, :CODES].shape)
    model.depth_heads.normal_(0.0, NEW_HEADS)
