"""Which addresses a peer may send us to."""

import pytest

from p2ptrain.core import limits
from p2ptrain.core.types import PeerId
from p2ptrain.net.addresses import Address, AddressBook, is_dialable, parse_address, plain_host
from p2ptrain.net.channel.rates import Buckets, TokenBucket

PEER = PeerId(bytes(32))


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("203.0.113.9:47777", Address("203.0.113.9", 47777)),
        ("[2001:DB8::1]:47777", Address("2001:db8::1", 47777)),
        ("[::ffff:127.0.0.1]:5000", Address("127.0.0.1", 5000)),
    ],
)
def test_addresses(text, address):
    assert parse_address(text) == address
    assert parse_address(str(address)) == address


@pytest.mark.parametrize(
    "text",
    [
        "",
        "1.2.3.4",
        "1.2.3.4:",
        "1.2.3.4:0",
        "1.2.3.4:65536",
        "1.2.3.4:+80",
        "1.2.3.4:٣",
        "01.2.3.4:80",
        "1.2.3:80",
        "2001:db8::1:80",
        "[1.2.3.4]:80",
        "[::1:80",
        "example.org:80",
        "127.1:80",
        "0x7f000001:80",
        "2130706433:80",
    ],
)
def test_what_is_no_address(text):
    with pytest.raises(ValueError):
        parse_address(text)


@pytest.mark.parametrize(
    ("text", "dialable"),
    [
        ("203.0.113.9:47777", True),
        ("192.168.1.9:47777", True),
        ("[2a00::1]:47777", True),
        ("[fd00::1]:47777", True),
        ("203.0.113.9:443", False),
        ("0.0.0.0:5000", False),
        ("255.255.255.255:5000", False),
        ("240.0.0.1:5000", False),
        ("224.0.0.1:5000", False),
        ("169.254.169.254:5000", False),
        ("[::]:5000", False),
        ("[ff02::1]:5000", False),
        ("[fe80::1]:5000", False),
    ],
)
def test_who_may_be_dialled(text, dialable):
    for loopback in (False, True):
        assert is_dialable(parse_address(text), loopback=loopback) is dialable


@pytest.mark.parametrize(
    "text", ["127.0.0.1:5000", "127.9.9.9:5000", "[::1]:5000", "[::ffff:127.0.0.1]:5000"]
)
def test_this_computer_only_if_allowed(text):
    assert not is_dialable(parse_address(text))
    assert is_dialable(parse_address(text), loopback=True)


def test_hosts_are_written_in_one_way():
    assert plain_host("fe80::1%eth0") == "fe80::1"
    assert plain_host("::ffff:1.2.3.4") == "1.2.3.4"


def test_the_book_knows_what_can_be_dialled():
    book = AddressBook(is_dialable)
    book.learn(PEER, ["203.0.113.9:5000", "nonsense", "127.0.0.1:5000", "203.0.113.9:5000"])
    assert book.addresses_of(PEER) == (Address("203.0.113.9", 5000),)
    assert book.addresses_of(PeerId(b"x" * 32)) == ()


def test_the_book_is_bounded(monkeypatch):
    monkeypatch.setattr(limits, "PEERS_MAX", 3)
    book = AddressBook(is_dialable)
    many = [f"203.0.113.{last}:5000" for last in range(1, 20)]
    assert len(book.learn(PEER, many)) == limits.ADDRESSES_MAX
    assert book.learn(PEER, []) == book.learn(PEER, many)
    for last in range(9):
        book.learn(PeerId(bytes([last]) * 32), many)
    assert len(book._known) == 3


def test_a_bucket_refills():
    bucket = TokenBucket(per_s=10, burst=3)
    assert [bucket.take(100.0) for _ in range(4)] == [True, True, True, False]
    assert [bucket.take(100.15) for _ in range(2)] == [True, False]
    assert [bucket.take(200.0) for _ in range(4)] == [True, True, True, False]


def test_buckets_are_bounded():
    buckets = Buckets(per_s=1, burst=1, keys_max=2)
    assert buckets.take("a", 0.0)
    assert not buckets.take("a", 0.0)
    assert buckets.take("b", 0.0)
    assert buckets.take("c", 0.0)
    assert buckets.take("a", 0.0)
