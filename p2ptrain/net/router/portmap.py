"""Keeps this node's port open on the home's router, and says in words how that goes."""

import asyncio
import contextlib
import ipaddress
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from functools import partial

from msgspec import Struct

from p2ptrain.core.types import Seconds
from p2ptrain.net.addresses import Address, is_public
from p2ptrain.net.router.gateway import Gateway, find_gateway
from p2ptrain.net.router.mapping import LEASE_S, PATIENCE_S, Grant, MappingError, MappingProtocol
from p2ptrain.net.router.nat_pmp import NatPmp
from p2ptrain.net.router.pcp import Pcp
from p2ptrain.net.router.upnp import Upnp

RETRY_S: Seconds = 600.0
"""A router that opened nothing is asked again: its owner may have changed a setting (guess)."""

RENEW_MIN_S: Seconds = 60.0
"""However short a lease a router gives."""

PAUSE_S: Seconds = 5.0
"""Between two attempts, whoever wants the second (guess)."""

HEAD_START_S: Seconds = 0.5
"""A better protocol that stays silent for longer gives way to one that answered (research: net 3.2)."""

CLOSE_S: Seconds = 1.0
"""At the end nobody waits longer for the router; the lease ends by itself."""

CARRIER = ipaddress.ip_network("100.64.0.0/10")
"""Addresses of providers' own routers (RFC 6598)."""

BEHIND_ANOTHER_HINT = (
    "ask the provider for a public address, or let the router in front work as a bridge; "
    "without it others reach this node through members"
)

Protocols = Callable[[Gateway], Sequence[MappingProtocol]]


class PortState(Struct, frozen=True):
    """How the router stands to this node.

    address: where the internet reaches this node through the router; None: nowhere.
    words: a sentence for the owner. hint: what the owner can do about it; empty: nothing needs to be done.
    """

    address: Address | None
    words: str
    hint: str = ""


class _Held(Struct, frozen=True):
    """A port that is open now."""

    gateway: Gateway
    protocol: MappingProtocol
    grant: Grant


class _BehindAnotherError(MappingError):
    """The router opened a port, but the internet cannot reach the router."""


class PortMapper:
    """Asks the router for a port, asks again in time, and gives the port back at the end.

    Args:
        listen: the IP address that is listened on; empty: all.
        secret: known to this node alone, and the same after a restart.
        changed: called when `state` has another address than before.
        version: 4: a port on the router's address; 6: a hole in its firewall, for this computer's address.
        find: looks up the gateway, in a thread.
        protocols: the ways to ask a gateway, best first.
    """

    def __init__(
        self,
        listen: str,
        secret: bytes,
        changed: Callable[[], None],
        *,
        version: int = 4,
        find: Callable[[], Gateway | None] | None = None,
        protocols: Protocols | None = None,
    ) -> None:
        self._listen = "" if listen and ipaddress.ip_address(listen).is_unspecified else listen
        self._version = version
        self._changed = changed
        self._find = find or partial(find_gateway, version)
        self._protocols = protocols or partial(_all_protocols, secret)
        self._held: _Held | None = None
        self._asked: tuple[MappingProtocol, int] | None = None
        self._again = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._port = 0
        self.state = PortState(None, "the router was not asked yet")

    def start(self, port: int) -> None:
        """Begin to keep a TCP port open; returns at once."""
        self._port = port
        self._task = asyncio.get_running_loop().create_task(self._run())

    def look_again(self) -> None:
        """Ask the router now: the network changed, or others cannot reach the port."""
        self._again.set()

    async def close(self) -> None:
        """Give the port back; takes `CLOSE_S` at most."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
            self._task = None
        if self._asked is not None:
            protocol, outside = self._asked
            self._asked = None
            with contextlib.suppress(MappingError, TimeoutError):
                async with asyncio.timeout(CLOSE_S):
                    await protocol.close(self._port, outside)

    # -- keeping -----------------------------------------------------------------------------------

    async def _run(self) -> None:
        while True:
            self._again.clear()
            self._tell(await self._look())
            await asyncio.sleep(PAUSE_S)
            try:
                async with asyncio.timeout(self._pause() - PAUSE_S):
                    await self._again.wait()
            except TimeoutError:
                continue

    def _pause(self) -> Seconds:
        if self._held is None:
            return RETRY_S
        return max(min(self._held.grant.lease_s, LEASE_S) / 2, RENEW_MIN_S)

    def _tell(self, state: PortState) -> None:
        before, self.state = self.state, state
        if before.address != state.address:
            self._changed()

    async def _look(self) -> PortState:
        """Ask the router, and say what came of it."""
        gateway = await asyncio.to_thread(self._find)
        held = self._held
        if held is not None and held.gateway != gateway:
            self._held = self._asked = held = None  # another network: the old router is out of reach
        if gateway is None:
            return PortState(
                None, f"no router for IPv{self._version} was found, so none was asked for a port"
            )
        if reason := self._reason_not_to_ask(gateway):
            return PortState(None, reason)
        if held is not None:
            with contextlib.suppress(MappingError):
                return await self._open(gateway, held.protocol, held.grant.address.port)
        return await self._ask_all(gateway)

    def _reason_not_to_ask(self, gateway: Gateway) -> str:
        if self._listen not in ("", gateway.own):
            return f"no port was asked for: `listen` is {self._listen}, away from the router"
        if self._version == 4 and is_public(gateway.own):
            return "no router needs to open a port: this computer has a public address"
        if self._version == 6 and not is_public(gateway.own):
            return "no port was asked for: this computer has no public IPv6 address"
        return ""

    async def _ask_all(self, gateway: Gateway) -> PortState:
        """Try all protocols: the harmless questions together, the best that is answered opens the port."""
        protocols = self._protocols(gateway)
        probes = {asyncio.create_task(_probe(one)): one for one in protocols}
        failures = {}
        try:
            async for probe in _by_merit(probes):
                protocol = probes[probe]
                try:
                    probe.result()
                    return await self._open(gateway, protocol, self._port)
                except _BehindAnotherError as error:
                    words = f"the router {gateway.host} opens ports, but {error}"
                    return PortState(None, words, BEHIND_ANOTHER_HINT)
                except MappingError as error:
                    failures[protocol] = f"{protocol.name}: {error}"
        finally:
            for probe in probes:
                probe.cancel()
            await asyncio.gather(*probes, return_exceptions=True)
        reasons = "; ".join(failures[one] for one in protocols)
        return PortState(None, f"the router {gateway.host} opens no port ({reasons})", self._repair(gateway))

    def _repair(self, gateway: Gateway) -> str:
        if self._version == 6:
            where = f"let TCP port {self._port} to {gateway.own} through the router's firewall"
        else:
            ways = "switch on UPnP, NAT-PMP or PCP in the router"
            where = f"{ways}, or forward TCP port {self._port} to {gateway.own}"
        return f"{where}; without it others reach this node through members"

    async def _open(self, gateway: Gateway, protocol: MappingProtocol, wanted: int) -> PortState:
        """Open or renew, and remember it.

        Raises:
            MappingError: it is not open, or of no use and closed again.
        """
        self._held, self._asked = None, (protocol, wanted)
        try:
            grant = await protocol.open(self._port, wanted)
            self._asked = protocol, grant.address.port
            _check(grant)
        except _BehindAnotherError:
            with contextlib.suppress(MappingError):
                await protocol.close(self._port, grant.address.port)
            self._asked = None
            raise
        except MappingError:
            self._asked = None
            raise
        self._held = _Held(gateway, protocol, grant)
        words = f"the router {gateway.host} opened {grant.address} for this node ({protocol.name})"
        return PortState(grant.address, words)


def _all_protocols(secret: bytes, gateway: Gateway) -> Sequence[MappingProtocol]:
    if gateway.version == 6:
        return (Pcp(gateway, secret),)
    return Pcp(gateway, secret), NatPmp(gateway), Upnp(gateway)


async def _by_merit(probes: Iterable[asyncio.Task[None]]) -> AsyncIterator[asyncio.Task[None]]:
    """Return tasks that are done, in their order; after `HEAD_START_S` as they come."""
    loop, left = asyncio.get_running_loop(), list(probes)
    deadline = loop.time() + HEAD_START_S
    for probe in probes:
        await asyncio.wait([probe], timeout=max(deadline - loop.time(), 0))
        if probe.done():
            left.remove(probe)
            yield probe
    while left:
        await asyncio.wait(left, return_when=asyncio.FIRST_COMPLETED)
        for probe in [one for one in left if one.done()]:
            left.remove(probe)
            yield probe


async def _probe(protocol: MappingProtocol) -> None:
    """Ask whether the router speaks this; twice as long as one question, since UPnP asks two."""
    try:
        async with asyncio.timeout(2 * PATIENCE_S):
            await protocol.probe()
    except TimeoutError:
        raise MappingError("no answer") from None


def _check(grant: Grant) -> None:
    """Refuse what does not lead here from the internet."""
    ip = ipaddress.ip_address(grant.address.host)
    if not grant.address.port or grant.lease_s < 1:
        raise MappingError("it opened nothing")
    if ip.is_unspecified:
        raise MappingError("the router has no connection to the internet")
    if ip.version == 4 and ip in CARRIER:
        raise _BehindAnotherError(
            f"it has only the address {ip}, which the provider shares among customers (carrier NAT)"
        )
    if not is_public(str(ip)):
        raise _BehindAnotherError(
            f"it has only the private address {ip}: another router is in front (double NAT)"
        )
