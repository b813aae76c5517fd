"""Whether the other members still want this node: as the swarm's root says, or as far as they say it."""

from p2ptrain.core.types import PeerId

REVOKED = "the swarm revoked this membership"
"""Told to who is revoked, as the last word."""

TURNED_AWAY = "turned this computer away"
"""How a refused handshake ends, in `net.dialling`."""

REMEMBERED_MAX = 64

ASK = "ask whoever runs the swarm"
BY_ROOT = f"revoked: no member talks to this computer; {ASK}"
BY_A_MEMBER = f"alone: a member says that {REVOKED}; {ASK}"


class Rejections:
    """What was heard from those that did not want to be connected, since somebody last did."""

    def __init__(self) -> None:
        self._said: dict[PeerId, bool] = {}

    def welcomed(self) -> None:
        """Somebody is connected."""
        self._said.clear()

    def parted(self, peer: PeerId, reason: str) -> None:
        """A connection ended, or a dial failed."""
        if REVOKED in reason:
            self._said[peer] = True
        elif TURNED_AWAY in reason:
            self._said.setdefault(peer, False)
        if len(self._said) > REMEMBERED_MAX:
            del self._said[next(iter(self._said))]

    @property
    def words(self) -> str:
        """Why this node is alone; empty: nobody turned it away."""
        if any(self._said.values()):
            return BY_A_MEMBER
        if not self._said:
            return ""
        count = len(self._said)
        who = "a member" if count == 1 else f"{count} members"
        return f"alone: {who} {TURNED_AWAY}; perhaps it was revoked, or its certificate expired; {ASK}"
