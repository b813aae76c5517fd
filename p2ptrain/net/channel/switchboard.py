"""Which connection to each peer is used: one at a time, the better one where there are two."""

import asyncio
from collections.abc import Iterator
from functools import partial
from typing import Protocol

from p2ptrain.core.errors import Offence, RemoteProtocolError
from p2ptrain.core.types import PeerId, Seconds
from p2ptrain.net.channel.background import Background
from p2ptrain.net.channel.link import REPLACED, Ending, Link, are_simultaneous, is_better
from p2ptrain.net.channel.traffic import TrafficBook

RETIRED_S: Seconds = 0.5
"""A superseded connection is read that long: what was on its way arrives."""

RETIRED_RELAY_S: Seconds = 5.0
"""The same for one through a relay, in which more may be on its way (guess)."""


class Events(Protocol):
    """What a transport tells. It calls from its own tasks, never from inside its methods."""

    def peer_up(self, peer: PeerId) -> None:
        """A connection to a member stands."""

    def peer_down(self, peer: PeerId, reason: str) -> None:
        """It ended, or a dial failed."""

    def received(self, peer: PeerId, frame: bytes) -> None:
        """A frame came; nothing in it was looked at."""

    def offended(self, peer: PeerId, offence: Offence, detail: str) -> None:
        """The peer broke a rule of the transport; `peer_down` follows."""


class Switchboard:
    """The connections that stand.

    Args:
        events: is told what becomes of them.
        traffic: counts.
    """

    def __init__(self, events: Events, traffic: TrafficBook) -> None:
        self._events = events
        self._traffic = traffic
        self._links: dict[PeerId, Link] = {}
        self._running: set[Link] = set()
        self._background = Background()

    def link(self, peer: PeerId) -> Link | None:
        """Return the connection that a frame to a peer goes out on now."""
        link = self._links.get(peer)
        return link if link and link.ending is None else None

    def links(self) -> Iterator[Link]:
        """Return all of those."""
        return (link for link in self._links.values() if link.ending is None)

    def begin(self, link: Link, *, instead: bool = False) -> asyncio.Task[None]:
        """Use a new connection, unless another one to the same peer is the better.

        Args:
            link: the new one.
            instead: its dialler knows the other one, and the session goes on; else that one is lost.

        Returns:
            The task that ends with the connection.
        """
        peer, old = link.peer, self._links.get(link.peer)
        if old and old.ending is None and (instead or are_simultaneous(link, old)):
            if is_better(link, old):
                link.take_over(old)
                self._links[peer] = link
                self._retire(old)
            else:
                self._retire(link)
        else:
            if old:
                old.close(REPLACED, Ending.SUPERSEDED)
                self._down(old, old.ending or "")
            self._links[peer] = link
            self._events.peer_up(peer)
        return self._background.start(self._run(link))

    async def close(self, reason: str, patience_s: Seconds) -> None:
        """End all connections in order; those that take too long are cut."""
        for link in self._running:
            link.close(reason, Ending.LEAVING)
        await self._background.finish(patience_s)
        await self._background.cancel()

    async def _run(self, link: Link) -> None:
        reason = "this computer ended the connection"
        self._running.add(link)
        try:
            reason = await link.run(partial(self._received, link))
        except RemoteProtocolError as error:
            reason = error.offence
            self._events.offended(link.peer, error.offence, error.detail)
        finally:
            self._running.discard(link)
            self._down(link, reason)

    def _received(self, link: Link, frame: bytes) -> None:
        self._traffic.add("messages_down", link.peer, len(frame))
        if link.ending is None:
            self._events.received(link.peer, frame)

    def _down(self, link: Link, reason: str) -> None:
        if self._links.get(link.peer) is link:
            del self._links[link.peer]
            self._events.peer_down(link.peer, reason)

    def _retire(self, link: Link) -> None:
        after_s = RETIRED_RELAY_S if link.is_relayed else RETIRED_S
        asyncio.get_running_loop().call_later(
            after_s, link.close, "one connection is enough", Ending.SUPERSEDED
        )
