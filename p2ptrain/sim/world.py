"""Virtual time: a heap of things to come, links between hosts, and the faults on them.

The same node as in the daemon runs here. Equal seeds give equal runs, on any machine and hash seed.
"""

import hashlib
import heapq
import math
import struct
from collections import OrderedDict
from collections.abc import Callable, Sequence
from random import Random
from typing import Any

from p2ptrain.core.codec import Codec
from p2ptrain.core.envelope import Opened, Verified
from p2ptrain.core.inputs import PeerDown, PeerUp
from p2ptrain.core.membership import Members
from p2ptrain.core.messages import Message
from p2ptrain.core.node import Setup
from p2ptrain.core.types import BlobId, PeerId, Seconds
from p2ptrain.sim.faults import Faults
from p2ptrain.sim.host import Host
from p2ptrain.sim.poison import poison_of
from p2ptrain.sim.rings import Rings
from p2ptrain.sim.stages import Stages
from p2ptrain.sim.trainer import Learner

_STAMP = struct.Struct(">d")
HEAD_BYTES = 100
"""So much of a sealed message goes into the trace: its signature, which covers the rest."""

HEARTBEAT_S = 5.0
"""After so long a cut connection is noticed, as in the daemon."""

NO_ANSWER_S = 1.0
"""After so long a dial has failed."""

HOLD_BACK_S = 1.0
"""A reordered message is late by up to this."""

SLOWDOWN = 10.0

MakeLearner = Callable[[int], Learner]
Observer = Callable[[Host, Seconds], None]


class World:
    """A swarm in virtual time.

    Args:
        setups: one node each; `me` of each is its address.
        faults: the weather.
        seed: of everything random outside of the nodes.
        learner: makes the learner of the n-th host.
        step_s: virtual seconds of one optimiser step on a peer that is not slow.
        introduce: nodes know only the first at the start, and connect; otherwise all know all.
    """

    def __init__(
        self,
        setups: Sequence[Setup],
        faults: Faults,
        seed: int,
        learner: MakeLearner,
        *,
        step_s: Seconds = 0.1,
        introduce: bool = False,
    ) -> None:
        self.now: Seconds = 0.0
        self.faults = faults
        self.clocks_jump = faults.clock_jumps > 0
        self.rng = Random(seed)
        self.codec = Codec(setups[0].rules.messages)
        self.opened: Opened = OrderedDict()
        self.events = 0
        self.observers: list[Observer] = []
        self._heap: list[tuple[Seconds, int, Callable[..., None], tuple[Any, ...]]] = []
        self._sequence = 0
        self._trace = hashlib.blake2b(digest_size=16)
        self._cut: dict[PeerId, None] = {}
        self.stages = Stages(self)
        self.rings = Rings(self)
        members = Members(setup.me for setup in setups)
        self.hosts: dict[PeerId, Host] = {}
        for number, setup in enumerate(setups):
            slow = self.rng.random() < faults.slow
            known = Members([setup.me]) if introduce else members
            host = Host(self, number, setup, known, learner(number), step_s * (SLOWDOWN if slow else 1.0))
            self.hosts[setup.me] = host
        self._plan_liars()
        self.introducer = setups[0].me if introduce else None
        for host in self.hosts.values():
            self.after(0.0, host.start)
            if faults.churn > 0:
                self.after(self.rng.expovariate(1 / faults.session_s), self._crash, host)
        if faults.partition > 0:
            self.after(self.rng.expovariate(1 / faults.partition_s), self._partition)

    # -- time --------------------------------------------------------------------------------------

    def after(self, delay: Seconds, action: Callable[..., None], *arguments: Any) -> None:
        """Let something happen later."""
        self._sequence += 1
        heapq.heappush(self._heap, (self.now + delay, self._sequence, action, arguments))

    def run(self, until: Seconds) -> None:
        """Let time pass."""
        heap, pop, count = self._heap, heapq.heappop, 0
        while heap and heap[0][0] <= until:
            self.now, _, action, arguments = pop(heap)
            count += 1
            action(*arguments)
        self.events += count
        self.now = until

    def run_until(self, done: Callable[[], bool], most: Seconds, every: Seconds = 0.5) -> bool:
        """Let time pass until something holds, looked at every so often; say whether it came true."""
        while not done() and self.now < most:
            self.run(min(most, self.now + every))
        return done()

    @property
    def calm(self) -> bool:
        """Whether the weather has cleared."""
        return self.now >= self.faults.until_s

    # -- trace -------------------------------------------------------------------------------------

    @property
    def trace_digest(self) -> str:
        """Equal for equal runs."""
        return self._trace.hexdigest()

    # -- the network -------------------------------------------------------------------------------

    def send(self, source: Host, target: PeerId, frame: Verified[Message] | bytes) -> None:
        """Carry a message, or lose it.

        What was sealed here is not verified and decoded again there: it is the same object. Only bytes
        that nobody sealed go through the whole border.
        """
        raw = frame if isinstance(frame, bytes) else frame.raw
        size = len(raw)
        source.bytes_sent += size
        source.messages_sent += 1
        self._trace.update(_STAMP.pack(self.now) + (raw if raw is frame else raw[:HEAD_BYTES]))
        other = self.hosts.get(target)
        if other is None or not other.alive or (self._cut and self._is_cut(source.peer, target)):
            wait_s = HEARTBEAT_S if other is not None and other.alive else 2 * self.faults.latency_s
            self.after(wait_s, source.on_unreachable, source.boot, target)
            return
        if self.calm:
            self.after(self.latency(size), other.on_frame, source.peer, frame)
            return
        faults, random = self.faults, self.rng.random
        for _ in range(2 if faults.duplicate and random() < faults.duplicate else 1):
            if faults.loss and random() < faults.loss:
                continue
            held_s = HOLD_BACK_S * random() if faults.reorder and random() < faults.reorder else 0.0
            self.after(self.latency(size) + held_s, other.on_frame, source.peer, frame)

    def latency(self, size_bytes: int) -> Seconds:
        """Draw the time that so many bytes take."""
        faults = self.faults
        sending_s = size_bytes / faults.upload if faults.upload else 0.0
        return faults.latency_s * (0.5 - 0.5 * math.log(1.0 - self.rng.random())) + sending_s

    def reaches(self, source: PeerId, target: PeerId) -> bool:
        """Say whether two hosts could talk now."""
        other = self.hosts.get(target)
        return other is not None and other.alive and not self._is_cut(source, target)

    def connect(self, host: Host, peer: PeerId) -> None:
        """Let one host reach another: without lines they only learn that they can."""
        if not self.reaches(host.peer, peer):
            host.feed_later(NO_ANSWER_S, PeerDown(peer, "no answer"))
            return
        delay = self.latency(0)
        host.feed_later(delay, PeerUp(peer))
        self.hosts[peer].feed_later(delay, PeerUp(host.peer))

    def hang_up(self, host: Host, peer: PeerId) -> None:
        """End a connection: the node itself stops listening, there is no line to cut."""

    def on_crash(self, host: Host) -> None:
        """A host is off: without lines nobody learns of it before it is asked something."""

    def transfer(
        self, reader: Host, blob: BlobId, size_bytes: int, sources: Sequence[PeerId]
    ) -> tuple[Seconds, PeerId | None]:
        """Choose the first source that gives the blob; return the time it takes and the source."""
        waited = 0.0
        for source in sources:
            lost = not self.calm and self.rng.random() < self.faults.loss
            if not self.reaches(reader.peer, source) or lost:
                waited += 2 * self.faults.latency_s
                continue
            holder = self.hosts[source]
            waited += self.latency(size_bytes) + 2 * self.faults.latency_s
            if blob in holder.blobs:
                holder.bytes_sent += size_bytes
                reader.bytes_received += size_bytes
                return waited, source
        return waited, None

    # -- faults ------------------------------------------------------------------------------------

    def _plan_liars(self) -> None:
        hosts = list(self.hosts.values())
        count = round(self.faults.liars * len(hosts))
        for number, host in enumerate(self.rng.sample(hosts, count)):
            host.lies = True
            host.learner.poison = poison_of(self.faults.attack, number)

    def _crash(self, host: Host) -> None:
        faults = self.faults
        if self.calm:
            return
        host.crash()
        share = min(faults.churn, 0.95)
        away_s = self.rng.expovariate((1 - share) / (share * faults.session_s))
        self.after(min(away_s, max(0.0, faults.until_s - self.now)), self._return, host)

    def _return(self, host: Host) -> None:
        host.start()
        self.after(self.rng.expovariate(1 / self.faults.session_s), self._crash, host)

    def _partition(self) -> None:
        faults = self.faults
        if self.calm:
            return
        share = self.rng.random()
        self._cut = {peer: None for peer in self.hosts if self.rng.random() < share}
        length_s = self.rng.expovariate(1 / faults.partition_s)
        self.after(min(length_s, max(0.0, faults.until_s - self.now)), self._heal)

    def _heal(self) -> None:
        self._cut = {}
        part = min(self.faults.partition, 0.95)
        self.after(self.rng.expovariate(part / ((1 - part) * self.faults.partition_s)), self._partition)

    def clock_jump(self) -> Seconds:
        """Draw how far a clock jumps now: seldom at all."""
        if self.calm or self.rng.random() >= self.faults.clock_jumps:
            return 0.0
        return self.rng.uniform(0, 3600)

    def _is_cut(self, one: PeerId, other: PeerId) -> bool:
        return bool(self._cut) and (one in self._cut) != (other in self._cut)
