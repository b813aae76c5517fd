"""Swarms that their owners show to everyone on the local network, so that people can ask to join."""

import asyncio
import secrets
from collections.abc import Iterable, Sequence

from msgspec import Struct
from zeroconf import DNSQuestionType, Error, ServiceInfo, ServiceStateChange, Zeroconf
from zeroconf.asyncio import AsyncServiceBrowser, AsyncServiceInfo, AsyncZeroconf

from p2ptrain.core import limits
from p2ptrain.core.errors import UnreachableError
from p2ptrain.core.text import clean
from p2ptrain.core.types import PeerId, Seconds, SwarmId
from p2ptrain.net.addresses import PORT_MIN, Address
from p2ptrain.net.lan.interfaces import Interface

SERVICE = "_p2ptrain-open._tcp.local."
NAME_BYTES = 8

SEARCH_S: Seconds = 3.0
"""Answers come within 0.5 s on a quiet network; wireless ones lose some (guess)."""

RESOLVE_MS = 1500
SHOWN_MAX = 32
"""More than a person can choose from (guess)."""


class Visible(Struct, frozen=True):
    """What the owner shows of a swarm."""

    name: str
    task: str


class OpenSwarm(Struct, frozen=True, order=True):
    """A swarm nearby, as somebody describes it: a hint, like everything on a network.

    peer: who can admit.
    """

    name: str
    task: str
    swarm: SwarmId
    peer: PeerId
    addresses: tuple[Address, ...]


def describe(visible: Visible, swarm: SwarmId, peer: PeerId, port: int, hosts: Iterable[str]) -> ServiceInfo:
    """Return the readable record of a swarm."""
    return ServiceInfo(
        SERVICE,
        f"{secrets.token_hex(NAME_BYTES)}.{SERVICE}",
        port=port,
        properties={
            "n": visible.name.encode()[:200],
            "t": visible.task.encode()[:200],
            "k": peer,
            "s": swarm,
        },
        server=f"{secrets.token_hex(NAME_BYTES)}.local.",
        parsed_addresses=list(hosts)[: limits.ADDRESSES_MAX],
    )


def groups(interfaces: Sequence[Interface]) -> list[str]:
    """Say to zeroconf where to listen: at one address each, since IPv4 carries the records of both."""
    return [one.addresses[0] for one in interfaces]


async def search(interfaces: Sequence[Interface], seconds: Seconds = SEARCH_S) -> list[OpenSwarm]:
    """Ask the local networks which swarms are shown there.

    Raises:
        UnreachableError: there is no network to ask.
    """
    names: dict[str, None] = {}

    def heard(zeroconf: Zeroconf, service_type: str, name: str, state_change: ServiceStateChange) -> None:
        if state_change is not ServiceStateChange.Removed and len(names) < SHOWN_MAX:
            names[name] = None

    try:
        async with AsyncZeroconf(interfaces=groups(interfaces)) as network:
            browser = AsyncServiceBrowser(
                network.zeroconf, SERVICE, handlers=[heard], question_type=DNSQuestionType.QM
            )
            await asyncio.sleep(seconds)
            await browser.async_cancel()
            found = await asyncio.gather(*(_resolve(network.zeroconf, name) for name in names))
    except (OSError, Error, RuntimeError) as error:
        raise UnreachableError(
            f"the local network cannot be searched: {error}", "join by invite: p2ptrain join INVITE"
        ) from None
    unique = {(one.swarm, one.peer): one for info in found if info and (one := _read(info, interfaces))}
    return sorted(unique.values())


async def _resolve(network: Zeroconf, name: str) -> AsyncServiceInfo | None:
    """Ask for what a record lacks; a name that is none is nobody's."""
    try:
        info = AsyncServiceInfo(SERVICE, name)
        return info if await info.async_request(network, RESOLVE_MS, DNSQuestionType.QM) else None
    except Error:
        return None


def _read(info: ServiceInfo, interfaces: Sequence[Interface]) -> OpenSwarm | None:
    said = info.properties
    peer, swarm = said.get(b"k") or b"", said.get(b"s") or b""
    port = info.port or 0
    hosts = [host.partition("%")[0] for host in info.parsed_addresses()][: limits.ADDRESSES_MAX]
    here = tuple(Address(host, port) for host in hosts if any(one.reaches(host) for one in interfaces))
    if len(peer) != 32 or len(swarm) != 32 or port < PORT_MIN or not here:
        return None
    name, task = ((said.get(key) or b"").decode(errors="replace") for key in (b"n", b"t"))
    return OpenSwarm(clean(name) or "without a name", clean(task), SwarmId(swarm), PeerId(peer), here)
