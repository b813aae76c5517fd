"""What stands in for cryptography that would take nine tenths of the time, and what does not.

Stands in: the bytes of TLS. Both ends show the very certificates of their contexts, in the order, with the
round trips and with the first byte of TLS 1.3, in the clear; the chain is followed by `check_member` to the
context's own root, and the pin of `net/trust/tls.py` decides, unchanged. Whoever shows a certificate is
believed to have its key. Signatures of messages are keyed hashes, as in `sim/keys.py`.
Does not: certificates, the manifest, the swarm's state, invites and knocks are signed with Ed25519.

Runs with `real=True` leave all of it to OpenSSL.
"""

import asyncio
import hashlib
import ssl
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import Any
from unittest.mock import patch

import msgspec

from p2ptrain.core.errors import RemoteProtocolError
from p2ptrain.core.types import PeerId
from p2ptrain.net.trust import tls, verifier
from p2ptrain.net.trust.certificates import Chain, check_member, wall_clock
from p2ptrain.net.trust.identity import Identity
from tests.whole.loop import VirtualLoop

_HEAD = struct.Struct(">BHH")
"""As a TLS record begins: type 22, version, length."""

NOBODY = b""


class _Context(tls.PeerContext):
    """A context that remembers what it was given."""

    chain = NOBODY
    root = b""

    def load_cert_chain(self, certfile: Any, keyfile: Any = None, password: Any = None) -> None:
        super().load_cert_chain(certfile, keyfile, password)
        with open(certfile) as file:
            parts = file.read().split("-----END CERTIFICATE-----")
        leaf, issuer = (ssl.PEM_cert_to_DER_cert(part.strip() + "\n" + _END) for part in parts[:2])
        self.chain = msgspec.msgpack.encode(Chain(leaf, issuer))

    def load_verify_locations(self, cafile: Any = None, capath: Any = None, cadata: Any = None) -> None:
        super().load_verify_locations(cafile, capath, cadata)
        self.root = cadata


_END = "-----END CERTIFICATE-----"


@lru_cache(maxsize=4096)
def _follow(root: bytes, chain: bytes) -> None:
    check_member(root, chain, wall_clock())


class _Object(tls.PeerObject):
    """What asyncio would show of a TLS connection."""

    context: Any = None
    server_side: Any = False
    server_hostname: Any = None
    shown = NOBODY

    def getpeercert(self, binary_form: bool = False) -> Any:
        return msgspec.msgpack.decode(self.shown, type=Chain).leaf if self.shown else None

    def prove(self) -> None:
        """Judge what the other side showed, as OpenSSL and then the product do."""
        demands = self.context.verify_mode
        if demands != ssl.CERT_NONE and self.shown:
            try:
                _follow(self.context.root, self.shown)
            except RemoteProtocolError as error:
                raise ssl.SSLCertVerificationError(error.detail) from None
        self.peer = tls._proved_peer(self)


class _Handshake(asyncio.Protocol):
    """Shakes hands, and gives the connection to whom it is for.

    client: hello with the name it wants -> server: its chain -> client: its own, and what it has to say
    """

    def __init__(
        self,
        loop: VirtualLoop,
        protocol: Any,
        context: Any,
        waiter: Any,
        server_side: bool,
        name: Any,
        limit_s: Any,
    ) -> None:
        self._loop = loop
        self._protocol = protocol
        self._waiter = waiter
        self._transport: Any = None
        self._data = b""
        self._greeted = False
        self._limit_s = limit_s or 60.0
        self._timer: asyncio.TimerHandle | None = None
        self.object = _Object.__new__(_Object)
        self.object.context, self.object.server_side, self.object.server_hostname = context, server_side, name

    def connection_made(self, transport: Any) -> None:
        self._transport = transport
        self._timer = self._loop.call_later(self._limit_s, self._give_up)
        if not self.object.server_side:
            self._say((self.object.server_hostname or "").encode())

    def data_received(self, data: bytes) -> None:
        self._data += data
        while len(self._data) >= _HEAD.size and not self._done():
            kind, _, size = _HEAD.unpack_from(self._data)
            if kind != 22:
                self._fail(ssl.SSLError(1, "[SSL] record layer failure"))
                return
            if len(self._data) < _HEAD.size + size:
                return
            said = self._data[_HEAD.size : _HEAD.size + size]
            self._data = self._data[_HEAD.size + size :]
            self._hear(said)

    def eof_received(self) -> None:
        self._fail(ConnectionResetError("the connection ended during the handshake"))

    def connection_lost(self, error: BaseException | None) -> None:
        self._fail(error or ConnectionResetError("the connection ended during the handshake"))

    def _hear(self, said: bytes) -> None:
        server = self.object.server_side
        if server and not self._greeted:
            self._greeted = True
            self._say(self.object.context.chain)
            return
        self.object.shown = said
        try:
            self.object.prove()
        except ssl.SSLError as error:
            self._fail(error)
            return
        if not server:
            self._say(self.object.context.chain)
        self._finish()

    def _say(self, data: bytes) -> None:
        self._transport.write(_HEAD.pack(22, 0x0303, len(data)) + data)

    def _finish(self) -> None:
        transport, rest = self._transport, self._data
        self._settle()
        transport._extra.update(ssl_object=self.object, sslcontext=self.object.context)
        transport.set_protocol(self._protocol)
        self._protocol.connection_made(transport)
        if not self._waiter.done():
            self._waiter.set_result(None)
        if rest and not transport.is_closing():
            self._protocol.data_received(rest)

    def _fail(self, error: BaseException) -> None:
        if self._done():
            return
        self._settle()
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_exception(error)
        if self._transport is not None:
            self._transport.abort()

    def _give_up(self) -> None:
        self._fail(ConnectionAbortedError("SSL handshake is taking longer than it may"))

    def _done(self) -> bool:
        return self._timer is None

    def _settle(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = None


def make_transport(loop: VirtualLoop) -> Callable[..., asyncio.Transport]:
    """Return what makes a connection that looks like TLS."""

    def make(
        rawsock: Any,
        protocol: Any,
        sslcontext: Any,
        waiter: Any = None,
        *,
        server_side: bool = False,
        server_hostname: str | None = None,
        extra: Any = None,
        server: Any = None,
        ssl_handshake_timeout: float | None = None,
        ssl_shutdown_timeout: float | None = None,
    ) -> asyncio.Transport:
        handshake = _Handshake(
            loop, protocol, sslcontext, waiter, server_side, server_hostname, ssl_handshake_timeout
        )
        transport = loop._make_socket_transport(rawsock, handshake, extra=extra, server=server)  # type: ignore[attr-defined]
        transport._extra["ssl_object"] = handshake.object
        return transport  # type: ignore[no-any-return]

    return make


def _tag(peer: PeerId, data: bytes) -> bytes:
    return hashlib.blake2b(data, digest_size=64, key=peer).digest()


def _sign(identity: Identity, data: bytes) -> bytes:
    return _tag(identity.peer, data)


def _verify(peer: PeerId, signature: bytes, data: bytes) -> bool:
    return _tag(peer, data) == signature


@contextmanager
def cheap(loop: VirtualLoop) -> Iterator[None]:
    """Let the stand-ins do the work of TLS and of message signatures."""
    loop.tls = make_transport(loop)
    with (
        patch.object(tls, "PeerContext", _Context),
        patch.object(Identity, "sign", _sign),
        patch.object(verifier, "verify", _verify),
        patch.object(tls, "read_leaf", lru_cache(maxsize=4096)(tls.read_leaf)),
    ):
        yield
