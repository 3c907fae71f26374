"""A book as it is spoken: chapters of plain paragraphs, and what was left out of them."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

# English is read at about so many words a minute.
WORDS_PER_MINUTE = 160.0


_PAUSE = re.compile(r"\[pause[^\[\]\n]{0,40}\]")


def count_words(text: str) -> int:
    """Number of words, without pauses that stand in brackets."""
    return len(_PAUSE.sub(" ", text).split())


@dataclass(frozen=True)
class Chapter:
    """A chapter.

    Attributes:
        number: Of the chapter in the book, from 1.
        title: In one line; "" if it has none.
        text: Paragraphs, in one line each, with blank lines between.
    """

    number: int
    title: str
    text: str

    @property
    def words(self) -> int:
        """Number of words, without those of the title."""
        return count_words(self.text)

    @property
    def label(self) -> str:
        """What lists and chapter marks call it."""
        return self.title or f"Chapter {self.number}"


@dataclass(frozen=True)
class LeftOut:
    """Something of the source that is not spoken.

    Attributes:
        what: Its title or its kind.
        reason: Why.
        words: How many words it has; 0 where that says nothing.
    """

    what: str
    reason: str
    words: int = 0

    def __str__(self) -> str:
        """One line for people."""
        return f"{self.what} ({self.reason}" + (f", {self.words} words)" if self.words else ")")


@dataclass(frozen=True)
class Picture:
    """A cover.

    Attributes:
        data: The file.
        kind: "jpeg" or "png".
    """

    data: bytes = field(repr=False)
    kind: str

    @property
    def media_type(self) -> str:
        """Its MIME type."""
        return f"image/{self.kind}"


@dataclass(frozen=True)
class Book:
    """What is spoken, and how it is called.

    Attributes:
        title: Of the book; never empty.
        author: Of the book; "" if it is not known.
        language: Tag such as "en" or "en-GB"; "" if it is not known.
        chapters: In order; at least one.
        cover: None if there is none.
        left_out: What is not spoken.
        source: Name of the file, without its folder.
    """

    title: str
    author: str
    language: str
    chapters: tuple[Chapter, ...]
    cover: Picture | None = None
    left_out: tuple[LeftOut, ...] = ()
    source: str = ""

    @property
    def words(self) -> int:
        """Number of words in all chapters."""
        return sum(chapter.words for chapter in self.chapters)


def picture(data: bytes) -> Picture | None:
    """A cover of the bytes of a file, by what is in it; None if it is neither JPEG nor PNG."""
    if data.startswith(b"\xff\xd8\xff"):
        return Picture(data, "jpeg")
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        return Picture(data, "png")
    return None
