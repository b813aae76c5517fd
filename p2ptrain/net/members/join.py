"""Joining: a stranger shows an issuer that it holds an invite, and goes as a member.

POST /v1/join     232 bytes of request -> an encoded `Welcome`, or 403 and one word of `Refusal`

A member asks too: whom a deputy admitted by an issuer's invite shows that invite to the founder.
"""

import asyncio
import ipaddress
import itertools
import socket
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing, suppress
from typing import Annotated

import aiohttp
import msgspec
from aiohttp import web
from msgspec import Meta, Struct

from p2ptrain.core import limits
from p2ptrain.core.errors import Offence, P2PTrainError, RefusedError, RemoteProtocolError, UnreachableError
from p2ptrain.core.types import PeerId, Seconds, SwarmId
from p2ptrain.net.addresses import Address, AddressBook, AddressFilter, parse_address, plain_host
from p2ptrain.net.channel.gate import JOIN_PATH, is_member, leaf_of
from p2ptrain.net.channel.rates import Buckets
from p2ptrain.net.members.admission import JOIN_REQUEST_BYTES, Admission, JoinRefusedError, Refusal
from p2ptrain.net.members.invite import Door, Invite
from p2ptrain.net.reach.connector import PeerConnector, connect
from p2ptrain.net.reach.dialling import explain, open_session
from p2ptrain.net.trust import tls
from p2ptrain.net.trust.certificates import (
    Clock,
    Membership,
    check_member,
    host_name,
    manifest_is_signed,
    read_leaf,
    wall_clock,
)
from p2ptrain.net.trust.identity import Identity

REQUEST_S: Seconds = 5.0
"""A request of 232 bytes takes one packet."""

ASK_S: Seconds = 10.0
"""How long one issuer is tried, at all its addresses: an overseas handshake takes about 1 s."""

KNOCK_S: Seconds = 2.0
"""Three times around the world; a silent issuer is asked last (guess)."""

MANIFEST_BYTES_MAX = 64 * limits.KIB
WELCOME_BYTES_MAX = 256 * limits.KIB
"""24 contacts of 1.3 KiB, a manifest, three certificates."""

JOINS_PER_S = 1.0
JOINS_BURST = 64
"""A class room behind one router joins at once; a guesser of invites gets nowhere."""

NETWORKS_MAX = 1024
"""Networks whose rates are remembered."""


class Welcome(Struct, frozen=True):
    """What an issuer gives to a new member.

    contacts: signed contacts of members that may be reached.
    """

    membership: Membership
    manifest: Annotated[bytes, Meta(max_length=MANIFEST_BYTES_MAX)]
    manifest_signature: bytes
    contacts: Annotated[
        tuple[Annotated[bytes, Meta(max_length=limits.FRAME_BYTES_MAX)], ...],
        Meta(max_length=limits.CONTACTS_PER_MESSAGE_MAX),
    ] = ()


class Reception:
    """Answers join requests on an issuer's listener.

    Args:
        admission: decides; None: this node is no issuer, now.
        here: this node.
        manifest: as signed, with the root's signature.
        contacts: gives the signed contacts that a new member is told, likeliest first.
    """

    def __init__(
        self,
        admission: Admission | None,
        here: PeerId,
        manifest: bytes,
        manifest_signature: bytes,
        contacts: Callable[[], Sequence[bytes]],
    ) -> None:
        self.admission = admission
        self._here = here
        self._manifest = manifest
        self._manifest_signature = manifest_signature
        self._contacts = contacts
        self._rates = Buckets(JOINS_PER_S, JOINS_BURST, NETWORKS_MAX)

    @property
    def admits(self) -> bool:
        """Whether this node is an issuer."""
        return self.admission is not None

    def routes(self) -> list[web.RouteDef]:
        """Return what the HTTP server needs."""
        return [web.post(JOIN_PATH, self.answer)]

    async def answer(self, request: web.Request) -> web.StreamResponse:
        """Read a request of exactly the right size, and admit or refuse."""
        if self.admission is None:
            raise web.HTTPNotFound
        try:
            if not self._rates.take(_network(request.remote), asyncio.get_running_loop().time()):
                raise JoinRefusedError(Refusal.BUSY)
            known = read_leaf(leaf_of(request)) if is_member(request) else None
            membership = self.admission.admit(await _read_request(request), self._here, known)
        except JoinRefusedError as error:
            return web.Response(status=403, text=error.refusal)
        contacts = tuple(self._contacts())[: limits.CONTACTS_PER_MESSAGE_MAX]
        welcome = Welcome(membership, self._manifest, self._manifest_signature, contacts)
        return web.Response(body=msgspec.msgpack.encode(welcome))


async def join(
    invite: Invite, identity: Identity, allow: AddressFilter, clock: Clock = wall_clock
) -> Welcome:
    """Become a member by an invite, or renew a membership by the same one.

    The issuers that the invite names are asked in order, each at all its addresses; those last that no
    connection can be made to. One at a time: two would give two places in the swarm. An answer counts
    only if its certificates and its manifest lead to the root key of the invite.

    Raises:
        RefusedError: an issuer answered, and said no.
        UnreachableError: no issuer answered.
    """
    refused: RefusedError | None = None
    failures = []
    async with aclosing(_in_turn(invite.doors, allow)) as turns:
        async for issuer, doors in turns:
            try:
                async with asyncio.timeout(ASK_S):
                    answer = await _ask(issuer, doors, invite.request(identity, issuer), allow)
                return check_welcome(answer, invite.swarm, identity.peer, clock)
            except RefusedError as error:
                refused = refused or error
            except (OSError, aiohttp.ClientError, P2PTrainError) as error:
                where = ", ".join(f"{door.host} port {door.port}" for door in doors)
                failures.append(f"{where}: {explain(error)}")
    if refused is not None:
        raise refused
    raise UnreachableError(
        "nobody who could admit this computer answered: " + "; ".join(failures or ["no address is known"]),
        "check the internet connection, or ask for a fresh invite while the inviting computer is on",
    )


def check_welcome(answer: bytes, swarm: SwarmId, peer: PeerId, clock: Clock) -> Welcome:
    """Read an issuer's answer.

    Raises:
        RemoteProtocolError: it does not make this peer a member of that swarm.
    """
    try:
        welcome = msgspec.msgpack.decode(answer, type=Welcome)
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise RemoteProtocolError(Offence.MALFORMED, "its answer cannot be read") from None
    membership = welcome.membership
    if check_member(membership.root, membership.chain, clock()).peer != peer:
        raise RemoteProtocolError(Offence.FOREIGN, "its certificate is for somebody else")
    if membership.swarm != swarm or not manifest_is_signed(
        membership.root_key, welcome.manifest_signature, welcome.manifest
    ):
        raise RemoteProtocolError(Offence.FOREIGN, "its answer is not of the swarm that is meant")
    return welcome


async def _in_turn(doors: Sequence[Door], allow: AddressFilter) -> AsyncGenerator[tuple[PeerId, list[Door]]]:
    """Return issuers and their doors in order, but the silent last: waiting for one takes `ASK_S`."""
    issuers: dict[PeerId, list[Door]] = {}
    for door in doors:
        issuers.setdefault(door.peer, []).append(door)
    probes = {issuer: asyncio.create_task(_is_there(those, allow)) for issuer, those in issuers.items()}
    try:
        silent = []
        for issuer, probe in probes.items():
            if await probe:
                yield issuer, issuers[issuer]
            else:
                silent.append(issuer)
        for issuer in silent:
            yield issuer, issuers[issuer]
    finally:
        for probe in probes.values():
            probe.cancel()


async def _is_there(doors: Sequence[Door], allow: AddressFilter) -> bool:
    """Say whether any door takes a TCP connection within `KNOCK_S`."""
    found = await asyncio.gather(*(_numeric(door) for door in doors))
    addresses = [one for one in map(parse_address, itertools.chain(*found)) if allow(one)]

    async def knock(address: Address) -> None:
        (await connect(address)).close()

    knocks = [asyncio.create_task(knock(address)) for address in addresses[: limits.ADDRESSES_MAX]]
    try:
        async with asyncio.timeout(KNOCK_S):
            for done in asyncio.as_completed(knocks):
                with suppress(OSError):
                    await done
                    return True
    except TimeoutError:
        pass
    finally:
        for one in knocks:
            one.cancel()
        await asyncio.gather(*knocks, return_exceptions=True)
    return False


async def _read_request(request: web.Request) -> bytes:
    try:
        async with asyncio.timeout(REQUEST_S):
            data = await request.content.readexactly(JOIN_REQUEST_BYTES)
            rest = await request.content.read(1)
    except (asyncio.IncompleteReadError, TimeoutError):
        raise JoinRefusedError(Refusal.MALFORMED) from None
    if rest:
        raise JoinRefusedError(Refusal.MALFORMED)
    return data


async def _ask(issuer: PeerId, doors: list[Door], request: bytes, allow: AddressFilter) -> bytes:
    book = AddressBook(allow)
    found = await asyncio.gather(*(_numeric(door) for door in doors))
    if not book.learn(issuer, itertools.chain(*found)):
        raise UnreachableError("no address that can be dialled")
    async with (
        open_session(PeerConnector(book, tls.joining_context())) as session,
        session.post(
            f"https://{host_name(issuer)}{JOIN_PATH}", data=request, allow_redirects=False
        ) as answer,
    ):
        data = bytearray()
        async for piece in answer.content.iter_any():
            data += piece
            if len(data) > WELCOME_BYTES_MAX:
                raise RemoteProtocolError(Offence.OVERSIZED, "it sent more than an answer")
        if answer.status == 403:
            raise _refusal(bytes(data))
        if answer.status != 200:
            raise UnreachableError("it does not admit members")
        return bytes(data)


def _refusal(word: bytes) -> RefusedError:
    try:
        return JoinRefusedError(Refusal(word.decode()))
    except ValueError:
        return RefusedError(
            "the issuer refused for a reason that this version does not know", "update p2ptrain"
        )


async def _numeric(door: Door) -> list[str]:
    """Return IP addresses: only invites may name a host, and only their reader looks it up."""
    try:
        found = await asyncio.get_running_loop().getaddrinfo(door.host, door.port, type=socket.SOCK_STREAM)
    except socket.gaierror:
        return []
    return [str(Address(plain_host(str(where[0])), door.port)) for *_, where in found]


def _network(remote: str | None) -> str:
    """Return the /24 or /64 of an address: what one household or one attacker has."""
    if not remote:
        return ""
    ip = ipaddress.ip_address(plain_host(remote))
    prefix = 24 if ip.version == 4 else 64
    return str(ipaddress.ip_network((ip, prefix), strict=False))
