"""Long text into pieces that are spoken well in one go: sentences, grouped.

The rules are those of English prose in common typesetting, and they err towards too few cuts: a
sentence end that is missed costs nothing, a cut in the middle of one is heard. Full stops of other
scripts end sentences, too.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


# An abbreviation's full stop ends no sentence, whatever follows.
_TITLES = _words(
    "adm brig capt cmdr col cpl dr fr gen gov hon lt maj messrs mlle mme mr mrs ms mt mx pres "
    "prof rep rev sen sgt sr st supt cf e.g eg i.e ie viz vs v approx ca dept est fig figs vol"
)
# These end none before a number.
_BEFORE_NUMBERS = _words("art ch chap eq ex nr no nos op p par pp pt sec")
# These may end one, and are taken to if the next word is one that often begins a sentence.
_EITHER = _words(
    "al assn ave bros co corp esq etc inc jan feb mar apr jun jul aug sep sept oct nov dec jr ltd "
    "mon tue tues wed thu thur thurs fri sat sun rd"
)
STARTERS = _words(
    "a after all although an and another as at because before but by each even every for from he "
    "her here his how however i if in it its just later many meanwhile my next no not now on once "
    "one only or our perhaps she since so some still such that the their then there these they "
    "this those though to we well what when where which while who why with yes yet you your"
)

# Full stops, question and exclamation marks of scripts in which they end a sentence always, whether
# or not space follows: Armenian, Arabic and Urdu, Syriac, Devanagari and its relatives, Sinhala,
# Tibetan, Burmese, Ethiopic, Khmer, Mongolian, CJK with full and half width.
SCRIPT_ENDS = (
    "\u0589\u061f\u06d4\u0700\u0701\u0702\u0964\u0965\u0df4\u0f0d\u0f0e\u104b\u1362\u1367\u1368"
    "\u17d4\u17d5\u1803\u1809\u203c\u203d\u2047\u2048\u2049\u3002\uff01\uff0e\uff1f\uff61"
)
# Commas and their like, after which a long sentence may be cut.
CLAUSE_MARKS = (
    ",;:\u2014\u2013\u055d\u060c\u061b\u104a\u1363\u1364\u1365\u1366\u1802\u1808\u3001"
    "\uff0c\uff1a\uff1b\uff64"
)
_CLOSING = "\"'\u2019\u201d\u00bb\u203a)\\]\u300d\u300f\u3011\u300b\uff09\uff3d"

# Marks that end a sentence with the quotes and brackets that close after them, and space. A run of
# marks is looked at once, from its first one on.
_END = re.compile(
    rf"(?<![.!?\u2026])(?P<mark>[.!?\u2026]+)(?P<close>[{_CLOSING}]*)(?P<space>\s+)"
    rf"|[{SCRIPT_ENDS}][{SCRIPT_ENDS}!?]*[{_CLOSING}]*\s*"
)
_ENDS_WITH_MARK = re.compile(rf"[.!?\u2026:{SCRIPT_ENDS}][{_CLOSING}*_]*$")
_OPENING = re.compile(r"[\"'\u2018\u201c\u00ab(\[\u00bf\u00a1\u2014\u2013-]*")
_WORD = re.compile(r"\w+")
_BEFORE_WORD = re.compile(r"[\s\"'\u2018\u2019\u201c\u201d(\[\u2014\u2013]")
# No abbreviation, nor a row of initials, is longer than this.
_LONGEST_WORD = 24
_INITIALS = re.compile(r"(?:[^\W\d_]\.)*[^\W\d_]")
_CLAUSE_END = re.compile(rf"(?<=[{CLAUSE_MARKS}])\s*")


def ends_with_mark(text: str) -> bool:
    """Whether the text ends with a mark that ends a sentence, or one that opens what follows."""
    return _ENDS_WITH_MARK.search(text[-8:]) is not None


def split_sentences(text: str) -> list[str]:
    """Cut a paragraph after each sentence.

    Args:
        text: In one line (`csm_ggml.text.characters.one_line`).

    Returns:
        The sentences without the spaces between them, none empty.
    """
    sentences = []
    start = 0
    for match in _END.finditer(text):
        if match["mark"] is None or _ends_sentence(text, match):
            sentences.append(text[start : match.end()].strip())
            start = match.end()
    sentences.append(text[start:].strip())
    return [sentence for sentence in sentences if sentence]


def _ends_sentence(text: str, match: re.Match[str]) -> bool:
    opening = _OPENING.match(text, match.end())
    assert opening is not None
    following = text[opening.end() : opening.end() + 1]
    if not following or following.islower():
        return not following
    if match["mark"] != ".":
        return True
    before = _word_before(text, match.start()).lower()
    if before in _TITLES and not match["close"]:
        return False
    if before in _BEFORE_NUMBERS and following.isdigit():
        return False
    if before in _EITHER or _INITIALS.fullmatch(before):
        if before == "i" or match["close"]:
            return True
        first = _WORD.match(text, opening.end())
        return first is not None and first[0].lower() in STARTERS
    return True


def _word_before(text: str, end: int) -> str:
    """The word that ends there, or its last letters."""
    return _BEFORE_WORD.split(text[max(0, end - _LONGEST_WORD) : end])[-1]


def group(sentences: Iterable[str], characters: int) -> Iterator[str]:
    """Join neighbouring sentences as long as the result has at most so many characters.

    A sentence that is longer alone is cut: after a comma or another mark within it, else between
    words, else anywhere.
    """
    piece = ""
    for sentence in sentences:
        for part in _cut(sentence, characters):
            if piece and len(piece) + 1 + len(part) > characters:
                yield piece
                piece = part
            else:
                piece = f"{piece} {part}" if piece else part
    if piece:
        yield piece


def _cut(sentence: str, characters: int) -> Iterator[str]:
    start = 0
    while len(sentence) - start > characters:
        limit = start + characters
        ends = [m.start() for m in _CLAUSE_END.finditer(sentence, start + 1, limit + 1)]
        # Not so early that a snippet is left.
        least = start + characters // 3
        at = max((end for end in ends if least <= end <= limit), default=0)
        at = at or sentence.rfind(" ", start + 1, limit + 1)
        at = at if at > start else limit
        yield sentence[start:at].strip()
        start = at
        while start < len(sentence) and sentence[start].isspace():
            start += 1
    if start < len(sentence):
        yield sentence[start:].strip()
