"""Weights given away with a mass (push-sum): the mass of the whole swarm is kept.

Whoever gives sets half of its mass aside, and has it back but for what the receiver says it took. If that
word stays away until patience ends, all of it comes back; a word that comes later still counts. So lost
messages lose no mass; at worst some counts twice. Source: Assran 2019 (SGP), ALGORITHMS 3.1.
"""

from typing import Annotated

from msgspec import Meta

from p2ptrain.core import limits
from p2ptrain.core.effects import Effect, Send
from p2ptrain.core.messages import BlobBytes, BlobName, Message, Natural, Offer
from p2ptrain.core.strategy import Context
from p2ptrain.core.types import BlobId, PeerId, Seconds
from p2ptrain.strategies.gossip.exchange import Busy, Exchange, Heard, Meeting

GiftMass = Annotated[float, Meta(ge=0.0, le=limits.PEERS_MAX)]

LEAST = 0.25
"""Who has less gives nothing until it was given some: else fast peers give themselves away (guess)."""

LEAST_AT_END = 0.75
"""When nobody trains, each waits for what others give: they end half as far apart as with .25 (measured
2026-11-20, 5 to 16 peers)."""

NEVER_LESS = 1e-9
"""What was taken late may have been given to others meanwhile."""

REMEMBERED = 64
"""Gifts that may be acknowledged late, and peers whose last gift is recognised (guess)."""


class Give(Message, frozen=True):
    """My weights of this moment, and so much mass: take them, or some of it.

    final: it is my result, and I take nothing any more.
    """

    number: Natural
    blob: BlobName
    size_bytes: BlobBytes
    mass: GiftMass
    turn: Natural = 0
    age: Natural = 0
    final: bool = False


class Took(Message, frozen=True):
    """So much of your gift of that number; 0: refused."""

    number: Natural
    mass: GiftMass


class Mass:
    """Of this node.

    now: at hand. A receiver takes at most as much as it has: nobody moves it further than to the middle.
    """

    __slots__ = ("_lent", "now")

    def __init__(self) -> None:
        self.now = 1.0
        self._lent: dict[tuple[PeerId, int], float] = {}

    def is_enough(self, *, at_end: bool) -> bool:
        """Say whether there is something to give."""
        return self.now >= (LEAST_AT_END if at_end else LEAST)

    def set_aside(self) -> float:
        """Return half, which is to be settled or given up."""
        self.now /= 2
        return self.now

    def settle(self, aside: float, taken: float) -> None:
        """The receiver took so much of it."""
        self.now += max(0.0, aside - taken)

    def give_up(self, receiver: PeerId, number: int, aside: float) -> None:
        """Nothing was heard."""
        self.now += aside
        self.lend(receiver, number, aside)

    def lend(self, receiver: PeerId, number: int, mass: float) -> None:
        """It may be taken of what is at hand."""
        self._lent[receiver, number] = mass
        if len(self._lent) > REMEMBERED:
            del self._lent[next(iter(self._lent))]

    def on_late(self, receiver: PeerId, number: int, taken: float) -> None:
        """It was taken after all."""
        lent = self._lent.pop((receiver, number), 0.0)
        self.now = max(NEVER_LESS, self.now - min(lent, taken))

    def share(self, given: float, ratio: float) -> float:
        """Return the share of a gift in the mixture. `ratio`: how often it counts, by age."""
        mass = ratio * min(given, self.now)
        return mass / (self.now + mass)

    def take(self, given: float, share: float) -> tuple[float, float]:
        """Take what makes up that share, if so much was given; return the share and the mass."""
        taken = min(given, self.now * share / (1 - share))
        share = taken / (self.now + taken)
        self.now += taken
        return share, taken


def say_give(meeting: Meeting) -> list[Effect]:
    """Offer the own snapshot, and what was set aside."""
    if meeting.mine is None:
        return []
    shown = (meeting.mine, meeting.mine_bytes)
    give = Give(meeting.number, *shown, meeting.mass, meeting.turn, meeting.age)
    return [Send(meeting.partner, give)]


class Gifts:
    """What is given to this node, one gift at a time, and the mass of both directions.

    taking: the gift that is being fetched.
    """

    __slots__ = ("_taken", "mass", "taking")

    def __init__(self, ask_again_s: Seconds, timeout_s: Seconds) -> None:
        self.taking, self.mass = Exchange(ask_again_s, timeout_s, lambda _: [], "taking-"), Mass()
        self._taken: dict[PeerId, tuple[BlobId, Took]] = {}

    def hear(self, ctx: Context, giver: PeerId, give: Give) -> list[Effect] | Meeting:
        """Return the meeting to begin, or what to do instead."""
        blob, took = self._taken.get(giver, (None, None))
        if took is not None and (blob, took.number) == (give.blob, give.number):
            return [Send(giver, took)]  # it comes again: the giver did not hear that it was taken
        gift = Meeting(giver, give.number, give.turn, False, ctx.now, their_age=give.age, mass=give.mass)
        gift.theirs, gift.shows = Offer(give.blob, give.size_bytes, 0.0), False
        heard = self.taking.hear(ctx.me, gift)
        if heard is Heard.BUSY or not ctx.trusts(giver):
            return [Send(giver, Busy(give.number))]
        return gift if heard is Heard.NEW else []

    def share(self, gift: Meeting, ratio: float) -> float:
        """Return the share of a gift in the mixture; it counts so often, by age."""
        return self.mass.share(gift.mass, ratio)

    def take(self, gift: Meeting, share: float) -> tuple[float, Send]:
        """Take of a gift what makes up that share, or what there is; return the share and what to say."""
        part, mass = self.mass.take(gift.mass, share)
        took = Took(gift.number, mass)
        self._taken.pop(gift.partner, None)
        if gift.theirs is not None:
            self._taken[gift.partner] = (gift.theirs.blob, took)
        if len(self._taken) > REMEMBERED:
            del self._taken[next(iter(self._taken))]
        return part, Send(gift.partner, took)

    def give_result(self, receiver: PeerId, give: Give, result: Offer | None, age: int) -> list[Effect]:
        """Nothing is taken any more, but who comes late may have some of the mass behind the result."""
        nothing = Send(receiver, Took(give.number, 0.0))
        if result is None or give.final:
            return [nothing]
        mass = self.mass.now / 2
        self.mass.lend(receiver, give.number, mass)
        gift = Give(give.number, result.blob, result.size_bytes, mass, give.turn, age, True)
        return [nothing, Send(receiver, gift)]
