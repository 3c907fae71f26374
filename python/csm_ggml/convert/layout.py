"""The tensors of our GGUF files: names, shapes and what they are for, from the hyper-parameters.

This is the one list that conversion, re-quantization and random checkpoints all follow. Shapes are
in numpy order, the reverse of docs/GGUF.md.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum

from .config import MimiConfig, ModelConfig, TransformerConfig
from .tensors import Shape


class Role(Enum):
    """What a tensor is for, as far as its number format depends on it."""

    SMALL = "norms, biases, scales, rotary factors"
    TABLE = "embeddings, of which single rows are read"
    BACKBONE = "matrices of the backbone"
    DEPTH = "matrices of the depth decoder"
    BACKBONE_HEAD = "the backbone's head"
    DEPTH_HEAD = "the depth decoder's projection and heads"
    CODEC_MATRIX = "matrices of the codec's transformers"
    CODEC_CONVOLUTION = "convolutions and quantizer projections of the codec"
    CODEBOOK = "codebook vectors"


@dataclass(frozen=True)
class Spec:
    """One tensor of the file."""

    name: str
    shape: Shape
    role: Role


ENCODER_PREFIXES = ("mimi.encoder.", "mimi.encoder_transformer.", "mimi.downsample.")
"""The tensors that only encoding needs; a file for speaking may lack them all."""

CODEC_TRANSFORMERS = ("encoder_transformer", "decoder_transformer")


def expected(config: ModelConfig, *, encoder: bool = True) -> list[Spec]:
    """Every tensor of a checkpoint with these hyper-parameters, in the order of the file."""
    width, codes = config.backbone.embedding_length, config.audio_vocab_size
    specs = [
        Spec("text_embd.weight", (config.text_vocab_size, width), Role.TABLE),
        Spec("audio_embd.weight", (config.codebooks * codes, width), Role.TABLE),
        *_transformer("backbone", config.backbone, Role.BACKBONE),
        Spec("codebook0_head.weight", (codes, width), Role.BACKBONE_HEAD),
        *_transformer("depth", config.depth, Role.DEPTH),
        Spec("depth.projection.weight", (config.depth.embedding_length, width), Role.DEPTH_HEAD),
        Spec(
            "depth.heads.weight",
            (config.codebooks - 1, codes, config.depth.embedding_length),
            Role.DEPTH_HEAD,
        ),
        *_mimi(config),
    ]
    return [s for s in specs if encoder or not s.name.startswith(ENCODER_PREFIXES)]


def _transformer(part: str, sizes: TransformerConfig, role: Role) -> Iterator[Spec]:
    width, hidden = sizes.embedding_length, sizes.feed_forward_length
    query, key = sizes.head_count * sizes.head_dim, sizes.head_count_kv * sizes.head_dim
    for n in range(sizes.block_count):
        block = f"{part}.blk.{n}."
        yield Spec(block + "attn_norm.weight", (width,), Role.SMALL)
        yield Spec(block + "attn_q.weight", (query, width), role)
        yield Spec(block + "attn_k.weight", (key, width), role)
        yield Spec(block + "attn_v.weight", (key, width), role)
        yield Spec(block + "attn_output.weight", (width, query), role)
        yield Spec(block + "ffn_norm.weight", (width,), Role.SMALL)
        yield Spec(block + "ffn_gate.weight", (hidden, width), role)
        yield Spec(block + "ffn_up.weight", (hidden, width), role)
        yield Spec(block + "ffn_down.weight", (width, hidden), role)
    yield Spec(f"{part}.output_norm.weight", (width,), Role.SMALL)
    yield Spec(f"{part}.rope_freqs.weight", (sizes.head_dim // 2,), Role.SMALL)


def _mimi(config: ModelConfig) -> Iterator[Spec]:
    mimi = config.mimi
    hidden, stride = mimi.hidden_size, mimi.resample_stride
    acoustic = config.codebooks - mimi.semantic_codebooks
    for part, codebooks in (("semantic", mimi.semantic_codebooks), ("acoustic", acoustic)):
        prefix = f"mimi.quantizer.{part}."
        width = mimi.codebook_dim
        yield Spec(prefix + "input_proj.weight", (width, hidden), Role.CODEC_CONVOLUTION)
        yield Spec(prefix + "output_proj.weight", (hidden, width), Role.CODEC_CONVOLUTION)
        for n in range(codebooks):
            name = f"{prefix}layers.{n}.codebook"
            yield Spec(name, (mimi.codebook_size, width), Role.CODEBOOK)
    yield Spec("mimi.upsample.conv.weight", (hidden, 1, 2 * stride), Role.CODEC_CONVOLUTION)
    yield from _codec_transformer("decoder_transformer", mimi)
    yield from _seanet_decoder(mimi)
    yield from _seanet_encoder(mimi)
    yield from _codec_transformer("encoder_transformer", mimi)
    shape = (hidden, hidden, 2 * stride)
    yield Spec("mimi.downsample.conv.weight", shape, Role.CODEC_CONVOLUTION)


def _codec_transformer(part: str, mimi: MimiConfig) -> Iterator[Spec]:
    width, hidden = mimi.hidden_size, mimi.feed_forward_length
    query, key = mimi.head_count * mimi.head_dim, mimi.head_count_kv * mimi.head_dim
    for n in range(mimi.block_count):
        block = f"mimi.{part}.blk.{n}."
        for norm in ("attn_norm", "ffn_norm"):
            yield Spec(f"{block}{norm}.weight", (width,), Role.SMALL)
            yield Spec(f"{block}{norm}.bias", (width,), Role.SMALL)
        for scale in ("attn_scale", "ffn_scale"):
            yield Spec(f"{block}{scale}.weight", (width,), Role.SMALL)
        yield Spec(block + "attn_q.weight", (query, width), Role.CODEC_MATRIX)
        yield Spec(block + "attn_k.weight", (key, width), Role.CODEC_MATRIX)
        yield Spec(block + "attn_v.weight", (key, width), Role.CODEC_MATRIX)
        yield Spec(block + "attn_output.weight", (width, query), Role.CODEC_MATRIX)
        yield Spec(block + "ffn_up.weight", (hidden, width), Role.CODEC_MATRIX)
        yield Spec(block + "ffn_down.weight", (width, hidden), Role.CODEC_MATRIX)


def _convolution(name: str, shape: Shape, channels: int) -> Iterator[Spec]:
    yield Spec(name + ".weight", shape, Role.CODEC_CONVOLUTION)
    yield Spec(name + ".bias", (channels,), Role.SMALL)


def _residual(side: str, layer: int, channels: int, mimi: MimiConfig) -> Iterator[Spec]:
    block, inner = f"mimi.{side}.layers.{layer}.block.", channels // mimi.compress
    first = (inner, channels, mimi.residual_kernel_size)
    yield from _convolution(block + "1.conv", first, inner)
    yield from _convolution(block + "3.conv", (channels, inner, 1), channels)


# The layer numbers below count the activations (ELU) too, which have no tensors.


def _seanet_decoder(mimi: MimiConfig) -> Iterator[Spec]:
    name = "mimi.decoder.layers.{}.conv"
    channels = mimi.num_filters << len(mimi.upsampling_ratios)
    shape = (channels, mimi.hidden_size, mimi.kernel_size)
    yield from _convolution(name.format(0), shape, channels)
    layer = 1
    for ratio in mimi.upsampling_ratios:
        # transposed: (in, out, kernel)
        shape = (channels, channels // 2, 2 * ratio)
        yield from _convolution(name.format(layer + 1), shape, channels // 2)
        layer, channels = layer + 2, channels // 2
        for _ in range(mimi.num_residual_layers):
            yield from _residual("decoder", layer, channels, mimi)
            layer += 1
    yield from _convolution(name.format(layer + 1), (1, channels, mimi.last_kernel_size), 1)


def _seanet_encoder(mimi: MimiConfig) -> Iterator[Spec]:
    name = "mimi.encoder.layers.{}.conv"
    channels = mimi.num_filters
    yield from _convolution(name.format(0), (channels, 1, mimi.kernel_size), channels)
    layer = 1
    for ratio in reversed(mimi.upsampling_ratios):
        for _ in range(mimi.num_residual_layers):
            yield from _residual("encoder", layer, channels, mimi)
            layer += 1
        shape = (2 * channels, channels, 2 * ratio)
        yield from _convolution(name.format(layer + 1), shape, 2 * channels)
        layer, channels = layer + 2, 2 * channels
    shape = (mimi.hidden_size, channels, mimi.last_kernel_size)
    yield from _convolution(name.format(layer + 1), shape, mimi.hidden_size)
