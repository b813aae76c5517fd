"""Which peer trains which layers in a round, for how many steps, and how long it is waited for.

Who is slower takes fewer steps, so that all are back at the same time; who was late is not waited for. From
time to time everybody moves on to the next layers: where each peer has a part of the data, all layers come
to see all of it. Source: ALGORITHMS 2.3, 4.3; different numbers of steps and moving on are choices.
"""

import math
from collections import deque
from statistics import median

from p2ptrain.core.arrivals import Arrivals
from p2ptrain.core.blocks import Block, balanced
from p2ptrain.core.inputs import Layer
from p2ptrain.core.types import PeerId, Seconds

STEPS_MIN, STEPS_MAX = 16, 64
"""Of a round, where they follow from what is measured (ALGORITHMS 4.3)."""

SPACE_S = 0.4
"""A round is at least so long for each peer: its messages pass through one of them (guess)."""

SLOWER = 1.5
"""Who takes this many times as long as usual for a step takes fewer of them (guess)."""

BLOCKS_MIN = 2
"""So many blocks at least, if there are layers and peers for them: else nothing is divided."""

FEW = 4
"""As long as so few answers came, a deadline is twice their middle (ALGORITHMS 2.3)."""

REMEMBERED = 64
"""Times by peer, and peers that were late: more are forgotten, the oldest first (guess)."""


class Roster:
    """One coordinator's.

    Args:
        layers: of the net.
        group: so many layers make a block, if there are peers for all blocks.
        lead: see `blocks.balanced`.
        turns: rounds before everybody moves on to the next block.
        steps: of a round; 0: as long as what comes in between takes, within bounds.
        least_s, most_s: of the deadline.
    """

    def __init__(
        self,
        layers: tuple[Layer, ...],
        *,
        group: int,
        lead: float,
        turns: int,
        steps: int,
        least_s: Seconds,
        most_s: Seconds,
    ) -> None:
        self._costs = tuple(layer.cost for layer in layers)
        self._group, self._lead, self._turns, self._steps = group, lead, turns, steps
        self._arrivals = Arrivals(least_s, most_s)  # of 16 steps: not all rounds are as long
        self._most_s = most_s
        self._answers = 0
        self._between: deque[Seconds] = deque(maxlen=REMEMBERED)
        self._paces: dict[PeerId, Seconds] = {}
        self._late: dict[PeerId, None] = {}
        self._number = 0
        self._since: Seconds = 0.0
        self._workers = 0
        self._blocks: tuple[Block, ...] = ()
        self._given: dict[PeerId, tuple[int, Seconds]] = {}
        self._given_steps = STEPS_MIN
        self._back: dict[PeerId, None] = {}

    @property
    def out(self) -> list[PeerId]:
        """Who has work of this round and did not come back yet."""
        return [peer for peer in self._given if peer not in self._back]

    def was_late(self, peer: PeerId) -> bool:
        """Say whether a peer did not come back in the last round that it had work of."""
        return peer in self._late

    @property
    def deadline_s(self) -> Seconds:
        """So long after its beginning a round may go on without those who are missing."""
        usual = self._arrivals.usual_s
        if usual is None:
            return self._most_s
        least_s = 2 * usual if self._answers < FEW else 0.0
        longer = self._given_steps / STEPS_MIN
        return min(longer * max(self._arrivals.deadline_s, least_s) + median(self._between), self._most_s)

    @property
    def steps(self) -> int:
        """Steps of a round, for who is not slow."""
        if self._steps:
            return self._steps
        pace = self._pace()
        if pace <= 0:
            return STEPS_MIN
        between = max(median(self._between) if self._between else 0.0, SPACE_S * self._workers)
        return min(max(STEPS_MIN, math.ceil(between / pace)), STEPS_MAX)

    def begin(self, now: Seconds, number: int, workers: list[PeerId]) -> None:
        """Another round begins for these, who all are to be asked for."""
        for peer in self._given:
            if peer not in self._back:
                self._late.pop(peer, None)
                self._late[peer] = None
        self._late = dict(list(self._late.items())[-REMEMBERED:])
        self._number, self._since, self._given, self._back = number, now, {}, {}
        self._workers = len(workers)
        self._given_steps = self.steps
        in_time = sum(peer not in self._late for peer in workers) or len(workers)
        most = len(self._costs)
        count = max(1, min(in_time, max(most // self._group, min(BLOCKS_MIN, most))))
        self._blocks = balanced(self._costs, count, self._lead)

    def give(self, peer: PeerId, now: Seconds, left: int) -> tuple[Block, int]:
        """Return the block that a peer trains in this round, and for how many of the steps it has left."""
        if peer not in self._given:
            self._given[peer] = (self._least(), now)
        steps, pace, usual = self._given_steps, self._paces.get(peer, 0.0), self._pace()
        if pace > SLOWER * usual > 0:
            steps = max(1, int(steps * usual / pace))
        return self._blocks[self._given[peer][0]], min(steps, left)

    def take(self, peer: PeerId, now: Seconds, steps: int, seconds: Seconds) -> None:
        """A peer came back with its layers of this round, and says how long so many steps took."""
        self.clock(peer, steps, seconds)
        self._late.pop(peer, None)
        if peer in self._back:
            return
        self._back[peer] = None
        if peer in self._given:
            took = now - self._given[peer][1]
            self._arrivals.add(took * STEPS_MIN / self._given_steps)
            self._answers += 1
            self._between.append(max(0.0, took - seconds))

    def clock(self, peer: PeerId, steps: int, seconds: Seconds) -> None:
        """Note how long a peer's steps take."""
        self._paces.pop(peer, None)
        self._paces[peer] = max(0.0, seconds) / max(1, steps)
        if len(self._paces) > REMEMBERED:
            del self._paces[next(iter(self._paces))]

    def forgive(self, peer: PeerId) -> None:
        """A peer came back when its round had just ended: next time it is waited for."""
        self._late.pop(peer, None)

    def has(self, peer: PeerId) -> bool:
        """Say whether a peer came back in this round."""
        return peer in self._back

    def wait_s(self, now: Seconds) -> Seconds:
        """Return how long until the deadline; below 0 if it is over."""
        return self._since + self.deadline_s - now

    def _pace(self) -> Seconds:
        return median(self._paces.values()) if self._paces else 0.0

    def _least(self) -> int:
        """The block that fewest train; the first of them after as many as there were turns."""
        count = len(self._blocks)
        held = [0] * count
        for block, _ in self._given.values():
            held[block] += 1
        shift = self._number // self._turns
        return min(range(count), key=lambda block: (held[block], (block - shift) % count))
