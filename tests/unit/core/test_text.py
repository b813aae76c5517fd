"""Peers' words cannot act on the terminal of whoever reads them."""

import pytest

from p2ptrain.core.limits import NAME_CHARS_MAX
from p2ptrain.core.text import clean

pytestmark = pytest.mark.attack

TRICKS = {
    "an escape sequence": "\x1b[2J\x1b]0;title\x07",
    "a C1 control sequence": "\x9b31m",
    "a line break": "one\r\ntwo",
    "a bidi override": "safe\u202egpj.exe",
    "a bidi isolate": "\u2066\u2069",
    "zero width characters": "a\u200bb\u200dc\ufeff",
    "a soft hyphen": "a\u00adb",
    "a private character": "\ue000",
    "half a surrogate": "\ud800",
    "a line separator": "\u2028\u2029",
    "a tag character": "\U000e0041",
    "no character at all": "\uffff",
}


@pytest.mark.parametrize("text", TRICKS.values(), ids=TRICKS)
def test_what_cannot_be_printed_is_replaced(text: str) -> None:
    assert clean(text).isprintable()
    assert "·" in clean(text)


@pytest.mark.parametrize("text", ["anna's PC", "Вася", "東京", "Zoë 🦙", "[red]markup[/red]"])
def test_ordinary_names_stay_as_they_are(text: str) -> None:
    assert clean(text) == text


def test_a_letter_has_one_form() -> None:
    assert clean("Zoe\u0308") == clean("Zo\u00eb") == "Zo\u00eb"


def test_a_long_text_is_cut() -> None:
    assert clean("x" * 10_000) == "x" * NAME_CHARS_MAX
    assert len(clean("\ufdfa" * 10_000, 200)) == 200
