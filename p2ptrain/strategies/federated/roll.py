"""Who takes part in a round, who answered, and when it may close: what a coordinator keeps of its clients."""

import math
from collections.abc import Callable, Iterable, Mapping
from hashlib import sha256

from p2ptrain.core.arrivals import SLACK, Arrivals
from p2ptrain.core.types import PeerId, Seconds

LEAST_S, MOST_S = 1.0, 600.0
"""No round waits for less or more (guess)."""

GRACE = 1.25
GRACE_S = 2.0
"""Clients stop at a deadline, and what they have must still be measured, written and told (guess)."""


def drawn(seed: int, number: int, steps: Mapping[PeerId, int], count: int) -> list[PeerId]:
    """Return so many of the peers, or all: by chance, which falls alike wherever it is drawn.

    Who took fewer steps so far comes first: else there would be rounds at the end for the few who were
    never lucky, and their data alone would decide.
    """

    def lot(peer: PeerId) -> tuple[int, bytes]:
        return steps[peer], sha256(b"%d %d " % (seed, number) + peer).digest()

    return sorted(sorted(steps, key=lot)[:count])


class Roll:
    """Of one round after the other.

    Args:
        quorum: no round closes before that share of those who are awaited has answered.
        misses_max: who let so many deadlines pass without a word is not awaited any more.

    Attributes:
        number: of the round.
        until: it may close without those who are missing; inf: as long as it is not known how long it takes.
    """

    __slots__ = (
        "_answered",
        "_arrivals",
        "_asked",
        "_awaited",
        "_misses",
        "_misses_max",
        "_quorum",
        "number",
        "until",
    )

    def __init__(self, quorum: float, misses_max: int) -> None:
        self.number = 0
        self.until = math.inf
        self._quorum, self._misses_max = quorum, misses_max
        self._arrivals = Arrivals(LEAST_S, MOST_S)
        self._asked: dict[PeerId, Seconds] = {}
        self._awaited: tuple[PeerId, ...] = ()
        self._answered: dict[PeerId, None] = {}
        self._misses: dict[PeerId, int] = {}

    def expect(self, deadline_s: Seconds) -> None:
        """Others found this deadline right: it holds until more is known; 0: they know nothing either."""
        if deadline_s and self._arrivals.usual_s is None:
            self._arrivals.add(deadline_s / SLACK)

    def open(self, number: int, now: Seconds, peers: Iterable[PeerId]) -> None:
        """Begin a round with these."""
        self.number = number
        self._asked = dict.fromkeys(peers, now)
        self._awaited = tuple(self._asked)
        self._answered = {}
        self._set_deadline(now)

    def ask(self, now: Seconds, peer: PeerId) -> None:
        """Somebody is asked later: welcome, and not awaited; or asked again."""
        self._asked[peer] = now

    def is_asked(self, peer: PeerId) -> bool:
        """Say whether a peer takes part in this round."""
        return peer in self._asked

    def is_absent(self, peer: PeerId) -> bool:
        """Say whether a peer is not awaited any more: it may be there, but does not answer."""
        return self._misses.get(peer, 0) >= self._misses_max

    def answer(self, now: Seconds, peer: PeerId, *, in_time: bool) -> None:
        """A peer answered; in time: in this round."""
        self._misses.pop(peer, None)
        if in_time and peer not in self._answered:
            self._answered[peer] = None
            if peer in self._asked:
                self._arrivals.add(now - self._asked[peer])
            self._set_deadline(min(self._asked.values(), default=now))

    @property
    def deadline_s(self) -> Seconds:
        """Who trains for longer than this is late; 0: not known yet."""
        return self._arrivals.deadline_s if self._arrivals.usual_s is not None else 0.0

    def missing(self, is_there: Callable[[PeerId], bool]) -> list[PeerId]:
        """Return who is awaited and did not answer yet."""
        return [
            peer
            for peer in self._awaited
            if peer not in self._answered and not self.is_absent(peer) and is_there(peer)
        ]

    def is_quorum(self, is_there: Callable[[PeerId], bool]) -> bool:
        """Say whether enough of those who are awaited answered."""
        missing = len(self.missing(is_there))
        answered = sum(peer in self._answered for peer in self._awaited)
        return answered >= math.ceil(self._quorum * (answered + missing) - 1e-9)

    def expire(self, now: Seconds, is_there: Callable[[PeerId], bool]) -> list[PeerId]:
        """A deadline passed, and there are too few answers: wait for another; return whom to ask again."""
        missing = self.missing(is_there)
        for peer in missing:
            self._misses[peer] = self._misses.get(peer, 0) + 1
        self._set_deadline(now)
        return missing

    def _set_deadline(self, since: Seconds) -> None:
        deadline_s = self.deadline_s or MOST_S
        self.until = since + GRACE * deadline_s + GRACE_S
