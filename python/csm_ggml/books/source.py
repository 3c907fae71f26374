"""Files to books: EPUB, Word, HTML, Markdown and plain text; never a URL."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

from csm_ggml.books.archive import Archive
from csm_ggml.books.book import Book
from csm_ggml.books.chapters import count_left_out, cuts_at_headings, make_chapters
from csm_ggml.books.markup import decode_markup, read_page
from csm_ggml.errors import BookFileError
from csm_ggml.inputs import read_whole

KINDS = (".epub", ".docx", ".html", ".htm", ".xhtml", ".md", ".markdown", ".txt")


def read_book(path: str | os.PathLike[str], *, everything: bool = False) -> Book:
    """Read a book.

    Args:
        path: .epub (2 and 3), .docx, .html, .md or .txt.
        everything: Also take front matter, notes and page numbers, which are left out otherwise.

    Raises:
        BookFileError: If it is of another kind, damaged, protected, or holds nothing to speak.
        OSError: If it cannot be read.
    """
    name = os.fsdecode(path)
    if "://" in name:
        raise BookFileError(f"{name}: is an address, expected a file; nothing is fetched here")
    kind = os.path.splitext(name)[1].lower()
    if kind not in KINDS:
        raise BookFileError(
            f"{name}: {kind or 'a name without an extension'} is no kind of book that is read, "
            f"expected one of {', '.join(KINDS)}"
        )
    try:
        book = _read(name, kind, everything)
    except RecursionError:
        raise BookFileError(f"{name}: is nested too deeply to be read") from None
    if not book.chapters:
        left = f"; left out: {', '.join(map(str, book.left_out[:5]))}" if book.left_out else ""
        raise BookFileError(f"{name}: there is no text in it to be spoken{left}")
    title = book.title or Path(name).stem
    return replace(book, title=title, source=os.path.basename(name))


def _read(name: str, kind: str, everything: bool) -> Book:
    if kind in (".epub", ".docx"):
        with Archive(name) as archive:
            if kind == ".epub":
                from csm_ggml.books.epub import read_epub as read
            else:
                from csm_ggml.books.docx import read_docx as read
            return read(archive, everything=everything)
    try:
        data = read_whole(name)
    except ValueError as error:
        raise BookFileError(str(error)) from None
    if kind in (".html", ".htm", ".xhtml"):
        page = read_page(decode_markup(data), everything=everything)
        cuts = cuts_at_headings(page.blocks)
        chapters, left_out = make_chapters(
            page.blocks, cuts, title=page.title, everything=everything
        )
        left_out += count_left_out([page.left_out])
        return Book(page.title, "", "", chapters, left_out=tuple(left_out))
    from csm_ggml.books.plain import read_markdown, read_plain
    from csm_ggml.text.scripts import decode_text

    try:
        text = decode_text(data, name)
    except ValueError as error:
        raise BookFileError(str(error)) from None
    return (read_plain if kind == ".txt" else read_markdown)(text, everything=everything)
