"""From paragraphs and headings to chapters: where they begin, their titles, which are spoken."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from csm_ggml.books.book import Chapter, LeftOut
from csm_ggml.books.markup import SCENE_BREAK, Block
from csm_ggml.books.matter import reason_to_leave_out
from csm_ggml.text.sentences import ends_with_mark

MOST_CHAPTERS = 5_000
# What stands before the first chapter and has no title of its own is a motto or a title page.
_FRONT_WORDS = 150
_DIVIDER = re.compile(r"(?:part|book|volume|act|teil|buch|partie|livre)\b", re.IGNORECASE)


@dataclass(frozen=True)
class Cut:
    """Where a part of the book begins.

    Attributes:
        at: Number of its first block.
        title: "" to take its headings.
        depth: 1 for the outermost parts.
        types: What the book says that it is, in the words of EPUB.
        is_listed: Whether the book counts it among its parts.
    """

    at: int
    title: str
    depth: int = 1
    types: frozenset[str] = frozenset()
    is_listed: bool = True


@dataclass
class _Part:
    cut: Cut
    title: str
    blocks: list[Block]
    types: frozenset[str] = field(default_factory=frozenset)

    @property
    def words(self) -> int:
        return sum(len(b.text.split()) for b in self.blocks if not b.level and _is_said(b))


def cuts_at_headings(blocks: Sequence[Block]) -> list[Cut]:
    """Chapters by the headings: the outermost level of which there are several, and those above.

    A heading that stands alone above all others is the title of the book.
    """
    levels = sorted({block.level for block in blocks if block.level})
    counts = {level: sum(block.level == level for block in blocks) for level in levels}
    level = next((level for level in levels if counts[level] > 1), levels[-1] if levels else 0)
    return [
        Cut(at, block.text, block.level)
        for at, block in enumerate(blocks)
        if 0 < block.level <= level
    ]


def make_chapters(
    blocks: Sequence[Block], cuts: Iterable[Cut], *, title: str = "", everything: bool = False
) -> tuple[tuple[Chapter, ...], list[LeftOut]]:
    """Take a book apart.

    Args:
        blocks: The whole book.
        cuts: Where its parts begin, in any order; what stands before the first is a part, too.
        title: Of the book; it is no part of a chapter's title.
        everything: Leave out only what has no words.

    Returns:
        Chapters, and what was left out.
    """
    parts = _merge_dividers(_parts(blocks, cuts), _normal(title))
    chapters: list[Chapter] = []
    left_out: list[LeftOut] = []
    for part in parts:
        reason = None
        if not part.words:
            reason = "no words"
        elif not everything:
            reason = reason_to_leave_out(part.title, part.types)
            if not part.cut.is_listed and not chapters and part.words < _FRONT_WORDS:
                reason = reason or "front matter"
        if reason is None:
            chapters.append(Chapter(len(chapters) + 1, part.title, _text(part.blocks)))
        elif part.words or part.title:
            left_out.append(LeftOut(part.title or _beginning(part.blocks), reason, part.words))
    return tuple(chapters), left_out


def count_left_out(counts: Iterable[Mapping[str, tuple[int, int]]]) -> list[LeftOut]:
    """What pages say that they have left out, summed up."""
    sums: dict[str, tuple[int, int]] = {}
    for own in counts:
        for reason, (count, words) in own.items():
            before = sums.get(reason, (0, 0))
            sums[reason] = (before[0] + count, before[1] + words)
    return [
        LeftOut(f"{count} {reason}", "within chapters", words)
        for reason, (count, words) in sums.items()
    ]


def _parts(blocks: Sequence[Block], cuts: Iterable[Cut]) -> list[_Part]:
    ordered = sorted(cuts, key=lambda cut: cut.at)[:MOST_CHAPTERS]
    if not ordered or ordered[0].at > 0:
        ordered.insert(0, Cut(0, "", is_listed=not ordered))
    parts: list[_Part] = []
    for cut, end in zip(ordered, [*(cut.at for cut in ordered[1:]), len(blocks)], strict=True):
        title, own = _titled(cut.title, list(blocks[cut.at : end]))
        parts.append(_Part(cut, title, own, cut.types))
    return parts


def _merge_dividers(parts: list[_Part], book: str) -> list[_Part]:
    """`Part One` that holds nothing but its chapters is said before the title of the first one."""
    merged: list[_Part] = []
    before: list[_Part] = []
    for part in parts:
        waiting = before[-1] if before else None
        if waiting is not None:
            within = part.cut.depth > waiting.cut.depth or _DIVIDER.match(waiting.title)
            said = _normal(waiting.title)
            if said == book:
                merged.append(waiting)
            elif within and said != _normal(part.title) and not part.types:
                part.title = joined_title([waiting.title, part.title])
            elif not within:
                merged.append(waiting)
            before.clear()
        if part.title and not part.words:
            before.append(part)
        else:
            merged.append(part)
    return merged + before


def joined_title(titles: Iterable[str]) -> str:
    """Titles of several lines in one."""
    said = [title for title in titles if title]
    ended = [title if ends_with_mark(title) else f"{title}." for title in said[:-1]]
    return " ".join([*ended, *said[-1:]])


def _titled(title: str, blocks: list[Block]) -> tuple[str, list[Block]]:
    """The title, and the blocks without the headings that say it."""
    leading = 0
    while leading < len(blocks) and (blocks[leading].level or not _is_said(blocks[leading])):
        leading += 1
    headings = [block.text for block in blocks[:leading] if block.level]
    if not title:
        return joined_title(headings[:3]), blocks[leading:] if headings else blocks
    wanted = _normal(title)
    own = blocks
    taken: list[str] = []
    for at, block in enumerate(blocks[: leading + 1]):
        said = _normal(block.text)
        if block.level and said and (said in wanted or wanted in said):
            taken.append(block.text)
            own = blocks[at + 1 :]
        elif not block.level and said == wanted:
            own = blocks[at + 1 :]
            break
        elif _is_said(block):
            break
    full = joined_title(taken)
    return full if len(_normal(full)) > len(wanted) and len(full) <= 200 else title, own


def _normal(text: str) -> str:
    return "".join(character for character in text.casefold() if character.isalnum())


def _is_said(block: Block) -> bool:
    return bool(block.text) and block.text != SCENE_BREAK


def _text(blocks: Sequence[Block]) -> str:
    said = [block for block in blocks if block.text]
    while said and not _is_said(said[-1]):
        said.pop()
    while said and not _is_said(said[0]):
        said.pop(0)
    return "\n\n".join(
        f"{block.text}." if block.level and not ends_with_mark(block.text) else block.text
        for block in said
    )


def _beginning(blocks: Sequence[Block]) -> str:
    text = next((block.text for block in blocks if _is_said(block)), "")
    return repr(text if len(text) <= 40 else f"{text[:37]}...")
