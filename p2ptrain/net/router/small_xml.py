"""XML from routers, read with bounds: no document types, so no entities that could grow or reach out."""

from collections.abc import Iterator
from xml.parsers import expat

from msgspec import Struct

from p2ptrain.core import limits

XML_BYTES_MAX = 64 * limits.KIB
"""miniupnpd describes its router in 4 KiB; some routers name ten services more (guess)."""

ELEMENTS_MAX = 2000
DEPTH_MAX = 32
"""Descriptions have 100 elements, 10 deep."""


class Element(Struct):
    """One element. tag: without its name space. text: all of it, without the children's."""

    tag: str
    text: str
    children: list["Element"]

    def all(self, tag: str) -> Iterator["Element"]:
        """Find elements within this one, in order."""
        for child in self.children:
            if child.tag == tag:
                yield child
            yield from child.all(tag)

    def first(self, tag: str) -> str:
        """Return the text of the first such element within this one; empty: none, or nothing in it."""
        return next((one.text.strip() for one in self.all(tag)), "")


class _Reader:
    def __init__(self) -> None:
        self.top = Element("", "", [])
        self._open = [self.top]
        self._count = 0

    def start(self, name: str, _: dict[str, str]) -> None:
        self._count += 1
        if self._count > ELEMENTS_MAX or len(self._open) > DEPTH_MAX:
            raise ValueError("too much XML")
        element = Element(name.rpartition(":")[2], "", [])
        self._open[-1].children.append(element)
        self._open.append(element)

    def end(self, _: str) -> None:
        self._open.pop()

    def text(self, text: str) -> None:
        self._open[-1].text += text

    def refuse(self, *_: object) -> None:
        raise ValueError("XML with a document type")


def read_xml(data: bytes) -> Element:
    """Read a document; what is returned holds its root.

    Raises:
        ValueError: it is none, or larger than a router's.
    """
    if len(data) > XML_BYTES_MAX:
        raise ValueError("too much XML")
    reader = _Reader()
    parser = expat.ParserCreate()
    parser.buffer_text = True
    parser.StartElementHandler = reader.start
    parser.EndElementHandler = reader.end
    parser.CharacterDataHandler = reader.text
    parser.StartDoctypeDeclHandler = reader.refuse
    try:
        parser.Parse(data, True)
    except expat.ExpatError as error:
        raise ValueError(f"no XML: {error}") from None
    return reader.top
