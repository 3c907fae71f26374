"""The pronunciation lexicon: what it matches, in which case and number, and its files."""

from pathlib import Path
from typing import Any

import pytest
from csm_ggml import Lexicon, Turn
from csm_ggml.longform.pieces import split_pieces
from csm_ggml.text.lexicon import as_lexicon
from csm_ggml.text.reading import read_text

ENTRIES = {
    "gif": "jif",
    "nginx": "engine ex",
    "query": "kweery",
    "Polish": "pole-ish",
    "US": "you ess",
    "iPhone": "eye phone",
    "New York": "noo york",
    "York": "yorrk",
    "C++": "see plus plus",
    "box": "bocks",
    "GIFs": "many jifs",
    "don't": "dont",
    "\u0141\u00f3d\u017a": "woodge",
}


@pytest.mark.parametrize(
    ("written", "spoken"),
    [
        ("A gif, a GIF and a Gif.", "A jif, a jif and a Jif."),
        ("Two gifs, the gif's end, GIF-based.", "Two jifs, the jif's end, jif-based."),
        ("The GIFs.", "The many jifs."),
        ("A gifted gift of gift.", "A gifted gift of gift."),
        ("Nginx runs, nginx stops.", "Engine ex runs, engine ex stops."),
        ("Queries and a QUERY, QUERYs.", "Kweeries and a kweery, kweeries."),
        ("NGINXs of nginx.", "engine exes of engine ex."),
        ("I polish it, he is Polish, POLISH.", "I polish it, he is pole-ish, pole-ish."),
        ("The US and us.", "The you ess and us."),
        ("iPhones, iphone, IPHONE.", "eye phones, iphone, eye phone."),
        ("New York, York, New\nYork.", "noo york, yorrk, noo york."),
        ("C++ and C+ and C.", "see plus plus and C+ and C."),
        ("Boxes and a box.", "Bockses and a bocks."),
        ("I don't, I don\u2019t, DON'T.", "I dont, I dont, dont."),
        ("In \u0141\u00f3d\u017a.", "In woodge."),
        ("_gif_ gif2 a.gif.", "_gif_ gif2 a.jif."),
        ("", ""),
    ],
)
def test_words(written: str, spoken: str) -> None:
    assert Lexicon(ENTRIES).apply(written) == spoken


def test_each_word_is_respelled_once() -> None:
    lexicon = Lexicon({"Nguyen": "Nguyen win", "win": "vin"})
    assert lexicon.apply("Nguyen can win.") == "Nguyen win can vin."


def test_files(tmp_path: Path) -> None:
    path = tmp_path / "words.txt"
    text = "# names\n\ngif -> jif\nNew York\tnoo york\nx \u2192 ex\n"
    path.write_bytes(text.encode("utf-16"))
    assert Lexicon.load(path).apply("The gifs of New York: x.") == "The jifs of noo york: ex."
    path.write_text("gif -> jif\n gif -> jif \n", encoding="utf-8")
    assert Lexicon.load(str(path)).apply("gif") == "jif"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("gif jif\n", r"words.txt, line 1: expected 'word -> respelling', got 'gif jif'"),
        ("# x\na -> b -> c\n", "line 2: expected"),
        ("-> b\n", "line 1: expected"),
        ("a ->\n", "line 1: expected"),
        ("a -> b\na -> c\n", "line 2: 'a' has the respelling 'b' already"),
    ],
)
def test_lines_that_are_no_entries(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "words.txt"
    path.write_text(text)
    with pytest.raises(ValueError, match=message):
        Lexicon.load(path)


def test_what_is_taken_for_a_lexicon(tmp_path: Path) -> None:
    assert as_lexicon(None) is None
    wrong: list[tuple[Any, type[Exception], str]] = [
        (3, TypeError, "a Lexicon, its file or a mapping, got int"),
        ({"a": 1}, TypeError, "maps str to str"),
        ({" ": "b"}, ValueError, "a word and a respelling"),
        (tmp_path / "none.txt", OSError, "No such file"),
    ]
    for value, error, message in wrong:
        with pytest.raises(error, match=message):
            as_lexicon(value)


def test_in_all_ways_to_read_a_text() -> None:
    text = "[0]The GIF costs $5. [pause 1s] It is C++."
    options: dict[str, Any] = {"speaker": 0, "lexicon": ENTRIES, "normalize": "en"}
    assert read_text(text, **options) == [
        Turn(0, "The jif costs five dollars."),
        Turn(0, "It is see plus plus.", 1.0),
    ]
    pieces = split_pieces(text, characters=99, **options)
    assert [(p.turn.text, p.pause) for p in pieces] == [
        ("The jif costs five dollars.", None),
        ("It is see plus plus.", 1.0),
    ]
    assert read_text([Turn(0, "A [1] GIF.")], **options) == [Turn(0, "A jif.")]
    with pytest.raises(ValueError, match="normalize must be 'en' or None, got 'de'"):
        read_text("Hi.", normalize="de")
