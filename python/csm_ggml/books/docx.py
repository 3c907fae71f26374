"""Word documents (.docx): paragraphs, headings by their styles, without notes and deletions."""

from __future__ import annotations

import re
from xml.etree.ElementTree import Element

from csm_ggml.books.archive import Archive
from csm_ggml.books.book import Book
from csm_ggml.books.chapters import count_left_out, cuts_at_headings, make_chapters
from csm_ggml.books.markup import NOTE_MARKS, SCENE_BREAK, Block, words
from csm_ggml.books.xmltree import parse_xml, text_of
from csm_ggml.errors import BookFileError
from csm_ggml.text.characters import has_sound

DOCUMENT = "word/document.xml"
_STYLES = "word/styles.xml"
_CORE = "docProps/core.xml"
_HEADING = re.compile(r"heading\s*([1-6])", re.IGNORECASE)
# Not part of the text as it reads now.
_SKIPPED = words(
    "del moveFrom instrText fldSimple drawing pict object footnoteReference endnoteReference "
    "commentReference"
)


def read_docx(archive: Archive, *, everything: bool = False) -> Book:
    """Read a document.

    Args:
        archive: The file.
        everything: Leave out nothing but what has no words.

    Raises:
        BookFileError: If it is damaged or no Word document.
    """
    if DOCUMENT not in archive:
        raise BookFileError(f"{archive.name}: no Word document: there is no {DOCUMENT} in it")
    root = parse_xml(archive.read(DOCUMENT), f"{archive.name}: {DOCUMENT}")
    styles = _styles(archive)
    blocks: list[Block] = []
    title = ""
    marks = 0
    for paragraph in root.iter("p"):
        parts: list[str] = []
        marks += _collect(paragraph, parts)
        text = " ".join("".join(parts).split())
        style = styles.get(_value(paragraph, "pStyle"), "")
        if not text:
            continue
        if style == "title" and not blocks:
            title = title or text
            continue
        match = _HEADING.fullmatch(style)
        spoken = text if has_sound(text) else SCENE_BREAK
        blocks.append(Block(spoken, int(match[1]) if match and has_sound(text) else 0))
    core = parse_xml(archive.read(_CORE), f"{archive.name}: {_CORE}") if _CORE in archive else None
    chapters, left_out = make_chapters(blocks, cuts_at_headings(blocks), everything=everything)
    counts = count_left_out([{NOTE_MARKS: (marks, 0)}] if marks else [])
    return Book(
        title=(text_of(core.find("title")) if core is not None else "") or title,
        author=text_of(core.find("creator")) if core is not None else "",
        language=text_of(core.find("language")) if core is not None else "",
        chapters=chapters,
        left_out=(*left_out, *counts),
    )


def _collect(element: Element, parts: list[str]) -> int:
    """The text of a paragraph; returns how many marks of notes are in it."""
    marks = 0
    for child in element:
        if child.tag in _SKIPPED:
            marks += child.tag in ("footnoteReference", "endnoteReference")
        elif child.tag == "t":
            parts.append(child.text or "")
        elif child.tag in ("tab", "br", "cr"):
            parts.append(" ")
        elif child.tag != "p":
            # A paragraph within one is found by itself.
            marks += _collect(child, parts)
    return marks


def _styles(archive: Archive) -> dict[str, str]:
    """Names of the styles, in small letters, by their ids, which are translated."""
    if _STYLES not in archive:
        return {}
    root = parse_xml(archive.read(_STYLES), f"{archive.name}: {_STYLES}")
    names = {}
    for style in root.iter("style"):
        name = style.find("name")
        names[style.get("styleId", "")] = ("" if name is None else name.get("val", "")).lower()
    return names


def _value(paragraph: Element, name: str) -> str:
    properties = paragraph.find("pPr")
    element = None if properties is None else properties.find(name)
    return "" if element is None else element.get("val", "")
