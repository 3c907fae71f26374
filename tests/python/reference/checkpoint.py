"""Writes a recipe as a transformers checkpoint, without PyTorch."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save_file

from .draws import centred
from .recipes import AUDIO, AUDIO_EOS, BOS, EOS, TEXT_MERGES, Recipe

Tensors = dict[str, NDArray[np.float32]]


def write_checkpoint(
    recipe: Recipe, folder: Path, *, change: Callable[[Tensors], None] | None = None
) -> Path:
    """Write the recipe's checkpoint.

    Args:
        recipe: What to draw.
        folder: Where to write; made if missing.
        change: Called with all tensors before they are written, to edit them in place.

    Returns:
        The folder.
    """
    folder.mkdir(parents=True, exist_ok=True)
    tensors = draw_tensors(recipe)
    if change is not None:
        change(tensors)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "config.json").write_text(json.dumps(recipe.config, indent=2))
    write_tokenizer(folder / "tokenizer.json")
    return folder


def draw_tensors(recipe: Recipe) -> Tensors:
    """All tensors of the checkpoint under transformers' names, float32, torch shapes.

    Linear layers keep the size of their input; blocks add `recipe.residual` times that. Head rows
    without a codec entry are zero, because transformers would draw from them and the engine never
    does.
    """
    return dict(_language_model(recipe)) | dict(_codec(recipe))


def _language_model(recipe: Recipe) -> Iterator[tuple[str, NDArray[np.float32]]]:
    config = recipe.config
    depth = config["depth_decoder_config"]
    width, codes = config["hidden_size"], recipe.audio_vocab

    def draw(name: str, shape: tuple[int, ...], std: float) -> tuple[str, NDArray[np.float32]]:
        return name, centred(recipe.seed, name, shape) * np.float32(std)

    yield draw("embed_text_tokens.weight", (config["text_vocab_size"], width), 1.0)
    _, table = draw("audio table", (recipe.codebooks * codes, width), 0.5)
    yield "backbone_model.embed_tokens.embed_audio_tokens.weight", table
    yield "depth_decoder.model.embed_tokens.weight", table
    yield from _llama(recipe, "backbone_model", config)
    yield from _llama(recipe, "depth_decoder.model", depth)
    yield draw(
        "depth_decoder.model.inputs_embeds_projector.weight",
        (depth["hidden_size"], width),
        1.5 * width**-0.5,
    )
    name, head = draw("lm_head.weight", (codes, width), recipe.gain * width**-0.5)
    head[recipe.codebook_size :] = 0
    yield name, head
    name, pages = draw(
        "depth_decoder.codebooks_head.weight",
        (recipe.codebooks - 1, depth["hidden_size"], codes),
        recipe.gain * depth["hidden_size"] ** -0.5,
    )
    pages[:, :, recipe.codebook_size :] = 0
    yield name, pages


def _llama(
    recipe: Recipe, prefix: str, config: dict[str, Any]
) -> Iterator[tuple[str, NDArray[np.float32]]]:
    """One of the two language models; its attention is neither flat nor hard."""
    width, head_dim = config["hidden_size"], config["head_dim"]
    queries, keys = (
        config["num_attention_heads"] * head_dim,
        config["num_key_value_heads"] * head_dim,
    )
    hidden = config["intermediate_size"]
    matrices = {
        "self_attn.q_proj": (queries, width, 1.4),
        "self_attn.k_proj": (keys, width, 1.4),
        "self_attn.v_proj": (keys, width, 1.0),
        "self_attn.o_proj": (width, queries, 1.5 * recipe.residual),
        "mlp.gate_proj": (hidden, width, 1.2),
        "mlp.up_proj": (hidden, width, 1.2),
        "mlp.down_proj": (width, hidden, recipe.residual),
    }
    for layer in range(config["num_hidden_layers"]):
        base = f"{prefix}.layers.{layer}"
        for part, (rows, columns, gain) in matrices.items():
            name = f"{base}.{part}.weight"
            yield (
                name,
                centred(recipe.seed, name, (rows, columns)) * np.float32(gain * columns**-0.5),
            )
        for part in ("input_layernorm", "post_attention_layernorm"):
            yield _norm_weight(recipe, f"{base}.{part}.weight", width)
    yield _norm_weight(recipe, f"{prefix}.norm.weight", width)


def _norm_weight(recipe: Recipe, name: str, width: int) -> tuple[str, NDArray[np.float32]]:
    return name, 1 + np.float32(0.2) * centred(recipe.seed, name, (width,))


def _codec(recipe: Recipe) -> Iterator[tuple[str, NDArray[np.float32]]]:
    config = recipe.codec
    hidden = config["hidden_size"]
    prefix = "codec_model"

    def draw(name: str, shape: tuple[int, ...], std: float) -> tuple[str, NDArray[np.float32]]:
        return f"{prefix}.{name}", centred(recipe.seed, name, shape) * np.float32(std)

    def conv(
        name: str, shape: tuple[int, ...], inputs: float, gain: float = 1.4
    ) -> Iterator[tuple[str, NDArray[np.float32]]]:
        """A convolution with bias; inputs is how many numbers make one output number."""
        channels = shape[1] if ".transposed" in name else shape[0]
        name = name.replace(".transposed", "")
        yield draw(f"{name}.weight", shape, gain * inputs**-0.5)
        yield draw(f"{name}.bias", (channels,), 0.1)

    def residual_blocks(
        side: str, index: int, channels: int
    ) -> Iterator[tuple[str, NDArray[np.float32]]]:
        kernel, inner = config["residual_kernel_size"], channels // config["compress"]
        for block in range(config["num_residual_layers"]):
            base = f"{side}.layers.{index + block}.block"
            yield from conv(f"{base}.1.conv", (inner, channels, kernel), channels * kernel)
            yield from conv(f"{base}.3.conv", (channels, inner, 1), inner, 0.7)

    first, last, filters = config["kernel_size"], config["last_kernel_size"], config["num_filters"]
    blocks, ratios = config["num_residual_layers"], config["upsampling_ratios"]
    top = filters * 2 ** len(ratios)

    # sounds of the tests are about 0.3 in size; the encoder's first layer brings them to one
    yield from conv("encoder.layers.0.conv", (filters, 1, first), first, 4.0)
    index, channels = 1, filters
    for ratio in reversed(ratios):
        yield from residual_blocks("encoder", index, channels)
        index += blocks + 1
        shape = (2 * channels, channels, 2 * ratio)
        yield from conv(f"encoder.layers.{index}.conv", shape, channels * 2 * ratio)
        index, channels = index + 1, 2 * channels
    yield from conv(f"encoder.layers.{index + 1}.conv", (hidden, top, last), top * last)

    yield from conv("decoder.layers.0.conv", (top, hidden, first), hidden * first)
    index, channels = 1, top
    for ratio in ratios:
        # each output sample of a transposed convolution sees two steps of its input
        shape = (channels, channels // 2, 2 * ratio)
        yield from conv(f"decoder.layers.{index + 1}.conv.transposed", shape, channels * 2)
        yield from residual_blocks("decoder", index + 2, channels // 2)
        index, channels = index + 2 + blocks, channels // 2
    yield from conv(
        f"decoder.layers.{index + 1}.conv", (1, filters, last), filters * last, gain=0.05
    )

    for side in ("encoder_transformer", "decoder_transformer"):
        yield from _codec_transformer(recipe, side)
    yield draw("downsample.conv.weight", (hidden, hidden, 4), (hidden * 4) ** -0.5)
    yield draw("upsample.conv.weight", (hidden, 1, 4), 0.7)

    dim, entries = config["codebook_dim"], recipe.codebook_size
    semantic = config["num_semantic_quantizers"]
    for kind, count in (("semantic", semantic), ("acoustic", recipe.codebooks - semantic)):
        base = f"quantizer.{kind}_residual_vector_quantizer"
        yield draw(f"{base}.input_proj.weight", (dim, hidden, 1), hidden**-0.5)
        yield draw(f"{base}.output_proj.weight", (hidden, dim, 1), dim**-0.5)
        for layer in range(count):
            name = f"{base}.layers.{layer}.codebook"
            # the entries are shorter than what they approximate, so that they are chosen by
            # direction as well as by length
            embed = centred(recipe.seed, name, (entries, dim)) * np.float32(0.4)
            usage = np.abs(centred(recipe.seed, f"{name} usage", (entries,))) * np.float32(0.7)
            # an entry that was never used: the division must be by 1e-5, not by its usage
            usage[entries // 3] = 1e-7
            yield (
                f"{prefix}.{name}.embed_sum",
                embed * np.maximum(usage, np.float32(1e-5))[:, None],
            )
            yield f"{prefix}.{name}.cluster_usage", usage
            yield f"{prefix}.{name}.initialized", np.ones(1, np.float32)


def _codec_transformer(recipe: Recipe, side: str) -> Iterator[tuple[str, NDArray[np.float32]]]:
    config = recipe.codec
    width, inner = config["hidden_size"], config["intermediate_size"]
    queries = config["num_attention_heads"] * config["head_dim"]
    keys = config["num_key_value_heads"] * config["head_dim"]
    matrices = {
        "self_attn.q_proj": (queries, width, 1.4),
        "self_attn.k_proj": (keys, width, 1.4),
        "self_attn.v_proj": (keys, width, 1.0),
        "self_attn.o_proj": (width, queries, 1.5),
        "mlp.fc1": (inner, width, 1.2),
        "mlp.fc2": (width, inner, 1.2),
    }
    for layer in range(config["num_hidden_layers"]):
        base = f"codec_model.{side}.layers.{layer}"
        for part, (rows, columns, gain) in matrices.items():
            name = f"{base}.{part}.weight"
            yield (
                name,
                centred(recipe.seed, name, (rows, columns)) * np.float32(gain * columns**-0.5),
            )
        for part in ("input_layernorm", "post_attention_layernorm"):
            yield _norm_weight(recipe, f"{base}.{part}.weight", width)
            name = f"{base}.{part}.bias"
            yield name, centred(recipe.seed, name, (width,)) * np.float32(0.1)
        for part in ("self_attn_layer_scale", "mlp_layer_scale"):
            name = f"{base}.{part}.scale"
            yield name, np.float32(0.5) + np.float32(0.2) * centred(recipe.seed, name, (width,))


def write_tokenizer(path: Path) -> None:
    """A small vocabulary of Llama-3's kind: byte-level BPE, special tokens at the end."""
    from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers

    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {letter: index for index, letter in enumerate(letters)}
    merges: list[tuple[str, str]] = []
    # pairs first, then words built on them, so that merging by rank has something to decide
    pairs = re.findall("..", "thheineranreonatenndtiesorteofedisitalarstntngseha")
    words = ["t he", "Ġ t", "Ġ a", "in g", "Ġ s", "an d", "Ġt he", "e d", "h e", "ll o"]
    words += ["l l", "Ġ w", "o u", "Ġ h", "Ġ c", "o m", "er s", "Ġ b", "i on", "at ion"]
    for left, right in [(p[0], p[1]) for p in pairs] + [tuple(w.split()) for w in words]:
        known = left in vocabulary and right in vocabulary and left + right not in vocabulary
        if known and len(merges) < TEXT_MERGES:
            merges.append((left, right))
            vocabulary[left + right] = len(vocabulary)
    digits = [(a, b) for a in "0123456789" for b in "0123456789"]
    for left, right in digits[: TEXT_MERGES - len(merges)]:
        merges.append((left, right))
        vocabulary[left + right] = len(vocabulary)

    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=merges, ignore_merges=True))
    pattern = (
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
        r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(pattern), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    specials = {
        "<|begin_of_text|>": BOS,
        "<|end_of_text|>": EOS,
        "<|AUDIO|>": AUDIO,
        "<|audio_eos|>": AUDIO_EOS,
    }
    tokenizer.add_special_tokens(
        [AddedToken(text, special=True, normalized=False) for text in specials]
    )
    for text, index in specials.items():
        if tokenizer.token_to_id(text) != index:
            raise AssertionError(f"{text} is {tokenizer.token_to_id(text)}, not {index}")
    tokenizer.save(str(path))
