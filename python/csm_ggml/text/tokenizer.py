"""Text to ids with the checkpoint's own vocabulary.

The GGUF file carries tokens and merges of a byte-level BPE; the `tokenizers` library runs it, so no
tokenizer.json has to be downloaded from a gated repository.

Control tokens are left out of the vocabulary that text is matched against: the string
`<|end_of_text|>` in a user's text is read aloud like any other, it never ends a segment.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from tokenizers import AddedToken, Regex, Tokenizer, models, pre_tokenizers

from csm_ggml.errors import ModelFormatError
from csm_ggml.text.pretokenizer import LLAMA3_PATTERN
from csm_ggml.text.prompt_format import PromptFormat

_GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"

# Value of tokenizer.ggml.pre -> the regular expressions that cut text before BPE, and whether a
# piece that is itself a token is taken whole, without going through the merges.
_PRE_TOKENIZERS: dict[str, tuple[tuple[str, ...], bool]] = {
    "llama-bpe": ((LLAMA3_PATTERN,), True),
    "gpt-2": ((_GPT2,), False),
    "smollm": ((r"\p{N}", _GPT2), False),
}

_NORMAL_TOKEN, _ADDED_TOKEN = 1, 4

# Typographic marks, and what people type for them. A vocabulary that has no token of its own for a
# mark was made of texts without it: its bytes would be noise to the model.
_TYPED = {
    **dict.fromkeys("\u2018\u2019\u201a\u201b\u02bc\u2032", "'"),
    **dict.fromkeys("\u201c\u201d\u201e\u201f\u00ab\u00bb\u2033", '"'),
    **dict.fromkeys("\u2010\u2011\u2012\u2013", "-"),
    **dict.fromkeys("\u2014\u2015", "--"),
    "\u2026": "...",
}


class TextTokenizer:
    """Byte-level BPE of one checkpoint.

    Attributes:
        bos: Id set before every segment.
        eos: Id set after every segment's text.
        added: Tokens that a fine-tune added, such as `<laugh>`; matched whole wherever they stand.
    """

    def __init__(self, description: Mapping[str, Any], prompt: PromptFormat | None = None) -> None:
        """Build the tokenizer.

        Args:
            description: `Model.tokenizer` of the compiled core: tokens and merges as lists of
                bytes, token_type, bos, eos, pre.
            prompt: How a turn is written; as CSM does if left out.

        Raises:
            ModelFormatError: If the file has no tokenizer, or one that this package cannot run.
        """
        if not description:
            raise ModelFormatError(
                "the model file holds no tokenizer (tokenizer.ggml.tokens is absent), so it "
                "cannot read text; "
                "convert it again from a folder that contains tokenizer.json"
            )
        pre = description["pre"]
        if pre not in _PRE_TOKENIZERS:
            raise ModelFormatError(
                f"tokenizer.ggml.pre is {pre!r}, expected one of "
                f"{', '.join(sorted(_PRE_TOKENIZERS))}"
            )
        patterns, ignore_merges = _PRE_TOKENIZERS[pre]
        self.bos: int = description["bos"]
        self.eos: int = description["eos"]
        self._prompt = prompt or PromptFormat()
        self._tokenizer = Tokenizer(_bpe(description, ignore_merges))
        # ByteLevel maps bytes to the printable alphabet of the vocabulary; cutting is the regex's
        # job.
        self._tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
            [pre_tokenizers.Split(Regex(pattern), "isolated") for pattern in patterns]
            + [pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
        )
        self.added = added_tokens(description["tokens"], description["token_type"])
        self._tokenizer.add_tokens(
            [AddedToken(text, special=False, normalized=False) for text in self.added]
        )
        self._folds = str.maketrans(
            {mark: typed for mark, typed in _TYPED.items() if self._prefers(typed, mark)}
        )

    def _prefers(self, typed: str, mark: str) -> bool:
        return len(self.encode(mark)) > 1 and len(self.encode(typed[0])) == 1

    def encode(self, text: str) -> list[int]:
        """Ids of the text as it stands, without BOS and EOS."""
        ids: list[int] = self._tokenizer.encode(text, add_special_tokens=False).ids
        return ids

    def encode_turn(self, speaker: int, text: str) -> list[int]:
        """Ids of one segment's text rows: BOS, `[speaker]text` or as the file says, EOS.

        Typographic quotes, apostrophes, dashes and dots that the vocabulary has no token for become
        those of a typewriter.
        """
        text = text.translate(self._folds)
        return [self.bos, *self.encode(self._prompt.write(speaker, text)), self.eos]


def added_tokens(tokens: Sequence[bytes], types: Sequence[int]) -> tuple[str, ...]:
    """The tokens that a fine-tune added to a vocabulary."""
    found = zip(tokens, types, strict=False)
    return tuple(token.decode("utf-8", "replace") for token, kind in found if kind == _ADDED_TOKEN)


def _bpe(description: Mapping[str, Any], ignore_merges: bool) -> models.BPE:
    tokens: list[bytes] = description["tokens"]
    types: list[int] = description["token_type"] or [_NORMAL_TOKEN] * len(tokens)
    if len(types) != len(tokens):
        raise ModelFormatError(
            f"tokenizer.ggml.token_type has {len(types)} entries, expected {len(tokens)}, one per "
            "token"
        )
    try:
        vocabulary = {
            token.decode("utf-8"): index
            for index, (token, type_) in enumerate(zip(tokens, types, strict=True))
            if type_ in (_NORMAL_TOKEN, _ADDED_TOKEN)
        }
        merges = [_split_merge(merge.decode("utf-8")) for merge in description["merges"]]
        return models.BPE(vocab=vocabulary, merges=merges, ignore_merges=ignore_merges)
    except UnicodeDecodeError as error:
        raise ModelFormatError(f"the tokenizer holds a token that is not UTF-8: {error}") from None
    except ModelFormatError:
        raise
    except Exception as error:  # the tokenizers library raises bare Exception
        raise ModelFormatError(f"the tokenizer's tokens and merges do not fit: {error}") from None


def _split_merge(merge: str) -> tuple[str, str]:
    # The space of the byte alphabet is "\u0120", so the first real space past the start parts the
    # two tokens.
    at = merge.find(" ", 1)
    if at < 0 or at == len(merge) - 1:
        raise ModelFormatError(
            f"tokenizer.ggml.merges holds {merge!r}, expected two tokens and a space"
        )
    return merge[:at], merge[at + 1 :]
