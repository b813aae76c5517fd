"""What the three ways to ask a router for an open port have in common."""

import asyncio
from collections.abc import Callable
from typing import Any, Protocol, TypeVar

from msgspec import Struct

from p2ptrain.core.types import Seconds
from p2ptrain.net.addresses import Address
from p2ptrain.net.router.gateway import Gateway

T = TypeVar("T")

LEASE_S = 7200
"""A router forgets a port this long after it was last asked for (RFC 6886 3.3; research: net 3.2)."""

PATIENCE_S: Seconds = 3.0
"""For each question. A router answers in 24 to 90 ms (research: net 3.2)."""

SECOND_TRY_S: Seconds = 0.25
"""A lost datagram is sent again after this, then after twice as much, and so on (RFC 6886 3.1)."""


class MappingError(Exception):
    """The router opened no port. The text says why and continues a sentence: `UPnP: no answer`."""


class Grant(Struct, frozen=True):
    """A port that the router opened.

    address: where the internet finds this node, as far as the router knows.
    lease_s: so long, if it is not asked again.
    """

    address: Address
    lease_s: int


class MappingProtocol(Protocol):
    """One way to ask. All methods raise MappingError."""

    name: str

    async def probe(self) -> None:
        """Find out whether the router speaks this, and change nothing."""
        ...

    async def open(self, port: int, wanted: int) -> Grant:
        """Open this computer's TCP port, or keep it open; `wanted`: the port outside, if it is free."""
        ...

    async def close(self, port: int, outside: int) -> None:
        """Close the port again."""
        ...


class _Ear(asyncio.DatagramProtocol):
    """Waits for the one datagram that is an answer."""

    def __init__(self, read: Callable[[bytes], Any]) -> None:
        self._read = read
        self.answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()

    def datagram_received(self, data: bytes, addr: Any) -> None:
        if self.answer.done():
            return
        try:
            answer = self._read(data)
        except MappingError as error:
            self.answer.set_exception(error)
            return
        if answer is not None:
            self.answer.set_result(answer)

    def error_received(self, exc: Exception) -> None:
        if not self.answer.done():
            self.answer.set_exception(MappingError("refused"))


async def ask(gateway: Gateway, port: int, question: bytes, read: Callable[[bytes], T | None]) -> T:
    """Ask the gateway by UDP, again where nothing comes back; the system drops what others send.

    Args:
        gateway: who is asked.
        port: UDP.
        question: one datagram.
        read: reads an answer; None: it is not the answer to this question.

    Raises:
        MappingError: no answer, or what `read` raised.
    """
    loop = asyncio.get_running_loop()
    try:
        transport, ear = await loop.create_datagram_endpoint(
            lambda: _Ear(read), local_addr=(gateway.own, 0), remote_addr=(gateway.host, port)
        )
    except OSError as error:
        raise MappingError(f"not sent: {error.strerror or error}") from None
    pause = SECOND_TRY_S
    try:
        async with asyncio.timeout(PATIENCE_S):
            while not ear.answer.done():
                transport.sendto(question)
                await asyncio.wait([ear.answer], timeout=pause)
                pause *= 2
            return await ear.answer  # type: ignore[no-any-return]
    except TimeoutError:
        raise MappingError("no answer") from None
    finally:
        transport.close()
        ear.answer.cancel()
