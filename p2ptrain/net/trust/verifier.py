"""Says which signatures and which memberships are good: what `core.envelope` asks for."""

from collections import OrderedDict
from collections.abc import Callable

from p2ptrain.core import limits
from p2ptrain.core.errors import RemoteProtocolError
from p2ptrain.core.types import PeerId
from p2ptrain.net.trust.certificates import Clock, Member, check_member, wall_clock
from p2ptrain.net.trust.identity import verify


class SwarmVerifier:
    """Trusts one root.

    Args:
        root: its certificate, DER.
        refused: says whether the owner or the swarm turned a peer away.
        clock: certificates expire by it.
        distrusted: says whether certificates that a member issued are worth nothing.
    """

    def __init__(
        self,
        root: bytes,
        refused: Callable[[PeerId], bool],
        clock: Clock = wall_clock,
        distrusted: Callable[[PeerId], bool] = lambda _: False,
    ) -> None:
        self._root = root
        self._refused = refused
        self._clock = clock
        self._distrusted = distrusted
        self._vouched: OrderedDict[bytes, Member] = OrderedDict()

    def verify(self, peer: PeerId, signature: bytes, data: bytes) -> bool:
        """Say whether the peer signed the data."""
        return verify(peer, signature, data)

    def vouch(self, peer: PeerId, certificate: bytes) -> bool:
        """Say whether the certificate makes the peer a member of this swarm now."""
        if self._refused(peer):
            return False
        now = self._clock()
        known = self._vouched.get(certificate)
        if known is None or now >= known.expires:
            try:
                known = check_member(self._root, certificate, now)
            except RemoteProtocolError:
                return False
            self._vouched[certificate] = known
            if len(self._vouched) > limits.PEERS_MAX:
                self._vouched.popitem(last=False)
        self._vouched.move_to_end(certificate)
        return known.peer == peer and not (known.issuer and self._distrusted(known.issuer))
