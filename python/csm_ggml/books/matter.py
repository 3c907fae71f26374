"""What of a book is not read aloud: covers, contents, indexes, notes, what publishers say."""

from __future__ import annotations

import re
from collections.abc import Collection

# Semantic types of EPUB 3, landmarks, and the guide of EPUB 2.
_TYPES = {
    **dict.fromkeys(("cover", "cover-page", "doc-cover"), "cover"),
    **dict.fromkeys(
        ("titlepage", "title-page", "halftitlepage", "halftitle", "fulltitle"), "title page"
    ),
    **dict.fromkeys(
        ("copyright-page", "imprint", "imprimatur", "colophon", "doc-colophon"), "imprint"
    ),
    **dict.fromkeys(
        ("toc", "loi", "lot", "loa", "lov", "page-list", "landmarks", "doc-toc"), "contents"
    ),
    **dict.fromkeys(("index", "doc-index"), "index"),
    **dict.fromkeys(("bibliography", "doc-bibliography"), "bibliography"),
    **dict.fromkeys(
        ("footnotes", "endnotes", "rearnotes", "notes", "doc-endnotes", "doc-footnotes"), "notes"
    ),
    **dict.fromkeys(("other-credits", "credits"), "credits"),
}

_TITLES = (
    ("cover", r"(?:front |book )?cover(?: page| image)?|couverture|umschlag|titelbild"),
    ("title page", r"(?:half[ -]?)?title(?:[ -]?page)?|titelseite|page de titre"),
    ("imprint", r"copyright.{0,40}|imprint|impressum|colophon|legal notice|all rights reserved"),
    (
        "contents",
        r"(?:table of |detailed )?contents(?: of .{0,40})?|toc|landmarks|inhalt(?:sverzeichnis)?|"
        r"sommaire|table des mati\u00e8res|\u00edndice|(?:list of |list of the )?"
        r"(?:illustrations|figures|tables|plates|maps)",
    ),
    ("index", r"(?:general |subject )?index(?: of .{0,40})?|register"),
    (
        "bibliography",
        r"(?:select(?:ed)? )?bibliography|works cited|references|literatur(?:verzeichnis)?",
    ),
    (
        "notes",
        r"(?:foot|end)?[ -]?notes|notes to .{0,40}|anmerkungen|fu\u00dfnoten|notes de bas de page",
    ),
    (
        "publisher's pages",
        r"also by .{0,80}|(?:other )?(?:books|works|novels) by .{0,80}|by the same author|"
        r"about the (?:author|authors|publisher|translator)|advertisements?|newsletter|"
        r"praise for .{0,80}",
    ),
    (
        "transcriber's notes",
        r"transcriber.{0,2}s?.{0,2} ?notes?.{0,40}|editorial note on this ebook",
    ),
    ("licence", r"(?:the )?(?:full )?project gutenberg.{0,80}|.{0,20}full license|license"),
)
_PATTERNS = tuple((reason, re.compile(pattern, re.IGNORECASE)) for reason, pattern in _TITLES)


def reason_to_leave_out(title: str, types: Collection[str]) -> str | None:
    """Why a part of a book is not read aloud; None if it is.

    Args:
        title: Of the part.
        types: What the book says that it is, in the words of EPUB.
    """
    for name in types:
        if name in _TYPES:
            return _TYPES[name]
    words = title.strip(" .:*-\u2013\u2014[]()").replace("\u2019", "'")
    for reason, pattern in _PATTERNS:
        if pattern.fullmatch(words):
            return reason
    return None
