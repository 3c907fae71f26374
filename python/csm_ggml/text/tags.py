"""Which bracketed numbers are speakers: `[1]` opens a turn in a dialogue and cites a book in prose.

Where nobody says which it is, a tag is a number where a turn can begin, and a number that this text
uses for speakers. What is left out is read as text; what is taken wrongly gives a book two voices.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass
from enum import Enum

from csm_ggml.text.sentences import SCRIPT_ENDS

MAX_SPEAKER = 9999

_TAG = re.compile(r"\[([0-9]+)\]")
# What may stand between a sentence's end and the next tag, besides spaces.
_CLOSING = "\"'\u2019\u201d\u00bb\u203a)]}*_\u300d\u300f\uff09"
_AFTER_NOTES = "[.,;:!?)]}\u2014\u2013-/"
_OPENING = "\"'\u2018\u201c\u00ab\u00bf\u00a1"
_SENTENCE_ENDS = ".!?\u2026\u2014" + SCRIPT_ENDS
# What is closed after a sentence's end: more than this is no typography.
_MOST_CLOSING = 8
# A text that does not begin with a tag has one in so many characters at least, if it has any: a
# footnote or two make no dialogue of a book.
CHARACTERS_PER_TAG = 1000
# CSM was trained mostly on these.
_USUAL = frozenset({0, 1})


class _Place(Enum):
    START = "the start of the text"
    LINE = "the start of a line"
    SENTENCE = "after a sentence"
    INSIDE = "within a sentence"


@dataclass(frozen=True)
class _Mark:
    match: re.Match[str]
    place: _Place
    # No space before, a space or a mark after: "as was shown.[1] Later".
    is_note: bool
    # Text follows at once, as no citation has it: "[1]Hello".
    is_tight: bool
    # No text follows before the next one or the end.
    is_bare: bool

    @property
    def number(self) -> int:
        """-1 where it is too large for a speaker."""
        digits = self.match[1].lstrip("0") or "0"
        return int(digits) if len(digits) <= len(str(MAX_SPEAKER)) else -1


def find_tags(
    text: str, tags: bool | None = None, speakers: Collection[int] = ()
) -> list[re.Match[str]]:
    """Find the tags that open a turn.

    Args:
        text: Clean text (`csm_ggml.text.characters.clean`).
        tags: True: every ASCII number in brackets. False: none. None: what is a tag by all signs:
            it stands at the start of the text or of a line, after a sentence's end or another tag,
            and its number is 0, 1, one of `speakers`, or opens another turn of the text, too. A
            text that begins with a tag is a dialogue: tags may also stand anywhere before a word
            that follows at once, and a line may begin with a number that is used once, if it is
            written like the first tag. In other texts numbers are no speakers that are also used as
            citations, or that only count the entries of a list.
        speakers: Numbers that are known to be speakers, of voices or a context.

    Returns:
        Matches in the order of the text; group 1 is the number.
    """
    if tags is not None and not isinstance(tags, bool):
        raise TypeError(f"tags must be True, False or None, got {tags!r}")
    if tags is False:
        return []
    matches = list(_TAG.finditer(text))
    if tags or not matches:
        return matches
    marks = _marks(text, matches)
    placed = [mark for mark in marks if mark.place is not _Place.INSIDE]
    counts = Counter(mark.number for mark in placed)
    known = {*_USUAL, *speakers, *(number for number in counts if counts[number] > 1)}
    if placed and _opens(placed[0], known):
        known = (known | _in_style(placed)) - {-1}
        begins = [mark for mark in marks if mark.place is not _Place.INSIDE or mark.is_tight]
        return [mark.match for mark in begins if mark.number in known or mark is placed[0]]
    known -= {mark.number for mark in marks if mark.place is _Place.INSIDE or mark.is_note}
    known -= {-1, *_entries(placed)}
    found = [mark.match for mark in placed if mark.number in known and not mark.is_bare]
    return found if len(found) * CHARACTERS_PER_TAG >= len(text) else []


def _opens(mark: _Mark, known: Collection[int]) -> bool:
    return mark.place is _Place.START and (mark.number in known or mark.is_tight)


def _in_style(placed: list[_Mark]) -> set[int]:
    """Numbers that open a line and are written like the first tag, with a space after it or not."""
    lines = (m for m in placed if m.place is _Place.LINE)
    return {mark.number for mark in lines if mark.is_tight == placed[0].is_tight}


def _entries(placed: list[_Mark]) -> set[int]:
    """Numbers that count: lines begin with 1, 2, 3 and so on, each once."""
    lines = [mark.number for mark in placed if mark.place is not _Place.SENTENCE]
    counted = lines == list(range(1, len(lines) + 1))
    return set(lines) if counted and len(lines) > 1 else set()


def _marks(text: str, matches: list[re.Match[str]]) -> list[_Mark]:
    marks: list[_Mark] = []
    ends = [match.start() for match in matches[1:]] + [len(text)]
    for match, end in zip(matches, ends, strict=True):
        at = match.end()
        following = text[at : at + 1]
        before = text[match.start() - 1 : match.start()] if match.start() else ""
        after_tag = bool(marks) and marks[-1].match.end() == match.start()
        marks.append(
            _Mark(
                match,
                marks[-1].place if after_tag else _place(text, match.start()),
                is_note=bool(before) and not before.isspace() and not _starts_words(following),
                is_tight=following not in _AFTER_NOTES and not following.isspace(),
                is_bare=not text[at:end].strip(),
            )
        )
    return marks


def _starts_words(following: str) -> bool:
    return following.isalnum() or (
        following != "" and following in "\"'\u2018\u201c\u00ab\u00bf\u00a1"
    )


def _place(text: str, start: int) -> _Place:
    at = start - 1
    is_line = False
    while at >= 0 and text[at].isspace():
        is_line = is_line or text[at] == "\n"
        at -= 1
    if at < 0:
        return _Place.START
    if is_line:
        return _Place.LINE
    least = at - _MOST_CLOSING
    while at > least and at >= 0 and text[at] in _CLOSING:
        at -= 1
    if at >= 0 and (text[at] in _SENTENCE_ENDS or _is_emoji(text[at])):
        return _Place.SENTENCE
    return _Place.INSIDE


def _is_emoji(character: str) -> bool:
    return "\u2600" <= character <= "\u27bf" or "\U0001f000" <= character <= "\U0001faff"
