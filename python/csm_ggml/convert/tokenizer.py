"""The text vocabulary on its way from tokenizer.json (or a GGUF file) to our keys."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeGuard

from csm_ggml._core import ModelFormatError
from csm_ggml.text.pretokenizer import LLAMA3_PATTERN

from .transformers_config import read_json, shown

NORMAL, CONTROL, ADDED, UNUSED = 1, 3, 4, 5
_MOST_TOKENS = 1 << 24

BOS_TEXT, EOS_TEXT = "<|begin_of_text|>", "<|end_of_text|>"
"""Llama 3's marks around every segment."""

_CONTROL_TEXT = re.compile(r"<\|.*\|>|</?s>|<(unk|pad|mask|bos|eos)>|\[(UNK|PAD|BOS|EOS|MASK)\]")
"""What marks look like that are no part of a text; other tokens a fine-tune added for its texts."""

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
        token_types: by id; 1 normal, 3 control, 4 added by a fine-tune and matched whole.
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

    def __post_init__(self) -> None:
        """Raise ModelFormatError where a list is empty, or a token is no text."""
        if not self.tokens or not self.merges:
            raise ModelFormatError("the tokenizer has no tokens, or no merges")
        for texts in (self.tokens, self.merges, [self.pre]):
            try:
                "".join(texts).encode()
            except UnicodeEncodeError as error:
                raise ModelFormatError(
                    f"the tokenizer holds {error.object[error.start]!r}, expected Unicode text"
                ) from None

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


def read_tokenizer_json(path: Path, marks: tuple[str, str] | None = None) -> Vocabulary:
    """Read a `tokenizer.json` of the tokenizers library.

    Args:
        path: the file.
        marks: texts of the tokens around a segment, where the model is known. What the file itself
            sets around a text comes first.

    Raises:
        ModelFormatError: the file is damaged, or not a byte-level BPE cut in a known way.
    """
    content = read_json(path)
    model = _object(content.get("model"), "model", path)
    kind = model.get("type", "BPE")
    ids = dict(_object(model.get("vocab"), "model.vocab", path))
    base = set(ids)
    special = {}
    added = {}
    for entry in _list(content.get("added_tokens") or [], "added_tokens", path):
        token = _object(entry, "an entry of added_tokens", path)
        text = _string(token.get("content"), "content of an added token", path)
        ids[text] = index = token.get("id")
        number = index if isinstance(index, int) else -1
        if token.get("special") and (text in base or _CONTROL_TEXT.fullmatch(text)):
            special[number] = text
        else:
            _check_plain(token, text, path)
            added[number] = text
    pairs = [_merge(merge, path) for merge in _list(model.get("merges"), "model.merges", path)]
    for text, index in ids.items():
        if type(index) is not int or not 0 <= index < _MOST_TOKENS:
            raise ModelFormatError(
                f"{path}: the id of token {text[:60]!r} is {shown(index)}, expected 0 to "
                f"{_MOST_TOKENS - 1}"
            )
    if not ids:
        raise ModelFormatError(f"{path}: the tokenizer has no tokens")
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
    for kind, found in ((ADDED, added), (CONTROL, special)):
        for index, text in found.items():
            tokens[index], token_types[index] = text, kind
    settings = path.with_name("tokenizer_config.json")
    names = read_json(settings) if settings.is_file() else {}
    template = _template(content.get("post_processor"))
    before, after = template or marks or (None, None)
    bos = _find(ids, (before, BOS_TEXT), names.get("bos_token"), "bos_token", path)
    eos = _find(ids, (after, EOS_TEXT), names.get("eos_token"), "eos_token", path)
    token_types[bos] = token_types[eos] = CONTROL
    return Vocabulary(tokens, pairs, token_types, bos, eos, pre)


def _check_plain(token: Mapping[str, Any], text: str, path: Path) -> None:
    """Raise ModelFormatError where an added token is matched in a way that the engine has not."""
    for flag in ("lstrip", "rstrip", "single_word"):
        if token.get(flag):
            raise ModelFormatError(
                f"{path}: the added token {text[:60]!r} has {flag} set, expected none of lstrip, "
                "rstrip and single_word"
            )


def _object(value: object, what: str, path: Path) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise _wrong(value, what, "an object", path)
    return value


def _list(value: object, what: str, path: Path) -> list[Any]:
    if not isinstance(value, list):
        raise _wrong(value, what, "a list", path)
    return value


def _string(value: object, what: str, path: Path) -> str:
    if not isinstance(value, str):
        raise _wrong(value, what, "a text", path)
    return value


def _merge(value: object, path: Path) -> str:
    """Two parts with a space between, as newer files list them or as older ones write them."""
    parts = value.split(" ") if isinstance(value, str) else value
    if not isinstance(parts, list) or len(parts) != 2 or not all(isinstance(p, str) for p in parts):
        raise _wrong(value, "an entry of model.merges", "two parts", path)
    return " ".join(parts)


def _wrong(value: object, what: str, expected: str, path: Path) -> ModelFormatError:
    return ModelFormatError(
        f"{path}: not a BPE tokenizer.json: {what} is {shown(value)}, expected {expected}"
    )


def _cutting(content: Mapping[str, Any], path: Path) -> str:
    if content.get("normalizer"):
        raise ModelFormatError(
            f"{path}: the tokenizer has the normalizer {shown(content['normalizer'])}, "
            "expected none"
        )
    whole = _object(content.get("pre_tokenizer") or {}, "pre_tokenizer", path)
    listed = _list(whole.get("pretokenizers", [whole]), "pre_tokenizer.pretokenizers", path)
    steps = tuple(_step(_object(step, "a step of pre_tokenizer", path)) for step in listed)
    if steps not in _CUTTINGS:
        raise ModelFormatError(
            f"{path}: the tokenizer cuts text by {shown(list(steps))}, expected one of "
            f"{', '.join(str(list(known)) for known in _CUTTINGS)}"
        )
    return _CUTTINGS[steps]


def _step(step: Mapping[str, Any]) -> str:
    kind = step.get("type")
    if kind == "Split" and step.get("behavior") == "Isolated" and not step.get("invert"):
        pattern = step.get("pattern")
        return str(pattern.get("Regex")) if isinstance(pattern, dict) else shown(pattern)
    if kind == "ByteLevel" and not step.get("add_prefix_space", True):
        return "bytes and words" if step.get("use_regex", True) else "bytes"
    if kind == "Digits" and step.get("individual_digits"):
        return "single digits"
    return shown(dict(step))


def _template(post_processor: object) -> tuple[str, str] | None:
    """The tokens that the tokenizer itself sets before and after a text, if it does both."""
    steps = [post_processor]
    if isinstance(post_processor, Mapping):
        steps += post_processor.get("processors") or []
    for step in steps:
        if not isinstance(step, Mapping) or step.get("type") != "TemplateProcessing":
            continue
        try:
            before, text, after = step["single"]
            if "Sequence" in text:
                return str(before["SpecialToken"]["id"]), str(after["SpecialToken"]["id"])
        except (KeyError, TypeError, ValueError):
            continue
    return None


def _find(
    ids: Mapping[str, int], usual: tuple[str | None, str], named: object, key: str, path: Path
) -> int:
    if isinstance(named, Mapping):
        named = named.get("content")
    for text in (*usual, named):
        if isinstance(text, str) and text in ids:
            return ids[text]
    raise ModelFormatError(
        f"{path}: no token {usual[0] or usual[1]!r}; name the {key} in tokenizer_config.json next "
        "to it"
    )


def read_metadata(keys: Mapping[str, Any], where: str) -> Vocabulary:
    """The vocabulary in a GGUF file's keys.

    Raises:
        ModelFormatError: keys are missing or contradict each other.
    """
    tokens, merges = keys.get("tokenizer.ggml.tokens"), keys.get("tokenizer.ggml.merges", [])
    if not _texts(tokens) or not tokens:
        raise ModelFormatError(f"{where}: no tokenizer.ggml.tokens, expected a list of texts")
    if not _texts(merges):
        raise ModelFormatError(f"{where}: tokenizer.ggml.merges is no list of texts")
    if keys.get("tokenizer.ggml.model") != "gpt2":
        raise ModelFormatError(
            f"{where}: tokenizer.ggml.model is {shown(keys.get('tokenizer.ggml.model'))}, "
            "expected 'gpt2'"
        )
    token_types = keys.get("tokenizer.ggml.token_type") or [NORMAL] * len(tokens)
    if not isinstance(token_types, list) or not all(
        type(t) is int and 0 <= t < 1 << 31 for t in token_types
    ):
        raise ModelFormatError(f"{where}: tokenizer.ggml.token_type is no list of types")
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
        if type(value) is not int or not 0 <= value < len(tokens):
            raise ModelFormatError(f"{where}: {general} is {value!r}, expected a token id")
        ends.append(value)
    pre = keys.get("tokenizer.ggml.pre", "llama-bpe")
    if not isinstance(pre, str):
        raise ModelFormatError(f"{where}: tokenizer.ggml.pre is {shown(pre)}, expected a name")
    return Vocabulary(tokens, merges, token_types, ends[0], ends[1], pre)


def _texts(value: object) -> TypeGuard[list[str]]:
    return isinstance(value, list) and all(isinstance(text, str) for text in value)
