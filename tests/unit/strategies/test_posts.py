"""Who serves which shard: named by the coordinator, heard from anybody, replaced when gone."""

from collections.abc import Iterable
from itertools import pairwise
from typing import cast

import pytest

from p2ptrain.core.lease import AHEAD_MAX
from p2ptrain.core.ledger import Ledger
from p2ptrain.core.manifest import Manifest
from p2ptrain.core.strategy import Context
from p2ptrain.core.types import PeerId
from p2ptrain.strategies.parameter_server.posts import COMPLAINT_S, PASSED_OVER_S, Posts
from p2ptrain.strategies.parameter_server.worker import cut
from tests.helpers import Author, peer

SHARDS = 4


class Place:
    """What posts look at of a context."""

    def __init__(self, me: int, others: Iterable[int]) -> None:
        self.me = peer(me)
        self.now = 0.0
        self.paused = False
        self.manifest = Manifest(name="t", task="t", seed=3)
        self.ledger = Ledger()
        self.living = {peer(number) for number in others} - {self.me}
        self.liars: set[PeerId] = set()

    def partners(self) -> list[PeerId]:
        return sorted(self.living)

    def is_partner(self, who: PeerId) -> bool:
        return who in self.living

    def trusts(self, who: PeerId) -> bool:
        return who not in self.liars


def table(count: int) -> tuple[Place, Context, Posts]:
    """The coordinator of a swarm of so many, with servers named."""
    place, posts = Place(1, range(1, count + 1)), Posts(SHARDS)
    ctx = cast("Context", place)
    posts.lease.renew(ctx, place.me, 0)
    assert posts.name(ctx)
    return place, ctx, posts


@pytest.mark.parametrize("count", [1, 2, 3, 4, 9])
def test_shards_are_spread_evenly(count: int) -> None:
    _, ctx, posts = table(count)
    loads = [posts.servers.count(server) for server in dict.fromkeys(posts.servers)]
    assert len(loads) == min(count, SHARDS)
    assert max(loads) - min(loads) <= 1
    assert not posts.name(ctx), "nothing has changed"


@pytest.mark.parametrize("fault", ["gone", "distrusted", "finished"])
def test_who_cannot_serve_is_replaced_and_nobody_else(fault: str) -> None:
    place, ctx, posts = table(8)
    before = posts.servers
    lost = next(server for server in before if server != place.me)
    if fault == "gone":
        place.living.remove(lost)
    elif fault == "distrusted":
        place.liars.add(lost)
    else:
        author = Author(int.from_bytes(lost, "big"))
        place.ledger.learn(author.reports(0.5, step=9, finished=True), 0.0)
    assert posts.name(ctx)
    assert lost not in posts.servers
    assert [a == b for a, b in zip(before, posts.servers, strict=True)].count(False) == before.count(lost)


def test_who_comes_takes_shards_of_who_has_many() -> None:
    place, ctx, posts = table(1)
    assert posts.servers == (place.me,) * SHARDS
    place.living = {peer(2), peer(3)}
    assert posts.name(ctx)
    assert sorted(posts.servers.count(peer(number)) for number in (1, 2, 3)) == [1, 1, 2]


def test_half_of_the_workers_must_complain_or_the_server_itself() -> None:
    place, ctx, posts = table(8)
    server = posts.servers[0]
    posts.complain(ctx, peer(7), 0, 6)
    posts.complain(ctx, peer(7), 0, 6)
    posts.complain(ctx, peer(8), 0, 6)
    place.now += COMPLAINT_S + 1
    posts.complain(ctx, peer(6), 0, 6)
    assert not posts.name(ctx), "the older complaints are forgotten"
    posts.complain(ctx, peer(7), 0, 6)
    posts.complain(ctx, peer(8), 0, 6)
    assert posts.name(ctx)
    assert server not in posts.servers
    other = posts.servers[1]
    posts.complain(ctx, other, 1, 6)
    assert posts.name(ctx)
    assert other not in posts.servers


def test_who_was_given_up_is_named_again_if_there_is_nobody_else_or_later() -> None:
    place, ctx, posts = table(2)
    posts.pass_over(ctx, peer(2))
    assert posts.name(ctx)
    assert posts.servers == (place.me,) * SHARDS
    place.now = PASSED_OVER_S + 1
    assert posts.name(ctx)
    assert peer(2) in posts.servers
    posts.pass_over(ctx, peer(2))
    posts.pass_over(ctx, place.me)
    assert not posts.name(ctx)


def test_news_are_taken_from_anybody_and_only_once() -> None:
    place = Place(1, range(1, 6))
    ctx, posts = cast("Context", place), Posts(SHARDS)
    servers = (peer(2), peer(3), peer(4), peer(5))
    assert posts.hear(ctx, peer(4), peer(3), (0, 1), servers)
    assert not posts.hear(ctx, peer(5), peer(3), (0, 1), servers)
    assert posts.hear(ctx, peer(5), peer(3), (0, 2), servers[::-1])
    assert not posts.hear(ctx, peer(5), peer(3), (0, 1), servers), "older"
    assert not posts.hear(ctx, peer(5), peer(3), (0, 3), servers[:3]), "of another number of shards"
    assert not posts.hear(ctx, peer(5), peer(3), (0, 3 + AHEAD_MAX), servers), "too far ahead"
    place.liars.add(peer(3))
    assert not posts.hear(ctx, peer(5), peer(3), (0, 3), servers), "of somebody who lies"
    assert posts.hear(ctx, peer(5), peer(2), (1, 1), servers), "of the next term"


def test_what_others_repeat_does_not_show_that_the_coordinator_lives() -> None:
    place = Place(1, range(1, 6))
    ctx, posts = cast("Context", place), Posts(SHARDS)
    servers = (peer(2),) * SHARDS
    posts.hear(ctx, peer(3), peer(3), (0, 1), servers)
    place.now = 50.0
    posts.hear(ctx, peer(4), peer(3), (0, 2), servers)
    assert posts.lease.heard == 0.0
    posts.hear(ctx, peer(3), peer(3), (0, 3), servers)
    assert posts.lease.heard == 50.0


@pytest.mark.parametrize(("numbers", "count"), [(8, 4), (7, 4), (3, 4), (1, 4), (10**9 + 7, 3)])
def test_shards_are_equal_and_leave_nothing_out(numbers: int, count: int) -> None:
    shards = [one for (one,) in cut(numbers, count)]
    assert (shards[0][0], shards[-1][1]) == (0, numbers)
    assert all(end == begin for (_, end), (begin, _) in pairwise(shards))
    lengths = [end - begin for begin, end in shards]
    assert max(lengths) - min(lengths) <= 1
    assert min(lengths) >= 1
