"""XML is read as far as routers use it; what could grow or reach out is refused."""

import pytest

from p2ptrain.net.router.small_xml import DEPTH_MAX, ELEMENTS_MAX, XML_BYTES_MAX, read_xml

BOMB = """<?xml version="1.0"?><!DOCTYPE a [<!ENTITY b "bbbbbbbbbb"><!ENTITY c "&b;&b;&b;&b;">]><a>&c;</a>"""


def test_elements_are_found_without_their_name_spaces():
    top = read_xml(b'<s:a xmlns:s="x"><b>1<c> two </c></b><b>3</b><!-- <b>4</b> --></s:a>')
    assert [one.text for one in top.all("b")] == ["1", "3"]
    assert (top.first("c"), top.first("d")) == ("two", "")


@pytest.mark.attack
@pytest.mark.parametrize(
    ("data", "said"),
    [
        (BOMB.encode(), "document type"),
        (BOMB.encode("utf-16"), "document type"),
        (b'<!DOCTYPE a SYSTEM "http://127.0.0.1/x"><a/>', "document type"),
        (b'<!DOCTYPE a [<!ENTITY b SYSTEM "file:///etc/passwd">]><a>&b;</a>', "document type"),
        (b"<a>&b;</a>", "no XML: undefined entity"),
        (b"<a>" * (DEPTH_MAX + 1) + b"</a>" * (DEPTH_MAX + 1), "too much XML"),
        (b"<a>" + b"<b/>" * ELEMENTS_MAX + b"</a>", "too much XML"),
        (b"<a>" + b"b" * XML_BYTES_MAX + b"</a>", "too much XML"),
        (b"<a><b></a>", "no XML: mismatched tag"),
        (b"<a/><b/>", "no XML: junk"),
        (b"<a", "no XML: unclosed token"),
        (b"", "no XML: no element"),
        (b"\xff\x00\x00", "no XML"),
    ],
)
def test_hostile_xml_is_refused(data, said):
    with pytest.raises(ValueError, match=said):
        read_xml(data)


def test_the_bounds_themselves_are_allowed():
    read_xml(b"<a>" * DEPTH_MAX + b"</a>" * DEPTH_MAX)
    read_xml(b"<a>" + b"<b/>" * (ELEMENTS_MAX - 1) + b"</a>")
    read_xml(b"<a>" + b"b" * (XML_BYTES_MAX - 7) + b"</a>")
