"""Says which signatures and which memberships are good: what `core.envelope` asks for."""

from collections import OrderedDict
from collections.abc import Callable
from datetime import datetime

from p2ptrain.core import limits
from p2ptrain.core.errors import RemoteProtocolError
from p2ptrain.core.types import PeerId
from p2ptrain.net.certificates import Clock, check_member, wall_clock
from p2ptrain.net.identity import verify


class SwarmVerifier:
    """Trusts one root.

    Args:
        root: its certificate, DER.
        refused: says whether the owner or the swarm turned a peer away.
        clock: certificates expire by it.
    """

    def __init__(self, root: bytes, refused: Callable[[PeerId], bool], clock: Clock = wall_clock) -> None:
        self._root = root
        self._refused = refused
        self._clock = clock
        self._vouched: OrderedDict[bytes, tuple[PeerId, datetime]] = OrderedDict()

    def verify(self, peer: PeerId, signature: bytes, data: bytes) -> bool:
        """Say whether the peer signed the data."""
        return verify(peer, signature, data)

    def vouch(self, peer: PeerId, certificate: bytes) -> bool:
        """Say whether the certificate makes the peer a member of this swarm now."""
        if self._refused(peer):
            return False
        now = self._clock()
        known = self._vouched.get(certificate)
        if known is None or now >= known[1]:
            try:
                member = check_member(self._root, certificate, now)
            except RemoteProtocolError:
                return False
            known = self._vouched[certificate] = (member.peer, member.expires)
            if len(self._vouched) > limits.PEERS_MAX:
                self._vouched.popitem(last=False)
        self._vouched.move_to_end(certificate)
        return known[0] == peer
