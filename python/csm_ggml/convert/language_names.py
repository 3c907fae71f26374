"""Where the two language models' tensors are found in each kind of checkpoint."""

from __future__ import annotations

import re
from collections.abc import Callable

from csm_ggml._core import ModelFormatError

from .checkpoint import Checkpoint
from .config import ModelConfig
from .layout import Spec
from .tensors import Rows, interleaved, plain, row_range, same_values, transposed_pages

Builder = Callable[[Spec, ModelConfig, Checkpoint], Rows]

_BLOCK = re.compile(r"(backbone|depth)\.blk\.(\d+)\.(\w+)\.weight")

IGNORABLE = (
    r"rotary_emb\.(original_)?inv_freq$",
    r"\.audio_tokens_offsets$",
    r"causal_mask$",
    r"\.pos_embeddings\.",
)
"""Buffers that some releases saved; all of them follow from the hyper-parameters."""

# transformers: half-split rotary pairs, heads as (in, out)

_TRANSFORMERS_PARTS = {"backbone": "backbone_model.", "depth": "depth_decoder.model."}
_TRANSFORMERS_BLOCK = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
_TRANSFORMERS_TOP = {
    "text_embd.weight": "embed_text_tokens.weight",
    "backbone.output_norm.weight": "backbone_model.norm.weight",
    "depth.output_norm.weight": "depth_decoder.model.norm.weight",
    "codebook0_head.weight": "lm_head.weight",
    "depth.projection.weight": "depth_decoder.model.inputs_embeds_projector.weight",
}
BACKBONE_TABLE = "backbone_model.embed_tokens.embed_audio_tokens.weight"
DEPTH_TABLE = "depth_decoder.model.embed_tokens.weight"


def from_transformers(spec: Spec, config: ModelConfig, source: Checkpoint) -> Rows:
    """A tensor of a `CsmForConditionalGeneration` checkpoint."""
    block = _BLOCK.fullmatch(spec.name)
    if block:
        part, layer, name = block.groups()
        where = f"{_TRANSFORMERS_PARTS[part]}layers.{layer}.{_TRANSFORMERS_BLOCK[name]}.weight"
        stored = source.take(where, spec.shape)
        if name in ("attn_q", "attn_k"):
            sizes = config.backbone if part == "backbone" else config.depth
            heads = sizes.head_count if name == "attn_q" else sizes.head_count_kv
            return interleaved(stored, spec.shape, heads)
        return plain(stored, spec.shape)
    if spec.name == "audio_embd.weight":
        return _shared_table(spec, source)
    if spec.name == "depth.heads.weight":
        return transposed_pages(source.take("depth_decoder.codebooks_head.weight"), spec.shape)
    return plain(source.take(_TRANSFORMERS_TOP[spec.name], spec.shape), spec.shape)


def _shared_table(spec: Spec, source: Checkpoint) -> Rows:
    # the two models may each hold the table, or only the one that the tie was resolved to
    names = [name for name in (BACKBONE_TABLE, DEPTH_TABLE) if name in source]
    tables = [source.take(name, spec.shape) for name in names or [BACKBONE_TABLE]]
    if len(tables) == 2 and not same_values(*tables):
        raise ModelFormatError(
            f"{source.label}: {BACKBONE_TABLE!r} and {DEPTH_TABLE!r} differ, expected one audio "
            "table shared by both models: the checkpoint was trained with untied tables, which "
            "the engine does not have"
        )
    return plain(tables[0], spec.shape)


# the original release: torchtune's names, neighbouring rotary pairs, heads as (in, out)

_ORIGINAL_PARTS = {"backbone": "backbone.", "depth": "decoder."}
_ORIGINAL_BLOCK = {
    "attn_norm": "sa_norm.scale",
    "attn_q": "attn.q_proj.weight",
    "attn_k": "attn.k_proj.weight",
    "attn_v": "attn.v_proj.weight",
    "attn_output": "attn.output_proj.weight",
    "ffn_norm": "mlp_norm.scale",
    "ffn_gate": "mlp.w1.weight",
    "ffn_up": "mlp.w3.weight",
    "ffn_down": "mlp.w2.weight",
}
_ORIGINAL_TOP = {
    "text_embd.weight": "text_embeddings.weight",
    "audio_embd.weight": "audio_embeddings.weight",
    "backbone.output_norm.weight": "backbone.norm.scale",
    "depth.output_norm.weight": "decoder.norm.scale",
    "codebook0_head.weight": "codebook0_head.weight",
    "depth.projection.weight": "projection.weight",
}


def from_original(spec: Spec, config: ModelConfig, source: Checkpoint) -> Rows:
    """A tensor of the original release."""
    block = _BLOCK.fullmatch(spec.name)
    if block:
        part, layer, name = block.groups()
        where = f"{_ORIGINAL_PARTS[part]}layers.{layer}.{_ORIGINAL_BLOCK[name]}"
        return plain(source.take(where, spec.shape), spec.shape)
    if spec.name == "depth.heads.weight":
        return transposed_pages(source.take("audio_head"), spec.shape)
    return plain(source.take(_ORIGINAL_TOP[spec.name], spec.shape), spec.shape)


# llama.cpp pull request 12648: two files with the same block names, told apart by a prefix

LLAMA_BACKBONE, LLAMA_DEPTH = "backbone:", "decoder:"
_LLAMA_PARTS = {"backbone": LLAMA_BACKBONE, "depth": LLAMA_DEPTH}
_LLAMA_TOP = {
    "text_embd.weight": LLAMA_BACKBONE + "token_embd.weight",
    "audio_embd.weight": LLAMA_DEPTH + "audio_embd.weight",
    "backbone.output_norm.weight": LLAMA_BACKBONE + "output_norm.weight",
    "depth.output_norm.weight": LLAMA_DEPTH + "output_norm.weight",
    "codebook0_head.weight": LLAMA_BACKBONE + "codebook0_head.weight",
    "depth.projection.weight": LLAMA_DEPTH + "csm_proj.weight",
}
LLAMA_IGNORABLE = ("^" + re.escape(LLAMA_BACKBONE + "csm_proj.weight") + "$",)
"""The backbone file repeats the decoder's projection, perhaps in a coarser format."""


def from_llama_csm(spec: Spec, config: ModelConfig, source: Checkpoint) -> Rows:
    """A tensor of the pull request's file pair."""
    block = _BLOCK.fullmatch(spec.name)
    if block:
        part, layer, name = block.groups()
        where = f"{_LLAMA_PARTS[part]}blk.{layer}.{name}.weight"
        return plain(source.take(where, spec.shape), spec.shape)
    if spec.name == "depth.heads.weight":
        pages, rows, columns = spec.shape
        stored = source.take(LLAMA_DEPTH + "audio_head.weight")
        # pages count positions: page 0 is empty, and later files have another empty one at the end
        if stored.shape not in ((pages + 1, rows, columns), (pages + 2, rows, columns)):
            raise ModelFormatError(
                f"{stored.file}: tensor {stored.name!r} has shape {list(stored.shape)}, expected "
                f"{[pages + 2, rows, columns]} or {[pages + 1, rows, columns]}"
            )
        return row_range(stored, spec.shape, rows)
    return plain(source.take(_LLAMA_TOP[spec.name], spec.shape), spec.shape)
