"""The daemon's part: asks members what only they can see of this node. Takes up to 7 s."""

import asyncio
import socket
from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

from p2ptrain.control.api import Checkup, Finding
from p2ptrain.core.errors import RemoteProtocolError, UnreachableError
from p2ptrain.core.types import PeerId, Seconds
from p2ptrain.daemon.doctor import lines, verdicts
from p2ptrain.net import speed
from p2ptrain.net.lan.interfaces import usable_interfaces
from p2ptrain.net.reach.dial_back import Seen
from p2ptrain.net.router.portmap import PortState
from p2ptrain.net.transport import Transport

PEERS_MAX = 3
TRIP_S: Seconds = 2.0
ASKING_S: Seconds = 4.5
"""Dialling back takes 3 s at most, and its answer comes over a line that may be slow."""

SPEED_S: Seconds = 4.0


class Surroundings(NamedTuple):
    """What the daemon knows when it is asked.

    known: other members.
    """

    transport: Transport
    known: int
    name: Callable[[PeerId], str]
    router: PortState
    lan: Finding
    signs: verdicts.Signs


async def examine(here: Surroundings) -> Checkup:
    """Look at everything that needs other members."""
    transport = here.transport
    near = verdicts.near_by([network for one in usable_interfaces() for network in one.networks])
    connected = sorted(transport.connected, key=lambda peer: _is_no_witness(transport, peer, near))
    trips = await _trips(transport, connected[:PEERS_MAX])
    port = here.router.address.port if here.router.address else transport.port
    seen, fast = await asyncio.gather(_ask(transport, connected, port), _speed(here, trips))
    host = lines.own_host(socket.AF_INET)
    relays = transport.rendezvous.reservations.relays
    tries = verdicts.sort_out(seen, near, partial(_host, transport))
    rows = [(here.name(peer), transport.path(peer), trip) for peer, trip in trips]
    return Checkup(
        (
            verdicts.clock(seen),
            verdicts.copies(here.signs),
            verdicts.peers(rows, len(connected), here.known),
            fast,
            here.lan,
            verdicts.outside(tries, port, host, here.router, len(relays)),
            verdicts.mapping(here.router, tries),
            verdicts.provider(here.router, lines.carrier(lines.all_lines()), tries),
            verdicts.relay([here.name(peer) for peer in relays], tries),
        )
    )


def _is_no_witness(transport: Transport, peer: PeerId, near: verdicts.Near) -> tuple[bool, bool]:
    """Sort behind those who see this computer from outside: neighbours, then who is behind a relay."""
    host = _host(transport, peer)
    return not host or near(host), not host


def _host(transport: Transport, peer: PeerId) -> str:
    """Return a member's IP address; empty: a relay is between, or nothing stands."""
    path = transport.way(peer)
    return path.address.host if path and path.address and not path.is_relayed else ""


async def _trips(transport: Transport, peers: Sequence[PeerId]) -> list[tuple[PeerId, Seconds | None]]:
    async def trip(peer: PeerId) -> Seconds | None:
        try:
            async with asyncio.timeout(TRIP_S):
                return await speed.round_trip(transport, peer)
        except (UnreachableError, RemoteProtocolError, TimeoutError):
            return None

    return list(zip(peers, await asyncio.gather(*map(trip, peers)), strict=True))


async def _ask(transport: Transport, peers: Sequence[PeerId], port: int) -> list[Seen]:
    try:
        async with asyncio.timeout(ASKING_S):
            return await transport.dial_back.ask_some(transport, peers, port)
    except TimeoutError:
        return []


async def _speed(here: Surroundings, trips: Sequence[tuple[PeerId, Seconds | None]]) -> Finding:
    """Measure with the first that answered."""
    answered = [peer for peer, trip in trips if trip is not None]
    if not answered:
        return verdicts.speed(None, "", f"not measured: {verdicts.NOBODY}")
    name = here.name(answered[0])
    try:
        async with asyncio.timeout(SPEED_S):
            found = await speed.measure(here.transport, answered[0], here.transport.bandwidth)
    except (UnreachableError, RemoteProtocolError, TimeoutError):
        return verdicts.speed(None, name, f"not measured: {name} did not take part in time")
    return verdicts.speed(found, name, "")
