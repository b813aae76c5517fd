"""What this node does when it is called: it goes to meet the caller, and then serves it like anybody."""

import asyncio
import socket
from collections.abc import Callable, Coroutine, Sequence
from functools import partial
from typing import Any

from p2ptrain.core import limits
from p2ptrain.core.types import PeerId, Seconds
from p2ptrain.net.addresses import Address, AddressFilter
from p2ptrain.net.channel.background import Background
from p2ptrain.net.channel.preamble import Arrival, Arrivals, Kind, Preamble
from p2ptrain.net.channel.rates import Buckets
from p2ptrain.net.reach.race import race
from p2ptrain.net.relay.calls import Call, Reply, usable
from p2ptrain.net.relay.legs import Legs, dial, far_end
from p2ptrain.net.relay.meeting import Observed, Punch, meet
from p2ptrain.net.ways import Path

CALLS_PER_S = 0.2
CALLS_BURST = 12
"""By one caller: three ways for each of four connections, then 12 a minute (guess)."""

CALLERS_MAX = 1024
"""Callers whose calls are counted: of those that a relay lets through."""

MEETINGS_MAX = 16
"""Calls that are being answered: each may dial some addresses for some seconds."""

ADDRESSES_MAX = 4
"""Addresses of one caller that are dialled."""

DIAL_S: Seconds = 5.0
"""For all of them; less than a token is good for."""

STAGGER_S: Seconds = 0.3


class Called:
    """Answers calls.

    Args:
        arrivals: where a caller may come in while it is met.
        legs: opens ends of relayed connections.
        adopt: serves whoever is at the other end of a socket.
        allow: says which addresses may be dialled.
        refused: says whether a peer was turned away.
        punch: see `meeting`.
        observed: see `meeting`.
        opened: told of every socket.
    """

    def __init__(
        self,
        arrivals: Arrivals,
        legs: Legs,
        adopt: Callable[[socket.socket, Path], None],
        *,
        allow: AddressFilter,
        refused: Callable[[PeerId], bool],
        punch: Punch,
        observed: Observed,
        opened: Callable[[socket.socket], None],
    ) -> None:
        self._arrivals = arrivals
        self._legs = legs
        self._adopt = adopt
        self._allow = allow
        self._refused = refused
        self._punch = punch
        self._observed = observed
        self._opened = opened
        self._rates = Buckets(CALLS_PER_S, CALLS_BURST, CALLERS_MAX)
        self._meetings = 0
        self._background = Background()

    async def answer(self, relay: PeerId, call: Call) -> Reply:
        """Say whether this node comes, and then go: `adopt` is called if they meet."""
        caller, no = PeerId(call.caller), Reply(call.number, agreed=False)
        if self._refused(caller) or self._meetings >= MEETINGS_MAX:
            return no
        if not self._rates.take(caller, asyncio.get_running_loop().time()):
            return no
        targets = usable(call.ask.addresses, self._allow)[:ADDRESSES_MAX]
        match call.ask.way:
            case "relay":
                self._go(self._join(relay, call.ask.token))
                return Reply(call.number, agreed=True)
            case "reverse" if targets:
                self._go(self._dial(targets, Preamble(Kind.REVERSE, call.ask.token)))
                return Reply(call.number, agreed=True)
            case "punch" if targets:
                return await self._agree(call, targets) or no
            case _:
                return no

    async def close(self) -> None:
        """Go nowhere any more."""
        await self._background.cancel()

    async def _agree(self, call: Call, targets: Sequence[Address]) -> Reply | None:
        """Begin to dial and to be dialled, if this node knows where others see it."""
        if not (here := await self._observed()):
            return None
        try:
            arrival = self._arrivals.expect(Kind.PUNCH, call.ask.token)
        except OSError:
            return None
        self._go(self._meet(arrival, targets)).add_done_callback(lambda _: arrival.close())
        return Reply(call.number, agreed=True, addresses=tuple(map(str, here))[: limits.ADDRESSES_MAX])

    def _go(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        self._meetings += 1
        task = self._background.start(work)
        task.add_done_callback(self._gone)
        return task

    def _gone(self, task: asyncio.Task[None]) -> None:
        self._meetings -= 1
        if not task.cancelled() and (error := task.exception()) and not isinstance(error, OSError):
            raise error

    async def _join(self, relay: PeerId, token: bytes) -> None:
        connection = await self._legs.open(relay, token)
        self._adopt(connection, Path("relay", far_end(connection), relay))

    async def _dial(self, targets: Sequence[Address], preamble: Preamble) -> None:
        async with asyncio.timeout(DIAL_S):
            dials = [partial(dial, target, preamble, self._opened) for target in targets]
            connection = await race(dials, STAGGER_S, lambda _: None, socket.socket.close)
        if connection:
            self._adopt(connection, Path("reverse", far_end(connection)))

    async def _meet(self, arrival: Arrival, targets: Sequence[Address]) -> None:
        connection = await meet(arrival, self._punch, targets)
        self._adopt(connection, Path("punched", far_end(connection)))
