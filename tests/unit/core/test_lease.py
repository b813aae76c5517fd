"""Who coordinates. ALGORITHMS 2.3: the smallest hash of (seed, term, id) among the living."""

from collections.abc import Iterable
from typing import cast

import pytest

from p2ptrain.core.lease import AHEAD_MAX, Lease
from p2ptrain.core.manifest import Manifest
from p2ptrain.core.strategy import Context
from p2ptrain.core.types import PeerId
from tests.helpers import peer

PATIENCE_S = 10.0


class Place:
    """What a lease looks at of a context."""

    def __init__(self, me: int, others: Iterable[int]) -> None:
        self.me = peer(me)
        self.now = 0.0
        self.manifest = Manifest(name="t", task="t", seed=3)
        self.living = {peer(number) for number in others} - {self.me}
        self.liars: set[PeerId] = set()

    def partners(self) -> list[PeerId]:
        return sorted(self.living)

    def is_partner(self, who: PeerId) -> bool:
        return who in self.living

    def trusts(self, who: PeerId) -> bool:
        return who not in self.liars


def places(count: int) -> list[Context]:
    return [cast("Context", Place(number, range(count))) for number in range(count)]


def holder(ctx: Context, lease: Lease) -> PeerId:
    lease.watch(ctx, PATIENCE_S)
    assert lease.holder is not None
    return lease.holder


@pytest.mark.parametrize("count", [1, 2, 5, 16])
def test_all_find_the_same_and_one_finds_itself(count: int) -> None:
    them = places(count)
    assert len({holder(ctx, Lease()) for ctx in them}) == 1
    assert sum(Lease().watch(ctx, PATIENCE_S) for ctx in them) == 1


def test_terms_fall_to_different_members() -> None:
    (ctx, *_) = places(8)
    holders = set()
    for term in range(40):
        lease = Lease()
        lease.term = term
        holders.add(holder(ctx, lease))
    assert len(holders) == 8


def test_who_is_silent_gone_or_distrusted_is_replaced() -> None:
    for fault in ("silent", "gone", "distrusted"):
        ctx = next(ctx for ctx in places(5) if holder(ctx, Lease()) != ctx.me)
        place, lease = cast("Place", ctx), Lease()
        first = holder(ctx, lease)
        place.now = PATIENCE_S
        assert holder(ctx, lease) == first
        if fault == "silent":
            place.now += 0.1
        elif fault == "gone":
            place.living.remove(first)
        else:
            place.liars.add(first)
        holder(ctx, lease)
        assert lease.term == 1, fault


def test_who_speaks_is_not_replaced() -> None:
    ctx = next(ctx for ctx in places(5) if holder(ctx, Lease()) != ctx.me)
    place, lease = cast("Place", ctx), Lease()
    first = holder(ctx, lease)
    for _ in range(5):
        place.now += PATIENCE_S
        assert lease.renew(ctx, first, 0)
        assert holder(ctx, lease) == first


def test_a_higher_term_counts_and_a_lower_one_does_not() -> None:
    (ctx, *_) = places(5)
    lease = Lease()
    holder(ctx, lease)
    assert lease.renew(ctx, peer(4), 7)
    assert (lease.holder, lease.term) == (peer(4), 7)
    assert not lease.renew(ctx, peer(3), 6)
    assert not lease.renew(ctx, peer(3), 7 + AHEAD_MAX + 1)
    assert (lease.holder, lease.term) == (peer(4), 7)


def test_of_two_in_one_term_all_choose_the_same() -> None:
    """As after a partition: both sides chose one, and did not see each other."""
    first, second = peer(1), peer(2)
    chosen = set()
    for order in ((first, second), (second, first)):
        (ctx, *_) = places(5)
        lease = Lease()
        for who in order:
            lease.renew(ctx, who, 3)
        chosen.add(lease.holder)
    assert len(chosen) == 1


def test_who_coordinates_yields_to_a_higher_term() -> None:
    ctx = next(ctx for ctx in places(5) if Lease().watch(ctx, PATIENCE_S))
    lease = Lease()
    assert lease.watch(ctx, PATIENCE_S)
    other = next(iter(cast("Place", ctx).living))
    assert lease.renew(ctx, other, 1)
    assert not lease.watch(ctx, PATIENCE_S)
