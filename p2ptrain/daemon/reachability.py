"""Keeps true what this node says of where others can reach it."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from typing import Protocol

from p2ptrain.core import limits
from p2ptrain.core.lifecycle import count
from p2ptrain.core.types import PeerId, Seconds, peer_text
from p2ptrain.net.addresses import VIA, Address, is_public, parse_address
from p2ptrain.net.router.portmap import PortState

LOOK_EVERY_S: Seconds = 30.0
"""Computers change networks, and systems tell it in three different ways: looking is one (guess)."""

SETTLE_S: Seconds = 1.0
"""What changes together is told together: every change is signed, and travels to all members (guess)."""

ASK_AGAIN_S: Seconds = 10.0
"""When there was nobody to ask, as at the start (guess)."""

DOUBT_S: Seconds = 60.0
"""After a member did not get through; the second time in a row it is believed (guess)."""

TRUST_S: Seconds = 1800.0
"""How long it is believed that others get through; routers restart at night (guess)."""

OWN_PUBLIC_MAX = 3
"""With IPv6, systems take new public addresses every day and keep the old ones for a while."""

PROVEN_MAX = 1
RELAYS_MAX = 2
"""These, and what the router opened, leave room for one on the LAN at least."""

Prove = Callable[[int], Awaitable[tuple[str, ...] | None]]
"""Lets members dial this node at a port; returns where they got through. None: nobody could be asked."""


class Mapper(Protocol):
    """What keeps a port open on the router, see `net/router/portmap.py`."""

    state: PortState

    def start(self, port: int) -> None:
        """Begin."""
        ...

    def look_again(self) -> None:
        """Ask the router now."""
        ...

    async def close(self) -> None:
        """Give the port back."""
        ...


class Reachability:
    """Watches everything that says where this node can be reached.

    Args:
        own: the addresses that this computer has, as `host:port`.
        changed: told the addresses to give to others, each time they change; at most `limits.ADDRESSES_MAX`.
        moved: told that this computer has other addresses than before.
        mappers: build what asks the router, from who is told of changes; none: the owner does not want it.
        prove: see `Prove`.
    """

    def __init__(
        self,
        own: Callable[[], tuple[str, ...]],
        changed: Callable[[tuple[str, ...]], None],
        prove: Prove,
        *,
        moved: Callable[[], None] = lambda: None,
        mappers: Iterable[Callable[[Callable[[], None]], Mapper]] = (),
    ) -> None:
        self._own = own
        self._changed = changed
        self._prove = prove
        self._moved = moved
        self._mappers = [build(self._look_soon) for build in mappers]
        self._here = own()
        self._mapped: tuple[Address, ...] = ()
        self._proven: tuple[str, ...] = ()
        self._asked = self._was_reached = False
        self._relays: tuple[PeerId, ...] = ()
        self._port = 0
        self._soon = asyncio.Event()
        self._doubt = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self.addresses = self._ordered()

    @property
    def is_reachable(self) -> bool:
        """Whether a member got through to this node over the internet lately."""
        return bool(self._proven)

    @property
    def router(self) -> PortState:
        """How the router stands to this node, in words; of IPv4 and IPv6 the one that it opened."""
        states = [mapper.state for mapper in self._mappers]
        opened = (state for state in states if state.address is not None)
        nobody = PortState(None, "the router was not asked: `map_port = false` under [network]")
        return next(opened, states[0] if states else nobody)

    @property
    def words(self) -> str:
        """Whether others reach this node, as a sentence."""
        if self._proven:
            return f"members reach this node at {self._proven[0]}"
        if not self._asked:
            return "whether members reach this node over the internet is not known yet"
        way = f"through {count(len(self._relays), 'relay')}" if self._relays else "where this node dials them"
        return f"members do not reach this node over the internet, only {way}"

    # -- life ----------------------------------------------------------------------------------------

    def start(self, port: int) -> None:
        """Begin; returns at once. port: TCP, that is listened on."""
        self._port = port
        for mapper in self._mappers:
            mapper.start(port)
        loop = asyncio.get_running_loop()
        self._tasks = [loop.create_task(self._watch()), loop.create_task(self._keep_proof())]

    async def close(self) -> None:
        """End, and give back what the router opened."""
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)
        await asyncio.gather(*(mapper.close() for mapper in self._mappers))

    def waits_at(self, relays: tuple[PeerId, ...]) -> None:
        """Take at which relays this node can be called now."""
        self._relays = relays
        self._look_soon()

    def doubt(self) -> None:
        """Let members try again soon: one is there to be asked, or somebody could not reach this node."""
        self._doubt.set()

    # -- looking -------------------------------------------------------------------------------------

    def _look_soon(self) -> None:
        self._soon.set()

    def _ask_router(self) -> None:
        for mapper in self._mappers:
            mapper.look_again()

    async def _watch(self) -> None:
        while True:
            self._look()
            await _pause(LOOK_EVERY_S, self._soon)

    def _look(self) -> None:
        here = self._own()
        mapped = tuple(address for one in self._mappers if (address := one.state.address) is not None)
        if here != self._here:
            self._here, self._proven, self._was_reached = here, (), False
            self._ask_router()
            self._moved()
            self._doubt.set()
        if mapped != self._mapped:
            self._mapped = mapped
            self._doubt.set()
        addresses = self._ordered()
        if addresses != self.addresses:
            self.addresses = addresses
            self._changed(addresses)

    def _ordered(self) -> tuple[str, ...]:
        """Public addresses first, then what the router opened, then the LAN's, then relays."""
        public = [address for address in self._here if _is_public(address)]
        lan = [address for address in self._here if address not in public]
        mapped = map(str, self._mapped)
        relays = [f"{VIA}{peer_text(peer)}" for peer in self._relays[:RELAYS_MAX]]
        direct = dict.fromkeys((*public[:OWN_PUBLIC_MAX], *self._proven, *mapped, *lan))
        return (*list(direct)[: limits.ADDRESSES_MAX - len(relays)], *relays)

    # -- proving -------------------------------------------------------------------------------------

    async def _keep_proof(self) -> None:
        while True:
            await _pause(await self._ask_members(), self._doubt)

    async def _ask_members(self) -> Seconds:
        """Let members dial this node; returns how long that answer is good for."""
        here, mapped = self._here, self._mapped
        found = await self._prove(mapped[0].port if mapped else self._port)
        if found is None or (here, mapped) != (self._here, self._mapped):
            return ASK_AGAIN_S
        self._asked = True
        proven = tuple(filter(_is_public, found))[:PROVEN_MAX]
        if proven or not self._was_reached:
            self._proven = proven
        self._was_reached = bool(proven)
        self._look_soon()
        if proven:
            return TRUST_S
        if mapped:
            self._ask_router()  # routers forget what they promised
        return DOUBT_S if self._proven else TRUST_S


async def _pause(pause_s: Seconds, early: asyncio.Event) -> None:
    """Wait, or until something happens and has settled."""
    try:
        async with asyncio.timeout(pause_s):
            await early.wait()
    except TimeoutError:
        return
    await asyncio.sleep(SETTLE_S)
    early.clear()


def _is_public(address: str) -> bool:
    return is_public(parse_address(address).host)
