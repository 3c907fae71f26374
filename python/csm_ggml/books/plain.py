"""Text and Markdown files as books: chapters by their headings."""

from __future__ import annotations

import re

from csm_ggml.books.book import Book, LeftOut
from csm_ggml.books.chapters import Cut, cuts_at_headings, make_chapters
from csm_ggml.books.markup import GUTENBERG, SCENE_BREAK, Block
from csm_ggml.text.characters import clean, has_sound, one_line

_BLANK = re.compile(r"\n[^\S\n]*\n\s*")
_LONGEST_HEADING = 90
_NUMBER = (
    r"(?:[ivxlcdm]{1,8}|\d{1,3}|one|two|three|four|five|six|seven|eight|nine|ten|eleven|twelve|"
    r"(?:thir|four|fif|six|seven|eigh|nine)teen|(?:twenty|thirty|forty|fifty)(?:[- ]\w{3,6})?|the "
    r"(?:first|second|third|fourth|fifth|sixth|seventh|eighth|ninth|tenth|last))"
)
_PART = re.compile(
    rf"(?:part|book|volume|vol\.|act|buch|teil)\s+{_NUMBER}\b.*|{_NUMBER}\s+(?:part|book)\b.*",
    re.IGNORECASE,
)
_CHAPTER = re.compile(
    rf"(?:chapter|chap\.|letter|canto|stave|scene|section|story|kapitel|chapitre)\s+{_NUMBER}\b.*|"
    r"(?:prologue|epilogue|preface|foreword|introduction|introductory note|afterword|conclusion|"
    r"postscript|appendix|contents|table of contents|index|footnotes|endnotes|notes|dedication|"
    r"list of illustrations|illustrations|transcriber.s notes?)[.:]?",
    re.IGNORECASE,
)
_LONE_NUMBER = re.compile(r"(?:[IVXLCDM]{1,8}|\d{1,3})\.?(?:\s+[A-Z][^.!?]{0,60}\.?)?")
_GUTENBERG_START = re.compile(r"^\*\*\* ?START OF (?:THE|THIS) PROJECT GUTENBERG.*$", re.MULTILINE)
_GUTENBERG_END = re.compile(
    r"^(?:\*\*\* ?END OF (?:THE|THIS) PROJECT GUTENBERG|End of (?:the )?Project Gutenberg).*",
    re.MULTILINE,
)
# At the head of a text, before its chapters.
_TITLE_PAGE = re.compile(
    r"(?P<title>[^\n]+)\n\s*by\s+(?P<author>[^\n]+?)(?:\s*\(\d{4}\))?(?:\n|\Z)", re.IGNORECASE
)
_FIELD = re.compile(r"^(Title|Author|Language):[^\S\n]*(\S.*)$", re.MULTILINE)
_LANGUAGES = {"english": "en", "german": "de", "french": "fr", "spanish": "es", "italian": "it"}

_FRONT = re.compile(r"\A---[^\S\n]*\n(.{0,20000}?)\n(?:---|\.\.\.)[^\S\n]*\n", re.DOTALL)
_FRONT_FIELD = re.compile(
    r"^(title|author|lang|language):[^\S\n]*[\"']?(.*?)[\"']?[^\S\n]*$", re.MULTILINE
)
_ATX = re.compile(r" {0,3}(#{1,6})[^\S\n]+(.*?)(?:[^\S\n]+#+)?[^\S\n]*")
_SETEXT = re.compile(r"[^\S\n]*(=+|-+)[^\S\n]*")
_FENCE = re.compile(r" {0,3}(?:```|~~~)")
_NOTE = re.compile(r" {0,3}\[\^[^\]\n]{1,40}\]:")


def read_plain(text: str, *, everything: bool = False) -> Book:
    """Read a text whose chapters begin with lines such as `CHAPTER I` or `Prologue`.

    Args:
        text: The whole file.
        everything: Leave out nothing but what has no words.
    """
    text = clean(text)
    left_out: list[LeftOut] = []
    fields: dict[str, str] = {}
    if start := _GUTENBERG_START.search(text):
        fields = {match[1]: match[2].strip() for match in _FIELD.finditer(text[: start.start()])}
        end = _GUTENBERG_END.search(text, start.end())
        notice = text[: start.end()] + (text[end.start() :] if end else "")
        if not everything:
            left_out.append(LeftOut(GUTENBERG, "licence", len(notice.split())))
            text = text[start.end() : end.start() if end else len(text)]
    blocks = [block for part in _BLANK.split(text) if (block := _block(part)) is not None]
    blocks = _join_titles(blocks)
    cuts = _without_contents(blocks, cuts_at_headings(blocks))
    if sum(block.level == 2 for block in blocks) < 2 and not any(b.level == 1 for b in blocks):
        cuts = _numbered(blocks) or cuts
    named = _title_page(blocks[: cuts[0].at]) if cuts else None
    title = fields.get("Title", named["title"].strip() if named else "")
    chapters, more = make_chapters(blocks, cuts, title=title, everything=everything)
    return Book(
        title=title,
        author=fields.get("Author", named["author"] if named else ""),
        language=_LANGUAGES.get(fields.get("Language", "").lower(), ""),
        chapters=chapters,
        left_out=(*left_out, *more),
    )


def _title_page(blocks: list[Block]) -> re.Match[str] | None:
    """Title and author, of short lines at the head of what stands before the first chapter."""
    head = [block.text for block in blocks[:3] if len(block.text) <= _LONGEST_HEADING]
    return _TITLE_PAGE.match("\n".join(head))


def _block(part: str) -> Block | None:
    part = part.strip()
    if not part:
        return None
    if not has_sound(part):
        return Block(SCENE_BREAK)
    line = one_line(part)
    lines = part.count("\n") + 1
    if len(line) <= _LONGEST_HEADING and lines <= 3:
        if _PART.fullmatch(line) and line[-1] not in ",;":
            return Block(line, 1)
        if _CHAPTER.fullmatch(line) and line[-1] not in ",;":
            return Block(line, 2)
    return Block(part)


def _join_titles(blocks: list[Block]) -> list[Block]:
    """A short line in capitals after `CHAPTER I` is its title."""
    joined: list[Block] = []
    for block in blocks:
        before = joined[-1] if joined else None
        if (
            before is not None
            and before.level == 2
            and not block.level
            and len(block.text) <= _LONGEST_HEADING
            and "\n" not in block.text
            and block.text == block.text.upper()
            and has_sound(block.text)
        ):
            mark = "" if before.text[-1] in ".:" else "."
            joined[-1] = Block(f"{before.text}{mark} {block.text}", 2)
        else:
            joined.append(block)
    return joined


def _without_contents(blocks: list[Block], cuts: list[Cut]) -> list[Cut]:
    """Without the lines of a table of contents, which repeat headings with nothing between."""
    kept = []
    for at, cut in enumerate(cuts):
        end = cuts[at + 1].at if at + 1 < len(cuts) else len(blocks)
        words = sum(len(b.text.split()) for b in blocks[cut.at + 1 : end])
        again = any(_same(cut.title, other.title) for other in cuts[at + 1 :])
        if words or not again:
            kept.append(cut)
    return kept


def _same(first: str, second: str) -> bool:
    one, two = first.casefold().rstrip(". "), second.casefold().rstrip(". ")
    return one.startswith(two) or two.startswith(one)


def _numbered(blocks: list[Block]) -> list[Cut]:
    """Chapters that have nothing but a number, if these count from one."""
    found = [
        Cut(at, block.text, 2)
        for at, block in enumerate(blocks)
        if "\n" not in block.text and len(block.text) <= 70 and _LONE_NUMBER.fullmatch(block.text)
    ]
    first = found[0].title.split()[0].rstrip(".") if found else ""
    return found if len(found) > 1 and first in ("1", "I") else []


def read_markdown(text: str, *, everything: bool = False) -> Book:
    """Read a Markdown file, whose headings begin chapters.

    Args:
        text: The whole file; `title:` and `author:` of a YAML block at its beginning are known.
        everything: Leave out nothing but what has no words.
    """
    from csm_ggml.text.english.markup import plain

    text = clean(text)
    fields: dict[str, str] = {}
    if match := _FRONT.match(text):
        fields = {found[1]: found[2] for found in _FRONT_FIELD.finditer(match[1])}
        text = text[match.end() :]
    blocks: list[Block] = []
    notes: list[str] = []
    lines: list[str] = []

    def close() -> None:
        whole, level = "\n".join(lines), 0
        lines.clear()
        for part in _BLANK.split(plain(whole)) if whole.strip() else ():
            if part.strip():
                blocks.append(Block(part.strip() if has_sound(part) else SCENE_BREAK, level))

    fenced = False
    for line in text.split("\n"):
        if _FENCE.match(line):
            fenced = not fenced
            lines.append(line)
            continue
        heading = None if fenced else _ATX.fullmatch(line)
        under = None if fenced or not lines or not lines[-1].strip() else _SETEXT.fullmatch(line)
        if heading or (under and not lines[-1].lstrip().startswith(("-", "|", ">"))):
            said = heading[2] if heading else lines.pop()
            level = len(heading[1]) if heading else 1 if under and under[1][0] == "=" else 2
            close()
            if has_sound(said):
                blocks.append(Block(one_line(plain(said)), level))
        elif _NOTE.match(line) and not everything:
            notes.append(line)
        elif not line.strip():
            close()
        else:
            lines.append(line)
    close()
    top = [block.text for block in blocks if block.level == 1]
    title = fields.get("title", "") or (top[0] if len(top) == 1 else "")
    cuts = cuts_at_headings(blocks)
    chapters, left_out = make_chapters(blocks, cuts, title=title, everything=everything)
    if notes:
        words = sum(len(note.split()) for note in notes)
        left_out.append(LeftOut(f"{len(notes)} notes", "within chapters", words))
    return Book(
        title=title,
        author=fields.get("author", ""),
        language=fields.get("lang", "") or fields.get("language", ""),
        chapters=chapters,
        left_out=tuple(left_out),
    )
