"""Books are read: chapters found, front matter and notes left out, damage is an error."""

import re
import time
import zipfile
from pathlib import Path

import pytest
from bookfiles import (
    CONTAINER,
    PNG,
    nav,
    ncx,
    package,
    page,
    point,
    simple_epub,
    write_epub,
    write_zip,
)
from csm_ggml import BookFileError
from csm_ggml.books import Book, read_book
from csm_ggml.books.archive import MOST_BYTES, MOST_FILE_BYTES, resolve
from csm_ggml.books.markup import read_page

TEXT = "It was a dark night, and the rain fell. " * 5


def chapters(book: Book) -> list[tuple[str, str]]:
    return [(chapter.title, chapter.text) for chapter in book.chapters]


def left_out(book: Book) -> list[tuple[str, str]]:
    return [(part.what, part.reason) for part in book.left_out]


# EPUB


def test_epub_3(tmp_path: Path) -> None:
    files = {
        "cover.xhtml": page('<img src="cover.png" alt="A cover"/>', type="cover"),
        "title.xhtml": page("<h1>The Book</h1><p>By Ann Author</p>", type="titlepage"),
        "one.xhtml": page(
            "<h2>Chapter 1<br/>The&#160;Start</h2>"
            '<p>It began<a epub:type="noteref" href="#n1">1</a> '
            'late <span epub:type="pagebreak" id="p12" title="12">12</span>at night.</p>'
            "<p>* * *</p><p>She said &quot;yes&quot; &mdash; "
            'and no.<sup><a href="#n2">2</a></sup></p>'
            '<aside epub:type="footnote" id="n1"><p>A note of six words here.</p></aside>'
        ),
        "two.xhtml": page('<h2 id="x">Chapter 2</h2><p>Then it ended.</p><p>For ever.</p>'),
        "notes.xhtml": page("<h1>Notes</h1><p>1. What was noted.</p>", type="endnotes"),
        "nav.xhtml": nav(
            [
                ("Cover", "cover.xhtml"),
                ("Chapter 1: The Start", "one.xhtml"),
                ("Chapter 2", "two.xhtml#x"),
                ("Notes", "notes.xhtml"),
            ]
        ),
        "cover.png": PNG,
    }
    names = ["cover.xhtml", "title.xhtml", "one.xhtml", "two.xhtml", "notes.xhtml"]
    more = (
        '<item id="nav" href="nav.xhtml" media-type="application/xhtml+xml" properties="nav"/>'
        '<item id="c" href="cover.png" media-type="image/png" properties="cover-image"/>'
    )
    path = write_epub(tmp_path / "b.epub", {"book.opf": package(names, more=more), **files})
    book = read_book(path)
    assert (book.title, book.author, book.language, book.source) == (
        "The Book",
        "Ann Author",
        "en",
        "b.epub",
    )
    assert book.cover is not None and (book.cover.data, book.cover.kind) == (PNG, "png")
    assert chapters(book) == [
        (
            "Chapter 1: The Start",
            'It began late at night.\n\n[pause 1.2s]\n\nShe said "yes" \u2014 and no.',
        ),
        ("Chapter 2", "Then it ended.\n\nFor ever."),
    ]
    assert book.words == 5 + 6 + 5
    assert left_out(book) == [
        ("The Book", "title page"),
        ("Notes", "notes"),
        ("2 marks of notes", "within chapters"),
        ("1 page numbers", "within chapters"),
        ("1 notes", "within chapters"),
    ]
    everything = read_book(path, everything=True)
    assert [c.title for c in everything.chapters][-1] == "Notes"
    assert "A note of six words here." in everything.chapters[1].text


def test_epub_2_with_parts_and_chapters_in_one_page(tmp_path: Path) -> None:
    body = (
        '<h1 id="p1">Part One</h1><h2 id="a">I</h2><p>Alpha text.</p>'
        '<h2 id="b">II</h2><p>Beta text.</p><h3 id="s">A section</h3><p>Gamma.</p>'
    )
    points = point(
        "Part One",
        "Text/all%20one.html#p1",
        point("I", "Text/all%20one.html#a")
        + point("II", "Text/all%20one.html#b", point("A section", "Text/all%20one.html#s")),
    ) + point("Epilogue", "Text/end.html")
    files = {
        "book.opf": package(
            ["Text/all one.html", "Text/end.html"],
            more='<item id="ncx" href="toc.ncx" media-type="application/x-dtbncx+xml"/>'
            '<item id="img" href="c.jpg" media-type="image/jpeg"/>',
            metadata="<dc:title>Old</dc:title><dc:creator>A</dc:creator><dc:creator>B</dc:creator>"
            '<meta name="cover" content="img"/>',
            spine_attributes=' toc="ncx"',
        ),
        "toc.ncx": ncx(points),
        "Text/all one.html": page(body),
        "Text/end.html": page("<p>Omega text.</p>"),
        "c.jpg": b"\xff\xd8\xff\xe0",
    }
    book = read_book(write_epub(tmp_path / "b.epub", files))
    assert chapters(book) == [
        ("Part One. I", "Alpha text."),
        ("II", "Beta text.\n\nA section.\n\nGamma."),
        ("Epilogue", "Omega text."),
    ]
    assert book.author == "A, B" and book.cover is not None and book.cover.kind == "jpeg"


def test_epub_without_a_table_of_contents(tmp_path: Path) -> None:
    files = {
        "book.opf": package(["a.html", "b.html", "c.html"]),
        "a.html": page("<h1>The Book</h1><p>A motto.</p>"),
        "b.html": page("<h2>First</h2><p>Alpha.</p>"),
        "c.html": page("<h2>Second</h2><p>Beta.</p><h3>Inner</h3><p>Gamma.</p>"),
    }
    book = read_book(write_epub(tmp_path / "b.epub", files))
    assert [c.title for c in book.chapters] == ["The Book", "First", "Second"]
    # Nor headings: each page is a chapter.
    files = {"book.opf": package(["a.html", "b.html"]), "a.html": page("<p>Alpha.</p>", title="A")}
    files["b.html"] = page("<p>Beta.</p>")
    book = read_book(write_epub(tmp_path / "c.epub", files))
    assert chapters(book) == [("A", "Alpha."), ("", "Beta.")]
    assert book.chapters[1].label == "Chapter 2"


def test_pages_beside_the_text_and_those_that_the_guide_names(tmp_path: Path) -> None:
    files = {
        "book.opf": package(
            ["a.html", "b.html", "c.html", "d.html"],
            spine='<spine><itemref idref="p0"/><itemref idref="p1"/><itemref idref="p2"/>'
            '<itemref idref="p3" linear="no"/><itemref idref="lost"/><itemref idref="p1"/></spine>',
            after='<guide><reference type="copyright-page" href="a.html"/></guide>',
        ),
        "a.html": page("<p>All rights are ours.</p>"),
        "b.html": page("<h1>One</h1><p>Alpha.</p>"),
        "c.html": page("<h1>Two</h1><p>Beta.</p>"),
        "d.html": page("<p>Aside.</p>", title="Aside"),
    }
    book = read_book(write_epub(tmp_path / "b.epub", files))
    assert chapters(book) == [("One", "Alpha."), ("Two", "Beta.")]
    assert left_out(book) == [
        ("Aside", "beside the text"),
        ("lost", "named in the spine, but missing"),
        ("'All rights are ours.'", "imprint"),
    ]


# Damage


def test_damaged_epubs_are_errors(tmp_path: Path) -> None:
    good = simple_epub(tmp_path / "good.epub", {"One": TEXT, "Two": TEXT})
    assert len(read_book(good).chapters) == 2
    data = good.read_bytes()

    def broken(data: bytes, message: str) -> None:
        path = tmp_path / "bad.epub"
        path.write_bytes(data)
        with pytest.raises(BookFileError, match=message):
            read_book(path)

    broken(b"", "not a whole zip archive")
    broken(b"<html>", "not a whole zip archive")
    broken(data[: len(data) // 2], "not a whole zip archive")
    broken(data[:-30], "not a whole zip archive")
    # The bytes of each page are changed.
    at = data.index(b"OEBPS/c1.xhtml") + 20
    broken(data[:at] + bytes(b ^ 0x55 for b in data[at : at + 40]) + data[at + 40 :], "is damaged")
    files = {"one.html": page("<p>Alpha.</p>")}
    for opf, message in (
        (package(["one.html"], spine=""), "has no spine"),
        (package(["one.html"], spine="<spine/>"), "has no spine"),
        (package(["gone.html"]), "none of the pages"),
        (package(["../../../etc/passwd"]), "none of the pages"),
        (package(["one.html"])[:-20], "not well-formed XML"),
        ("", "not well-formed XML"),
    ):
        broken(write_epub(tmp_path / "x.epub", {"book.opf": opf, **files}).read_bytes(), message)
    broken(write_zip(tmp_path / "x.epub", {"a.txt": "Hello."}).read_bytes(), "no package document")
    nothing = {"book.opf": package(["one.html"]), "one.html": page("<p> </p>")}
    broken(write_epub(tmp_path / "x.epub", nothing).read_bytes(), "no text in it to be spoken")


def test_protected_epubs_are_errors_garbled_fonts_are_not(tmp_path: Path) -> None:
    path = tmp_path / "b.epub"
    for algorithm, protected in (
        ("http://www.w3.org/2001/04/xmlenc#aes128-cbc", True),
        ("http://www.idpf.org/2008/embedding", False),
    ):
        simple_epub(path, {"One": TEXT})
        with zipfile.ZipFile(path, "a") as archive:
            archive.writestr(
                "META-INF/encryption.xml",
                '<encryption xmlns="urn:x"><EncryptedData>'
                f'<EncryptionMethod Algorithm="{algorithm}"/></EncryptedData></encryption>',
            )
        if protected:
            with pytest.raises(BookFileError, match="DRM"):
                read_book(path)
        else:
            assert len(read_book(path).chapters) == 1
    # A flag in the archive itself.
    data = bytearray(simple_epub(path, {"One": TEXT}).read_bytes())
    for match in re.finditer(b"PK\x01\x02", bytes(data)):
        data[match.start() + 8] |= 1
    path.write_bytes(bytes(data))
    with pytest.raises(BookFileError, match="encrypted"):
        read_book(path)


def test_bombs_are_errors(tmp_path: Path) -> None:
    """Of what is packed, of entities, of depth and of numbers; soon and in bounded memory."""
    started = time.perf_counter()
    path = tmp_path / "b.epub"
    large = b" " * (MOST_FILE_BYTES + 1)
    files = {"book.opf": package(["a.html"]), "a.html": large}
    with pytest.raises(BookFileError, match="too large when it is unpacked"):
        read_book(write_epub(path, files))
    # Many that are just small enough.
    count = MOST_BYTES // MOST_FILE_BYTES + 2
    names = [f"{n}.html" for n in range(count)]
    files = {"book.opf": package(names), **dict.fromkeys(names, large[2:])}
    with pytest.raises(BookFileError, match="in all are read"):
        read_book(write_epub(path, files))
    # What the archive says of a size does not count.
    data = bytearray(
        write_epub(path, {"book.opf": package(["a.html"]), "a.html": large}).read_bytes()
    )
    for mark, at in ((b"PK\x01\x02", 24), (b"PK\x03\x04", 22)):
        for match in re.finditer(mark, bytes(data)):
            data[match.start() + at : match.start() + at + 4] = (100).to_bytes(4, "little")
    path.write_bytes(bytes(data))
    with pytest.raises(BookFileError):
        read_book(path)
    laughs = '<!DOCTYPE p [<!ENTITY a "ha"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;">]>'
    for text, message in (
        (
            package(["a.html"]).replace("<package", f"{laughs}<package", 1),
            "declares the entity 'a'",
        ),
        (
            package(["a.html"]).replace(
                "<package", '<!DOCTYPE p [<!ENTITY x SYSTEM "file:///etc/passwd">]><package', 1
            ),
            "declares the entity 'x'",
        ),
        ("<a>" * 300 + "</a>" * 300, "deep"),
        (package(["a.html"] * 20_000), "in the spine"),
    ):
        with pytest.raises(BookFileError, match=message):
            read_book(write_epub(path, {"book.opf": text, "a.html": page("<p>A.</p>")}))
    with zipfile.ZipFile(path, "w") as archive:
        for n in range(20_001):
            archive.writestr(str(n), b"")
    with pytest.raises(BookFileError, match="files in the archive"):
        read_book(path)
    assert time.perf_counter() - started < 120


def test_nothing_is_written_and_nothing_outside_is_read(tmp_path: Path) -> None:
    inside = tmp_path / "inside"
    inside.mkdir()
    (tmp_path / "secret.html").write_text(page("<p>Secret.</p>"), "utf-8")
    before = sorted(tmp_path.rglob("*"))
    path = inside / "b.epub"
    files = {
        "META-INF/container.xml": CONTAINER,
        "../evil.html": page("<p>Evil.</p>"),
        "/abs.html": page("<p>Absolute.</p>"),
        "OEBPS/../../up.html": page("<p>Up.</p>"),
        "OEBPS/one.html": page("<p>One.</p>"),
        "OEBPS/book.opf": package(
            [
                "one.html",
                "../../secret.html",
                "../../evil.html",
                "/abs.html",
                "file:///etc/passwd",
                "http://localhost/x.html",
                "one.html",
            ]
        ),
    }
    book = read_book(write_zip(path, files))
    assert [text for _, text in chapters(book)] == ["One."]
    assert sorted(tmp_path.rglob("*")) == sorted([*before, path])


def test_references_stay_inside() -> None:
    assert resolve("OEBPS/Text/a.html", "../Images/c%20d.png#x") == ("OEBPS/Images/c d.png", "x")
    assert resolve("a.html", "#here") == ("a.html", "here")
    for outside in (
        "../x",
        "/etc/passwd",
        "..",
        "http://x/y",
        "//x/y",
        "a/../../b",
        "%2e%2e/x",
        "",
    ):
        name, _ = resolve("a.html", outside)
        assert name in ("", "a.html"), outside


def test_loops_end(tmp_path: Path) -> None:
    """A table of contents that leads to itself and backwards, the same page again and again."""
    pages = {"a.html": page('<h1 id="t">One</h1><p>Alpha.</p>'), "b.html": page("<p>Beta.</p>")}
    points = point("Self", "toc.ncx") + point("B", "b.html") + point("A", "a.html#t")
    points += point("B again", "b.html") * 50 + point("Nowhere", "a.html#gone")
    spine = "<spine>" + '<itemref idref="p0"/><itemref idref="p1"/>' * 500 + "</spine>"
    more = '<item id="ncx" href="toc.ncx" media-type="application/x-dtbncx+xml"/>'
    files = {"book.opf": package(list(pages), more=more, spine=spine), "toc.ncx": ncx(points)}
    book = read_book(write_epub(tmp_path / "b.epub", {**files, **pages}))
    assert chapters(book) == [("A", "One.\n\nAlpha."), ("B", "Beta.")]


@pytest.mark.parametrize(
    "snippet",
    [
        *("<!--", '<a "', "<a ", "<", "<p>", "<h1>", "<a href='#'>", "</a>", "&#9", "&amp", "<td>"),
        *("<script>", "<![CDATA[", "<p class='", "<sup><div>", f"&#{'9' * 5000};", "<a x='>"),
    ],
)
def test_time_to_read_a_page_grows_with_its_length(snippet: str) -> None:
    def seconds(length: int) -> float:
        text = snippet * (length // len(snippet) + 1)
        started = time.process_time()
        read_page(text)
        return time.process_time() - started

    seconds(10_000)
    short = min(seconds(20_000) for _ in range(3))
    # Eight times as long; in time that grows with the square it would be 64 times.
    assert seconds(160_000) < 24 * short + 0.2


def test_pages_that_are_no_good_html() -> None:
    text = (
        "<P>One <b>two<p>three & four &nbsp;<li>five<li>six</ul></div></p><br>seven"
        "<a title='a > b' href=x>eight</a> 3 < 4 <table><tr><td>a<td>b<tr><td>c</table>"
        "<span style='display : none'>no</span><noscript>no</noscript><ruby>k<rt>no</rt></ruby>"
    )
    assert [block.text for block in read_page(text).blocks] == [
        "One two",
        "three & four",
        "five",
        "six",
        "seveneight 3 < 4",
        "a, b",
        "c",
        "k",
    ]


# Other files


def test_plain_text_of_project_gutenberg(tmp_path: Path) -> None:
    text = (
        "The Project Gutenberg eBook of A Tale\n\nTitle: A Tale\n\nAuthor: Ann Author\n\n"
        "Language: English\n\n*** START OF THE PROJECT GUTENBERG EBOOK A TALE ***\n\n"
        "A TALE\n\nby Ann Author\n\nCONTENTS\n\nCHAPTER I.\n\nCHAPTER II.\n\nPART ONE\n\n"
        "CHAPTER I.\n\nTHE START\n\nIt was late\nand dark.\n\n  * * *\n\nHe slept.\n\n"
        "CHAPTER II.\n\nChapter and verse were read. He woke.\n\nEpilogue\n\nAll was well.\n\n"
        "*** END OF THE PROJECT GUTENBERG EBOOK A TALE ***\n\nMuch licence follows.\n"
    )
    path = tmp_path / "tale.txt"
    path.write_text(text, "utf-8")
    book = read_book(path)
    assert (book.title, book.author, book.language) == ("A Tale", "Ann Author", "en")
    assert chapters(book) == [
        ("PART ONE. CHAPTER I. THE START", "It was late\nand dark.\n\n[pause 1.2s]\n\nHe slept."),
        ("CHAPTER II.", "Chapter and verse were read. He woke."),
        ("Epilogue", "All was well."),
    ]
    assert ("Project Gutenberg's notice", "licence") in left_out(book)


@pytest.mark.parametrize(
    ("head", "title", "author"),
    [
        ("A TALE\n\n\nby\n\nAnn Author\n\n(1818)", "A TALE", "Ann Author"),
        ("A Tale\nBy Ann Author (1803)\n\n" + "Of this edition. " * 90, "A Tale", "Ann Author"),
        ("A Tale", "tale", ""),
        ("It was so cold that he\nby the fire\n" + "sat and sat. " * 20, "tale", ""),
    ],
)
def test_title_pages_of_plain_text(tmp_path: Path, head: str, title: str, author: str) -> None:
    path = tmp_path / "tale.txt"
    path.write_text(f"{head}\n\nCHAPTER I\n\nHe slept.\n\nCHAPTER II\n\nHe woke.\n", "utf-8")
    book = read_book(path)
    assert (book.title, book.author) == (title, author)
    assert [chapter.words for chapter in book.chapters][-2:] == [2, 2]


def test_plain_text_with_bare_numbers_or_none(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text(
        "I\n\nAlpha is here.\n\nII\n\nBeta is here.\n\nIII. The End\n\nGamma.\n", "utf-8"
    )
    assert [c.title for c in read_book(path).chapters] == ["I", "II", "III. The End"]
    path.write_text("Just a text.\n\nOf two paragraphs.\n", "utf-16")
    book = read_book(path)
    assert book.title == "a"
    assert chapters(book) == [("", "Just a text.\n\nOf two paragraphs.")]


def test_markdown(tmp_path: Path) -> None:
    path = tmp_path / "a.md"
    path.write_text(
        '---\ntitle: "A Book"\nauthor: Ann\nlang: en\n---\n\n# A Book\n\n## One\n\n'
        "It is **so**[^1] and [there](x).\n\n---\n\nAfter.\n\n[^1]: A note of it.\n\n"
        "Two\n---\n\n```\n# no heading\n```\n\nText.\n\n## Index\n\nA, 1\n",
        "utf-8",
    )
    book = read_book(path)
    assert (book.title, book.author, book.language) == ("A Book", "Ann", "en")
    assert chapters(book) == [
        ("One", "It is so and there.\n\n[pause 1.2s]\n\nAfter."),
        ("Two", "no heading\n\nText."),
    ]
    assert left_out(book) == [
        ("A Book", "no words"),
        ("Index", "index"),
        ("1 notes", "within chapters"),
    ]


def test_html(tmp_path: Path) -> None:
    path = tmp_path / "a.html"
    path.write_bytes(
        b"<html><head><meta charset=iso-8859-1><title>A Book</title></head><body><h1>A Book</h1>"
        b"<h2>One</h2><p>Caf\xe9 talk.</p><h2>Two</h2><p>More \x93talk\x94.</p></body></html>"
    )
    book = read_book(path)
    assert book.title == "A Book"
    assert chapters(book) == [("One", "Caf\u00e9 talk."), ("Two", "More \u201ctalk\u201d.")]


def test_docx(tmp_path: Path) -> None:
    def paragraph(text: str, style: str = "", run: str = "") -> str:
        properties = f'<w:pPr><w:pStyle w:val="{style}"/></w:pPr>' if style else ""
        return f"<w:p>{properties}<w:r><w:t>{text}</w:t>{run}</w:r></w:p>"

    space = 'xmlns:w="http://schemas.openxmlformats.org/wordprocessingml/2006/main"'
    document = (
        f'<?xml version="1.0"?><w:document {space}><w:body>'
        + paragraph("My Book", "Titel")
        + paragraph("One", "berschrift1")
        + paragraph("Alpha", "", '<w:footnoteReference w:id="1"/><w:br/><w:t>text.</w:t>')
        + "<w:p><w:del><w:r><w:delText>gone</w:delText><w:t>gone</w:t></w:r></w:del></w:p>"
        + paragraph("* * *")
        + paragraph("More.")
        + paragraph("Two", "berschrift1")
        + paragraph("Beta.")
        + "</w:body></w:document>"
    )
    styles = (
        f"<w:styles {space}>"
        '<w:style w:styleId="Titel"><w:name w:val="Title"/></w:style>'
        '<w:style w:styleId="berschrift1"><w:name w:val="heading 1"/></w:style></w:styles>'
    )
    core = (
        '<c:coreProperties xmlns:c="urn:c" xmlns:dc="http://purl.org/dc/elements/1.1/">'
        "<dc:creator>Ann</dc:creator></c:coreProperties>"
    )
    files = {"word/document.xml": document, "word/styles.xml": styles, "docProps/core.xml": core}
    book = read_book(write_zip(tmp_path / "a.docx", files))
    assert (book.title, book.author) == ("My Book", "Ann")
    assert chapters(book) == [("One", "Alpha text.\n\n[pause 1.2s]\n\nMore."), ("Two", "Beta.")]
    assert left_out(book) == [("1 marks of notes", "within chapters")]
    with pytest.raises(BookFileError, match="no Word document"):
        read_book(write_zip(tmp_path / "b.docx", {"a": "b"}))


def test_what_is_no_book(tmp_path: Path) -> None:
    for name, message in (
        ("https://example.com/book.epub", "nothing is fetched"),
        (str(tmp_path / "book.pdf"), "no kind of book that is read"),
        (str(tmp_path / "book"), "without an extension"),
    ):
        with pytest.raises(BookFileError, match=message):
            read_book(name)
    with pytest.raises(FileNotFoundError):
        read_book(tmp_path / "gone.txt")
    with pytest.raises(FileNotFoundError):
        read_book(tmp_path / "gone.epub")
    (tmp_path / "folder.epub").mkdir()
    with pytest.raises(IsADirectoryError):
        read_book(tmp_path / "folder.epub")
    (tmp_path / "bytes.txt").write_bytes(b"\xff\x00\x81")
    with pytest.raises(BookFileError, match="not UTF-8"):
        read_book(tmp_path / "bytes.txt")
    (tmp_path / "nothing.txt").write_text("* * *\n\n", "utf-8")
    with pytest.raises(BookFileError, match="no text"):
        read_book(tmp_path / "nothing.txt")
