"""Finding out which Mimi checkpoint it is, its hyper-parameters, and its tensors."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

from csm_ggml._core import ModelFormatError

from . import codec_names
from .checkpoint import Checkpoint
from .config import MimiConfig, ModelConfig
from .layout import ENCODER_PREFIXES, Spec
from .tensors import Rows

HEAD_DIM = 64
"""Width of a head in Mimi's transformers, where no configuration tells it."""


@dataclass
class Codec:
    """A Mimi checkpoint, ready to be asked for our tensors."""

    source: Checkpoint
    builder: codec_names.Builder

    @property
    def has_encoder(self) -> bool:
        """Whether audio can be encoded; a checkpoint may come without that half."""
        return self.source.has_prefix(*(p.removeprefix("mimi.") for p in ENCODER_PREFIXES))

    def rows(self, spec: Spec, config: ModelConfig) -> Rows:
        """One of our tensors."""
        return self.builder(spec, config, self.source)

    def finish(self, config: ModelConfig) -> list[str]:
        """Check that nothing is left over; returns notes on what was left out on purpose."""
        surplus = codec_names.surplus_codebooks(config, self.source)
        exact = [f"^{re.escape(name)}$" for name in surplus]
        self.source.finish([*codec_names.IGNORABLE, *exact])
        if not surplus:
            return []
        return [f"codec codebooks beyond the {config.codebooks} of the language model left out"]


def open_codec(source: Checkpoint) -> Codec:
    """Tell by the names which naming it is."""
    if source.has_prefix("encoder.model.", "decoder.model.", "quantizer.rvq_first."):
        return Codec(source, codec_names.from_kyutai)
    if source.has_prefix("quantizer.semantic_rvq."):
        return Codec(source, codec_names.from_gguf)
    flat = Checkpoint(source.label, codec_names.flat_names(source.tensors))
    return Codec(flat, codec_names.from_transformers)


def derive_config(codec: Codec) -> MimiConfig:
    """Hyper-parameters from tensor shapes; what shapes do not tell is Mimi's own.

    Raises:
        ModelFormatError: a tensor is missing that would tell, or has an impossible shape.
    """
    source = codec.source
    kyutai = codec.builder is codec_names.from_kyutai

    def convolution(name: str) -> str:
        return codec_names.kyutai_convolution(name, source) if kyutai else name

    first = source.shape(convolution("decoder.layers.0.conv.weight"), 3)
    config = replace(MimiConfig(), hidden_size=first[1], kernel_size=first[2])
    ratios: list[int] = []
    layer = 1
    while True:
        shape = source.shape(convolution(f"decoder.layers.{layer + 1}.conv.weight"), 3)
        layer += 2
        blocks = 0
        while (name := convolution(f"decoder.layers.{layer}.block.1.conv.weight")) in source:
            inner, channels, kernel = source.shape(name, 3)
            config = replace(
                config, residual_kernel_size=kernel, compress=max(1, channels // inner)
            )
            blocks, layer = blocks + 1, layer + 1
        if blocks == 0:
            break
        ratios.append(max(1, shape[2] // 2))
        config = replace(config, num_residual_layers=blocks)
    if shape[0] != 1 or not ratios:
        raise ModelFormatError(
            f"{source.label}: the codec's decoder has {len(ratios)} stages with residual blocks "
            f"before a convolution of shape {list(shape)}, expected at least one, then one channel"
        )
    resample = source.shape(convolution("upsample.conv.weight"), 3)[2] // 2
    count, codebook = _semantic_codebooks(source)
    return replace(
        config,
        num_filters=shape[1],
        last_kernel_size=shape[2],
        upsampling_ratios=tuple(ratios),
        resample_stride=max(1, resample),
        codebook_size=codebook[0],
        codebook_dim=codebook[1],
        semantic_codebooks=count,
        **_transformer_sizes(source, kyutai),
    )


def _transformer_sizes(source: Checkpoint, kyutai: bool) -> dict[str, int]:
    prefix = "decoder_transformer." + ("transformer." if kyutai else "")
    count = 0
    while source.has_prefix(f"{prefix}layers.{count}."):
        count += 1
    block = prefix + "layers.0."
    if kyutai:
        query = key = source.shape(block + "self_attn.in_proj_weight", 2)[0] // 3
        hidden = source.shape(block + "linear1.weight", 2)[0]
    else:
        query = source.shape(block + "self_attn.q_proj.weight", 2)[0]
        key = source.shape(block + "self_attn.k_proj.weight", 2)[0]
        hidden = source.shape(block + "mlp.fc1.weight", 2)[0]
    return {
        "block_count": count,
        "feed_forward_length": hidden,
        "head_count": max(1, query // HEAD_DIM),
        "head_count_kv": max(1, key // HEAD_DIM),
        "head_dim": HEAD_DIM,
    }


def _semantic_codebooks(source: Checkpoint) -> tuple[int, tuple[int, ...]]:
    """How many semantic codebooks there are, and the shape of each."""
    for pattern in (
        "quantizer.rvq_first.vq.layers.{}._codebook.embedding_sum",
        "quantizer.semantic_rvq.layers.{}.codebook",
        "quantizer.semantic_residual_vector_quantizer.layers.{}.codebook.embed_sum",
    ):
        count = 0
        while pattern.format(count) in source:
            count += 1
        if count:
            return count, source.shape(pattern.format(0), 2)
    raise ModelFormatError(f"{source.label}: no codebook tensors: not a Mimi checkpoint")
