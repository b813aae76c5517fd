"""The swarm's state: what its root decided since it was founded, the same everywhere, and only ever newer.

     0  64 signature by the root of `STATE_DOMAIN` and the rest
    64   … msgpack of a `SwarmState`

Whoever holds these bytes can pass them on; nobody but the root can make them. Pure: no sockets, no files.
"""

from collections.abc import Callable
from datetime import datetime
from typing import Annotated

import msgspec
from msgspec import Meta, Struct

from p2ptrain.core.errors import ConfigError, Offence, RemoteProtocolError
from p2ptrain.core.types import PeerId, short
from p2ptrain.net.trust.authority import Root
from p2ptrain.net.trust.certificates import read_delegate
from p2ptrain.net.trust.identity import verify

STATE_DOMAIN = b"p2ptrain-state-v1\0"

REVOKED_PEERS_MAX = 1024
"""A tenth of the largest swarm (guess)."""

REVOKED_INVITES_MAX = 512
"""Those that have not expired yet (guess)."""

STATE_BYTES_MAX = 64 * 1024
"""All lists full take 62 KiB."""

DELEGATES_MAX = 16
"""More issuers than a swarm needs to have one on at any time (guess)."""

DELEGATE_BYTES_MAX = 640
"""A certificate that lets a member issue takes about 420 bytes."""

_SIGNATURE_BYTES = 64

Key = Annotated[bytes, Meta(min_length=32, max_length=32)]


class SwarmState(Struct, frozen=True, array_like=True):
    """What the root says. Fields are only ever appended.

    version: the highest counts; 0: the root has said nothing yet.
    peers: members that are members no more, for ever or until they are taken off the list.
    invites: keys of invites that admit nobody any more.
    issuers: certificates, DER, by which members may issue with their own keys.
    """

    version: Annotated[int, Meta(ge=0, le=1 << 53)] = 0
    peers: Annotated[tuple[Key, ...], Meta(max_length=REVOKED_PEERS_MAX)] = ()
    invites: Annotated[tuple[Key, ...], Meta(max_length=REVOKED_INVITES_MAX)] = ()
    issuers: Annotated[
        tuple[Annotated[bytes, Meta(max_length=DELEGATE_BYTES_MAX)], ...], Meta(max_length=DELEGATES_MAX)
    ] = ()

    @property
    def revoked(self) -> frozenset[PeerId]:
        """The members that are none any more."""
        return frozenset(PeerId(peer) for peer in self.peers)

    def revoke(self, peer: PeerId) -> "SwarmState":
        """Turn a member away.

        Raises:
            ConfigError: the list is full.
        """
        if len(self.peers) >= REVOKED_PEERS_MAX and peer not in self.peers:
            raise ConfigError(
                f"this swarm has revoked {REVOKED_PEERS_MAX} members: no more fit",
                "make a new swarm and invite those who are to stay",
            )
        issuers = tuple(one for one in self.issuers if read_delegate(one) != peer)
        return msgspec.structs.replace(self, peers=_with(self.peers, peer), issuers=issuers)

    def readmit(self, peer: PeerId) -> "SwarmState":
        """Let a member be one again."""
        return msgspec.structs.replace(self, peers=tuple(one for one in self.peers if one != peer))

    @property
    def delegates(self) -> dict[PeerId, bytes]:
        """The members that may issue, and by which certificates."""
        return {read_delegate(certificate): certificate for certificate in self.issuers}

    def delegate(self, certificate: bytes) -> "SwarmState":
        """Let a member issue, or go on to.

        Raises:
            ConfigError: the list is full, or it was revoked.
        """
        peer = read_delegate(certificate)
        others = tuple(one for one in self.issuers if read_delegate(one) != peer)
        if peer in self.revoked:
            raise ConfigError(f"{short(peer)} was revoked", "take that back first: `swarm revoke … --undo`")
        if len(others) >= DELEGATES_MAX:
            raise ConfigError(f"{DELEGATES_MAX} members may issue: no more fit", "revoke one of them first")
        return msgspec.structs.replace(self, issuers=(*others, certificate))

    def revoke_invite(self, key: bytes) -> "SwarmState":
        """Let an invite admit nobody any more, by its key; the oldest of too many has expired long ago."""
        return msgspec.structs.replace(self, invites=_with(self.invites, key)[-REVOKED_INVITES_MAX:])


def sign_state(root: Root, state: SwarmState, before: SwarmState, now: datetime) -> bytes:
    """Sign a new state.

    Args:
        root: of the swarm.
        state: its version does not matter.
        before: the state that it replaces.
        now: the version grows with the time of day too, should `before` be lost.
    """
    version = max(before.version + 1, int(now.timestamp()))
    data = msgspec.msgpack.encode(msgspec.structs.replace(state, version=version))
    raw = root.sign(STATE_DOMAIN + data) + data
    assert len(raw) <= STATE_BYTES_MAX
    return raw


def read_state(root_key: bytes, raw: bytes) -> SwarmState:
    """Open a signed state; no bytes at all are the state of a swarm whose root has said nothing yet.

    Raises:
        RemoteProtocolError: it is too long, not signed by the root, or cannot be read.
    """
    if not raw:
        return SwarmState()
    if len(raw) > STATE_BYTES_MAX:
        raise RemoteProtocolError(Offence.OVERSIZED, f"a state of {len(raw)} bytes")
    signature, data = raw[:_SIGNATURE_BYTES], raw[_SIGNATURE_BYTES:]
    if not verify(root_key, signature, STATE_DOMAIN + data):
        raise RemoteProtocolError(Offence.FORGED, "a state that the root did not sign")
    try:
        state = msgspec.msgpack.decode(data, type=SwarmState)
        for certificate in state.issuers:
            read_delegate(certificate)
        return state
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise RemoteProtocolError(Offence.MALFORMED, "a state that cannot be read") from None


def is_newer(root_key: bytes, raw: bytes, than: bytes) -> bool:
    """Say whether a signed state replaces another.

    Equal versions are ordered by their bytes: a root key that was copied must not split the swarm.

    Raises:
        RemoteProtocolError: one of them is none, see `read_state`.
    """
    return (read_state(root_key, raw).version, raw) > (read_state(root_key, than).version, than)


class StateKeeper:
    """Holds the newest state that was seen.

    Args:
        root_key: of the swarm, 32 bytes.
        raw: as it was when the daemon stopped; empty: none.
        save: makes it last on disk.
        changed: told after a newer one was taken.

    raw: the signed bytes, to be passed on as they came.
    revoked: the members that are none any more.
    """

    def __init__(
        self,
        root_key: bytes,
        raw: bytes,
        save: Callable[[bytes], None],
        changed: Callable[[], None] = lambda: None,
    ) -> None:
        self.raw = raw
        self.state = read_state(root_key, raw)
        self.changed = changed
        self._root_key = root_key
        self._save = save
        self.revoked = self.state.revoked

    def take(self, raw: bytes) -> bool:
        """Take a state if it is newer; say whether it was.

        Raises:
            RemoteProtocolError: it is not of this swarm's root.
            OSError: it counts from now on, but could not be saved.
        """
        if raw == self.raw:
            return False
        if not is_newer(self._root_key, raw, self.raw):
            return False
        self.raw, self.state = raw, read_state(self._root_key, raw)
        self.revoked = self.state.revoked
        try:
            self._save(raw)
        finally:
            self.changed()
        return True

    def revokes(self, peer: PeerId) -> bool:
        """Say whether the root turned a peer away."""
        return peer in self.revoked

    def describe(self) -> str:
        """Say what the state says, for the owner."""
        names = ", ".join(short(PeerId(peer)) for peer in self.state.peers[:8])
        more = ", …" if len(self.state.peers) > 8 else ""
        return f"state {self.state.version} of the swarm: revoked are {names or 'nobody'}{more}"


def _with(keys: tuple[bytes, ...], key: bytes) -> tuple[bytes, ...]:
    return keys if key in keys else (*keys, bytes(key))
