"""Rings of peers in virtual time: who asks for the same reduction gets the mean of all, at the same moment.

What is lost on the way is sent again, as by TCP. A neighbour that is off, or cut off, breaks the ring: all
learn of it when the first of them has borne its silence.
"""

from typing import TYPE_CHECKING, Any

from p2ptrain.core.effects import Reduce
from p2ptrain.core.inputs import Input, Reduced, ReduceFailed
from p2ptrain.core.shares import bounded
from p2ptrain.core.types import PeerId, Ranges, Seconds

if TYPE_CHECKING:
    from p2ptrain.sim.host import Host
    from p2ptrain.sim.world import World

NUMBER_BYTES = 4

Key = tuple[str, tuple[PeerId, ...], Ranges]


class Part:
    """One peer in a ring, with what it gives; None: it has nothing usable."""

    def __init__(self, host: "Host", effect: Reduce, given: Any) -> None:
        self.host, self.effect, self.given = host, effect, given
        self.boot = host.boot

    @property
    def lives(self) -> bool:
        """Whether it still takes part."""
        return self.host.alive and self.host.boot == self.boot


class Rings:
    """All rings of a world."""

    def __init__(self, world: "World") -> None:
        self._world = world
        self._rings: dict[Key, dict[PeerId, Part]] = {}

    def ask(self, host: "Host", effect: Reduce) -> None:
        """A host is ready for its part: it gives what it has now."""
        given = host.trainer.contribution(self._world.now, effect.ref, effect.ranges)
        key = (effect.name, effect.group, effect.ranges)
        part = Part(host, effect, given)
        if host.peer not in effect.group or len(effect.group) < 2:
            return self._tell(part, ReduceFailed(effect.tag, "that is no ring for this peer"))
        ring = self._rings.setdefault(key, {})
        ring[host.peer] = part
        if given is None:
            self._end(key, "somebody has no usable weights", host.peer, 0.0)
        elif len(ring) == len(effect.group):
            self._world.after(self._duration_s(part), self._finish, key)
        else:
            self._world.after(effect.silence_s, self._give_up, key, part)

    def _give_up(self, key: Key, part: Part) -> None:
        """Somebody waited long enough for who is before it, or before those that wait too."""
        ring = self._rings.get(key, {})
        missing = self._missing(key[1], ring, part.host.peer)
        if ring.get(part.host.peer) is part and missing is not None and len(ring) < len(key[1]):
            self._end(key, "a peer gives nothing", missing, 0.0)

    def _missing(self, group: tuple[PeerId, ...], ring: dict[PeerId, Part], peer: PeerId) -> PeerId | None:
        """Return the nearest before a peer that is not there, or that its successor does not reach."""
        at = group.index(peer)
        for back in range(len(group)):
            reader, before = group[at - back], group[at - back - 1]
            part = ring.get(before)
            if part is None or not part.lives or not self._world.reaches(reader, before):
                return before
        return None

    def _finish(self, key: Key) -> None:
        """All had asked, and the time that it takes has passed."""
        ring = self._rings.get(key)
        if ring is None:
            return
        group = key[1]
        parts = [ring[peer] for peer in group]
        first = next((part for part in parts if part.lives), None)
        if first is None:
            del self._rings[key]
            return
        silent = self._missing(group, ring, first.host.peer)
        if silent is not None:
            return self._world.after(first.effect.silence_s, self._end, key, "a peer broke off", silent, 0.0)
        weights = bounded([part.effect.weight for part in parts])
        mean = first.host.learner.mean(list(zip(weights, (part.given for part in parts), strict=True)))
        if mean is None:
            return self._end(key, "the mean is not finite", None, 0.0)
        del self._rings[key]
        for part in parts:
            self._count(part)
            refusal = part.host.learner.take_over(part.effect.out, part.effect.ranges, mean)
            tag = part.effect.tag
            seconds = self._duration_s(part)
            self._tell(part, ReduceFailed(tag, refusal) if refusal else Reduced(tag, seconds))

    def _end(self, key: Key, reason: str, silent: PeerId | None, delay_s: Seconds) -> None:
        """There is no mean: the word goes around."""
        ring = self._rings.pop(key, {})
        for part in ring.values():
            mine = part.host.peer == silent
            self._tell(part, ReduceFailed(part.effect.tag, reason, None if mine else silent), delay_s)

    def _tell(self, part: Part, answer: Input, delay_s: Seconds = 0.0) -> None:
        if part.lives:
            part.host.feed_later(delay_s, answer)

    def _bytes(self, part: Part) -> float:
        """What leaves each peer: 2 (n - 1) / n of the numbers."""
        count = len(part.effect.group)
        return 2 * (count - 1) / count * len(part.given) * NUMBER_BYTES

    def _duration_s(self, part: Part) -> Seconds:
        faults = self._world.faults
        sending_s = self._bytes(part) / faults.upload if faults.upload else 0.0
        return sending_s + 2 * (len(part.effect.group) - 1) * faults.latency_s

    def _count(self, part: Part) -> None:
        moved = round(self._bytes(part))
        part.host.bytes_sent += moved
        part.host.bytes_received += moved
