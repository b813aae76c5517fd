"""What a strategy may look at, and how it asks for weights."""

from p2ptrain.core.effects import Effect, Fetch
from p2ptrain.core.errors import Offence
from p2ptrain.core.inputs import Offended, PeerDown, TimerFired
from p2ptrain.core.messages import Offer
from p2ptrain.core.strategy import Context, Event
from tests.helpers import READY, Author, Scripted, Table, offer, only, peer

ANNA, BERT, CARA = 2, 3, 4
WANTED = offer(0.5)


def asking(author: int = ANNA, size_bytes: int = 64) -> Scripted:
    """Ask for the same weights whenever a timer rings."""

    def answer(ctx: Context, event: Event) -> list[Effect]:
        wanted = Offer(WANTED.blob, size_bytes, WANTED.loss)
        return [ctx.fetch(peer(author), wanted)] if isinstance(event, TimerFired) else []

    return Scripted(answer=answer)


def fetched(table: Table) -> Fetch:
    (fetch,) = only(Fetch, table.feed(TimerFired("strategy:now")))
    return fetch


def test_the_author_is_asked_first_then_others_who_said_they_have_it() -> None:
    table = Table(asking(), others=(ANNA, BERT, CARA))
    table.feed(READY)
    report = Author(ANNA).reports(0.5)
    for number in (BERT, CARA):
        table.feed(Author(number).news(report))
    sources = fetched(table).sources
    assert sources[0] == peer(ANNA)
    assert sorted(sources[1:]) == [peer(BERT), peer(CARA)]


def test_who_only_passed_the_report_on_is_not_asked() -> None:
    table = Table(asking(), others=(ANNA, BERT))
    table.feed(READY, Author(BERT).news(Author(ANNA).reports(0.5), held=(False,)))
    assert fetched(table).sources == (peer(ANNA),)


def test_holders_that_cannot_be_reached_are_not_asked() -> None:
    table = Table(asking(), others=(ANNA, BERT))
    table.feed(READY, Author(BERT).news(Author(ANNA).reports(0.5)), PeerDown(peer(BERT), "gone"))
    assert fetched(table).sources == (peer(ANNA),)


def test_the_time_allowed_is_that_of_a_slow_line_which_two_fetches_share() -> None:
    table = Table(asking(size_bytes=100_000_000))
    table.feed(READY)
    assert fetched(table).timeout_s == 1600.0
    table = Table(asking(size_bytes=1))
    table.feed(READY)
    assert fetched(table).timeout_s == 10.0


def test_partners_and_trust_are_those_of_the_moment() -> None:
    seen: list[tuple[list[bytes], bool]] = []

    def answer(ctx: Context, event: Event) -> list[Effect]:
        seen.append((list(ctx.partners()), ctx.trusts(peer(ANNA))))
        return []

    table = Table(Scripted(answer=answer), others=(ANNA, BERT))
    table.feed(READY, TimerFired("strategy:now"))
    table.feed(Offended(peer(ANNA), Offence.FALSE_CLAIM, ""), PeerDown(peer(BERT), "gone"), TimerFired("x"))
    assert seen[0] == ([peer(ANNA), peer(BERT)], True)
    assert seen[-1] == ([peer(ANNA)], False)
