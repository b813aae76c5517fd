"""Frames for members that are not connected: they wait as long as one dial takes."""

from collections import OrderedDict, deque

from p2ptrain.core import limits
from p2ptrain.core.types import PeerId, Seconds

PEERS_MAX = 32
"""Dials that sending may have caused at once: news goes to a few addresses a second (research: net 4.3)."""

FRAMES_MAX = 16
"""Frames that wait for one of them, of 64 KiB at most: 32 MiB in all."""

REST_S: Seconds = 30.0
"""A member that was just dialled in vain is not dialled for a frame again (guess)."""


class Waiting:
    """Frames by peer, and the peers that were dialled in vain."""

    def __init__(self) -> None:
        self._frames: dict[PeerId, deque[bytes]] = {}
        self._vain: OrderedDict[PeerId, Seconds] = OrderedDict()

    def put(self, peer: PeerId, frame: bytes, now: Seconds) -> bool:
        """Keep a frame; the oldest gives way. False: it is lost, the peer was just tried or too many are."""
        if now < self._vain.get(peer, now):
            return False
        if peer not in self._frames and len(self._frames) >= PEERS_MAX:
            return False
        self._frames.setdefault(peer, deque(maxlen=FRAMES_MAX)).append(frame)
        return True

    def take(self, peer: PeerId) -> deque[bytes]:
        """The peer is connected: return what waited, in order."""
        self._vain.pop(peer, None)
        return self._frames.pop(peer, deque())

    def give_up(self, peer: PeerId, now: Seconds) -> int:
        """The peer was dialled in vain: return how many frames are lost."""
        self._vain[peer] = now + REST_S
        self._vain.move_to_end(peer)
        if len(self._vain) > limits.PEERS_MAX:
            self._vain.popitem(last=False)
        return len(self._frames.pop(peer, ()))
