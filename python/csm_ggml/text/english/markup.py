"""What is markup in a text, and what is the text: Markdown, HTML, citations, emoji."""

from __future__ import annotations

import html
import re

from csm_ggml.text.characters import clean

_ENTITY = re.compile(r"&(?:#\d{1,7}|#[xX][0-9a-fA-F]{1,6}|[A-Za-z][A-Za-z0-9]{1,31});")
_COMMENT = re.compile(r"<!--.{0,20000}?-->", re.DOTALL)
_HIDDEN = re.compile(r"<(script|style)\b[^<>]*>.{0,20000}?</\1\s*>", re.DOTALL | re.IGNORECASE)
_BREAK = re.compile(r"<br\s*/?>", re.IGNORECASE)
_BLOCK = re.compile(
    r"</?(?:p|div|h[1-6]|ul|ol|li|table|tr|blockquote|section|article|header|footer|hr|pre)"
    r"(?:\s[^<>]*)?/?>",
    re.IGNORECASE,
)
_INLINE = re.compile(
    r"</?(?:a|abbr|b|body|cite|code|dd|del|dl|dt|em|figure|font|head|html|i|img|ins|kbd|mark|main|"
    r"nav|q|s|small|span|strong|sub|sup|tbody|td|th|thead|title|tt|u|var)(?:\s[^<>]*)?/?>",
    re.IGNORECASE,
)

_FENCE = re.compile(r"^ {0,3}(?:```|~~~).*$", re.MULTILINE)
_DEFINITION = re.compile(
    r"^ {0,3}\[[^\]\n]+\]:\s+<?(?:https?:|www\.|/|#|mailto:)\S*.*$", re.MULTILINE
)
_NOTE = re.compile(r"^ {0,3}\[\^[^\]\n]+\]:\s*", re.MULTILINE)
_UNDERLINE = re.compile(r"(?<=\S)[^\S\n]*\n {0,3}(?:={3,}|-{3,})[^\S\n]*$", re.MULTILINE)
_HEADING = re.compile(r"^ {0,3}#{1,6}[^\S\n]+(.*?)[^\S\n]*#*[^\S\n]*$", re.MULTILINE)
_QUOTE = re.compile(r"^ {0,3}(?:>[^\S\n]?)+", re.MULTILINE)
_ITEM = re.compile(r"[^\S\n]*[-*+\u2022\u2023\u25aa\u25e6][^\S\n]+(?:\[[ xX]\][^\S\n]+)?(?=\S)(.*)")
_CONTINUED = re.compile(r"[^\S\n]{2,}\S|[a-z]")
_RULE = re.compile(r"[-*_\s]+")
_TABLE_RULE = re.compile(r"^[^\S\n]*\|?(?:[^\S\n]*:?-{3,}:?[^\S\n]*\|)+[^\n]*$\n?", re.MULTILINE)
_TABLE_ROW = re.compile(r"^[^\S\n]*\|(.+)\|[^\S\n]*$", re.MULTILINE)
_IMAGE = re.compile(r"!\[([^\[\]\n]{0,1000})\]\([^()\s]*(?:\s+\"[^\"\n]*\")?\)")
_LINK = re.compile(r"\[([^\[\]\n]{1,1000})\]\((?:[^()\s]|\([^()\s]*\))*(?:\s+\"[^\"\n]*\")?\)")
_REFERENCE = re.compile(r"\[(?=[^\[\]\n]{0,1000}[^\W\d])([^\[\]\n]{1,1000})\]\[[^\[\]\n]{0,1000}\]")
_ADDRESS = re.compile(r"<((?:https?://|mailto:)?[^\s<>]+[.@][^\s<>]+)>")
_CODE = re.compile(r"(`{1,3})(?!`)([^\n]{1,1000}?)(?<!`)\1(?!`)")
_EMPHASIS = (
    re.compile(r"(?<![\w*])(\*{1,3})(?=[^\s*])([^\n]{0,1000}?[^\s*])\1(?![\w*])"),
    re.compile(r"(?<![\w_])(_{1,3})(?=[^\s_])([^\n]{0,1000}?[^\s_])\1(?![\w_])"),
    re.compile(r"(~~)(?=\S)([^\n]{0,1000}?\S)\1"),
)
_ESCAPE = re.compile(r"\\([\\`*_{}\[\]()#+.!|<>~-])")

_NUMBERS = r"\d{1,4}(?:\s?[-\u2013,;]\s?\d{1,4})*"
_BEFORE_SPOKEN = "|".join(
    rf"(?<=\b{word}\s)"
    for word in (
        *("in", "In", "by", "from", "From", "of", "see", "See", "with", "With", "to", "and", "per"),
        *("ref.", "Ref."),
    )
)
_SPOKEN_CITATION = re.compile(rf"(?:{_BEFORE_SPOKEN})\[({_NUMBERS})\]")
_CITATION = re.compile(
    rf"\s?\[(?:{_NUMBERS}|\^[^\]\s]+|(?:note|nb|n)\s\d{{1,3}}|citation needed|"
    rf"clarification needed|when\?|who\?|sic)\](?:\s?[-\u2013,]\s?(?=\[\d))?",
    re.IGNORECASE,
)
_LETTER = re.compile(r"(?<=[\w.,;:!?)\"\u201d\u2019])\[[a-z]\]")
_NAME = r"(?:[A-Z][\w'\u2019-]+|von|van|de|der|et al\.?|and|&)"
_PAGES = r"(?:,\s?pp?\.\s?[\d\u2013-]+)?"
_WORK = rf"[A-Z][\w'\u2019-]+(?:,?\s{_NAME})*,?\s(?:1[5-9]|20)\d\d[a-z]?{_PAGES}"
_AUTHORS = re.compile(rf"\s?\((?:[Ss]ee |e\.g\.,? |cf\. )?{_WORK}(?:;\s?{_WORK})*\)")
# A note's mark after a word or a full stop; after one letter or a unit it is a power.
_NOTE_MARKS = re.compile(
    r"(?:(?<=[A-Za-z]{3})|(?<=[.,;:!?)\"\u201d\u2019]))[\u00b9\u00b2\u00b3\u2070\u2074-\u2079]+"
    r"|[\u2020\u2021]"
)
_EMOJI = re.compile(
    "[^\\S\n]?[\u00a9\u00ae\u2122\u203c\u2049\u20e3\u231a-\u23ff\u24c2\u25aa-\u25fe\u2600-\u27bf\u2934\u2935"
    "\u2b00-\u2bff\u3030\u303d\u3297\u3299\U0001f000-\U0001faff]+"
)
_EMOTICON = re.compile(
    r"(?:^|[^\S\n])(?:[:;=8][-'^o]?[()DPp/\\|*3]|[xX]D|<3|\^_?\^)(?=[\s.,!?]|$)", re.MULTILINE
)
_SPACES = re.compile(r"[^\S\n]+")


def plain(text: str) -> str:
    """The words of a text without markup, citations and emoji; lines and blank lines stay.

    Args:
        text: Clean text (`csm_ggml.text.characters.clean`).
    """
    for _ in range(3):
        text, more = _ENTITY.subn(lambda match: html.unescape(match[0]), text)
        text = clean(text)
        if not more:
            break
    if "<" in text:
        text = _HIDDEN.sub(" ", _COMMENT.sub("", text))
        text = _INLINE.sub("", _BLOCK.sub("\n\n", _BREAK.sub("\n", text)))
    return _tidy(_marks(_markdown(text)), text)


def _markdown(text: str) -> str:
    text = _DEFINITION.sub("", _FENCE.sub("", text))
    text = _HEADING.sub(r"\n\1\n", _UNDERLINE.sub("\n", _NOTE.sub("", text)))
    text = _without_bullets(_QUOTE.sub("", text))
    text = _TABLE_ROW.sub(_row, _TABLE_RULE.sub("", text))
    text = _LINK.sub(r"\1", _IMAGE.sub(r"\1", text))
    text = _ADDRESS.sub(r"\1", _REFERENCE.sub(r"\1", text))
    text = _CODE.sub(r"\2", text)
    # Three times, as one may stand within another.
    for _ in range(3):
        for pattern in _EMPHASIS:
            text = pattern.sub(r"\2", text)
    return _ESCAPE.sub(r"\1", text)


def _without_bullets(text: str) -> str:
    """Each entry of a list is a sentence of its own; its lines may be wrapped."""
    lines: list[str] = []
    is_open = False
    for line in text.split("\n"):
        match = None if _RULE.fullmatch(line) else _ITEM.fullmatch(line)
        goes_on = is_open and match is None and _CONTINUED.match(line) is not None
        if is_open and not goes_on and lines[-1][-1] not in ".!?:;,":
            lines[-1] += "."
        if goes_on:
            lines[-1] += f" {line.strip()}"
        else:
            lines.append(match[1].rstrip() if match else line)
            is_open = match is not None
    if is_open and lines[-1][-1] not in ".!?:;,":
        lines[-1] += "."
    return "\n".join(lines)


def _row(match: re.Match[str]) -> str:
    cells = [cell.strip() for cell in match[1].split("|") if cell.strip()]
    return f"{', '.join(cells)}." if cells else ""


def _marks(text: str) -> str:
    text = _SPOKEN_CITATION.sub(r"reference \1", text)
    text = _NOTE_MARKS.sub("", _AUTHORS.sub("", _LETTER.sub("", _CITATION.sub("", text))))
    return _EMOTICON.sub("", _EMOJI.sub("", text))


def _tidy(text: str, before: str) -> str:
    """Without the spaces that things taken away have left."""
    if text == before:
        return text
    lines = [_SPACES.sub(" ", line).strip() for line in text.split("\n")]
    return "\n".join(lines)
