"""How peers meet that cannot dial each other: the parts on every side of a call, put together."""

import socket
from collections.abc import Callable, Sequence
from random import Random
from typing import Protocol

from aiohttp import web

from p2ptrain.core.types import PeerId
from p2ptrain.net.addresses import AddressBook
from p2ptrain.net.channel.background import Background
from p2ptrain.net.channel.preamble import Arrivals
from p2ptrain.net.reach.ask import Asker
from p2ptrain.net.relay.called import Called
from p2ptrain.net.relay.calling import Caller, PunchWay, RelayWay, ReverseWay
from p2ptrain.net.relay.legs import Legs, Line
from p2ptrain.net.relay.meeting import Observed, Punch
from p2ptrain.net.relay.reservation import RelaysChanged, Reservations
from p2ptrain.net.relay.server import Relay, RelayBounds
from p2ptrain.net.ways import Path, Way


class Lines(Asker, Line, Protocol):
    """What meeting needs of a transport."""


class Rendezvous:
    """Calls peers, is called, and passes calls on.

    Args:
        lines: reaches relays.
        book: says where peers are and at which relays they wait.
        refused: says whether a peer was turned away.
        opened: told of every socket.
        adopt: serves whoever is at the other end of a socket.
        punch: see `meeting`.
        observed: see `meeting`.
        bounds: what this node gives to others as a relay; None: it is none.
        rng: see `Reservations`.

    arrivals: where a listener hands over what begins with a preamble.
    relay: None: this node is none.
    own: says where this node can be dialled, for peers that are asked to; set by who knows.
    candidates: see `Reservations`; set by who knows.
    changed: told at which relays this node waits; set by who tells others.
    """

    def __init__(
        self,
        lines: Lines,
        book: AddressBook,
        *,
        refused: Callable[[PeerId], bool],
        opened: Callable[[socket.socket], None],
        adopt: Callable[[socket.socket, Path], None],
        punch: Punch,
        observed: Observed,
        bounds: RelayBounds | None,
        rng: Random,
    ) -> None:
        self.own: Callable[[], Sequence[str]] = tuple
        self.candidates: Callable[[], Sequence[PeerId]] = tuple
        self.changed: RelaysChanged = lambda _: None
        self.arrivals = Arrivals()
        self.relay = None if bounds is None else Relay(self.arrivals, refused, bounds, opened)
        self._legs = Legs(lines, book.addresses_of, opened)
        self._called = Called(
            self.arrivals,
            self._legs,
            adopt,
            allow=book.allow,
            refused=refused,
            punch=punch,
            observed=observed,
            opened=opened,
        )
        self.reservations = Reservations(
            lines,
            self._called.answer,
            lambda: self.candidates(),
            lambda relays: self.changed(relays),
            rng,
        )
        caller = Caller(lines, book.relays_of)
        self.ways: tuple[Way, ...] = (
            ReverseWay(caller, self.arrivals, lambda: self.own()),
            PunchWay(caller, self.arrivals, book.allow, punch, observed),
            RelayWay(caller, self._legs),
        )
        self._background = Background()

    def routes(self) -> list[web.RouteDef]:
        """Return what the HTTP server needs."""
        return self.relay.routes() if self.relay else []

    def start(self) -> None:
        """Wait at relays from now on, while there are candidates."""
        self._background.start(self.reservations.run())

    async def close(self) -> None:
        """Call nobody, leave the relays, and end what this one carries."""
        await self._background.cancel()
        await self.reservations.close()
        await self._called.close()
        if self.relay:
            await self.relay.close()
        await self._legs.close()
