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
_ITEM = re.compile(
    r"^[^\S\n]*[-*+\u2022\u2023\u25aa\u25e6][^\S\n]+(?:\[[ xX]\][^\S\n]+)?(?=\S)(.*)$", re.MULTILINE
)
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
_SPOKEN_CITATION = re.compile(
    rf"(?:(?<=\b[Ii]n )|(?<=\bby )|(?<=\b[Ff]rom )|(?<=\bof )|(?<=\b[Ss]ee )|(?<=\b[Ww]ith )|"
    rf"(?<=\bto )|(?<=\band )|(?<=\bper )|(?<=\bref\. )|(?<=\bRef\. ))\[({_NUMBERS})\]"
)
_CITATION = re.compile(
    rf"\s?\[(?:{_NUMBERS}|\^[^\]\s]+|[a-z]|(?:note|nb|n)\s\d{{1,3}}|citation needed|"
    rf"clarification needed|when\?|who\?|sic)\](?:\s?[-\u2013,]\s?(?=\[\d))?",
    re.IGNORECASE,
)
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
    "[\u00a9\u00ae\u2122\u203c\u2049\u20e3\u231a-\u23ff\u24c2\u25aa-\u25fe\u2600-\u27bf\u2934\u2935"
    "\u2b00-\u2bff\u3030\u303d\u3297\u3299\U0001f000-\U0001faff]"
)
_EMOTICON = re.compile(r"(?<!\S)(?:[:;=8][-'^o]?[()DPp/\\|*3]|[xX]D|<3|\^_?\^)(?=[\s.,!?]|$)")
_SPACES = re.compile(r"[^\S\n]+")
_SPACE_BEFORE_MARK = re.compile(r"[^\S\n]+([,.;:!?])(?=\s|$)")


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
    text = _ITEM.sub(_item, _QUOTE.sub("", text))
    text = _TABLE_ROW.sub(_row, _TABLE_RULE.sub("", text))
    text = _LINK.sub(r"\1", _IMAGE.sub(r"\1", text))
    text = _ADDRESS.sub(r"\1", _REFERENCE.sub(r"\1", text))
    text = _CODE.sub(r"\2", text)
    # Three times, as one may stand within another.
    for _ in range(3):
        for pattern in _EMPHASIS:
            text = pattern.sub(r"\2", text)
    return _ESCAPE.sub(r"\1", text)


def _item(match: re.Match[str]) -> str:
    """An entry of a list is a sentence of its own."""
    words = match[1].rstrip()
    if _RULE.fullmatch(match[0]):
        return match[0]
    return words if words[-1] in ".!?:;," else f"{words}."


def _row(match: re.Match[str]) -> str:
    cells = [cell.strip() for cell in match[1].split("|")]
    return ", ".join(cell for cell in cells if cell) + "."


def _marks(text: str) -> str:
    text = _SPOKEN_CITATION.sub(r"reference \1", text)
    text = _NOTE_MARKS.sub("", _AUTHORS.sub("", _CITATION.sub("", text)))
    return _EMOTICON.sub("", _EMOJI.sub(" ", text))


def _tidy(text: str, before: str) -> str:
    """Without the spaces that things taken away have left."""
    if text == before:
        return text
    lines = [_SPACES.sub(" ", line).strip() for line in text.split("\n")]
    return _SPACE_BEFORE_MARK.sub(r"\1", "\n".join(lines))
