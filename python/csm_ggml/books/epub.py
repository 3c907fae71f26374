"""EPUB 2 and 3: the package, its reading order, its table of contents."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from xml.etree.ElementTree import Element

from csm_ggml.books.archive import Archive, resolve
from csm_ggml.books.book import Book, LeftOut, Picture, picture
from csm_ggml.books.chapters import Cut, count_left_out, cuts_at_headings, make_chapters
from csm_ggml.books.markup import Block, Page, decode_markup, read_page
from csm_ggml.books.matter import reason_to_leave_out
from csm_ggml.books.xmltree import parse_xml, text_of
from csm_ggml.errors import BookFileError

CONTAINER = "META-INF/container.xml"
ENCRYPTION = "META-INF/encryption.xml"
MOST_PAGES = 10_000
MOST_ENTRIES = 20_000
# Deeper entries of a table of contents are sections of a chapter.
_DEPTH = 2
_PAGES = (
    "application/xhtml+xml",
    "text/html",
    "text/x-oeb1-document",
    "application/xml",
    "text/xml",
)
# Fonts that are garbled so that nobody takes them out are no obstacle.
_FONTS = ("http://www.idpf.org/2008/embedding", "http://ns.adobe.com/pdf/enc#RC")


@dataclass(frozen=True)
class _Item:
    name: str
    media_type: str
    properties: frozenset[str]


@dataclass(frozen=True)
class _Entry:
    """Of a table of contents."""

    title: str
    depth: int
    name: str
    fragment: str


def read_epub(archive: Archive, *, everything: bool = False) -> Book:
    """Read a book.

    Args:
        archive: The file.
        everything: Leave out nothing but what has no words.

    Raises:
        BookFileError: If it is damaged, encrypted, or has no reading order.
    """
    _check_encryption(archive)
    return _Package(archive).book(everything)


def _check_encryption(archive: Archive) -> None:
    if ENCRYPTION not in archive:
        return
    root = parse_xml(archive.read(ENCRYPTION), f"{archive.name}: {ENCRYPTION}")
    for element in root.iter("EncryptionMethod"):
        if element.get("Algorithm") not in _FONTS:
            raise BookFileError(
                f"{archive.name}: is protected against copying (DRM), so its text cannot be read"
            )


class _Package:
    def __init__(self, archive: Archive) -> None:
        self._archive = archive
        self._name = _package_name(archive)
        root = parse_xml(archive.read(self._name), f"{archive.name}: {self._name}")
        self._root = root
        self._manifest: dict[str, _Item] = {}
        for element in root.iter("item"):
            name, _ = resolve(self._name, element.get("href", ""))
            self._manifest[element.get("id", "")] = _Item(
                name,
                element.get("media-type", ""),
                frozenset(element.get("properties", "").split()),
            )

    def book(self, everything: bool) -> Book:
        left_out: list[LeftOut] = []
        pages = self._pages(everything, left_out)
        if not pages:
            raise BookFileError(
                f"{self._archive.name}: none of the pages that its spine names is in the archive"
            )
        starts: dict[str, int] = {}
        blocks: list[Block] = []
        for name, page in pages.items():
            starts[name] = len(blocks)
            blocks += page.blocks
        cuts = self._cuts(pages, starts, blocks)
        chapters, more = make_chapters(
            blocks, cuts, title=self._metadata("title"), everything=everything
        )
        counts = count_left_out(page.left_out for page in pages.values())
        return Book(
            title=self._metadata("title"),
            author=", ".join(self._all_metadata("creator")[:5]),
            language=self._metadata("language"),
            chapters=chapters,
            cover=self._cover(),
            left_out=(*left_out, *more, *counts),
        )

    def _pages(self, everything: bool, left_out: list[LeftOut]) -> dict[str, Page]:
        """The pages in their reading order, each once."""
        spine = self._root.find("spine")
        references = [] if spine is None else spine.findall("itemref")
        if not references:
            raise BookFileError(
                f"{self._archive.name}: {self._name} has no spine, which gives the pages' order"
            )
        if len(references) > MOST_PAGES:
            raise BookFileError(
                f"{self._archive.name}: {len(references)} pages in the spine, at most "
                f"{MOST_PAGES} are read"
            )
        pages: dict[str, Page] = {}
        for reference in references:
            item = self._manifest.get(reference.get("idref", ""))
            if item is None or item.name not in self._archive:
                where = reference.get("idref", "") if item is None else item.name
                left_out.append(LeftOut(where or "a page", "named in the spine, but missing"))
                continue
            if item.name in pages or item.media_type not in _PAGES:
                continue
            page = read_page(decode_markup(self._archive.read(item.name)), everything=everything)
            if reference.get("linear") == "no" and not everything:
                left_out.append(LeftOut(page.title or item.name, "beside the text", page.words))
            elif "nav" in item.properties and not everything:
                left_out.append(LeftOut(page.title or item.name, "contents", page.words))
            else:
                pages[item.name] = page
        return pages

    def _cuts(
        self, pages: dict[str, Page], starts: dict[str, int], blocks: list[Block]
    ) -> list[Cut]:
        types = self._page_types(pages)
        cuts: dict[int, Cut] = {}
        for entry in self._contents():
            if entry.depth > _DEPTH or entry.name not in starts or not pages[entry.name].words:
                continue
            at = starts[entry.name]
            own = types.get(entry.name, frozenset())
            if entry.fragment:
                ids = (i for i, b in enumerate(pages[entry.name].blocks) if entry.fragment in b.ids)
                at += next(ids, 0)
                own = own if at == starts[entry.name] else frozenset()
            before = cuts.get(at)
            if before is None:
                cuts[at] = Cut(at, entry.title, entry.depth, own)
            elif entry.depth > before.depth and entry.title not in before.title:
                cuts[at] = Cut(
                    at, f"{before.title}. {entry.title}", before.depth, before.types | own
                )
        if len(cuts) < 2:
            cuts = {cut.at: cut for cut in cuts_at_headings(blocks)}
        if len(cuts) < 2:
            cuts = {
                at: Cut(at, pages[name].title) for name, at in starts.items() if pages[name].words
            }
        # Pages that say what they are, and those before the first chapter, are parts of their own.
        first = min(cuts, default=0)
        for name, at in starts.items():
            if at not in cuts and pages[name].words and (types.get(name) or at < first):
                cuts[at] = Cut(at, "", 1, types.get(name, frozenset()), is_listed=False)
        return list(cuts.values())

    def _page_types(self, pages: dict[str, Page]) -> dict[str, frozenset[str]]:
        """What the book says that its pages are, of what is left out."""
        found: dict[str, set[str]] = {name: set(page.types) for name, page in pages.items()}
        for reference in self._root.iter("reference"):
            name, _ = resolve(self._name, reference.get("href", ""))
            found.setdefault(name, set()).add(reference.get("type", "").lower())
        for link in self._landmarks():
            name, _ = resolve(self._nav_name(), link.get("href", ""))
            found.setdefault(name, set()).update(link.get("type", "").lower().split())
        return {
            name: frozenset(types)
            for name, types in found.items()
            if reason_to_leave_out("", types) is not None
        }

    def _contents(self) -> Iterator[_Entry]:
        """The table of contents, of EPUB 3 or 2."""
        entries = self._nav_entries() or self._ncx_entries()
        yield from (entry for entry in entries[:MOST_ENTRIES] if entry.title)

    def _nav_name(self) -> str:
        for item in self._manifest.values():
            if "nav" in item.properties and item.name in self._archive:
                return item.name
        return ""

    def _nav(self) -> Element | None:
        name = self._nav_name()
        if not name:
            return None
        try:
            return parse_xml(self._archive.read(name), f"{self._archive.name}: {name}")
        except BookFileError:
            # A page that is no good XML is no table of contents; the headings serve as well.
            return None

    def _landmarks(self) -> Iterator[Element]:
        root = self._nav()
        for nav in () if root is None else root.iter("nav"):
            if "landmarks" in nav.get("type", "").split():
                yield from nav.iter("a")

    def _nav_entries(self) -> list[_Entry]:
        root = self._nav()
        navs = [] if root is None else list(root.iter("nav"))
        wanted = [nav for nav in navs if "toc" in nav.get("type", "").split()]
        entries: list[_Entry] = []

        def walk(element: Element, depth: int) -> None:
            for child in element:
                if child.tag == "a" and child.get("href"):
                    name, fragment = resolve(self._nav_name(), child.get("href", ""))
                    entries.append(_Entry(text_of(child), depth, name, fragment))
                walk(child, depth + (child.tag == "ol"))

        if wanted or navs:
            walk((wanted or navs)[0], 0)
        return entries

    def _ncx_entries(self) -> list[_Entry]:
        spine = self._root.find("spine")
        item = None if spine is None else self._manifest.get(spine.get("toc", ""))
        if item is None:
            kinds = (
                i for i in self._manifest.values() if i.media_type == "application/x-dtbncx+xml"
            )
            item = next(kinds, None)
        if item is None or item.name not in self._archive:
            return []
        try:
            root = parse_xml(self._archive.read(item.name), f"{self._archive.name}: {item.name}")
        except BookFileError:
            return []
        name = item.name
        entries: list[_Entry] = []

        def walk(element: Element, depth: int) -> None:
            for point in element.findall("navPoint"):
                content = point.find("content")
                source = "" if content is None else content.get("src", "")
                target, fragment = resolve(name, source)
                entries.append(_Entry(text_of(point.find("navLabel")), depth, target, fragment))
                walk(point, depth + 1)

        points = root.find("navMap")
        if points is not None:
            walk(points, 1)
        return entries

    def _all_metadata(self, name: str) -> list[str]:
        metadata = self._root.find("metadata")
        elements = () if metadata is None else metadata.iter(name)
        return [text for element in elements if (text := text_of(element))]

    def _metadata(self, name: str) -> str:
        return next(iter(self._all_metadata(name)), "")

    def _cover(self) -> Picture | None:
        named = [item for item in self._manifest.values() if "cover-image" in item.properties]
        for element in self._root.iter("meta"):
            if element.get("name") == "cover" and element.get("content") in self._manifest:
                named.append(self._manifest[element.get("content", "")])
        for item in named:
            if item.name in self._archive:
                return picture(self._archive.read(item.name))
        return None


def _package_name(archive: Archive) -> str:
    """Where the package document is; where nothing says so, it is looked for."""
    if CONTAINER in archive:
        root = parse_xml(archive.read(CONTAINER), f"{archive.name}: {CONTAINER}")
        for element in root.iter("rootfile"):
            name, _ = resolve("", element.get("full-path", ""))
            if name in archive:
                return name
    for name in archive.names:
        if name.lower().endswith(".opf"):
            return name
    raise BookFileError(f"{archive.name}: no EPUB: there is no package document (.opf) in it")
