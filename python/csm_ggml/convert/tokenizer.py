"""The text vocabulary on its way from tokenizer.json (or a GGUF file) to our keys."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from csm_ggml._core import ModelFormatError

NORMAL, CONTROL, UNUSED = 1, 3, 5

BOS_TEXT, EOS_TEXT = "<|begin_of_text|>", "<|end_of_text|>"
"""Llama 3's marks around every segment."""

LLAMA3_PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
"""How Llama 3 cuts text before merging."""

_CUTTINGS: dict[tuple[str, ...], str] = {
    (LLAMA3_PATTERN, "bytes"): "llama-bpe",
    ("bytes and words",): "gpt-2",
    ("single digits", "bytes and words"): "smollm",
}
"""Steps of a pre-tokenizer to the value of tokenizer.ggml.pre."""


@dataclass(frozen=True)
class Vocabulary:
    """A byte-level BPE vocabulary.

    Attributes:
        tokens: by id, in the printable byte alphabet of GPT-2.
        merges: `"left right"` by rank.
        token_types: by id; 1 normal, 3 control.
        bos: id set before every segment.
        eos: id set after every segment.
        pre: how text is cut before merging, a name from llama.cpp.
    """

    tokens: list[str]
    merges: list[str]
    token_types: list[int]
    bos: int
    eos: int
    pre: str = "llama-bpe"

    def to_metadata(self) -> dict[str, Any]:
        """The tokenizer's GGUF keys."""
        return {
            "csm.bos_token_id": self.bos,
            "csm.eos_token_id": self.eos,
            "tokenizer.ggml.model": "gpt2",
            "tokenizer.ggml.pre": self.pre,
            "tokenizer.ggml.tokens": self.tokens,
            "tokenizer.ggml.merges": self.merges,
            "tokenizer.ggml.token_type": self.token_types,
            "tokenizer.ggml.bos_token_id": self.bos,
            "tokenizer.ggml.eos_token_id": self.eos,
        }

    def check_size(self, text_vocab_size: int, where: str) -> None:
        """Raise ModelFormatError if there are more tokens than embedding rows."""
        if len(self.tokens) > text_vocab_size:
            raise ModelFormatError(
                f"{where}: {len(self.tokens)} tokens, expected at most the {text_vocab_size} rows "
                "of the text embedding: the tokenizer of another model?"
            )


def read_tokenizer_json(path: Path) -> Vocabulary:
    """Read a `tokenizer.json` of the tokenizers library.

    Raises:
        ModelFormatError: the file is damaged, or not a byte-level BPE cut in a known way.
    """
    try:
        content = json.loads(path.read_text("utf-8"))
        model = content["model"]
        kind, vocabulary, merges = model.get("type", "BPE"), model["vocab"], model["merges"]
        added = content.get("added_tokens") or []
        ids = dict(vocabulary.items())
        special = {entry["id"]: entry["content"] for entry in added if entry.get("special")}
        ids |= {entry["content"]: entry["id"] for entry in added}
        pairs = [m if isinstance(m, str) else " ".join(m) for m in merges]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ModelFormatError(
            f"{path}: not a BPE tokenizer.json: {type(error).__name__} {error}"
        ) from None
    if kind != "BPE":
        raise ModelFormatError(f"{path}: the tokenizer is a {kind}, expected BPE")
    pre = _cutting(content, path)
    count = max(ids.values()) + 1
    if count > 4 * len(ids) + 1024:
        raise ModelFormatError(f"{path}: token ids up to {count} for {len(ids)} tokens")
    tokens = [f"<|unused_{i}|>" for i in range(count)]
    token_types = [UNUSED] * count
    for text, index in ids.items():
        tokens[index], token_types[index] = text, NORMAL
    for index, text in special.items():
        tokens[index], token_types[index] = text, CONTROL
    settings = path.with_name("tokenizer_config.json")
    names = json.loads(settings.read_text("utf-8")) if settings.is_file() else {}
    bos = _find(ids, BOS_TEXT, names.get("bos_token"), "bos_token", path)
    eos = _find(ids, EOS_TEXT, names.get("eos_token"), "eos_token", path)
    return Vocabulary(tokens, pairs, token_types, bos, eos, pre)


def _cutting(content: Mapping[str, Any], path: Path) -> str:
    if content.get("normalizer"):
        raise ModelFormatError(
            f"{path}: the tokenizer has the normalizer {content['normalizer']!r}, expected none"
        )
    whole = content.get("pre_tokenizer") or {}
    steps = tuple(_step(step) for step in whole.get("pretokenizers", [whole]))
    if steps not in _CUTTINGS:
        raise ModelFormatError(
            f"{path}: the tokenizer cuts text by {list(steps)}, expected one of "
            f"{', '.join(str(list(known)) for known in _CUTTINGS)}"
        )
    return _CUTTINGS[steps]


def _step(step: Mapping[str, Any]) -> str:
    kind = step.get("type")
    if kind == "Split" and step.get("behavior") == "Isolated" and not step.get("invert"):
        return str(step.get("pattern", {}).get("Regex"))
    if kind == "ByteLevel" and not step.get("add_prefix_space", True):
        return "bytes and words" if step.get("use_regex", True) else "bytes"
    if kind == "Digits" and step.get("individual_digits"):
        return "single digits"
    return json.dumps(dict(step))


def _find(ids: Mapping[str, int], usual: str, named: object, key: str, path: Path) -> int:
    if isinstance(named, Mapping):
        named = named.get("content")
    for text in (usual, named):
        if isinstance(text, str) and text in ids:
            return ids[text]
    raise ModelFormatError(
        f"{path}: no token {usual!r}; name the {key} in tokenizer_config.json next to it"
    )


def read_metadata(keys: Mapping[str, Any], where: str) -> Vocabulary:
    """The vocabulary in a GGUF file's keys.

    Raises:
        ModelFormatError: keys are missing or contradict each other.
    """
    tokens, merges = keys.get("tokenizer.ggml.tokens"), keys.get("tokenizer.ggml.merges", [])
    if not isinstance(tokens, list) or not tokens or not isinstance(merges, list):
        raise ModelFormatError(f"{where}: no tokenizer.ggml.tokens")
    if keys.get("tokenizer.ggml.model") != "gpt2":
        raise ModelFormatError(
            f"{where}: tokenizer.ggml.model is {keys.get('tokenizer.ggml.model')!r}, "
            "expected 'gpt2'"
        )
    token_types = keys.get("tokenizer.ggml.token_type") or [NORMAL] * len(tokens)
    if len(token_types) != len(tokens):
        raise ModelFormatError(
            f"{where}: {len(token_types)} token types, expected {len(tokens)}, one per token"
        )
    ends = []
    for own, text, general in (
        ("csm.bos_token_id", BOS_TEXT, "tokenizer.ggml.bos_token_id"),
        ("csm.eos_token_id", EOS_TEXT, "tokenizer.ggml.eos_token_id"),
    ):
        value = keys.get(own)
        if value is None and text in tokens:
            value = tokens.index(text)
        if value is None:
            value = keys.get(general)
        if not isinstance(value, int) or not 0 <= value < len(tokens):
            raise ModelFormatError(f"{where}: {general} is {value!r}, expected a token id")
        ends.append(value)
    pre = keys.get("tokenizer.ggml.pre", "llama-bpe")
    return Vocabulary(tokens, merges, token_types, ends[0], ends[1], pre)
