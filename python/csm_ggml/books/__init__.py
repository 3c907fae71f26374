"""Books: EPUB, text, Markdown, HTML and Word files to audiobooks with chapters (docs/BOOKS.md).

from csm_ggml import CSM
from csm_ggml.books import Audiobook, read_book, save_book

book = read_book("book.epub")
with Audiobook(CSM.from_pretrained("demo"), book, "book.job", seed=1) as audiobook:
    audiobook.speak()
    save_book(audiobook, "book.m4b")
"""

from __future__ import annotations

from csm_ggml.books.book import Book, Chapter, LeftOut, Picture
from csm_ggml.books.job import Audiobook, BookProgress, SpokenPiece
from csm_ggml.books.output import SavedBook, save_book
from csm_ggml.books.report import write_report
from csm_ggml.books.source import read_book

__all__ = [
    "Audiobook",
    "Book",
    "BookProgress",
    "Chapter",
    "LeftOut",
    "Picture",
    "SavedBook",
    "SpokenPiece",
    "read_book",
    "save_book",
    "write_report",
]
