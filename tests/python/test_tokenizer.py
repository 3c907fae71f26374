"""The tokenizer made of a GGUF's tokens and merges is the one its tokenizer.json describes."""

import json
import os
from typing import Any

import pytest
from csm_ggml import CSM, ModelFormatError
from csm_ggml.text.tokenizer import TextTokenizer
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

LLAMA3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)

CORPUS = [
    "[0]Hello from Sesame. [1]Pretty good, pretty good. How about you?",
    "I'm figuring out my budget; don't DON'T. What are you working on?",
    "na\u00efve caf\u00e9 e\u0301 \u65e5\u672c\u8a9e\u3067\u3059 123456789 $3.50 (ok)\u2026",
    "The quick brown fox jumps over the lazy dog, again and again and again.",
] * 20

TEXTS = [
    *CORPUS[:4],
    "",
    " ",
    "a  b   c",
    "Hello\r\nworld\n\n\nagain \n",
    "x" * 500,
    "\U0001f600\u200d\U0001f680 \u0628\u0633\u0645",
    "we'LL they'Re 'S",
    "Hi.\n",
    "<|end_of_text|> is text",
    "tab\tand\u00a0nbsp",
]


@pytest.fixture(scope="module")
def trained() -> Tokenizer:
    """A byte-level BPE as Llama-3's, trained on a few sentences."""
    tokenizer = Tokenizer(models.BPE(ignore_merges=True))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(LLAMA3), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=600,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        special_tokens=["<|begin_of_text|>", "<|end_of_text|>"],
        show_progress=False,
    )
    tokenizer.train_from_iterator(CORPUS, trainer)
    return tokenizer


@pytest.fixture
def description(trained: Tokenizer) -> dict[str, Any]:
    """What the compiled core gives for a file made of it."""
    model = json.loads(trained.to_str())["model"]
    tokens = sorted(model["vocab"], key=model["vocab"].__getitem__)
    return {
        "tokens": [token.encode() for token in tokens],
        "merges": [" ".join(merge).encode() for merge in model["merges"]],
        "token_type": [3 if token.startswith("<|") else 1 for token in tokens],
        "bos": 0,
        "eos": 1,
        "pre": "llama-bpe",
    }


@pytest.mark.parametrize("text", TEXTS)
def test_same_ids_as_tokenizer_json(
    trained: Tokenizer, description: dict[str, Any], text: str
) -> None:
    expected = trained.encode(text, add_special_tokens=False)
    if "<|" in text:
        assert 1 in expected.ids  # tokenizers parses it as the special token
        assert 1 not in TextTokenizer(description).encode(text)
    else:
        assert TextTokenizer(description).encode(text) == expected.ids


@pytest.mark.parametrize("text", TEXTS)
def test_ids_spell_the_text(trained: Tokenizer, description: dict[str, Any], text: str) -> None:
    assert trained.decode(TextTokenizer(description).encode(text)) == text


def test_a_turn_has_both_marks_and_its_tag(description: dict[str, Any]) -> None:
    tokenizer = TextTokenizer(description)
    assert tokenizer.encode_turn(10, "Hello.") == [0, *tokenizer.encode("[10]Hello."), 1]


def test_marks_without_a_token_become_those_of_a_typewriter(description: dict[str, Any]) -> None:
    tokenizer = TextTokenizer(description)
    typographic = "\u2018Don\u2019t\u2019 \u2013 \u201eno\u201c \u00abno\u00bb\u2014no"
    typed = '\'Don\'t\' - "no" "no"--no'
    assert tokenizer.encode_turn(0, typographic) == tokenizer.encode_turn(0, typed)
    apostrophe = bytes_as_letters("\u2019".encode())
    more = {
        **description,
        "tokens": [*description["tokens"], *(apostrophe[:2].encode(), apostrophe.encode())],
        "token_type": [*description["token_type"], 1, 1],
        "merges": [
            *description["merges"],
            f"{apostrophe[0]} {apostrophe[1]}".encode(),
            f"{apostrophe[:2]} {apostrophe[2]}".encode(),
        ],
    }
    tokenizer = TextTokenizer(more)
    ids = tokenizer.encode_turn(0, "\u201cDon\u2019t\u201d")
    assert ids == [0, *tokenizer.encode('[0]"Don\u2019t"'), 1]


def bytes_as_letters(data: bytes) -> str:
    """As the byte alphabet writes them."""
    [(word, _)] = pre_tokenizers.ByteLevel(add_prefix_space=False).pre_tokenize_str(data.decode())
    return word


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"pre": "deepseek"}, "tokenizer.ggml.pre is 'deepseek', expected one of"),
        ({"merges": [b"ab"]}, "expected two tokens and a space"),
        ({"merges": [b"qqq zzz"]}, "do not fit"),
        ({"token_type": [1]}, "token_type has 1 entries"),
        ({"tokens": [b"\xff\xfe"], "token_type": [1]}, "not UTF-8"),
    ],
)
def test_a_broken_tokenizer_is_a_format_error(
    description: dict[str, Any], change: dict[str, Any], message: str
) -> None:
    with pytest.raises(ModelFormatError, match=message):
        TextTokenizer({**description, **change})


def test_a_file_without_tokenizer_is_a_format_error() -> None:
    with pytest.raises(ModelFormatError, match="holds no tokenizer"):
        TextTokenizer({})


@pytest.mark.model
@pytest.mark.parametrize(
    ("text", "ids"),
    [
        ("[0]Hello from Sesame.", [58, 15, 60, 9906, 505, 64027, 373, 13]),
        ("[0]Hey how are you doing?", [58, 15, 60, 19182, 1268, 527, 499, 3815, 30]),
        (
            "[1]Pretty good, pretty good. How about you?",
            [58, 16, 60, 53040, 1695, 11, 5128, 1695, 13, 2650, 922, 499, 30],
        ),
        ("[0]Hi.", [58, 15, 60, 13347, 13]),
        ("[0]Hi.\n", [58, 15, 60, 13347, 627]),
        ("[10]Hello", [58, 605, 60, 9906]),
        ("[1000]Hi", [58, 1041, 15, 60, 13347]),
        ("[0]don't DON'T", [58, 15, 60, 15357, 956, 45373, 17773]),
        ("[1]I'm figuring out my budget.", [58, 16, 60, 40, 2846, 48309, 704, 856, 8199, 13]),
        ("[0]Hello\n", [58, 15, 60, 9906, 198]),
        ("[0]Hello\r\nworld", [58, 15, 60, 9906, 319, 14957]),
        ("[0]a  b   c", [58, 15, 60, 64, 220, 293, 256, 272]),
        ("[0]na\u00efve caf\u00e9", [58, 15, 60, 3458, 38672, 588, 53050]),
        ("[0]e\u0301", [58, 15, 60, 68, 54939]),
        ("[0]\u65e5\u672c\u8a9e\u3067\u3059", [58, 15, 60, 102433, 102158, 38641]),
        ("[0]123456789", [58, 15, 60, 4513, 10961, 16474]),
        ("[0]$3.50 (ok)\u2026", [58, 15, 95380, 18, 13, 1135, 320, 564, 8, 1981]),
    ],
)
def test_llama3_vocabulary(real_model: CSM, text: str, ids: list[int]) -> None:
    assert real_model.model.tokenizer.encode(text) == ids
    assert real_model.tokenize("[0]Hi.\n") == [128000, 58, 15, 60, 13347, 13, 128001]


@pytest.fixture(scope="module")
def real_model() -> CSM:
    name = os.environ.get("CSM_GGML_TEST_MODEL")
    if not name:
        pytest.skip("CSM_GGML_TEST_MODEL names no model")
    return CSM.from_pretrained(name)
