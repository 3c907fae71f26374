"""Where the codec's tensors are found in each kind of Mimi checkpoint.

The flat names of transformers are the common tongue: the nested ones that its newer releases may
write are translated to them when a file is read, the names of Kyutai and of the pull request are
derived from them.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

import numpy as np

from .checkpoint import Checkpoint
from .config import ModelConfig
from .layout import Spec
from .tensors import Rows, Stored, constant, interleaved, normalized_codebook, plain, row_range

Builder = Callable[[Spec, ModelConfig, Checkpoint], Rows]

_BLOCK = re.compile(r"mimi\.(\w+_transformer)\.blk\.(\d+)\.(\w+)\.(weight|bias)")
_CODEBOOK = re.compile(r"mimi\.quantizer\.(\w+)\.layers\.(\d+)\.codebook")
_PROJECTION = re.compile(r"mimi\.quantizer\.(\w+)\.((?:in|out)put_proj)\.weight")

_NESTED = (
    (re.compile(r"^(encoder|decoder)\.\1(_seanet)?\.layers\."), r"\1.layers."),
    (re.compile(r"^(encoder|decoder)\.\1_transformer\."), r"\1_transformer."),
    (re.compile(r"^encoder\.downsample\."), "downsample."),
    (re.compile(r"^decoder\.upsample\."), "upsample."),
)


def flat_names(tensors: Mapping[str, Stored], prefix: str = "") -> dict[str, Stored]:
    """The tensors whose names start with `prefix`, under flat names without it."""
    result = {}
    for name, stored in tensors.items():
        if not name.startswith(prefix):
            continue
        result[flat_name(name[len(prefix) :])] = stored
    return result


def flat_name(name: str) -> str:
    """A tensor's name without the modules that newer releases of transformers nest it in."""
    for pattern, replacement in _NESTED:
        name = pattern.sub(replacement, name)
    return name


# transformers: half-split rotary pairs

_TRANSFORMERS_BLOCK = {
    "attn_norm": "input_layernorm",
    "ffn_norm": "post_attention_layernorm",
    "attn_scale": "self_attn_layer_scale",
    "ffn_scale": "mlp_layer_scale",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_up": "mlp.fc1",
    "ffn_down": "mlp.fc2",
}


def _block_name(names: Mapping[str, str], name: str, kind: str) -> str:
    return f"{names[name]}.{'scale' if name.endswith('_scale') else kind}"


def from_transformers(spec: Spec, config: ModelConfig, source: Checkpoint) -> Rows:
    """A tensor of a `MimiModel` checkpoint with flat names."""
    block = _BLOCK.fullmatch(spec.name)
    if block:
        part, layer, name, kind = block.groups()
        where = f"{part}.layers.{layer}.{_block_name(_TRANSFORMERS_BLOCK, name, kind)}"
        stored = source.take(where, spec.shape)
        if name in ("attn_q", "attn_k"):
            mimi = config.mimi
            heads = mimi.head_count if name == "attn_q" else mimi.head_count_kv
            return interleaved(stored, spec.shape, heads)
        return plain(stored, spec.shape)
    codebook = _CODEBOOK.fullmatch(spec.name)
    if codebook:
        part, layer = codebook.groups()
        where = f"quantizer.{part}_residual_vector_quantizer.layers.{layer}.codebook."
        return normalized_codebook(
            source.take(where + "embed_sum"), source.take(where + "cluster_usage"), spec.shape
        )
    projection = _PROJECTION.fullmatch(spec.name)
    if projection:
        part, name = projection.groups()
        where = f"quantizer.{part}_residual_vector_quantizer.{name}.weight"
        if where not in source and spec.shape[0] == spec.shape[1]:
            # transformers leaves the projection out where both widths are the same
            return constant(np.eye(spec.shape[0], dtype=np.float32))
        return plain(source.take(where), spec.shape)
    return plain(source.take(spec.name.removeprefix("mimi.")), spec.shape)


# Kyutai's own files: neighbouring rotary pairs, q, k and v in one matrix

_KYUTAI_BLOCK = {
    "attn_norm": "norm1",
    "ffn_norm": "norm2",
    "attn_scale": "layer_scale_1",
    "ffn_scale": "layer_scale_2",
    "attn_output": "self_attn.out_proj",
    "ffn_up": "linear1",
    "ffn_down": "linear2",
}
_KYUTAI_QUANTIZERS = {"semantic": "rvq_first", "acoustic": "rvq_rest"}


def from_kyutai(spec: Spec, config: ModelConfig, source: Checkpoint) -> Rows:
    """A tensor of a Mimi file as the moshi library loads it."""
    block = _BLOCK.fullmatch(spec.name)
    if block:
        part, layer, name, kind = block.groups()
        prefix = f"{part}.transformer.layers.{layer}."
        if name in ("attn_q", "attn_k", "attn_v"):
            rows, width = spec.shape
            fused = source.take(prefix + "self_attn.in_proj_weight", (3 * rows, width))
            return row_range(fused, spec.shape, rows * ("attn_q", "attn_k", "attn_v").index(name))
        where = prefix + _block_name(_KYUTAI_BLOCK, name, kind)
        return plain(source.take(where, spec.shape), spec.shape)
    codebook = _CODEBOOK.fullmatch(spec.name)
    if codebook:
        part, layer = codebook.groups()
        where = f"quantizer.{_KYUTAI_QUANTIZERS[part]}.vq.layers.{layer}._codebook."
        return normalized_codebook(
            source.take(where + "embedding_sum"), source.take(where + "cluster_usage"), spec.shape
        )
    projection = _PROJECTION.fullmatch(spec.name)
    if projection:
        part, name = projection.groups()
        where = f"quantizer.{_KYUTAI_QUANTIZERS[part]}.{name}.weight"
        return plain(source.take(where), spec.shape)
    return plain(source.take(kyutai_convolution(spec.name, source)), spec.shape)


def kyutai_convolution(name: str, source: Checkpoint) -> str:
    """Kyutai's name of one of our convolution tensors."""
    path, kind = name.removeprefix("mimi.").rsplit(".conv.", 1)
    if path == "downsample":
        return f"downsample.conv.conv.conv.{kind}"
    if path == "upsample":
        return f"upsample.convtr.convtr.convtr.{kind}"
    path = path.replace(".layers.", ".model.")
    transposed = f"{path}.convtr.convtr.{kind}"
    return transposed if transposed in source else f"{path}.conv.conv.{kind}"


# the pull request's GGUF: flat names, neighbouring rotary pairs, codebooks already normalized


def from_gguf(spec: Spec, config: ModelConfig, source: Checkpoint) -> Rows:
    """A tensor of `kyutai-mimi.gguf`."""
    block = _BLOCK.fullmatch(spec.name)
    if block:
        part, layer, name, kind = block.groups()
        where = f"{part}.layers.{layer}.{_block_name(_TRANSFORMERS_BLOCK, name, kind)}"
    else:
        where = re.sub(r"^mimi\.(quantizer\.\w+)", r"\1_rvq", spec.name).removeprefix("mimi.")
    return plain(source.take(where), spec.shape)


IGNORABLE = (
    r"rotary_emb\.(original_)?inv_freq$",
    r"\.codebook\.(initialized|cluster_usage)$",
    r"\._codebook\.(_initialized|cluster_usage)$",
)


def surplus_codebooks(config: ModelConfig, source: Checkpoint) -> list[str]:
    """Names of acoustic codebooks beyond those the language model speaks.

    A codec may have more than are used: leaving the last ones out is how Mimi lowers its bit rate.
    """
    used = config.codebooks - config.mimi.semantic_codebooks
    pattern = re.compile(r"quantizer\.(?:acoustic_\w+|rvq_rest\.vq)\.layers\.(\d+)\.")
    names = []
    for name in source.tensors:
        match = pattern.match(name + ".")
        if match and int(match.group(1)) >= used:
            names.append(name)
    return names
