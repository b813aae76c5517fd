"""What peers say through a relay to meet: who calls, in which way, and where it can be found.

GET  /v1/relay           WebSocket of a peer that wants to be called: `Call` comes, `Reply` goes back
POST /v1/relay/{peer}    an `Ask` -> `Told`; 404: not here, 403: it does not want to, 503: full, 504: silent

All are msgpack arrays; fields are only ever appended.
"""

import contextlib
import ipaddress
from collections.abc import Iterable
from typing import Annotated, Final, TypeVar

import msgspec
from msgspec import Meta, Struct

from p2ptrain.core import limits
from p2ptrain.core.errors import Offence, RemoteProtocolError
from p2ptrain.core.types import Seconds
from p2ptrain.net.addresses import Address, AddressFilter, is_public, parse_address
from p2ptrain.net.channel.preamble import TOKEN_BYTES

RELAY_PATH = "/v1/relay"

REVERSE: Final = "reverse"
"""Come to one of my addresses."""

PUNCH: Final = "punch"
"""Dial me while I dial you."""

RELAY: Final = "relay"
"""Meet me at this relay."""

CALL_S: Seconds = 3.0
"""From a call to the reply, which comes before anything is dialled (guess)."""

CALL_BYTES_MAX = 1024
"""Eight addresses are 520 bytes; the rest is for fields of newer versions."""

Text = Annotated[str, Meta(max_length=limits.NAME_CHARS_MAX)]
Token = Annotated[bytes, Meta(min_length=TOKEN_BYTES, max_length=TOKEN_BYTES)]
Addresses = Annotated[
    tuple[Annotated[str, Meta(max_length=limits.ADDRESS_CHARS_MAX)], ...],
    Meta(max_length=limits.ADDRESSES_MAX),
]


class Ask(Struct, frozen=True, array_like=True):
    """What a caller wants.

    way: one of the words above; others may come from newer versions.
    token: by which the connection will be known; of a relay, the one of the reader's end.
    addresses: where the caller can be dialled, or punched.
    """

    way: Text
    token: Token
    addresses: Addresses = ()


class Call(Struct, frozen=True, array_like=True):
    """An `Ask`, passed on. number: counts the calls of one reservation."""

    number: Annotated[int, Meta(ge=0, le=1 << 53)]
    caller: Annotated[bytes, Meta(min_length=32, max_length=32)]
    ask: Ask


class Reply(Struct, frozen=True, array_like=True):
    """What who was called says to it. addresses: where it can be punched."""

    number: Annotated[int, Meta(ge=0, le=1 << 53)]
    agreed: bool
    addresses: Addresses = ()


class Told(Struct, frozen=True, array_like=True):
    """What the caller hears of an agreement."""

    addresses: Addresses = ()


T = TypeVar("T", Ask, Call, Reply, Told)


def decode(data: bytes, type_: type[T]) -> T:
    """Read one of these.

    Raises:
        RemoteProtocolError: it is none.
    """
    try:
        return msgspec.msgpack.decode(data, type=type_)
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise RemoteProtocolError(Offence.MALFORMED, f"not a {type_.__name__}") from None


def usable(texts: Iterable[str], allow: AddressFilter) -> list[Address]:
    """Return the addresses among these that a peer may send this node to.

    Private ones are not: whoever is on the same network needs no call, and anybody else would reach the
    printers and cameras of this one. This computer's own pass if `allow` says so.
    """
    found: dict[Address, None] = {}
    for text in texts:
        with contextlib.suppress(ValueError):
            address = parse_address(text)
            if allow(address) and (is_public(address.host) or ipaddress.ip_address(address.host).is_loopback):
                found[address] = None
    return list(found)
