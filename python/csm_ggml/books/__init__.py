"""Books: EPUB, text, Markdown, HTML and Word files to audiobooks with chapters (docs/BOOKS.md).

from csm_ggml import CSM
from csm_ggml.books import Audiobook, read_book

book = read_book("book.epub")
audiobook = Audiobook(CSM.from_pretrained("demo"), book, "book.job", seed=1)
audiobook.speak()
audiobook.save("book.m4b")
"""

from __future__ import annotations

from csm_ggml.books.book import Book, Chapter, LeftOut, Picture
from csm_ggml.books.source import read_book

__all__ = [
    "Book",
    "Chapter",
    "LeftOut",
    "Picture",
    "read_book",
]
