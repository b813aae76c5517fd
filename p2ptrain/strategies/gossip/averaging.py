"""What two snapshots come to: their mean, or what ages, outer momentum and pieces make of it.

Three steps, with time in between: write what the partner is to see, measure what the own weights would
become, move. The move adds a difference to the weights of now, so what was trained on meanwhile stays.
"""

import math

from p2ptrain.core.effects import Combine, Effect, Evaluate, Publish
from p2ptrain.core.inputs import Evaluated
from p2ptrain.core.mixing import Mixing
from p2ptrain.core.types import OWN, Ranges, Ref, Slot, peer_text
from p2ptrain.strategies.gossip.age import Age
from p2ptrain.strategies.gossip.exchange import Meeting
from p2ptrain.strategies.gossip.fragments import fragment_of
from p2ptrain.strategies.gossip.noloco import SHOWN, SlowWeights, Terms

MIX = Slot(Ref("mix"))
MINE = Slot(Ref("mine"))
ALONE = Slot(Ref("alone"))


class Averaging:
    """Of the own weights with those of one peer after the other.

    Args:
        slow: what exchanges with momentum move.
        age: of the own weights.
        fragments: pieces of the weights, of which an exchange moves one.
        turns: of a round; outer steps are taken in its first.

    mixing: whose weights are let in.
    """

    def __init__(self, slow: SlowWeights, age: Age, fragments: int, turns: int) -> None:
        self.mixing = Mixing()
        self.age = age
        self._slow, self._fragments, self._turns = slow, fragments, turns
        self._seed = self._numbers = self._last_turn = 0

    def start(self, seed: int, numbers: int, last_turn: int) -> list[Effect]:
        """Begin with the weights of now.

        Args:
            seed: of the swarm.
            numbers: in the vector of weights.
            last_turn: from then on nobody trains: everything moves, without momentum; 0: never.
        """
        self._seed, self._numbers, self._last_turn = seed, numbers, last_turn
        return self._slow.begin()

    def jump(self, step: int, age: int | None) -> list[Effect]:
        """The weights are others now, of that age; None: own ones of before."""
        if age is not None:
            self.age.take_over(step, age)
        return self._slow.begin()

    def moves_all(self, turn: int) -> bool:
        """Say whether no piece is left out in a turn: what is shown is of use by itself."""
        return not self._ranges(turn)

    def shows_alike(self, turn: int, other: int) -> bool:
        """Say whether what was written for one turn will do for another."""
        return turn == other or (self._ranges(turn), self._shows_own(turn)) == (
            self._ranges(other),
            self._shows_own(other),
        )

    def write(self, tag: str, turn: int) -> list[Effect]:
        """Write what the partner is to see, and keep a copy where that is not all."""
        ranges = self._ranges(turn)
        copy = Combine(tag, MINE, ((1.0, OWN),))
        if not self._shows_own(turn):
            return [copy, self._slow.show(MINE), Publish(tag, SHOWN, ranges=ranges)]
        return [copy, Publish(tag, MINE, ranges=ranges)] if ranges else [Publish(tag)]

    def keep(self, tag: str) -> list[Effect]:
        """Keep a copy, as nothing is written."""
        return [Combine(tag, MINE, ((1.0, OWN),))]

    def measure(self, tag: str, meeting: Meeting, examples_max: int) -> list[Effect]:
        """Both are here: measure what the own weights would become, and what without the partner."""
        ranges, mine = self._ranges(meeting.turn), self._mine(meeting)
        if self._is_outer(meeting.turn):
            alone: Ref = ALONE
            made = [(ALONE, self._slow.target(((1.0, meeting.mine or MINE),))), (MIX, self._target(meeting))]
        else:
            alone = MINE if ranges else mine
            made = [(MIX, self._target(meeting))]
        rest = [Combine(tag, slot, ((1.0, MINE),)) for slot, _ in made] if ranges else []
        mixed = [Combine(tag, slot, terms, ranges=ranges) for slot, terms in made]
        return [*rest, *mixed, Evaluate(tag, (alone, MIX), examples_max=examples_max)]

    def accepts(self, meeting: Meeting, event: Evaluated) -> bool:
        """Decide by the running effect of this peer.

        Its age is a claim: beyond the middle it leads only where that is better here.
        """
        own, mixed = event.losses
        accepted = self.mixing.accepts(peer_text(meeting.partner), own, mixed)
        return accepted and (meeting.share <= 0.5 or mixed < own)

    def usual_share(self, meeting: Meeting, event: Evaluated) -> float:
        """Return the share of the way that is no longer than usual."""
        return self.mixing.share(math.sqrt(self._pieces(meeting.turn)) * event.distances[1] / meeting.share)

    def move(self, meeting: Meeting, share: float) -> list[Effect]:
        """Go that share of the way to what was measured."""
        ranges, mine = self._ranges(meeting.turn), self._mine(meeting)
        terms: dict[Ref, float] = {OWN: 1.0}
        for part, ref in self._target(meeting):
            terms[ref] = terms.get(ref, 0.0) + share * part
        terms[mine] = terms.get(mine, 0.0) - share
        self.age.mix(meeting.age, meeting.their_age, share * meeting.share / self._pieces(meeting.turn))
        move = Combine("mixed", OWN, tuple((part, ref) for ref, part in terms.items()), ranges=ranges)
        plainly = not self._is_outer(meeting.turn)
        return [move, *self._slow.move(share, mine, MIX, ranges, plainly=plainly)]

    def _is_last(self, turn: int) -> bool:
        return 0 < self._last_turn <= turn

    def _is_outer(self, turn: int) -> bool:
        return not (self._slow.are_plain or self._is_last(turn) or turn % self._turns)

    def _shows_own(self, turn: int) -> bool:
        return self._slow.show_own or not self._is_outer(turn)

    def _ranges(self, turn: int) -> Ranges:
        return () if self._is_last(turn) else fragment_of(self._seed, turn, self._fragments, self._numbers)

    def _pieces(self, turn: int) -> int:
        return self._fragments if self._ranges(turn) else 1

    def _mine(self, meeting: Meeting) -> Ref:
        """Return the own weights of then, as the codec left them: what both lose, the sum does not."""
        seen = meeting.mine is not None and self._shows_own(meeting.turn)
        return meeting.mine if seen and meeting.mine is not None else MINE

    def _target(self, meeting: Meeting) -> Terms:
        """Return what the two come to."""
        assert meeting.theirs is not None
        mean: Terms = ((meeting.share, meeting.theirs.blob), (1 - meeting.share, meeting.mine or MINE))
        return self._slow.target(mean) if self._is_outer(meeting.turn) else mean
