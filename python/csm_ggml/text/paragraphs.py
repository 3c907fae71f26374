"""Paragraphs of a text whose lines may be wrapped: blank lines part them, and so do headings."""

from __future__ import annotations

import re
from dataclasses import dataclass

from csm_ggml.text.characters import has_sound, one_line
from csm_ggml.text.sentences import CLAUSE_MARKS, SCRIPT_ENDS, ends_with_mark

_BLANK_LINE = re.compile(r"\n[^\S\n]*\n\s*")
# A heading is no longer than this, and a line that was wrapped no shorter than that.
LONGEST_HEADING = 60
NARROWEST_WRAP = 40
# A line that ends with one of these, within quotes or brackets or not, is a sentence or goes on.
_PUNCTUATION = frozenset(".!?\u2026\u2010\u2011-&/" + SCRIPT_ENDS + CLAUSE_MARKS)
_CLOSING = "\"'\u2019\u201d\u00bb\u203a)]*_\u300d\u300f\uff09"


@dataclass(frozen=True)
class Paragraph:
    """What stands between two blank lines, or a line that stands for itself.

    Attributes:
        text: In one line.
        is_heading: Whether it is a short line without punctuation at its end.
    """

    text: str
    is_heading: bool = False


def paragraphs(text: str) -> list[Paragraph]:
    """Take a text apart, and join lines that were wrapped.

    A short line without punctuation at its end is a paragraph of its own, if the word that follows
    would have had room beside it. So is a line without a letter or digit, such as `* * *`.

    Args:
        text: Clean text (`csm_ggml.text.characters.clean`).
    """
    blocks = [
        [line for line in map(one_line, block.split("\n")) if line]
        for block in _BLANK_LINE.split(text)
    ]
    width = max((len(line) for lines in blocks for line in lines), default=0)
    found = []
    for lines in blocks:
        found += _of_block(lines, max(width, NARROWEST_WRAP))
    return found


def ends_paragraph(text: str) -> bool:
    """Whether clean text ends with a blank line."""
    return text[len(text.rstrip()) :].count("\n") > 1


def _of_block(lines: list[str], width: int) -> list[Paragraph]:
    found: list[Paragraph] = []
    open_lines: list[str] = []

    def close() -> None:
        if open_lines:
            found.append(Paragraph(" ".join(open_lines)))
            open_lines.clear()

    for at, line in enumerate(lines):
        begins = not open_lines or ends_with_mark(open_lines[-1])
        following = lines[at + 1] if at + 1 < len(lines) else None
        if not has_sound(line):
            close()
            found.append(Paragraph(line))
        elif begins and _is_heading(line, following, width):
            close()
            found.append(Paragraph(line, is_heading=True))
        else:
            open_lines.append(line)
    close()
    return found


def _is_heading(line: str, following: str | None, width: int) -> bool:
    if len(line) > LONGEST_HEADING or line.rstrip(_CLOSING)[-1:] in _PUNCTUATION:
        return False
    if following is None or not has_sound(following):
        return True
    room = len(line) + 1 + len(following.split(" ", 1)[0]) <= width
    first = next(character for character in following if character.isalnum())
    return room and not first.islower()
