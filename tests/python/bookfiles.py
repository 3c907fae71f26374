"""Small books for the tests, made on the spot: EPUBs and Word documents."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from xml.sax.saxutils import escape, quoteattr

CONTAINER = (
    '<?xml version="1.0"?><container version="1.0" '
    'xmlns="urn:oasis:names:tc:opendocument:xmlns:container"><rootfiles>'
    '<rootfile full-path="OEBPS/book.opf" media-type="application/oebps-package+xml"/>'
    "</rootfiles></container>"
)
# A picture is told by its beginning.
PNG = b"\x89PNG\r\n\x1a\n" + b"\0" * 60


def page(body: str, *, title: str = "", type: str = "") -> str:
    """An XHTML page."""
    said = f' epub:type="{type}"' if type else ""
    return (
        '<?xml version="1.0" encoding="utf-8"?><html xmlns="http://www.w3.org/1999/xhtml" '
        f'xmlns:epub="http://www.idpf.org/2007/ops"><head><title>{title}</title></head>'
        f"<body{said}>{body}</body></html>"
    )


def nav(entries: Sequence[tuple[str, str]], landmarks: str = "") -> str:
    """The table of contents of EPUB 3."""
    items = "".join(f"<li><a href={quoteattr(href)}>{escape(t)}</a></li>" for t, href in entries)
    return page(f'<nav epub:type="toc"><ol>{items}</ol></nav>{landmarks}', title="Contents")


def ncx(points: str) -> str:
    """The table of contents of EPUB 2."""
    return (
        '<?xml version="1.0"?><!DOCTYPE ncx PUBLIC "-//NISO//DTD ncx 2005-1//EN" '
        '"http://www.daisy.org/z3986/2005/ncx-2005-1.dtd">'
        f'<ncx xmlns="http://www.daisy.org/z3986/2005/ncx/"><navMap>{points}</navMap></ncx>'
    )


def point(title: str, href: str, inner: str = "") -> str:
    """An entry of that."""
    return (
        f"<navPoint><navLabel><text>{escape(title)}</text></navLabel>"
        f"<content src={quoteattr(href)}/>{inner}</navPoint>"
    )


def package(
    names: Sequence[str],
    *,
    spine: str | None = None,
    metadata: str = "<dc:title>The Book</dc:title><dc:creator>Ann Author</dc:creator>"
    "<dc:language>en</dc:language>",
    more: str = "",
    after: str = "",
    spine_attributes: str = "",
) -> str:
    """The package document of pages."""
    items = "".join(
        f'<item id="p{n}" href={quoteattr(name)} media-type="application/xhtml+xml"/>'
        for n, name in enumerate(names)
    )
    order = "".join(f'<itemref idref="p{n}"/>' for n in range(len(names)))
    if spine is None:
        spine = f"<spine{spine_attributes}>{order}</spine>"
    return (
        '<?xml version="1.0"?><package xmlns="http://www.idpf.org/2007/opf" version="3.0">'
        f'<metadata xmlns:dc="http://purl.org/dc/elements/1.1/">{metadata}</metadata>'
        f"<manifest>{items}{more}</manifest>{spine}{after}</package>"
    )


def write_zip(path: Path, files: Mapping[str, str | bytes]) -> Path:
    """An archive of files."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return path


def write_epub(path: Path, files: Mapping[str, str | bytes]) -> Path:
    """An EPUB of files in its folder OEBPS."""
    return write_zip(
        path,
        {
            "mimetype": "application/epub+zip",
            "META-INF/container.xml": CONTAINER,
            **{f"OEBPS/{name}": data for name, data in files.items()},
        },
    )


def simple_epub(path: Path, chapters: Mapping[str, str], *, cover: bytes = PNG) -> Path:
    """An EPUB 3 with a chapter for each title; its text is paragraphs between blank lines."""
    pages = {}
    for number, (title, text) in enumerate(chapters.items(), 1):
        paragraphs = "".join(f"<p>{escape(part)}</p>" for part in text.split("\n\n"))
        pages[f"c{number}.xhtml"] = page(f"<h1>{escape(title)}</h1>{paragraphs}")
    entries = list(zip(chapters, pages, strict=True))
    more = (
        '<item id="nav" href="nav.xhtml" media-type="application/xhtml+xml" properties="nav"/>'
        '<item id="cover" href="cover.png" media-type="image/png" properties="cover-image"/>'
    )
    return write_epub(
        path,
        {
            "book.opf": package(list(pages), more=more),
            "nav.xhtml": nav(entries),
            "cover.png": cover,
            **pages,
        },
    )
