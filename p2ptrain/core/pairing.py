"""Who meets whom: one partner a turn, and everyone is the partner of their partner.

With n members and L = ceil(log2 n), i meets members[i XOR 2^(turn mod L)] if n is a power of two: L turns
of averaging reach the exact mean (ALGORITHMS 2.6). Otherwise i meets members[(2^(turn mod L) - i) mod n]:
2 L turns leave .004 to .08 of the width, random numbers in place of powers .007 to .17 (measured 2026-11-20,
n from 3 to 100). `Circle` is the law of messages that go one
way, `Draws` is chance, to compare with.
"""

from bisect import bisect_left
from collections.abc import Callable, Sequence
from random import Random

from p2ptrain.core import law
from p2ptrain.core.types import PeerId

AHEAD_MAX = 64
"""Meetings with faster peers are remembered for so many turns."""


def partner_of(members: Sequence[PeerId], me: PeerId, turn: int) -> PeerId | None:
    """Return the partner of this turn; None if `me` is left over or no member.

    Args:
        members: sorted.
        me: the own id.
        turn: the same for all who are to meet.
    """
    count = len(members)
    own = bisect_left(members, me)
    if own == count or members[own] != me:
        return None
    step = 1 << (turn % law.turns(count))
    other = (own ^ step if count & (count - 1) == 0 else step - own) % count
    return members[other] if other != own else None


class Turns:
    """Counts turns, and replaces partners who cannot.

    now: the number of this turn.
    due: so many turns are to come, this one included.
    """

    __slots__ = (
        "_failures",
        "_met",
        "due",
        "now",
    )

    def __init__(self) -> None:
        self.now = self.due = 0
        self._failures = 0
        self._met: dict[int, None] = {}

    def begin(self, turn: int, due: int) -> None:
        """Let so many turns be due, the first of them with this number."""
        self.due = due
        self._go_to(turn)

    def end(self) -> None:
        """This turn's meeting took place."""
        self.due -= 1
        self._go_to(self.now + 1)

    def fail(self) -> int:
        """This turn's meeting failed; return how often by now."""
        self._failures += 1
        return self._failures

    def meet(self, members: Sequence[PeerId], me: PeerId, peer: PeerId, turn: int) -> None:
        """A peer came first and was met in its turn: when this node comes to that turn, it is done."""
        if self.now <= turn < self.now + AHEAD_MAX and partner_of(members, me, turn) == peer:
            self._met[turn] = None

    @property
    def is_met(self) -> bool:
        """Whether the partner of this turn came first."""
        return self.now in self._met

    def is_free(self, members: Sequence[PeerId], me: PeerId) -> bool:
        """Say whether this node is the one left over in this turn."""
        return partner_of(members, me, self.now) is None

    def reaches(self, turn: int) -> bool:
        """Say whether that turn comes soon: who is there already may wait.

        Only those ahead wait for those behind, so that nobody waits in a circle.
        """
        return self.now < turn < self.now + self.due

    def partner(
        self, members: Sequence[PeerId], me: PeerId, usable: Callable[[PeerId], bool], patience: int
    ) -> PeerId | None:
        """Return the partner of this turn, or after `patience` failures another one."""
        partner = partner_of(members, me, self.now)
        if partner is not None and self._failures <= patience and usable(partner):
            return partner
        other = law.expo(members, me, self.now + self._failures, lambda p: p != partner and usable(p))
        return other if other is not None or partner is None or not usable(partner) else partner

    def _go_to(self, turn: int) -> None:
        self.now = turn
        self._failures = 0
        self._met = {met: None for met in self._met if met >= turn}


class Circle(Turns):
    """For one-way messages: in each turn everybody addresses one, and is addressed by one other (`law.expo`).

    Nobody is left over, whatever their number: at the end 5 and 12 peers are half as far apart as with
    pairs, 8 and 16 as far (measured 2026-11-20).
    """

    __slots__ = ()

    def is_free(self, members: Sequence[PeerId], me: PeerId) -> bool:
        """Nobody is left over."""
        return False

    def partner(
        self, members: Sequence[PeerId], me: PeerId, usable: Callable[[PeerId], bool], patience: int
    ) -> PeerId | None:
        """Return the address of this turn, after a failure the next one."""
        return law.expo(members, me, self.now + self._failures, usable)


class Draws(Turns):
    """Any partner, with equal chance. Turns are counted, but nobody is expected in one.

    Who was asked has met somebody too: that counts for what is due next.
    """

    __slots__ = ("_ahead", "_rng")

    def __init__(self, rng: Random) -> None:
        super().__init__()
        self._rng = rng
        self._ahead = 0

    def begin(self, turn: int, due: int) -> None:
        """Let so many turns be due, less those that others brought about."""
        super().begin(turn, max(0, due - self._ahead))
        self._ahead = 0

    def meet(self, members: Sequence[PeerId], me: PeerId, peer: PeerId, turn: int) -> None:
        """A peer came first."""
        if self.due > 0:
            self.due -= 1
        else:
            self._ahead += 1

    def is_free(self, members: Sequence[PeerId], me: PeerId) -> bool:
        """Nobody is left over."""
        return False

    def reaches(self, turn: int) -> bool:
        """Nobody waits for a turn."""
        return False

    def partner(
        self, members: Sequence[PeerId], me: PeerId, usable: Callable[[PeerId], bool], patience: int
    ) -> PeerId | None:
        """Draw one."""
        return law.uniform(members, me, self._rng, usable)
