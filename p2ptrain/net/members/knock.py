"""Joining without an invite: a stranger asks, and a person who sees the same code on both screens says yes.

POST /v1/knock    `Hello` -> `Greeting`; then, again and again, `Knock` -> 202, or an encoded `Welcome`

The code has six digits, so nobody may try many. The one who asks is bound to its random number by a hash
before it sees the other's, and the other has chosen before it sees that number: somebody between the two,
with a code of his own on each side, has one guess in a million a visit.
"""

import asyncio
import hashlib
import os
from collections.abc import Callable, Iterable
from typing import Annotated

import aiohttp
import msgspec
from msgspec import Meta, Struct

from p2ptrain.core.errors import Offence, RefusedError, RemoteProtocolError, UnreachableError
from p2ptrain.core.types import PeerId, Seconds, SwarmId
from p2ptrain.net.addresses import Address, AddressBook, AddressFilter
from p2ptrain.net.channel.gate import KNOCK_PATH
from p2ptrain.net.members.join import WELCOME_BYTES_MAX, Welcome, check_welcome
from p2ptrain.net.reach.connector import PeerConnector
from p2ptrain.net.reach.dialling import explain, open_session
from p2ptrain.net.trust import tls
from p2ptrain.net.trust.certificates import Clock, host_name, wall_clock
from p2ptrain.net.trust.identity import Identity

DOMAIN = b"p2ptrain-knock-v1\0"
NONCE_BYTES = 32
CODE_DIGITS = 6

POLL_S: Seconds = 2.0
"""How often the one who asks asks again: whoever admits wants to see it (guess)."""

WAIT_S: Seconds = 600.0
"""How long a person may take to walk to the other computer (guess)."""

ANSWER_S: Seconds = 10.0
"""One question and its answer."""

KNOCK_BYTES_MAX = 512
"""A knock takes 170."""

_Bytes32 = Annotated[bytes, Meta(min_length=32, max_length=32)]


class Hello(Struct, frozen=True, tag=0, array_like=True):
    """Who asks, and the hash of its random number."""

    peer: _Bytes32
    commitment: _Bytes32


class Greeting(Struct, frozen=True, array_like=True):
    """The other's random number, and the word by which this visit is known."""

    ticket: Annotated[bytes, Meta(min_length=16, max_length=16)]
    nonce: _Bytes32


class Knock(Struct, frozen=True, tag=1, array_like=True):
    """The random number, and the proof of who asks."""

    ticket: Annotated[bytes, Meta(min_length=16, max_length=16)]
    nonce: _Bytes32
    signature: Annotated[bytes, Meta(min_length=64, max_length=64)]


Question = Hello | Knock


def commit(peer: PeerId, nonce: bytes) -> bytes:
    """Return the hash that binds somebody to a random number."""
    return hashlib.sha256(DOMAIN + b"commit" + peer + nonce).digest()


def statement(here: PeerId, peer: PeerId, nonce: bytes, their_nonce: bytes) -> bytes:
    """Return what the one who asks signs: both identities and both random numbers."""
    return DOMAIN + here + peer + nonce + their_nonce


def code_of(stated: bytes) -> str:
    """Return the code that both screens show, as `123 456`."""
    number = int.from_bytes(hashlib.sha256(stated).digest()[:8]) % 10**CODE_DIGITS
    return f"{number // 1000:03d} {number % 1000:03d}"


async def knock(
    here: PeerId,
    addresses: Iterable[Address],
    swarm: SwarmId,
    identity: Identity,
    show: Callable[[str], None],
    allow: AddressFilter,
    clock: Clock = wall_clock,
) -> Welcome:
    """Ask one issuer to be admitted, and wait for its owner.

    Args:
        here: the issuer.
        addresses: where it may be.
        swarm: that is meant; the answer counts only if its certificates and its manifest lead there.
        identity: who asks.
        show: is given the code.
        allow: says which addresses may be dialled.
        clock: certificates expire by it.

    Raises:
        RefusedError: the answer is no, or nobody answered the person who asks within `WAIT_S`.
        UnreachableError: the issuer is not there, or went away.
        RemoteProtocolError: it answers with something else.
    """
    book = AddressBook(allow)
    book.learn(here, map(str, addresses))
    nonce = os.urandom(NONCE_BYTES)
    async with open_session(PeerConnector(book, tls.joining_context())) as session:
        _, body = await _post(session, here, Hello(identity.peer, commit(identity.peer, nonce)))
        try:
            greeting = msgspec.msgpack.decode(body, type=Greeting)
        except (msgspec.DecodeError, UnicodeDecodeError):
            raise RemoteProtocolError(Offence.MALFORMED, "its greeting cannot be read") from None
        stated = statement(here, identity.peer, nonce, greeting.nonce)
        show(code_of(stated))
        question = Knock(greeting.ticket, nonce, identity.sign(stated))
        loop = asyncio.get_running_loop()
        ends = loop.time() + WAIT_S
        while loop.time() < ends:
            status, body = await _post(session, here, question)
            if status == 200:
                return check_welcome(body, swarm, identity.peer, clock)
            await asyncio.sleep(POLL_S)
    raise RefusedError("nobody admitted this computer in time", "ask again when somebody is at the other one")


async def _post(session: aiohttp.ClientSession, here: PeerId, question: Question) -> tuple[int, bytes]:
    """Ask one thing; 200 and 202 are answers."""
    url, data = f"https://{host_name(here)}{KNOCK_PATH}", msgspec.msgpack.encode(question)
    try:
        async with asyncio.timeout(ANSWER_S), session.post(url, data=data, allow_redirects=False) as answer:
            body = bytearray()
            async for piece in answer.content.iter_any():
                body += piece
                if len(body) > WELCOME_BYTES_MAX:
                    raise RemoteProtocolError(Offence.OVERSIZED, "it sent more than an answer")
    except (OSError, aiohttp.ClientError) as error:
        raise UnreachableError(f"that computer does not answer: {explain(error)}", "try again") from None
    if answer.status == 429:
        raise RefusedError("too many ask that computer at this moment", "try again in a minute")
    if answer.status not in (200, 202):
        raise RefusedError(
            "that computer does not admit this one: it shows its swarm no more, or forgot who asked",
            "ask again, or ask its owner for an invite",
        )
    return answer.status, bytes(body)
