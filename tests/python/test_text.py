"""Speaker tags, pauses, paragraphs, and what counts as the same text."""

import contextlib
import time
import warnings
from typing import Any

import pytest
from csm_ggml import Turn
from csm_ggml.longform.pieces import split_pieces
from csm_ggml.text.characters import clean, one_line
from csm_ggml.text.reading import read_text
from csm_ggml.text.scripts import decode_text, read_script
from csm_ggml.text.turns import parse_turns

FILLER = "This is what a book says, sentence after sentence, and nobody else speaks. " * 20


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Hi.\n", "Hi."),
        ("Hello\r\nworld", "Hello world"),
        ("  a  b \t c ", "a b c"),
        ("a\x00b\x1bc", "abc"),
        ("a\u00a0b\u2003c", "a b c"),
        ("cafe\u0301", "cafe\u0301"),
        ("\u65e5\u672c\u8a9e", "\u65e5\u672c\u8a9e"),
        ("don't DON'T", "don't DON'T"),
        ("\u201cDon\u2019t\u201d \u2013 no\u2026", "\u201cDon\u2019t\u201d \u2013 no\u2026"),
    ],
)
def test_one_line(text: str, expected: str) -> None:
    assert one_line(clean(text)) == expected


@pytest.mark.parametrize(
    "mark",
    [
        "\ufeff",  # byte order mark
        "\u200b",  # zero-width space
        "\u2060",  # word joiner
        "\u00ad",  # soft hyphen
        "\u200e",  # left-to-right mark
        "\u202e",  # right-to-left override
        "\u2066",  # isolate
        "\u200d",  # joiner, of emoji
        "\u200c",
        "\ufe0f",  # variation selector
        "\U000e0101",
        "\U000e0067",  # tag character, of flags
        "\u034f",  # grapheme joiner
        "\u3164",  # Hangul filler
        "\ufffc",  # object
        "\x1b",
    ],
)
def test_characters_without_sound_go(mark: str) -> None:
    assert clean(f"{mark}He{mark}llo{mark} {mark}\n{mark}\U0001f468{mark}") == "Hello \n\U0001f468"


@pytest.mark.parametrize(
    "word",
    [
        "\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645",  # Persian
        "\u0915\u094d\u200d\u0937",  # Devanagari, after a virama
        "\u0dc1\u0dca\u200d\u0dbb\u0dd3",  # Sinhala
        "\u1828\u180e\u1820",  # Mongolian
    ],
)
def test_joiners_stay_between_letters_that_need_them(word: str) -> None:
    assert clean(word) == word
    joiner = next(c for c in word if c in "\u200c\u200d\u180e")
    assert clean(f"{joiner}{word}{joiner}, a{joiner}b") == f"{word}, ab"


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r", "\v", "\x85", "\u2028"])
def test_line_ends_of_any_kind(end: str) -> None:
    assert clean(f"one{end}two{end}{end}three") == "one\ntwo\n\nthree"


def test_a_new_page_is_no_paragraph() -> None:
    assert clean("half a\n\fsentence\fand\f\nmore") == "half a\nsentence\nand\nmore"
    assert clean("End.\n\n\f\nNext page.") == "End.\n\nNext page."
    assert clean("End.\u2029Next.") == "End.\n\nNext."


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
        ("\u200b[1]Hello", [(1, "Hello")]),
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
        ("\x00\u200b", "text is empty"),
        ("[0]", r"nothing to say for speaker \[0\]"),
        ("[0]Hello.[1] \n", r"nothing to say for speaker \[1\]"),
        ("[0][1]Hello.", r"nothing to say for speaker \[0\]"),
        ("[10000]Hello", r"0\.\.9999"),
        ("[" + "9" * 5000 + "]we", r"\[99999999999999999\.\.\.\] is read as a speaker tag"),
        ("[0]One.\n\n[1]", r"line 3: nothing to say for speaker \[1\]"),
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


@pytest.mark.parametrize(
    "text",
    [
        "As shown in [12], it works.",
        "As shown in [0], it works. It does.",
        "It works.[1] So does that.",
        "It works.[1][2] So does that.",
        "It works. [12] So does that.",
        "It works.[1]",
        "It works. [1]",
        "[12] says it all.",
        "Sources:\n[1] Smith.\n[2] Jones.\n[3] Miller.",
        "It works [1]. So does that.\n\n[1] Smith, 1999.",
        FILLER + "[1] " + FILLER,
        FILLER + "\n\n[1] " + FILLER,
        FILLER + "as shown in [1]. " + FILLER,
        FILLER + "This is what [12] says. [12] " + FILLER,
        "In [" + "9" * 5000 + "] we",
    ],
)
def test_citations_are_no_speakers(text: str) -> None:
    assert parse_turns(text, speaker=3) == [Turn(3, one_line(text))]
    assert read_script(text) is None


@pytest.mark.parametrize(
    ("text", "speakers"),
    [
        ("Before. [1] After.", [0, 1]),
        ("\u201cHi!\u201d [1]\u201cHo!\u201d", [0, 1]),
        ("Hello \U0001f600 [1]Hi!", [0, 1]),
        ("\u4f60\u597d\u3002[1]\u4f60\u597d\u3002", [0, 1]),
        ("[2]One. [3]Two. [2]Three. [3]Four.", [2, 3, 2, 3]),
        ("One. [2]Two. [3]Three. [2]Four. [4]Five. [3]Six.", [0, 2, 3, 2, 3]),
        ("[0]One.\n[3]Two.", [0, 3]),
        ("[0] One.\n[3] Two.", [0, 3]),
        ("[0]One.\n[12] A footnote.", [0]),
        ("[0]As [1] says. [1]Do I? [12]", [0, 1]),
        ("[0]One [1] two. [1]Three.", [0, 1]),
        ("[0]one[1]two [0]three", [0, 1, 0]),
        ("[0]As [1], [1]; and ([1]) say.", [0]),
    ],
)
def test_speakers_are_those_that_the_text_uses(text: str, speakers: list[int]) -> None:
    assert [turn.speaker for turn in parse_turns(text)] == speakers


def test_tags_may_be_forced_forbidden_or_known() -> None:
    text = "[0]As [12] says."
    assert parse_turns(text, tags=True) == [Turn(0, "As"), Turn(12, "says.")]
    assert parse_turns(text, tags=False, speaker=5) == [Turn(5, text)]
    assert len(read_text("One. [7] Two.")) == 1
    assert read_text("One. [7] Two.", speakers=[7]) == [Turn(0, "One."), Turn(7, "Two.")]
    with pytest.raises(TypeError, match="tags must be True, False or None, got 'yes'"):
        parse_turns(text, tags="yes")  # type: ignore[arg-type]


def test_turns_are_input_in_which_nothing_is_a_tag() -> None:
    assert read_text([Turn(2, " As [1]\nsays. "), Turn(0, "[1]Yes.", pause=2)]) == [
        Turn(2, "As [1] says."),
        Turn(0, "[1]Yes.", 2.0),
    ]
    assert read_text(Turn(1, "Hi.")) == [Turn(1, "Hi.")]
    wrong: list[tuple[Any, type[Exception], str]] = [
        ([], ValueError, "text is empty"),
        (["Hi."], TypeError, "a list with str"),
        (b"Hi.", TypeError, "a str, a Turn or a list of Turn, got bytes"),
        (None, TypeError, "got NoneType"),
        ([Turn(0, "Hi.", pause=-1)], ValueError, "pause must be 0 to 60 seconds, got -1"),
        ([Turn(0, "Hi.", pause=float("nan"))], ValueError, "0 to 60 seconds, got nan"),
        ([Turn(0, "Hi.", pause="1")], TypeError, "number of seconds, got '1'"),  # type: ignore[arg-type]
        ([Turn(-1, "Hi.")], ValueError, "speaker must be in"),
        ([Turn(0, None)], TypeError, "text must be a str"),  # type: ignore[arg-type]
    ]
    for text, error, message in wrong:
        with pytest.raises(error, match=message):
            read_text(text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("One.\nTwo.", [("One. Two.", 0)]),
        ("One.\n \nTwo.", [("One.", 0), ("Two.", 0.7)]),
        ("One. [pause 1.5s] Two.", [("One.", 0), ("Two.", 1.5)]),
        ("[pause 2]One [pause].\n\n[Pause: 250 ms]\n\nTwo.", [("One.", 2), ("Two.", 0.75)]),
        ("One. [pause 0s] Two.", [("One.", 0), ("Two.", 0)]),
        ("One. [pause 1s][pause 2 seconds] Two. [pause 3s]", [("One.", 0), ("Two.", 3)]),
        ("One [pauses] a [pause.", [("One [pauses] a [pause.", 0)]),
        (
            "Chapter One\nIt was late.\nVery late.",
            [("Chapter One", 0), ("It was late. Very late.", 0.7)],
        ),
        ("One.\n\n[1]Two.\n[0]Three.", [("One.", 0), ("Two.", 0.7), ("Three.", 0)]),
    ],
)
def test_pauses(text: str, expected: list[tuple[str, float]]) -> None:
    assert [(turn.text, turn.pause) for turn in read_text(text)] == expected


@pytest.mark.parametrize("pause", ["[pause 61s]", "[pause long]", "[pause -1s]", "[pause 1e3s]"])
def test_wrong_pauses_are_errors(pause: str) -> None:
    with pytest.raises(ValueError, match=r"\[pause .*\] is (no pause|too long)"):
        read_text(f"One. {pause} Two.")


@pytest.mark.parametrize("words", ["\U0001f600", "...", "* * *", "-----", "\u2042", "?!"])
def test_what_has_no_sound_is_a_pause(words: str) -> None:
    with pytest.warns(UserWarning, match="no letter or digit"):
        assert read_text(f"[0]One.[1]{words}[0]Two.") == [Turn(0, "One."), Turn(0, "Two.", 0.7)]
    with pytest.warns(UserWarning, match="no letter or digit"):
        assert read_text(f"One.\n\n{words}\n\nTwo.") == [Turn(0, "One."), Turn(0, "Two.", 0.7)]
    for alone in (words, f"[0]{words}", f"{words}\n\n{words}"):
        with pytest.raises(ValueError, match="the text has no letter or digit"):
            read_text(alone)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert read_text(f"[0]One. {words}") == [Turn(0, f"One. {words}")]


def test_a_script_holds_one_turn_a_line() -> None:
    script = "[1]One.\r\n\r\nTwo.\n \n[0]Three. [1]Four.\nFive.\n\n"
    assert read_script(script) == [
        Turn(1, "One."),
        Turn(1, "Two.", 0.7),
        Turn(0, "Three.", 0.7),
        Turn(1, "Four."),
        Turn(1, "Five."),
    ]
    assert read_script("Before.\n[1]After.\n[0]\nHere.", speaker=4) == [
        Turn(4, "Before."),
        Turn(1, "After."),
        Turn(0, "Here."),
    ]
    assert read_script("No tag.\nAt all.") is None
    assert read_script("[0]No tag.", tags=False) is None
    assert read_script("As [12] says.", tags=True) == [Turn(0, "As"), Turn(12, "says.")]
    with pytest.raises(ValueError, match="line 3: nothing to say"):
        read_script("[0]One.\n\n[1]")


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-be", "utf-32"])
def test_files_in_unicode(encoding: str) -> None:
    text = "[0]Gr\u00fc\u00df dich \U0001f600.\n"
    mark = "\ufeff" if encoding.endswith("be") else ""
    assert decode_text((mark + text).encode(encoding), "x.txt") == text


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"caf\xe9", "x.txt is not UTF-8 text: byte 3 is 0xe9; save it as UTF-8"),
        (b"\xff\xfea\x00\x00\xd8", "x.txt is not UTF-16-LE text: byte 4 is 0x00"),
    ],
)
def test_files_in_other_encodings(data: bytes, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        decode_text(data, "x.txt")


@pytest.mark.parametrize(
    "part",
    [
        *(
            "[1]",
            "[1] ",
            "[1]\n",
            "A. [2]B. ",
            "[pause ",
            "[pause] a ",
            "[",
            "[[1",
            " ",
            "\n",
            "\f",
        ),
        *(
            "\u200b",
            "\u200c",
            "a\n",
            "a\n\n",
            "* * *\n\n",
            "Title\nText.\n",
            "\r\n",
            '"',
            "\U0001f600",
        ),
    ],
)
def test_time_grows_with_the_text_and_not_with_its_square(part: str) -> None:
    """Two hundred thousand characters; with a square it would be minutes."""
    text = "[0]Hello. " + part * (200_000 // len(part))
    started = time.process_time()
    with contextlib.suppress(ValueError), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        split_pieces(text, speaker=0, characters=200)
    assert time.process_time() - started < 10
