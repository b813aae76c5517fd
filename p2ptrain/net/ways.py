"""Ways to a peer: how a TCP connection to it comes about, before any TLS, and how people are told."""

import socket
from typing import Literal, NamedTuple, Protocol

from p2ptrain.core.types import PeerId, short
from p2ptrain.net.addresses import Address

WayName = Literal["direct", "reverse", "punched", "relay"]
"""In the order in which they are tried."""


class Path(NamedTuple):
    """How a connection runs.

    way: how it came about.
    address: the other end of the TCP connection, which is the relay's if there is one; None: not known.
    relay: the member that passes everything on.
    """

    way: WayName
    address: Address | None = None
    relay: PeerId | None = None

    @property
    def is_relayed(self) -> bool:
        """Whether bytes take the detour through another member."""
        return self.way == "relay"

    def __str__(self) -> str:
        if self.relay:
            return f"relay through {short(self.relay)}"
        return f"{self.way} {self.address.host} port {self.address.port}" if self.address else self.way


class Opened(NamedTuple):
    """A connected, non-blocking TCP socket, over which this node does TLS as client."""

    socket: socket.socket
    path: Path


class WayError(OSError):
    """A way did not lead to the peer; the text says why, for people."""


class NoWayError(WayError):
    """A way was not tried, which says nothing of the peer: nothing is known that it could begin with."""


class Way(Protocol):
    """One way to reach peers.

    Whoever opened the socket gives it away with the answer; an `open` that is cancelled or fails leaves
    none behind.
    """

    @property
    def name(self) -> WayName:
        """Which of the ways this is."""
        ...

    async def open(self, peer: PeerId) -> Opened:
        """Bring a connection to a peer.

        Raises:
            OSError: not in this way; `WayError` says more than a number.
            NoWayError: at once.
        """
        ...
