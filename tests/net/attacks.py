"""Tools of an attacker: TLS that checks nothing, an impostor, and a wire that can be tapped and cut."""

import asyncio
import contextlib
import ssl
import tempfile

from p2ptrain.core.types import PeerId
from p2ptrain.net.trust.certificates import Membership, host_name
from p2ptrain.net.trust.identity import Identity

REQUESTS = (
    b"GET /v1/ws HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
)


def careless(
    protocol: int, identity: Identity | None = None, membership: Membership | None = None, *more: bytes
) -> ssl.SSLContext:
    """A context that takes anybody, and shows what it is given, with more authorities perhaps."""
    context = ssl.SSLContext(protocol)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    if identity and membership:
        chain = (membership.leaf, membership.issuer, *more)
        with tempfile.NamedTemporaryFile("w", suffix=".pem") as file:
            file.write("".join(ssl.DER_cert_to_PEM_cert(der) for der in chain))
            file.write(identity.private_pem().decode())
            file.flush()
            context.load_cert_chain(file.name)
    return context


async def knock(port: int, context: ssl.SSLContext | None, peer: PeerId, request: bytes = REQUESTS) -> bytes:
    """Connect, ask, and return every byte of an answer."""
    name = host_name(peer) if context else None
    answer = bytearray()
    with contextlib.suppress(OSError, TimeoutError):
        reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context, server_hostname=name)
        try:
            writer.write(request)
            async with asyncio.timeout(0.3):
                while piece := await reader.read(65536):
                    answer += piece
        finally:
            writer.transport.abort()
            with contextlib.suppress(OSError):
                await writer.wait_closed()
    return bytes(answer)


class Impostor:
    """Listens in somebody's place, keeps what it hears, and gives every request the same answer.

    lingers: leaves it to the other side to end the connection.
    """

    def __init__(self, context: ssl.SSLContext, answer: bytes = b"", *, lingers: bool = False) -> None:
        self.heard = b""
        self._lingers = lingers
        self._answer = answer
        self.greeted = 0
        self._context = context

    async def __aenter__(self) -> "Impostor":
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0, ssl=self._context)
        self.address = f"127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        await asyncio.sleep(0.02)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.greeted += 1
        with contextlib.suppress(OSError):
            while piece := await reader.read(65536):
                self.heard += piece
                if self._answer:
                    writer.write(self._answer)
                    await writer.drain()
                    if not self._lingers:
                        break
        writer.transport.abort()


class Wire:
    """A TCP relay between a dialler and a port: it can listen, go silent, get stuck, flip a bit, be cut."""

    def __init__(self, port: int) -> None:
        self.upstream = b""
        self.downstream = b""
        self.silent = False
        self.stuck = False
        self.flip_after = -1
        self.cut_after = -1
        self._port = port
        self._writers: list[asyncio.StreamWriter] = []
        self._tasks: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> "Wire":
        self._server = await asyncio.start_server(self._join, "127.0.0.1", 0)
        self.address = f"127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        self.cut()
        await asyncio.sleep(0.02)

    def cut(self) -> None:
        """End every connection at once, as a killed process does."""
        self.stuck = False
        for writer in self._writers:
            writer.transport.abort()

    async def _join(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self._port)
        self._writers += [writer, far_writer]
        await asyncio.gather(
            self._pump(reader, far_writer, up=True), self._pump(far_reader, writer, up=False)
        )

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, up: bool) -> None:
        with contextlib.suppress(OSError):
            while piece := await reader.read(65536):
                while self.stuck:
                    await asyncio.sleep(0.01)
                if self.silent:
                    continue
                if up:
                    self.upstream += piece
                else:
                    self.downstream += piece
                    if 0 <= self.cut_after < len(self.downstream):
                        self.cut()
                    if 0 <= self.flip_after < len(self.downstream):
                        piece = piece[:-1] + bytes([piece[-1] ^ 1])
                        self.flip_after = -1
                writer.write(piece)
                await writer.drain()
        if not self.silent:
            writer.transport.abort()
