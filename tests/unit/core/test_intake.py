"""Weights fetched a few at a time."""

from typing import cast

from p2ptrain.core.effects import Effect, Fetch
from p2ptrain.core.intake import TRIES, WAITING_MAX, Intake
from p2ptrain.core.messages import Offer
from p2ptrain.core.strategy import Context
from p2ptrain.core.types import BlobId, PeerId
from tests.helpers import blob, offer, peer


class Place:
    """What an intake looks at of a context."""

    def __init__(self) -> None:
        self.liars: set[PeerId] = set()

    def trusts(self, who: PeerId) -> bool:
        return who not in self.liars

    def fetch(self, author: PeerId, offer: Offer) -> Fetch:
        return Fetch(offer.blob, offer.size_bytes, (author,), 1.0)


def table() -> tuple[Place, Context, Intake[str]]:
    place = Place()
    return place, cast("Context", place), Intake(at_once=2)


def asked(effects: list[Effect]) -> list[BlobId]:
    return [effect.blob for effect in effects if isinstance(effect, Fetch)]


def test_no_more_than_so_many_come_at_once() -> None:
    _, ctx, intake = table()
    begun = [asked(intake.add(ctx, peer(n), offer(1.0, n), f"of {n}")) for n in range(4)]
    assert begun == [[blob(0)], [blob(1)], [], []]
    came = intake.take(blob(1))
    assert came is not None
    assert (came.author, came.what) == (peer(1), "of 1")
    assert asked(intake.go_on(ctx)) == [blob(2)]
    assert intake.take(blob(1)) is None
    assert not intake.is_empty


def test_the_same_is_wanted_once() -> None:
    _, ctx, intake = table()
    assert asked(intake.add(ctx, peer(1), offer(1.0, 1), "a")) == [blob(1)]
    assert intake.add(ctx, peer(2), offer(1.0, 1), "b") == []
    intake.take(blob(1))
    assert intake.is_empty


def test_what_does_not_come_is_tried_again_later_and_then_given_up() -> None:
    _, ctx, intake = table()
    intake.add(ctx, peer(1), offer(1.0, 1), "a")
    for _ in range(TRIES - 1):
        assert intake.fail(ctx, blob(1)) is None
        assert asked(intake.go_on(ctx)) == [blob(1)]
    gone = intake.fail(ctx, blob(1))
    assert gone is not None
    assert gone.what == "a"
    assert intake.is_empty


def test_nothing_is_fetched_from_who_is_not_trusted_any_more() -> None:
    place, ctx, intake = table()
    for n in range(3):
        intake.add(ctx, peer(n), offer(1.0, n), "a")
    place.liars = {peer(1), peer(2)}
    gone = intake.fail(ctx, blob(1))
    assert gone is not None
    assert gone.author == peer(1)
    assert intake.go_on(ctx) == []


def test_the_queue_is_bounded() -> None:
    _, ctx, intake = table()
    for n in range(2 * WAITING_MAX):
        intake.add(ctx, peer(1), offer(1.0, n), "a")
    begun = 2
    for n in range(2 * WAITING_MAX):
        if intake.take(blob(n)):
            begun += len(intake.go_on(ctx))
    assert intake.is_empty
    assert begun == WAITING_MAX + 2


def test_what_is_not_awaited_any_more_is_not_wanted() -> None:
    place, ctx, intake = table()
    for number in range(4):
        intake.add(ctx, peer(number), offer(1.0, number), "")
    assert all(intake.wants(blob(number)) for number in range(4))
    intake.take(blob(0))
    place.liars.add(peer(2))
    intake.go_on(ctx)
    assert [intake.wants(blob(number)) for number in range(4)] == [False, True, False, True]
