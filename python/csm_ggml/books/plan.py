"""What is said of a book: the text of each chapter with its title, in numbered pieces."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from csm_ggml.books.book import Book, Chapter
from csm_ggml.longform.pieces import SHORTEST_PIECE, Piece
from csm_ggml.text.sentences import ends_with_mark

# A title is a number more often than not, and a number alone is no sentence.
_NUMBER = re.compile(r"(\d{1,4}|[ivxlcdm]{1,8})[.:]?", re.IGNORECASE)


@dataclass(frozen=True)
class PlannedChapter:
    """A chapter that is to be spoken.

    Attributes:
        chapter: Of the book.
        text: What is said, title and all.
        pieces: What it is said in.
        first: Number of its first piece in the book, from 1.
    """

    chapter: Chapter
    text: str
    pieces: Sequence[Piece]
    first: int

    @property
    def characters(self) -> int:
        """Of all pieces."""
        return sum(len(piece.turn.text) for piece in self.pieces)


def plan_book(
    book: Book, split: Callable[[str], Sequence[Piece]], *, title_pause: float
) -> list[PlannedChapter]:
    """Take a book apart into pieces.

    Args:
        book: The book.
        split: Takes a text apart, as `CSM.pieces`.
        title_pause: Seconds of silence after a chapter's title.

    Raises:
        ValueError: If a tag or a pause in the text is not right; the message names the chapter.
    """
    planned: list[PlannedChapter] = []
    first = 1
    for chapter in book.chapters:
        text = spoken_text(chapter, language=book.language, title_pause=title_pause)
        try:
            pieces = split(text)
        except ValueError as error:
            raise ValueError(f"chapter {chapter.number} ({chapter.label}): {error}") from None
        planned.append(PlannedChapter(chapter, text, pieces, first))
        first += len(pieces)
    return planned


def spoken_text(chapter: Chapter, *, language: str, title_pause: float) -> str:
    """A chapter's text after its title, which has a pause of its own if it is long enough."""
    title = chapter.title
    is_english = language.lower()[:2] in ("en", "")
    if (match := _NUMBER.fullmatch(title)) and is_english:
        title = f"Chapter {match[1]}"
    if not title:
        return chapter.text
    if not ends_with_mark(title):
        title = f"{title}."
    if len(title) < SHORTEST_PIECE:
        return f"{title}\n\n{chapter.text}"
    return f"{title}\n\n[pause {title_pause:g}s]\n\n{chapter.text}"


def parse_numbers(text: str, most: int, what: str) -> list[int]:
    """Read `3-7,12`.

    Args:
        text: Numbers and ranges, with commas between.
        most: The highest number there is; the lowest is 1.
        what: What is numbered, for the message.

    Raises:
        ValueError: If it is none of these, or a number is out of range.
    """
    numbers: set[int] = set()
    for part in text.split(","):
        match = re.fullmatch(r"\s*(\d{1,9})\s*(?:-\s*(\d{1,9})?\s*)?", part)
        if match is None:
            raise ValueError(
                f"{what}: expected numbers and ranges such as 3-7,12, got {text[:40]!r}"
            )
        first = int(match[1])
        last = int(match[2]) if match[2] else most if "-" in part else first
        if not 1 <= first <= last <= most:
            raise ValueError(f"{what}: {part.strip()} is not within 1 to {most}")
        numbers.update(range(first, last + 1))
    return sorted(numbers)


def check_numbers(numbers: Iterable[int], most: int, what: str) -> list[int]:
    """Numbers in order, each once.

    Raises:
        ValueError: If one is out of range.
    """
    wanted = sorted(set(numbers))
    for number in wanted:
        if isinstance(number, bool) or not isinstance(number, int) or not 1 <= number <= most:
            raise ValueError(f"{what}: {number} is not within 1 to {most}")
    return wanted
