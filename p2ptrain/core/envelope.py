"""The border: signed bytes outside, verified messages inside.

    P2 | version | kind | sender 32 | signature 64 | boot u64 | sequence u64 | message

The signature covers a domain string, the swarm, version, kind, sender and everything after it: the
bytes as they came, never a re-encoding. `boot` grows with each start of the sender, `sequence` with
each message.
"""

import struct
from collections import OrderedDict
from typing import Any, Generic, Protocol, TypeVar

from msgspec import Struct

from p2ptrain.core import limits
from p2ptrain.core.codec import Codec
from p2ptrain.core.errors import Offence, RemoteProtocolError
from p2ptrain.core.messages import CARRIES, STATEMENTS, Contact, Message
from p2ptrain.core.types import PeerId, SwarmId

VERSION = 1
DOMAIN = b"p2ptrain-msg-v1\0"
_HEAD = struct.Struct(">2sBB32s")
_SIGNATURE_BYTES = 64
_ORDER = struct.Struct(">QQ")
_BODY_AT = _HEAD.size + _SIGNATURE_BYTES
_MESSAGE_AT = _BODY_AT + _ORDER.size

M = TypeVar("M", bound=Message, covariant=True)


class Verified(Struct, Generic[M], frozen=True):
    """A message whose author, form and numbers were checked.

    raw: the envelope as it came, for passing on.
    carried: the statements of others inside, verified too.
    """

    sender: PeerId
    boot: int
    sequence: int
    message: M
    raw: bytes
    carried: tuple["Verified[Any]", ...] = ()


Opened = OrderedDict[bytes, Verified[Message]]
"""Statements by their bytes."""


class Signer(Protocol):
    """Holds a private key."""

    peer: PeerId

    def sign(self, data: bytes) -> bytes:
        """Return a 64-byte signature."""
        ...


class Verifier(Protocol):
    """Knows what makes a signature and a membership good."""

    def verify(self, peer: PeerId, signature: bytes, data: bytes) -> bool:
        """Say whether the peer signed the data."""
        ...

    def vouch(self, peer: PeerId, certificate: bytes) -> bool:
        """Say whether the certificate makes the peer a member of this swarm now."""
        ...


class Sealer:
    """Puts own messages into envelopes."""

    __slots__ = ("_boot", "_codec", "_domain", "_sequence", "_signer", "peer")

    def __init__(self, signer: Signer, swarm: SwarmId, codec: Codec, boot: int) -> None:
        self.peer = signer.peer
        self._signer = signer
        self._domain = DOMAIN + swarm
        self._codec = codec
        self._boot = boot
        self._sequence = 0

    def seal(self, message: Message) -> Verified[Message]:
        """Sign a message; the result's `raw` goes on the wire."""
        kind, data = self._codec.encode(message)
        self._sequence += 1
        head = _HEAD.pack(b"P2", VERSION, kind, self.peer)
        body = _ORDER.pack(self._boot, self._sequence) + data
        signature = self._signer.sign(self._domain + head[2:] + body)
        return Verified(self.peer, self._boot, self._sequence, message, head + signature + body)


class Opener:
    """Takes envelopes apart. Whatever passes may enter the core.

    `opened` may be shared by the nodes of a simulation: what a statement means depends on its bytes only.
    """

    __slots__ = ("_codec", "_domain", "_opened", "_replays", "_verifier")

    def __init__(
        self, verifier: Verifier, swarm: SwarmId, codec: Codec, opened: "Opened | None" = None
    ) -> None:
        self._verifier = verifier
        self._domain = DOMAIN + swarm
        self._codec = codec
        self._replays = ReplayGuard()
        self._opened: Opened = OrderedDict() if opened is None else opened

    def receive(self, raw: bytes, via: PeerId) -> Verified[Message] | None:
        """Open what a neighbour sent, or return None for a message that only newer versions know.

        Raises:
            RemoteProtocolError: anything is wrong with it; the neighbour is to be charged.
        """
        verified = self._open(raw)
        return self.admit(verified, via) if verified is not None else None

    def admit(self, verified: Verified[Message], via: PeerId) -> Verified[Message]:
        """Check what depends on the neighbour and on what came before; open what is carried.

        Raises:
            RemoteProtocolError: see `receive`.
        """
        sender, boot, sequence, message = verified.sender, verified.boot, verified.sequence, verified.message
        if sender != via:
            raise RemoteProtocolError(Offence.FORGED, "sent in another peer's name")
        if type(message) in STATEMENTS:
            raise RemoteProtocolError(Offence.MALFORMED, "a statement outside of any message")
        if not self._replays.fresh(via, boot, sequence):
            raise RemoteProtocolError(Offence.REPLAYED, f"{boot}/{sequence}")
        kind = CARRIES.get(type(message))
        if kind is None:
            return verified
        carried, known = [], self._opened.get
        for inner in getattr(message, "carried", ()):
            statement = known(inner)
            if statement is None or type(statement.message) is not kind:
                statement = self._open_carried(inner, kind)
            if statement is not None:
                carried.append(statement)
        return Verified(sender, boot, sequence, message, verified.raw, tuple(carried))

    def open_statement(self, raw: bytes) -> Verified[Message]:
        """Open a statement that somebody passed on. Repeats are recognised without checking again."""
        known = self._opened.get(raw)
        if known is not None:
            return known
        verified = self._open(raw)
        if verified is None or type(verified.message) not in STATEMENTS:
            raise RemoteProtocolError(Offence.MALFORMED, "carries something that is no statement")
        if isinstance(verified.message, Contact) and not self._verifier.vouch(
            verified.sender, verified.message.certificate
        ):
            raise RemoteProtocolError(Offence.FOREIGN, "a contact without membership")
        remember(self._opened, verified)
        return verified

    def _open_carried(self, raw: bytes, kind: type[Message]) -> Verified[Message] | None:
        """Open a statement of the kind that belongs there; None for a contact that does not count here.

        It may have expired, or be of somebody refused here: that is no fault of who passes it on.
        """
        try:
            statement = self.open_statement(raw)
        except RemoteProtocolError as error:
            if error.offence is Offence.FOREIGN:
                return None
            raise
        if type(statement.message) is not kind:
            raise RemoteProtocolError(Offence.MALFORMED, "carries a statement of another kind")
        return statement

    def _open(self, raw: bytes) -> Verified[Message] | None:
        if len(raw) > limits.FRAME_BYTES_MAX:
            raise RemoteProtocolError(Offence.OVERSIZED, f"{len(raw)} bytes")
        if len(raw) < _MESSAGE_AT:
            raise RemoteProtocolError(Offence.MALFORMED, "shorter than an envelope")
        magic, version, kind, sender = _HEAD.unpack_from(raw)
        if magic != b"P2":
            raise RemoteProtocolError(Offence.MALFORMED, "not a p2ptrain message")
        if version != VERSION:
            return None
        peer = PeerId(sender)
        signature = raw[_HEAD.size : _BODY_AT]
        if not self._verifier.verify(peer, signature, self._domain + raw[2 : _HEAD.size] + raw[_BODY_AT:]):
            raise RemoteProtocolError(Offence.FORGED, "the signature does not match")
        message = self._codec.decode(kind, raw[_MESSAGE_AT:])
        if message is None:
            return None
        boot, sequence = _ORDER.unpack_from(raw, _BODY_AT)
        return Verified(peer, boot, sequence, message, raw)


def remember(opened: Opened, verified: Verified[Message]) -> None:
    """Keep an opened statement, so that the same bytes need not be checked again; the oldest goes first."""
    opened[verified.raw] = verified
    if len(opened) > limits.OPENED_MAX:
        opened.popitem(last=False)


def sender_of(raw: bytes) -> PeerId:
    """Return who claims to have written an envelope; nothing is checked."""
    return PeerId(_HEAD.unpack_from(raw)[3])


class ReplayGuard:
    """Lets each message of a peer through once: a sliding window per sender."""

    __slots__ = ("_windows",)

    def __init__(self) -> None:
        self._windows: dict[PeerId, tuple[int, int, int]] = {}

    def fresh(self, peer: PeerId, boot: int, sequence: int) -> bool:
        """Say whether this message is new, and remember it."""
        known_boot, top, seen = self._windows.get(peer, (-1, 0, 0))
        if boot < known_boot:
            return False
        if boot > known_boot:
            top, seen = sequence, 1
        elif sequence > top:
            shift = sequence - top
            seen = ((seen << shift) | 1) & _WINDOW_MASK if shift < limits.REPLAY_WINDOW else 1
            top = sequence
        else:
            bit = 1 << (top - sequence) if top - sequence < limits.REPLAY_WINDOW else 0
            if bit == 0 or seen & bit:
                return False
            seen |= bit
        self._windows[peer] = (boot, top, seen)
        if known_boot < 0 and len(self._windows) > limits.SENDERS_MAX:
            del self._windows[next(iter(self._windows))]
        return True


_WINDOW_MASK = (1 << limits.REPLAY_WINDOW) - 1
