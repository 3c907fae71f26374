"""The text tokenizer: byte-level BPE of Llama-3's kind; its merges are letter groups.

Letters suit a small model (a text letter lasts about as long as an audio frame); groups such as
"th" or "igh" save it from learning that two letters are one sound. The pre-tokenizer expression
is Llama-3's, so any Llama-3 style BPE built from this vocabulary and these merges gives the same
ids.
"""

from __future__ import annotations

from pathlib import Path

from tokenizers import Regex, Tokenizer, decoders, pre_tokenizers, processors
from tokenizers.models import BPE

LLAMA3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
SPECIALS = {
    "bos": "<|begin_of_text|>",
    "eos": "<|end_of_text|>",
    "audio": "<|AUDIO|>",
    "audio_eos": "<|audio_eos|>",
}
# In order of priority; a group of three is built from one of two.
GROUPS = (
    "t+h s+h c+h p+h w+h c+k q+u n+g g+h e+e e+a o+o o+u o+w o+a o+i o+y a+i a+y a+u a+w i+e e+y "
    "e+w "
    "i+o io+n t+ion s+ion i+ng i+gh e+r a+r o+r u+r i+r l+l s+s t+t f+f p+p r+r m+m n+n d+d c+c "
    "l+e e+d "
    "S+h T+h C+h W+h"
).split()


def byte_letters() -> list[str]:
    """GPT-2's printable letter for every byte value, in byte order."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    extra = [b for b in range(256) if b not in plain]
    return [chr(b if b in plain else 256 + extra.index(b)) for b in range(256)]


def build_tokenizer() -> Tokenizer:
    merges = [(a, b) for a, b in (g.split("+") for g in GROUPS)]
    entries = byte_letters() + [a + b for a, b in merges]
    vocab = {entry: i for i, entry in enumerate(entries)}
    tokenizer = Tokenizer(BPE(vocab, merges, ignore_merges=True))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(LLAMA3), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(list(SPECIALS.values()))
    bos, eos = SPECIALS["bos"], SPECIALS["eos"]
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{bos} $A {eos}",
        pair=f"{bos} $A {eos} {bos} $B {eos}",
        special_tokens=[(t, tokenizer.token_to_id(t)) for t in (bos, eos)],
    )
    return tokenizer


def special_ids(tokenizer: Tokenizer) -> dict[str, int]:
    return {name: tokenizer.token_to_id(text) for name, text in SPECIALS.items()}


def save_tokenizer(folder: Path) -> Tokenizer:
    tokenizer = build_tokenizer()
    tokenizer.save(str(folder / "tokenizer.json"))
    return tokenizer
