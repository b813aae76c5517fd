"""A world in which a message needs a connection, as on the internet: dialled, kept, ended, cut by a crash."""

from collections.abc import Sequence
from typing import Any

from p2ptrain.core.envelope import Verified
from p2ptrain.core.inputs import PeerDown, PeerUp
from p2ptrain.core.messages import Message
from p2ptrain.core.node import Setup
from p2ptrain.core.types import PeerId, Seconds
from p2ptrain.sim.faults import Faults
from p2ptrain.sim.host import Host
from p2ptrain.sim.world import HEARTBEAT_S, NO_ANSWER_S, MakeLearner, World

HANDSHAKE_TRIPS = 4
"""TCP and TLS, one way each (RFC 8446)."""


class LinedWorld(World):
    """Hosts with lines between them. A line loses nothing and keeps the order of what it carries.

    arrivals: the two directions of each line; when what was sent last arrives.
    frames: by kind of message, counted as they arrive.
    """

    def __init__(
        self, setups: Sequence[Setup], faults: Faults, seed: int, learner: MakeLearner, **options: Any
    ) -> None:
        self.arrivals: dict[PeerId, dict[PeerId, Seconds]] = {setup.me: {} for setup in setups}
        self.frames: dict[type[Message], int] = {}
        super().__init__(setups, faults, seed, learner, **options)

    def send(self, source: Host, target: PeerId, frame: Verified[Message] | bytes) -> None:
        """Carry a message over a line; without one, it is dialled first."""
        raw = frame if isinstance(frame, bytes) else frame.raw
        source.bytes_sent += len(raw)
        source.messages_sent += 1
        lines = self.arrivals[source.peer]
        if target not in lines:
            self.connect(source, target)
            self.after(HANDSHAKE_TRIPS * self.faults.latency_s, self._send_then, source, target, frame)
            return
        at = lines[target] = max(lines[target], self.now + self.latency(len(raw)))
        self.after(at - self.now, self._arrive, source.peer, target, frame)

    def connect(self, host: Host, peer: PeerId) -> None:
        """Dial: both learn of the line when it stands."""
        if peer not in self.arrivals[host.peer]:
            self.after(HANDSHAKE_TRIPS * self.latency(0), self._meet, host, host.boot, peer)

    def hang_up(self, host: Host, peer: PeerId) -> None:
        """End a line; what was sent before still arrives."""
        lines = self.arrivals[host.peer]
        if peer in lines:
            wait_s = max(0.0, lines[peer] - self.now) + self.latency(0)
            self.after(wait_s, self._cut_line, host.peer, peer, "the other side ended the connection")

    def on_crash(self, host: Host) -> None:
        """Every line of a host is dead; the others notice it after a while."""
        for peer in list(self.arrivals[host.peer]):
            del self.arrivals[host.peer][peer]
            self.after(HEARTBEAT_S, self._notice, peer, host.peer)

    def _send_then(self, source: Host, target: PeerId, frame: Verified[Message] | bytes) -> None:
        if source.alive and target in self.arrivals[source.peer]:
            self.after(self.latency(0), self._arrive, source.peer, target, frame)

    def _arrive(self, source: PeerId, target: PeerId, frame: Verified[Message] | bytes) -> None:
        other = self.hosts[target]
        if source in self.arrivals[target]:
            if isinstance(frame, Verified):
                kind = type(frame.message)
                self.frames[kind] = self.frames.get(kind, 0) + 1
            other.on_frame(source, frame)

    def _meet(self, host: Host, boot: int, peer: PeerId) -> None:
        if not host.alive or host.boot != boot or peer in self.arrivals[host.peer]:
            return
        if not self.reaches(host.peer, peer):
            host.feed_later(NO_ANSWER_S, PeerDown(peer, "no answer"))
            return
        self.arrivals[host.peer][peer] = self.arrivals[peer][host.peer] = self.now
        host.feed(PeerUp(peer))
        self.hosts[peer].feed(PeerUp(host.peer))

    def _cut_line(self, one: PeerId, other: PeerId, reason: str) -> None:
        if self.arrivals[one].pop(other, None) is not None:
            self.hosts[one].feed(PeerDown(other, "this computer ended the connection"))
        self._notice(other, one, reason)

    def _notice(self, peer: PeerId, gone: PeerId, reason: str = "the connection was lost") -> None:
        if peer in self.arrivals[gone]:
            return  # it came back in the meantime
        if self.arrivals[peer].pop(gone, None) is not None:
            self.hosts[peer].feed(PeerDown(gone, reason))
