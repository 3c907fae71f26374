"""English in words: sentences by kind with what is said, and what must hold for any text."""

import random
import time
from pathlib import Path

import pytest
from csm_ggml import Turn
from csm_ggml.text.characters import clean
from csm_ggml.text.english import normalize
from csm_ggml.text.english.numbers import cardinal, ordinal, roman, year
from csm_ggml.text.english.quantities import _SAME, _UNITS
from csm_ggml.text.inflection import plural
from csm_ggml.text.reading import read_text

SENTENCES = [
    tuple(field.replace("\\n", "\n") for field in line.split("\t"))
    for line in Path(__file__).with_name("spoken_english.tsv").read_text("utf-8").splitlines()
    if not line.startswith("#")
]
KINDS = sorted({kind for kind, _, _ in SENTENCES})


def of_kind(kind: str) -> list[tuple[str, str]]:
    return [(written, spoken) for own, written, spoken in SENTENCES if own == kind]


def test_there_are_sentences_of_all_kinds() -> None:
    assert len(SENTENCES) >= 200
    assert {
        *("number", "ordinal", "date", "time", "money", "unit", "fraction", "phone", "math"),
        *("roman", "abbreviation", "sign", "url", "email", "markdown", "html", "citation", "emoji"),
    } < set(KINDS)


@pytest.mark.parametrize("kind", KINDS)
def test_spoken_forms(kind: str) -> None:
    assert [(w, normalize(w)) for w, _ in of_kind(kind)] == of_kind(kind)


@pytest.mark.parametrize("kind", KINDS)
def test_twice_is_once(kind: str) -> None:
    assert [normalize(spoken) for _, spoken in of_kind(kind)] == [s for _, s in of_kind(kind)]


@pytest.mark.parametrize("kind", KINDS)
def test_off_leaves_the_text_alone(kind: str) -> None:
    lines = [written for written, _ in of_kind(kind) if "\n" not in written]
    assert [read_text(line, tags=False) for line in lines] == [[Turn(0, clean(w))] for w in lines]


def test_sentences_in_one_text_are_said_as_they_are_alone() -> None:
    """Order and neighbours do not matter, as each ends a paragraph."""
    lines = [(w, s) for kind, w, s in SENTENCES if kind not in ("markdown", "html", "roman")]
    random.Random(0).shuffle(lines)
    written, spoken = zip(*lines, strict=True)
    assert normalize("\n\n".join(written)) == "\n\n".join(spoken)
    joined = [(w, s) for w, s in lines if w[-1] in ".!?" and s[-1] in ".!?"]
    written, spoken = zip(*joined, strict=True)
    assert normalize(" ".join(written)) == " ".join(spoken)


def test_random_text_is_no_accident() -> None:
    """Whatever is fed in, words come out, and no figures."""
    draw = random.Random(1)
    signs = "$\u20ac#*_[](){}<>&@/\\|~^`'\"0123456789.,:;-\u2013\u2014!? \n%\u00b2\u00bd"
    pieces = [*(written for _, written, _ in SENTENCES), *signs]
    for _ in range(300):
        text = "".join(
            piece[draw.randrange(len(piece)) :][: draw.randrange(1, 12)]
            for piece in draw.choices(pieces, k=12)
        )
        assert not any("0" <= c <= "9" for c in normalize(text))


def test_units_of_all_kinds_in_one_and_many() -> None:
    for unit, one in _UNITS.items():
        assert normalize(f"It is 1 {unit} now.") == f"It is one {one} now."
        many = normalize(f"It is 12 {unit} now.")
        assert many.startswith("It is twelve ") and many.endswith(" now.")
        assert (many == f"It is twelve {one} now.") == (one in _SAME)


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (0, "zero"),
        (19, "nineteen"),
        (40, "forty"),
        (101, "one hundred one"),
        (110_000, "one hundred ten thousand"),
        (1_000_001, "one million one"),
        (10**33, "one decillion"),
        (-7, "minus seven"),
    ],
)
def test_cardinals(value: int, words: str) -> None:
    assert cardinal(value) == words


def test_ordinals_and_years_and_numerals() -> None:
    said = [ordinal(n) for n in (1, 2, 3, 5, 8, 9, 12, 20, 21, 100, 1000)]
    assert said == [
        *("first", "second", "third", "fifth", "eighth", "ninth", "twelfth", "twentieth"),
        *("twenty-first", "one hundredth", "one thousandth"),
    ]
    years = {1999: "nineteen ninety-nine", 1905: "nineteen oh five", 2000: "two thousand"}
    years |= {2009: "two thousand nine", 2010: "twenty ten", 1800: "eighteen hundred", 476: ""}
    assert all(year(n) == words for n, words in years.items() if words)
    assert year(476) == "four hundred seventy-six"
    assert [roman(x) for x in ("I", "IV", "XIX", "XLII", "MCMXCIX")] == [1, 4, 19, 42, 1999]
    assert [roman(x) for x in ("", "IIII", "VX", "IC", "MIX ", "x")] == [None] * 6
    assert [plural(x) for x in ("cat", "box", "query", "day", "inch")] == [
        *("cats", "boxes", "queries", "days", "inches")
    ]


def test_numbers_are_those_of_num2words() -> None:
    """A library that does only this says the same; it puts commas and "and" between."""
    num2words = pytest.importorskip("num2words").num2words
    draw = random.Random(0)

    def theirs(value: int, kind: str) -> str:
        words: str = num2words(value, to=kind)
        return words.replace(",", "").replace(" and ", " ").replace("oh-", "oh ")

    for value in [*range(2000), *(draw.randrange(10 ** draw.randrange(1, 30)) for _ in range(500))]:
        assert cardinal(value) == theirs(value, "cardinal")
        assert ordinal(value) == theirs(value, "ordinal")
    for value in range(1000, 2100):
        assert year(value) == theirs(value, "year")


@pytest.mark.parametrize(
    "part",
    [
        *("1", "1.", "1,", "1-", "1/", "1:", "$1 ", "a.", "a@", "a-", "@a", "#", "[1]", "[", "(A"),
        *("*a ", "_a ", "`a ", "<!--", "<script>", "<p>", "&amp;", "|a", "> ", "- a\n", "# a\n"),
        *("etc. ", "St. ", "I ", "Mary I ", "May 5 ", "5 km ", "\u00b2", "Word and ", "http://a "),
    ],
)
def test_time_grows_with_the_text(part: str) -> None:
    """A hundred thousand characters; with a square it would be minutes."""
    text = part * (100_000 // len(part))
    started = time.process_time()
    normalize(text)
    assert time.process_time() - started < 10
