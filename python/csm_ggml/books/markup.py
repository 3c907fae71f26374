"""HTML and XHTML to paragraphs and headings, without what is not spoken: notes, page numbers.

Pages of books are often not well-formed, and some are made to keep a reader busy: the tokenizer
takes time that grows with the length of the page, whatever is in it.
"""

from __future__ import annotations

import codecs
import html
import re
from collections.abc import Iterator
from dataclasses import dataclass, field

from csm_ggml.text.characters import has_sound

NOTES = "notes"
NOTE_MARKS = "marks of notes"
PAGE_NUMBERS = "page numbers"
HIDDEN = "hidden text"
GUTENBERG = "Project Gutenberg's notice"

# Between two scenes stand a rule or a few stars, which are heard as silence.
SCENE_BREAK = "[pause 1.2s]"


def words(text: str) -> frozenset[str]:
    """A set of names."""
    return frozenset(text.split())


_BLOCKS = words(
    "address article aside blockquote body caption center dd details div dl dt fieldset figcaption "
    "figure footer form h1 h2 h3 h4 h5 h6 header hr html legend li main ol p pre section summary "
    "table tbody tfoot thead title tr ul"
)
_VOID = words("area base br col embed hr img input link meta param source track wbr pagebreak")
_SKIPPED = words(
    "script style head template nav svg math audio video object iframe noscript select textarea "
    "button rt rp"
)
_NOTE_TYPES = words(
    "footnote footnotes endnote endnotes rearnote rearnotes doc-footnote doc-endnote doc-endnotes"
)
_NOTE_CLASSES = words("footnote footnotes endnote endnotes fn-text footnote-text")
_MARK_TYPES = words("noteref doc-noteref annoref doc-backlink")
_MARK_CLASSES = words("noteref footnote-ref footnoteref fnanchor footnote-anchor footnote-back")
_PAGE_TYPES = words("pagebreak doc-pagebreak")
_PAGE_CLASSES = words("pagenum pageno page-number pagenumber page_number")
_GUTENBERG_NAMES = words(
    "pg-header pg-footer pg-boilerplate pg-machine-header pg-start-separator pg-end-separator "
    "gutenberg-header gutenberg-footer"
)
# A link that says nothing else leads to a note.
_MARK = re.compile(
    r"\s*[\[(]?\s*(?:\d{1,4}|[*\u2020\u2021\u00a7\u00b6]{1,4}|\u21a9\ufe0e?)\s*[\])]?\s*"
)

_NAME = re.compile(r"[A-Za-z][A-Za-z0-9:_-]{0,60}")
_ATTRIBUTE = re.compile(
    r"([A-Za-z_][\w:.-]{0,60})\s{0,20}=\s{0,20}(?:\"([^\"]*)\"|'([^']*)'|([^\s\"'>]{1,500}))"
)
_IN_TAG = re.compile("[\"'>]")
_LONGEST_TAG = 4096
_DEEPEST = 100
_LONG_NUMBER = re.compile(r"&#(?:x[0-9a-fA-F]{7,}|\d{8,});?")
_DECLARED = re.compile(
    rb"<\?xml[^>]{0,200}?encoding\s*=\s*[\"']([\w.:-]{1,40})[\"']"
    rb"|<meta[^>]{0,200}?charset\s*=\s*[\"']?\s*([\w.:-]{1,40})",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class Block:
    """A paragraph or a heading.

    Attributes:
        text: In one line.
        level: 1 to 6 of a heading, 0 of a paragraph.
        ids: Names by which links lead here.
    """

    text: str
    level: int = 0
    ids: tuple[str, ...] = ()


@dataclass
class Page:
    """What is in a page.

    Attributes:
        title: Of the page, "" if it has none.
        blocks: In order. The last one may have no text, only names.
        left_out: How many of what kind were left out, and how many words they have.
        types: What the body calls itself: "cover", "footnotes".
    """

    title: str = ""
    blocks: list[Block] = field(default_factory=list)
    left_out: dict[str, tuple[int, int]] = field(default_factory=dict)
    types: frozenset[str] = frozenset()

    @property
    def words(self) -> int:
        """Words of all blocks."""
        return sum(len(block.text.split()) for block in self.blocks)


@dataclass(frozen=True)
class _Tag:
    name: str
    attributes: str
    opens: bool
    closes: bool


def decode_markup(data: bytes) -> str:
    """The text of an HTML or XHTML file, by its mark or what it declares, else as UTF-8."""
    for mark, encoding in (
        (codecs.BOM_UTF8, "utf-8"),
        (codecs.BOM_UTF16_LE, "utf-16-le"),
        (codecs.BOM_UTF16_BE, "utf-16-be"),
    ):
        if data.startswith(mark):
            return data[len(mark) :].decode(encoding, "replace")
    if match := _DECLARED.search(data[:2048]):
        name = (match[1] or match[2]).decode("ascii", "replace").lower()
        # What declares itself as UTF-16 in ASCII letters is not.
        if not name.startswith("utf-16"):
            try:
                codec = codecs.lookup("cp1252" if name in ("iso-8859-1", "latin-1") else name)
                if getattr(codec, "_is_text_encoding", True):
                    return data.decode(codec.name, "replace")
            except LookupError:
                pass
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        return data.decode("cp1252", "replace")


def read_page(text: str, *, everything: bool = False) -> Page:
    """Take a page apart.

    Args:
        text: HTML or XHTML.
        everything: Keep notes and page numbers.
    """
    reader = _Reader(everything)
    for token in _tokens(text):
        if isinstance(token, str):
            reader.text(token)
            continue
        if token.opens:
            reader.open(token)
        if token.closes:
            reader.close(token.name)
    reader.end_block()
    if reader.ids:
        reader.page.blocks.append(Block("", 0, tuple(reader.ids)))
    return reader.page


def unescape(text: str) -> str:
    """The characters that entities stand for."""
    return html.unescape(_LONG_NUMBER.sub("", text)) if "&" in text else text


def _tokens(text: str) -> Iterator[str | _Tag]:
    """Texts and tags, in order; comments and declarations are left out."""
    at = 0
    lower = text.lower()
    last = text.rfind(">")
    while at < len(text):
        start = text.find("<", at)
        if start < 0:
            start = len(text)
        if start > at:
            yield unescape(text[at:start])
        if start == len(text):
            return
        at = start
        if text.startswith("<!--", at):
            end = text.find("-->", at + 4)
            at = len(text) if end < 0 else end + 3
            continue
        if text.startswith("<![CDATA[", at):
            end = text.find("]]>", at)
            end = len(text) if end < 0 else end
            yield text[at + 9 : end]
            at = end + 3
            continue
        if text.startswith(("<!", "<?"), at):
            end = text.find(">", at)
            at = len(text) if end < 0 else end + 1
            continue
        closing = text.startswith("</", at)
        name = _NAME.match(text, at + 1 + closing)
        end = _tag_end(text, at) if name and at < last else -1
        if name is None or end < 0:
            yield "<"
            at += 1
            continue
        tag = name[0].lower().rpartition(":")[2]
        attributes = text[name.end() : end]
        if len(attributes) > _LONGEST_TAG:
            attributes = ""
        at = end + 1
        empty = attributes.endswith("/") or tag in _VOID
        yield _Tag(tag, attributes, opens=not closing, closes=closing or empty)
        if tag in ("script", "style") and not closing and not empty:
            end = (
                lower.find(f"</{tag}", at) if len(lower) == len(text) else text.find(f"</{tag}", at)
            )
            at = len(text) if end < 0 else end


def _tag_end(text: str, start: int) -> int:
    """Where a tag ends: at the first ">" that is not in quotes, if they end soon; -1 if nowhere."""
    first = text.find(">", start)
    if first >= start + _LONGEST_TAG or first < 0:
        return first
    quote = ""
    for match in _IN_TAG.finditer(text, start, start + _LONGEST_TAG):
        if match[0] == ">" and not quote:
            return match.start()
        if match[0] != ">":
            quote = match[0] if not quote else "" if quote == match[0] else quote
    return first


class _Reader:
    """Makes blocks of tokens."""

    def __init__(self, everything: bool) -> None:
        self.page = Page()
        self.ids: list[str] = []
        self._everything = everything
        # Open elements: name, what it is, where its text begins.
        self._open: list[tuple[str, str, int]] = []
        self._skipping = 0
        self._headings = 0
        self._parts: list[str] = []
        self._level = 0
        self._title: list[str] | None = None

    def text(self, text: str) -> None:
        if self._title is not None:
            self._title.append(text)
        elif self._skipping:
            reason = next(kind for _, kind, _ in self._open if kind.startswith("-"))
            self._count(reason[1:], 0, len(text.split()))
        else:
            self._parts.append(text)

    def open(self, tag: _Tag) -> None:
        attributes = {
            key.lower(): unescape(double or single or bare)
            for key, double, single, bare in _ATTRIBUTE.findall(tag.attributes)
        }
        name = tag.name
        if name in _BLOCKS and not self._skipping:
            self.end_block()
            if (
                self._open
                and self._open[-1][0] in ("p", "li", "dt", "dd")
                and (self._open[-1][0] == name or self._open[-1][0] == "p")
            ):
                self._leave(*self._open.pop())
        if not self._skipping:
            self.ids += [attributes[key] for key in ("id", "name") if attributes.get(key)]
        if name == "title" and not self.page.title and self._title is None:
            self._title = []
        if name == "body":
            self.page.types = frozenset(_types(attributes))
        kind = self._kind(name, attributes)
        if kind.startswith("-"):
            if not self._skipping:
                self._count(kind[1:], 1, 0)
            self._skipping += 1
        elif not self._skipping:
            if name in ("br", "wbr"):
                self._parts.append("\n" if name == "br" else "")
            elif name == "hr":
                self._break()
            elif name in ("td", "th"):
                # The cells of a row are said as a list.
                if self._parts and self._parts[-1] != ", ":
                    self._parts.append(", ")
            elif kind == "heading":
                self._level = int(name[1])
        if len(self._open) < _DEEPEST:
            self._open.append((name, kind, len(self._parts)))
            self._headings += kind == "heading"
        elif kind.startswith("-"):
            self._skipping -= 1

    def close(self, name: str) -> None:
        if name == "title" and self._title is not None:
            self.page.title = " ".join("".join(self._title).split())
            self._title = None
        at = len(self._open) - 1
        while at >= 0 and self._open[at][0] != name:
            at -= 1
        if at < 0:
            return
        while len(self._open) > at:
            self._leave(*self._open.pop())
        if name in _BLOCKS and not self._skipping:
            self.end_block()

    def end_block(self) -> None:
        text = " ".join("".join(self._parts).split())
        self._parts.clear()
        level, self._level = self._level, self._level if self._headings else 0
        if not text:
            return
        if not has_sound(text):
            self._break()
            return
        self.page.blocks.append(Block(text, level, tuple(self.ids)))
        self.ids = []

    def _break(self) -> None:
        blocks = self.page.blocks
        if blocks and blocks[-1].text != SCENE_BREAK:
            blocks.append(Block(SCENE_BREAK))

    def _leave(self, name: str, kind: str, start: int) -> None:
        if kind.startswith("-"):
            self._skipping -= 1
        elif kind == "heading":
            self._headings -= 1
        elif kind == "link" and not self._skipping:
            said = "".join(self._parts[start:])
            if _MARK.fullmatch(said):
                del self._parts[start:]
                self._count(NOTE_MARKS, 1, 0)

    def _kind(self, name: str, attributes: dict[str, str]) -> str:
        """What an element is: "heading", "link", "" or the reason to skip it after a "-"."""
        if name in _SKIPPED:
            return "-" if name not in ("nav",) else "-tables of contents"
        types = _types(attributes)
        classes = frozenset(attributes.get("class", "").lower().split())
        names = classes | {attributes.get("id", "").lower()}
        if names & _GUTENBERG_NAMES:
            return f"-{GUTENBERG}"
        if not self._everything:
            if types & _PAGE_TYPES or classes & _PAGE_CLASSES or name == "pagebreak":
                return f"-{PAGE_NUMBERS}"
            if types & _MARK_TYPES or classes & _MARK_CLASSES:
                return f"-{NOTE_MARKS}"
            if name != "body" and (types & _NOTE_TYPES or classes & _NOTE_CLASSES):
                return f"-{NOTES}"
        style = attributes.get("style", "").replace(" ", "").lower()
        if "display:none" in style or "visibility:hidden" in style:
            return f"-{HIDDEN}"
        if name in ("h1", "h2", "h3", "h4", "h5", "h6"):
            return "heading"
        if name == "a" and not self._everything and "#" in attributes.get("href", ""):
            return "link"
        return ""

    def _count(self, reason: str, count: int, words: int) -> None:
        if reason:
            before = self.page.left_out.get(reason, (0, 0))
            self.page.left_out[reason] = (before[0] + count, before[1] + words)


def _types(attributes: dict[str, str]) -> frozenset[str]:
    said = f"{attributes.get('epub:type', '')} {attributes.get('role', '')}"
    return frozenset(said.lower().split())
