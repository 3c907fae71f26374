"""Sizes and vocabularies of the checkpoints that are made instead of trained."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import chain, product

from .config import MimiConfig, ModelConfig, TransformerConfig
from .rope import Llama3Scaling
from .tokenizer import BOS_TEXT, CONTROL, EOS_TEXT, NORMAL, Vocabulary


@dataclass(frozen=True)
class Preset:
    """A kind of random checkpoint: sizes, and how many of the text ids are marks."""

    config: ModelConfig
    scaling: Llama3Scaling | None
    specials: int


_TINY_MERGES = 62

PRESETS: dict[str, Preset] = {
    # every path of the engine at a size that loads in no time: grouped heads, unequal widths,
    # dilated residuals
    "tiny": Preset(
        ModelConfig(
            codebooks=8,
            audio_vocab_size=131,
            text_vocab_size=256 + _TINY_MERGES + 2,
            context_length=512,
            backbone=TransformerConfig(3, 256, 512, 4, 2, 64),
            depth=TransformerConfig(2, 128, 256, 4, 2, 32),
            mimi=MimiConfig(
                hidden_size=64,
                num_filters=4,
                num_residual_layers=1,
                block_count=2,
                feed_forward_length=128,
                head_count=2,
                head_count_kv=2,
                head_dim=32,
                sliding_window=50,
                codebook_size=128,
                codebook_dim=32,
            ),
        ),
        Llama3Scaling(),
        specials=2,
    ),
    "csm-1b": Preset(
        ModelConfig(
            codebooks=32,
            audio_vocab_size=2051,
            text_vocab_size=128_256,
            context_length=2048,
            backbone=TransformerConfig(16, 2048, 8192, 32, 8, 64),
            depth=TransformerConfig(4, 1024, 8192, 8, 2, 128),
            mimi=MimiConfig(),
        ),
        Llama3Scaling(),
        specials=256,
    ),
}


def byte_alphabet() -> list[str]:
    """GPT-2's printable character for each of the 256 bytes."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [b for b in range(256) if b not in printable]
    shown = {b: chr(b) for b in printable} | {b: chr(256 + n) for n, b in enumerate(others)}
    return [shown[b] for b in range(256)]


_FREQUENT = list("etaoinshrdlucmfwygpbvk")


def synthetic_vocabulary(size: int, specials: int) -> Vocabulary:
    """A byte-level BPE vocabulary of exactly `size` tokens, the last `specials` of them marks.

    The merges are all pairs of common letters first, then of all bytes, then pairs of those pairs:
    enough to fill any size, and text comes out at a few bytes a token like with a trained one.

    Raises:
        ValueError: the size has no room for the 256 bytes and the marks.
    """
    merged = size - 256 - specials
    if merged < 0 or specials < 2:
        raise ValueError(
            f"text vocabulary of {size} with {specials} marks: "
            f"expected at least {256 + max(2, specials)}"
        )
    alphabet = byte_alphabet()
    space = alphabet[ord(" ")]
    letters = [space, *_FREQUENT]
    common = [a + b for a, b in product(letters, _FREQUENT)]
    pairs = chain(product(letters, _FREQUENT), product(alphabet, alphabet), product(common, common))
    tokens, seen = list(alphabet), set(alphabet)
    merges: list[str] = []
    for left, right in pairs:
        if len(merges) == merged:
            break
        if left + right not in seen:
            seen.add(left + right)
            tokens.append(left + right)
            merges.append(f"{left} {right}")
    if len(merges) < merged:
        raise ValueError(
            f"text vocabulary of {size}: expected at most {256 + len(merges) + specials}"
        )
    marks = [BOS_TEXT, EOS_TEXT]
    marks += [f"<|reserved_special_token_{n}|>" for n in range(specials - 2)]
    bos = len(tokens)
    kinds = [NORMAL] * bos + [CONTROL] * specials
    return Vocabulary(tokens + marks, merges, kinds, bos, bos + 1)
