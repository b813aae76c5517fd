"""A new coordinator goes on from the newest weights that are as good as is said. ALGORITHMS 2.3."""

import math
from typing import cast

import pytest

from p2ptrain.core.effects import Accuse, Effect, Evaluate, Fetch, Publish
from p2ptrain.core.inputs import Evaluated, Fetched, FetchFailed, Published
from p2ptrain.core.messages import Offer
from p2ptrain.core.strategy import Context, Event
from p2ptrain.core.types import BlobId, PeerId
from p2ptrain.strategies.layerwise.succession import Newest, Succession, is_good
from tests.helpers import blob, only, peer

ANNA, BORIS, OWN_NUMBER = peer(2), peer(3), 5


class Place:
    """What a succession looks at of a context."""

    now = 0.0

    def is_partner(self, _: PeerId) -> bool:
        return True

    trusts = is_partner

    def holds(self, _: BlobId) -> bool:
        return True

    def fetch(self, author: PeerId, offer: Offer) -> Fetch:
        return Fetch(offer.blob, offer.size_bytes, (author,), 10.0)


def context(now: float = 0.0) -> Context:
    place = Place()
    place.now = now
    return cast("Context", place)


def newest(number: int, loss: float) -> Newest:
    return Newest(number, Offer(blob(number), 64, loss))


def succession(known: Newest | None = None) -> Succession:
    number = known.number if known else 0
    return Succession("x", known, number, [ANNA, BORIS], 2.0, examples=8, tolerance=0.1)


def measured(effects: list[Effect], loss: float) -> Event:
    (effect,) = only(Evaluate, effects)
    return Evaluated(effect.tag, (loss,), (0.0,), (math.nan,), (0.0,), 8)


def test_the_newest_that_anybody_has_is_measured_and_taken() -> None:
    one, ctx = succession(newest(OWN_NUMBER, 0.5)), context()
    one.hear(ANNA, newest(7, 0.4))
    assert one.go_on(ctx) == [], "Boris may still answer"
    one.hear(BORIS, newest(8, 0.3))
    (fetch,) = only(Fetch, one.go_on(ctx))
    assert (fetch.blob, fetch.sources) == (blob(8), (BORIS,))
    assert one.handle(ctx, measured(one.handle(ctx, Fetched(blob(8), BORIS)), 0.31)) == []
    assert one.found == Newest(8, Offer(blob(8), 64, 0.31))


def test_who_does_not_answer_is_not_waited_for() -> None:
    one = succession(newest(OWN_NUMBER, 0.5))
    assert one.go_on(context(1.9)) == []
    one.go_on(context(2.0))
    assert one.found == newest(OWN_NUMBER, 0.5)


def test_a_lie_is_charged_and_the_next_is_looked_at() -> None:
    one, ctx = succession(newest(OWN_NUMBER, 0.5)), context()
    one.hear(ANNA, newest(7, 0.4))
    one.hear(BORIS, newest(8, 0.1))
    one.go_on(ctx)
    effects = one.handle(ctx, measured(one.handle(ctx, Fetched(blob(8), BORIS)), 5.0))
    assert [accuse.peer for accuse in only(Accuse, effects)] == [BORIS]
    assert [fetch.blob for fetch in only(Fetch, effects)] == [blob(7)]
    one.handle(ctx, FetchFailed(blob(7), "gone"))
    assert one.found == newest(OWN_NUMBER, 0.5)


def test_older_weights_are_not_looked_at() -> None:
    one, ctx = succession(newest(OWN_NUMBER, 0.5)), context()
    one.hear(ANNA, newest(OWN_NUMBER, 0.1))
    one.hear(BORIS, None)
    assert one.go_on(ctx) == []
    assert one.found == newest(OWN_NUMBER, 0.5)


def test_who_knows_of_none_begins_with_its_own() -> None:
    one, ctx = succession(), context(9.0)
    effects = one.handle(ctx, measured(one.go_on(ctx), 0.7))
    assert len(only(Publish, effects)) == 1
    one.handle(ctx, Published("x", blob(1), 64))
    assert one.found == Newest(0, Offer(blob(1), 64, 0.7))


def test_own_weights_that_are_not_finite_are_nothing_to_begin_with() -> None:
    one, ctx = succession(), context(9.0)
    assert one.handle(ctx, measured(one.go_on(ctx), math.nan)) == []
    assert one.has_failed


@pytest.mark.parametrize(
    ("loss", "claimed", "known", "good"),
    [
        (0.5, 0.5, math.inf, True),
        (0.7, 0.5, math.inf, False),
        (0.7, 0.5, 0.7, True),
        (0.7, 0.7, 0.2, True),
        (math.nan, math.nan, math.nan, False),
        (1e9, math.inf, math.inf, False),
    ],
)
def test_weights_are_good_that_are_as_claimed_or_no_worse_than_known(
    loss: float, claimed: float, known: float, good: bool
) -> None:
    assert is_good(loss, 0.0, claimed, known, 0.1) is good
