"""XML of strangers: no entity is expanded, nothing is fetched, depth and size are bounded."""

from __future__ import annotations

from xml.etree.ElementTree import Element, TreeBuilder
from xml.parsers import expat

from csm_ggml.errors import BookFileError

MOST_DEPTH = 200
MOST_ELEMENTS = 2_000_000


def parse_xml(data: bytes, where: str) -> Element:
    """Parse a document.

    Args:
        data: The document.
        where: Its name, for the message.

    Returns:
        The root. Names of elements and attributes are without their namespaces.

    Raises:
        BookFileError: If it is not well-formed, declares entities, or is too deep or too large.
    """
    parser = expat.ParserCreate(namespace_separator="}")
    parser.buffer_text = True
    builder = TreeBuilder()
    depth = 0
    count = 0

    def start(name: str, attributes: dict[str, str]) -> None:
        nonlocal depth, count
        depth += 1
        count += 1
        if depth > MOST_DEPTH or count > MOST_ELEMENTS:
            what = f"elements {depth} deep" if depth > MOST_DEPTH else f"{count} elements"
            raise BookFileError(
                f"{where}: {what}; at most {MOST_DEPTH} deep and {MOST_ELEMENTS} are read"
            )
        builder.start(_local(name), {_local(key): value for key, value in attributes.items()})

    def end(name: str) -> None:
        nonlocal depth
        depth -= 1
        builder.end(_local(name))

    def refuse(name: str, *_: object) -> None:
        raise BookFileError(f"{where}: declares the entity {name!r}, which is not expanded here")

    parser.StartElementHandler = start
    parser.EndElementHandler = end
    parser.CharacterDataHandler = builder.data
    parser.EntityDeclHandler = refuse
    try:
        parser.Parse(data, True)
        return builder.close()
    except (expat.ExpatError, ValueError, LookupError, AssertionError) as error:
        if isinstance(error, BookFileError):
            raise
        raise BookFileError(f"{where}: not well-formed XML: {error}") from None


def _local(name: str) -> str:
    return name.rpartition("}")[2]


def text_of(element: Element | None) -> str:
    """All text in an element, in one line; "" for None."""
    return "" if element is None else " ".join("".join(element.itertext()).split())
