"""Speaker tags and what counts as the same text."""

import pytest
from csm_ggml.text.turns import Turn, normalize, parse_lines, parse_turns


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Hi.\n", "Hi."),
        ("Hello\r\nworld", "Hello world"),
        ("  a  b \t c ", "a b c"),
        ("\ufeffHello", "Hello"),
        ("a\x00b\x1bc", "abc"),
        ("a\u00a0b\u2003c", "a b c"),
        ("cafe\u0301", "cafe\u0301"),
        ("\u65e5\u672c\u8a9e", "\u65e5\u672c\u8a9e"),
        ("don't DON'T", "don't DON'T"),
    ],
)
def test_normalization(text: str, expected: str) -> None:
    assert normalize(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("[0]Hello.", [(0, "Hello.")]),
        ("Hello.", [(0, "Hello.")]),
        ("[0] Hello. ", [(0, "Hello.")]),
        ("[0]One.[1]Two.\n[0]Three.", [(0, "One."), (1, "Two."), (0, "Three.")]),
        ("Before. [1]After.", [(0, "Before."), (1, "After.")]),
        ("[10]Hello", [(10, "Hello")]),
        ("[007]Hello", [(7, "Hello")]),
        ("[9999]Hello", [(9999, "Hello")]),
        ("[laughs] Well, [x]. []", [(0, "[laughs] Well, [x]. []")]),
        ("[-1]Hello", [(0, "[-1]Hello")]),
        ("[1.5]Hello", [(0, "[1.5]Hello")]),
        ("[ 1 ]Hello", [(0, "[ 1 ]Hello")]),
        ("[\u0661]Hello", [(0, "[\u0661]Hello")]),
        ("[[1]]Hello", [(0, "["), (1, "]Hello")]),
    ],
)
def test_tags(text: str, expected: list[tuple[int, str]]) -> None:
    assert parse_turns(text) == [Turn(*turn) for turn in expected]


def test_text_before_a_first_tag_gets_the_given_speaker() -> None:
    assert parse_turns("Hi. [0]Ho.", speaker=3) == [Turn(3, "Hi."), Turn(0, "Ho.")]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "text is empty"),
        (" \n\t", "text is empty"),
        ("\x00", "text is empty"),
        ("[0]", r"nothing to say for speaker \[0\]"),
        ("[0]Hello.[1] \n", r"nothing to say for speaker \[1\]"),
        ("[0][1]Hello.", r"nothing to say for speaker \[0\]"),
        ("[10000]Hello", r"0\.\.9999"),
        ("In [" + "9" * 5000 + "] we", r"\[99999999999999999\.\.\.\] is read as a speaker tag"),
        ("broken \udce9", "not valid Unicode at character 7"),
    ],
)
def test_errors_say_what_is_wrong(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parse_turns(text)


@pytest.mark.parametrize("text", [None, b"[0]Hello", 3])
def test_text_must_be_a_string(text: object) -> None:
    with pytest.raises(TypeError, match="must be a str"):
        parse_turns(text)  # type: ignore[arg-type]


@pytest.mark.parametrize("speaker", [-1, 10000])
def test_speaker_range(speaker: int) -> None:
    with pytest.raises(ValueError, match=r"0\.\.9999"):
        parse_turns("Hello", speaker=speaker)


def test_lines_are_turns_and_keep_the_speaker() -> None:
    lines = ["[1]One.\n", "\n", "Two.\n", "[0]Three. [1]Four.", "Five."]
    assert [(turn.speaker, turn.text) for turn in parse_lines(lines)] == [
        (1, "One."),
        (1, "Two."),
        (0, "Three."),
        (1, "Four."),
        (1, "Five."),
    ]


def test_errors_in_lines_name_the_line() -> None:
    with pytest.raises(ValueError, match="line 3: nothing to say"):
        parse_lines(["[0]One.", "", "[1]"])
    with pytest.raises(ValueError, match="text is empty"):
        parse_lines(["", " "])
