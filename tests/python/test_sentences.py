"""Where sentences end, and how they are grouped to pieces."""

import time

import pytest
from csm_ggml.text.sentences import group, split_sentences


@pytest.mark.parametrize(
    "sentences",
    [
        ["Hello there.", "How are you?", "Fine!"],
        ["Mr. Smith met Dr. Jones, e.g. in St. Ives.", "They talked."],
        ["It costs 3.14 dollars.", "Or 1,000.50 euros, i.e. more."],
        ["See No. 5 and Fig. 3 on p. 12.", "No.", "Yes."],
        ["J. R. R. Tolkien wrote it.", "He lived in Oxford."],
        ["At 5 p.m. Harry left.", "It was 6 p.m. when she came."],
        ["We met at 5 p.m.", "The train was late."],
        ["She works for Acme Inc. in the U.S. and likes it.", "He does not."],
        ["Wait... what?", "Well… yes.", "Hmm…", "No."],
        ["He paused... and went on.", "Then...", "Nothing."],
        ["“Stop!” he cried.", "“Why?”", "“Because.”", "She left."],
        ['"Come in," she said.', '"Sit down."', "He sat."],
        ["(It was late.)", "They slept."],
        ["Really?!", "Yes!!", "Oh."],
        ["What is it? she thought.", "Nobody knew."],
        ["It was he and I.", "The others had gone."],
        ["Version 2.0 is out.", "3 people came."],
        ["No stop at the end"],
        ["Visit example.com today.", "It is www.example.org now."],
        ["Jan. 5 was cold, Feb. 6 too.", "March was not."],
        ["The plan was to leave—“Now!”—at once.", "So they did."],
        ["Größe zählt.", "Él vino.", "¿Qué?", "¡Sí!"],
    ],
    ids=lambda sentences: sentences[0],
)
def test_sentences(sentences: list[str]) -> None:
    assert split_sentences(" ".join(sentences)) == sentences


@pytest.mark.parametrize(
    ("words", "ends"),
    [
        ("\u4f60\u597d", "\u3002\uff01\uff1f\uff61"),  # CJK
        ("\u0645\u0631\u062d\u0628\u0627", "\u061f\u06d4"),  # Arabic, Urdu
        ("\u0928\u092e\u0938\u094d\u0924\u0947", "\u0964\u0965"),  # Hindi
        ("\u1230\u120b\u121d", "\u1362\u1367\u1368"),  # Ethiopic
        ("\u1019\u102f", "\u104b"),  # Burmese
        ("\u1787\u17b6", "\u17d4\u17d5"),  # Khmer
        ("\u0532\u0561\u0580", "\u0589"),  # Armenian
        ("\u0f40", "\u0f0d"),  # Tibetan
    ],
)
@pytest.mark.parametrize("space", ["", " "])
def test_sentence_ends_of_other_scripts(words: str, ends: str, space: str) -> None:
    sentences = [f"{words}{end}" for end in ends] + [f"\u300c{words}{ends[0]}\u300d", words]
    assert split_sentences(space.join(sentences)) == sentences


@pytest.mark.parametrize("mark", ["\u060c", "\u3001", "\u104a", "\u1363", "\uff0c", "\u061b"])
def test_clauses_of_other_scripts(mark: str) -> None:
    words = "\u1019" * 15
    assert list(group([f"{words}{mark}{words}"], 20)) == [words + mark, words]


def test_nothing_is_lost() -> None:
    text = "Dr. A. said: “No. 5?” Yes... (Hm.) 3.5 vs. 4. Etc. And so on! You? a.m. Or not"
    assert " ".join(split_sentences(text)) == text
    for characters in (20, 30, 50, 500):
        pieces = list(group(split_sentences(text), characters))
        assert " ".join(pieces) == text
        assert max(map(len, pieces)) <= characters
    assert split_sentences("") == []


def test_sentences_are_grouped_to_the_target() -> None:
    sentences = ["One two three.", "Four.", "Five six.", "Seven eight nine ten."]
    assert list(group(sentences, 20)) == [
        "One two three. Four.",
        "Five six.",
        "Seven eight nine",
        "ten.",
    ]
    assert list(group(sentences, 25)) == ["One two three. Four.", "Five six.", sentences[-1]]
    assert list(group(sentences, 1000)) == [" ".join(sentences)]


def test_a_long_sentence_is_cut_at_its_marks_then_at_words_then_anywhere() -> None:
    clauses = "When it rains, the streets are wet; people stay at home, of course."
    assert list(group([clauses], 40)) == [
        "When it rains, the streets are wet;",
        "people stay at home, of course.",
    ]
    assert list(group(["aaaa bbbb cccc dddd eeee ffff"], 20)) == [
        "aaaa bbbb cccc dddd",
        "eeee ffff",
    ]
    assert list(group(["x" * 45], 20)) == ["x" * 20, "x" * 20, "x" * 5]


@pytest.mark.parametrize(
    "part",
    [
        "He said no. ",
        "Dr. Smith met J. R. Tolkien. ",
        "a.",
        ".",
        "?! ",
        ".'",
        ". - (",
        "x",
        "xxxxxxx ",
        "a, ",
        "\u4f60\u597d\u3002",
        "\u2026",
    ],
)
def test_time_grows_with_the_text_and_not_with_its_square(part: str) -> None:
    """Half a million characters in one paragraph; with a square it would be minutes."""
    text = part * (500_000 // len(part))
    started = time.process_time()
    pieces = list(group(split_sentences(text), 200))
    assert time.process_time() - started < 10
    assert pieces
