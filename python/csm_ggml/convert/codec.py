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
        ModelFormatError: a tensor is missing that would tell.
    """
    source = codec.source
    kyutai = codec.builder is codec_names.from_kyutai

    def convolution(layer: str) -> str:
        name = f"mimi.decoder.layers.{layer}.weight"
        if kyutai:
            return codec_names.kyutai_convolution(name, source)
        return name.removeprefix("mimi.")

    def block_shape(name: str, fused: str) -> tuple[int, ...]:
        prefix = "decoder_transformer.transformer.layers.0." if kyutai else ""
        return source.shape(prefix + fused if kyutai else f"decoder_transformer.layers.0.{name}")

    shape = source.shape(convolution("0.conv"))
    hidden, kernel = shape[1], shape[2]
    ratios: list[int] = []
    residuals, layer, compress, residual_kernel = 0, 1, 2, 3
    while convolution(f"{layer + 1}.conv") in source:
        shape = source.shape(convolution(f"{layer + 1}.conv"))
        layer += 2
        if convolution(f"{layer}.block.1.conv") not in source:
            break
        ratios.append(shape[2] // 2)
        residuals = 0
        while (name := convolution(f"{layer}.block.1.conv")) in source:
            inner, channels, residual_kernel = source.shape(name)
            compress = channels // inner
            residuals += 1
            layer += 1
    last = shape
    if len(last) != 3 or last[0] != 1 or not ratios:
        raise ModelFormatError(
            f"{source.label}: the codec's decoder ends in a convolution of shape {list(last)}, "
            "expected one output channel after residual blocks"
        )
    count = r"^decoder_transformer\.(?:transformer\.)?layers\.(\d+)\."
    layers = [int(m.group(1)) for m in map(re.compile(count).match, source.tensors) if m]
    query = block_shape("self_attn.q_proj.weight", "self_attn.in_proj_weight")[0]
    key = query if kyutai else block_shape("self_attn.k_proj.weight", "")[0]
    heads = max(1, (query // 3 if kyutai else query) // HEAD_DIM)
    keys = heads if kyutai else max(1, key // HEAD_DIM)
    upsample = (
        codec_names.kyutai_convolution("mimi.upsample.conv.weight", source)
        if kyutai
        else ("upsample.conv.weight")
    )
    return replace(
        MimiConfig(),
        hidden_size=hidden,
        num_filters=last[1],
        upsampling_ratios=tuple(ratios),
        kernel_size=kernel,
        last_kernel_size=last[2],
        residual_kernel_size=residual_kernel,
        num_residual_layers=residuals,
        compress=compress,
        resample_stride=source.shape(upsample)[2] // 2,
        block_count=max(layers, default=-1) + 1,
        feed_forward_length=block_shape("mlp.fc1.weight", "linear1.weight")[0],
        head_count=heads,
        head_count_kv=keys,
        head_dim=HEAD_DIM,
        codebook_size=_codebook_shape(source)[0],
        codebook_dim=_codebook_shape(source)[1],
    )


def _codebook_shape(source: Checkpoint) -> tuple[int, ...]:
    for name in (
        "quantizer.rvq_first.vq.layers.0._codebook.embedding_sum",
        "quantizer.semantic_rvq.layers.0.codebook",
        "quantizer.semantic_residual_vector_quantizer.layers.0.codebook.embed_sum",
    ):
        if name in source:
            return source.shape(name)
    raise ModelFormatError(f"{source.label}: no codebook tensors: not a Mimi checkpoint")
