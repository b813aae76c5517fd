"""Whatever leaves the codec has the right shape and finite numbers in range; anything else is an offence."""

import math
from contextlib import suppress
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from p2ptrain.core import limits
from p2ptrain.core.codec import Codec
from p2ptrain.core.errors import LocalProtocolError, Offence, RemoteProtocolError
from p2ptrain.core.messages import KINDS, STRATEGY_KIND_FIRST, Contact, Contacts, Leave, Message, News, Report
from p2ptrain.strategies import load, names
from tests.anything import any_message, plain, with_floats
from tests.helpers import Author, offer

PRIVATE = tuple(message for name in names() for message in load(name).messages)
CODEC = Codec(PRIVATE)
EVERY_KIND = {**KINDS, **dict(enumerate(PRIVATE, start=STRATEGY_KIND_FIRST))}
EVERY_MESSAGE = [pytest.param(kind, type_, id=type_.__name__) for kind, type_ in EVERY_KIND.items()]
WITH_NUMBERS = [Report(3, 96, 0.5, 0.25, offer(0.4))]

encode = msgspec.msgpack.encode


def refused(kind: int, data: bytes) -> Offence:
    with pytest.raises(RemoteProtocolError) as caught:
        CODEC.decode(kind, data)
    return caught.value.offence


@pytest.mark.parametrize(("kind", "type_"), EVERY_MESSAGE)
def test_every_message_comes_back_as_it_went(kind: int, type_: type[Message]) -> None:
    @settings(max_examples=60)
    @given(any_message(type_))
    def check(message: Message) -> None:
        found, data = CODEC.encode(message)
        assert (found, CODEC.decode(found, data)) == (kind, message)
        assert CODEC.decode(found, memoryview(data)) == message

    check()


@pytest.mark.attack
@pytest.mark.parametrize(("kind", "type_"), EVERY_MESSAGE)
def test_random_bytes_give_a_message_or_an_offence(kind: int, type_: type[Message]) -> None:
    @settings(max_examples=300)
    @given(st.binary(max_size=200))
    def check(data: bytes) -> None:
        with suppress(RemoteProtocolError):
            assert type(CODEC.decode(kind, data)) is type_

    check()


@pytest.mark.attack
@pytest.mark.parametrize(("kind", "type_"), EVERY_MESSAGE)
def test_every_message_cut_short_or_with_garbage_behind_is_malformed(kind: int, type_: type[Message]) -> None:
    @settings(max_examples=30)
    @given(any_message(type_), st.binary(min_size=1, max_size=20))
    def check(message: Message, garbage: bytes) -> None:
        _, data = CODEC.encode(message)
        assert refused(kind, data[:-1]) in (Offence.MALFORMED, Offence.OUT_OF_RANGE)
        assert refused(kind, data + garbage) is Offence.MALFORMED

    check()


@pytest.mark.attack
@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf, 1e31, -1e31])
@pytest.mark.parametrize("message", WITH_NUMBERS, ids=lambda m: type(m).__name__)
def test_no_number_from_outside_is_infinite_or_absurd(message: Message, number: float) -> None:
    kind, _ = CODEC.encode(message)
    changed = with_floats(plain(message), number)
    assert len(changed) == 4, "loss, accuracy, the offer's loss and its rate"
    for values in changed:
        assert refused(kind, encode(values)) is Offence.OUT_OF_RANGE


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf])
def test_saying_a_number_that_is_not_finite_is_our_own_fault(number: float) -> None:
    for message in (Report(0, 0, number), Report(0, 0, 1.0, None, offer(number, 1))):
        with pytest.raises(LocalProtocolError, match="not finite"):
            CODEC.encode(message)


def test_saying_what_the_swarm_does_not_know_is_our_own_fault() -> None:
    class Foreign(Message, frozen=True):
        pass

    with pytest.raises(LocalProtocolError, match="Foreign"):
        CODEC.encode(Foreign())


GOOD_OFFER = ["ab" * 32, 64, 0.5, 1.0]
BAD: dict[str, tuple[type[Message], Any]] = {
    "step below zero": (Report, [-1, 0, 0.5]),
    "step beyond a double": (Report, [2**53 + 1, 0, 0.5]),
    "step as text": (Report, ["1", 0, 0.5]),
    "step as truth": (Report, [True, 0, 0.5]),
    "accuracy above one": (Report, [0, 0, 0.5, 1.01]),
    "a field too few": (Report, [0, 0]),
    "a map instead of a list": (Report, {"step": 0, "samples": 0, "loss": 0.5}),
    "an empty blob": (Report, [0, 0, 0.5, None, [*GOOD_OFFER[:1], 0, 0.5]]),
    "a blob of a million GiB": (Report, [0, 0, 0.5, None, [*GOOD_OFFER[:1], 2**50, 0.5]]),
    "a rate of zero": (Report, [0, 0, 0.5, None, [*GOOD_OFFER[:3], 0.0]]),
    "a blob name in capitals": (Report, [0, 0, 0.5, None, ["AB" * 32, *GOOD_OFFER[1:]]]),
    "a blob name that is a path": (Report, [0, 0, 0.5, None, ["../" * 21 + "a", *GOOD_OFFER[1:]]]),
    "a blob name with a line break": (Report, [0, 0, 0.5, None, ["ab" * 32 + "\n", *GOOD_OFFER[1:]]]),
    "a blob name that is a slot": (Report, [0, 0, 0.5, None, ["own", *GOOD_OFFER[1:]]]),
    "too many reports": (News, [[b"r"] * (limits.REPORTS_PER_NEWS_MAX + 1)]),
    "too many hops": (News, [[], [], False, 17]),
    "too many contacts": (Contacts, [[b"c"] * (limits.CONTACTS_PER_MESSAGE_MAX + 1)]),
    "too long a certificate": (Contact, [bytes(limits.CERTIFICATE_BYTES_MAX + 1)]),
    "too many addresses": (Contact, [b"", ["a:1"] * (limits.ADDRESSES_MAX + 1)]),
    "too long an address": (Contact, [b"", ["a" * (limits.ADDRESS_CHARS_MAX + 1)]]),
    "too long a name": (Contact, [b"", [], "n" * (limits.NAME_CHARS_MAX + 1)]),
    "too long a reason": (Leave, ["n" * (limits.NAME_CHARS_MAX + 1)]),
}


@pytest.mark.attack
@pytest.mark.parametrize(("type_", "values"), BAD.values(), ids=BAD)
def test_a_value_out_of_its_range_is_an_offence(type_: type[Message], values: Any) -> None:
    kind = next(kind for kind, known in KINDS.items() if known is type_)
    assert refused(kind, encode(values)) is Offence.OUT_OF_RANGE


@pytest.mark.attack
@pytest.mark.parametrize(
    "data",
    [b"", b"\xc1", b"\x91\xa2\xff\xfe", b"\x91\xa3\xed\xa0\x80", b"\x91" * 60_000, b"\xdd\xff\xff\xff\xff"],
    ids=["nothing", "reserved byte", "broken UTF-8", "half a surrogate", "nested too deep", "a huge list"],
)
def test_bytes_that_are_no_message_are_an_offence(data: bytes) -> None:
    assert refused(5, data) in (Offence.MALFORMED, Offence.OUT_OF_RANGE)


def test_a_kind_of_a_newer_version_is_not_an_offence() -> None:
    assert CODEC.decode(31, b"whatever it is") is None
    assert Codec().decode(STRATEGY_KIND_FIRST, b"of a strategy that is not run here") is None


def test_fields_that_a_newer_version_appended_are_skipped() -> None:
    data = encode([1, 32, 0.5, None, None, False, False, "new", [1, 2]])
    assert CODEC.decode(1, data) == Report(1, 32, 0.5)


def test_kinds_are_never_used_again() -> None:
    assert {kind: type_.__name__ for kind, type_ in KINDS.items()} == {
        1: "Report",
        2: "News",
        3: "Contact",
        4: "Contacts",
        5: "Leave",
        6: "Compare",
        7: "Tags",
        8: "Want",
        9: "Link",
        10: "Push",
        11: "Have",
        12: "Graft",
        13: "Prune",
    }
    assert max(KINDS) < STRATEGY_KIND_FIRST


def test_full_news_fit_into_half_a_frame() -> None:
    largest = Author(1, boot=2**64 - 1).says(Report(2**53, 2**53, -1e30, 1.0, offer(-1e30, 1), True))
    assert limits.REPORTS_PER_NEWS_MAX * len(largest.raw) < limits.FRAME_BYTES_MAX / 2
