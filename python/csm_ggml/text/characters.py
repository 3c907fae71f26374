"""Which characters of a text are words, which are lines, and which carry no sound at all.

Text comes from web pages, word processors, terminals and PDF files. What they leave between the
letters (zero-width spaces, soft hyphens, marks of direction, selectors of a glyph) is never heard,
but each such mark is three tokens that the model has not seen there.
"""

from __future__ import annotations

import re
import unicodedata

_WHITESPACE = re.compile(r"\s+")
# A form feed stands between the lines of two pages and parts no paragraph.
_LINE_ENDS = re.compile(r"\r\n|[\r\v\x85\u2028]")
_FORM_FEED = re.compile(r"\n?\f\n?")
_CONTROLS = re.compile(r"[\x00-\x08\x0e-\x1b\x7f]")
_PARAGRAPH_SEPARATOR = "\u2029"

# Of other categories than Cc and Cf: the grapheme joiner, Hangul fillers, variation selectors, the
# place of an object that is not text.
_SILENT = re.compile("[\u034f\u115f\u1160\u3164\uffa0\ufe00-\ufe0f\ufffc\U000e0100-\U000e01ef]")
# Zero-width non-joiner and joiner, and the Mongolian vowel separator: spelling, between letters of
# these scripts (Arabic to N'Ko and Arabic Extended; Devanagari to Sinhala; Tibetan and Myanmar;
# Khmer and Mongolian; presentation forms of Arabic).
_JOINERS = "\u200c\u200d\u180e"
_JOINED = (
    (0x0600, 0x08FF),
    (0x0900, 0x0DFF),
    (0x0F00, 0x109F),
    (0x1780, 0x18AF),
    (0xFB50, 0xFDFF),
    (0xFE70, 0xFEFE),
)


def clean(text: str) -> str:
    r"""Bring text into the form that everything else here reads.

    Line ends of any kind become `\n`; control characters and characters without sound go. Spaces
    and lines stay as they are.

    Raises:
        TypeError: If text is not a string.
        ValueError: If text holds lone surrogates, as undecodable command line arguments do.
    """
    if not isinstance(text, str):
        raise TypeError(f"text must be a str, got {type(text).__name__}")
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise ValueError(
            f"text is not valid Unicode at character {error.start}: {text[error.start]!r}; "
            "decode it with the encoding it was written in"
        ) from None
    text = _LINE_ENDS.sub("\n", text).replace(_PARAGRAPH_SEPARATOR, "\n\n")
    text = _FORM_FEED.sub("\n", text)
    if text.isascii():
        return _CONTROLS.sub("", text)
    text = _SILENT.sub("", text)
    return "".join(c for i, c in enumerate(text) if _is_kept(text, i, c))


def _is_kept(text: str, at: int, character: str) -> bool:
    if character.isspace():
        return True
    category = unicodedata.category(character)
    if category == "Cf" and character in _JOINERS:
        return 0 < at < len(text) - 1 and _joins(text[at - 1]) and _joins(text[at + 1])
    return category not in ("Cc", "Cf")


def _joins(neighbour: str) -> bool:
    code = ord(neighbour)
    return any(first <= code <= last for first, last in _JOINED) and (
        unicodedata.category(neighbour)[0] in "LM"
    )


def one_line(text: str) -> str:
    r"""Clean text as a model gets it: runs of spaces and line ends are one space, none outside.

    Line breaks are not innocent: `".\n"` is one token of the Llama-3 vocabulary that the model has
    hardly seen at the end of a sentence, and a space after the tag changes the first word's token.
    """
    return _WHITESPACE.sub(" ", text).strip(" ")


def has_sound(text: str) -> bool:
    """Whether there is a letter or a digit in it: emoji, dots and rules alone are no speech."""
    return any(character.isalnum() for character in text)
