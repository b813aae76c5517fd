"""What is known of everybody's losses: merging is order-free, the best is always right, memory is bounded."""

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2ptrain.core import limits
from p2ptrain.core.envelope import Verified
from p2ptrain.core.ledger import Ledger, Stated, rank
from p2ptrain.core.messages import Report
from p2ptrain.core.types import PeerId
from tests.helpers import offer, peer


def stated(author: int, loss: float | None, *, boot: int = 1, sequence: int = 1, step: int = 0) -> Stated:
    """State a loss without the cost of signing; equal statements have equal bytes."""
    report = Report(step, 0, loss or 0.0, None, None if loss is None else offer(loss))
    raw = repr((author, boot, sequence, loss, step)).encode()
    return Verified(peer(author), boot, sequence, report, raw)


def known(ledger: Ledger) -> dict[PeerId, Stated]:
    return {entry.report.sender: entry.report for entry in ledger.entries()}


ANY_REPORT = st.builds(
    stated,
    st.integers(0, 4),
    st.none() | st.sampled_from([0.125, 0.25, 0.5, 1.0]),
    boot=st.integers(1, 2),
    sequence=st.integers(1, 4),
)
FORGET = st.integers(0, 4)


class Model:
    """The ledger without any cleverness: look at everything each time."""

    def __init__(self) -> None:
        self.newest: dict[PeerId, Stated] = {}

    def learn(self, report: Stated) -> None:
        old = self.newest.get(report.sender)
        if old is None or (old.boot, old.sequence, old.raw) < (report.boot, report.sequence, report.raw):
            self.newest[report.sender] = report

    def best(self) -> Stated | None:
        offering = [report for report in self.newest.values() if report.message.offer is not None]
        return min(offering, key=rank, default=None)


@given(st.lists(ANY_REPORT | FORGET, max_size=40))
def test_the_best_is_right_after_every_step(steps: list[Stated | int]) -> None:
    ledger, model = Ledger(), Model()
    for step in steps:
        if isinstance(step, int):
            ledger.forget(peer(step))
            model.newest.pop(peer(step), None)
        else:
            ledger.learn(step, now=0.0)
            model.learn(step)
        assert known(ledger) == model.newest
        assert ledger.best() == model.best()


@given(st.lists(ANY_REPORT, max_size=20), st.randoms(use_true_random=False))
def test_the_same_reports_in_any_order_and_number_give_the_same_knowledge(
    reports: list[Stated], rng: Random
) -> None:
    """ALGORITHMS G5, also for an author that signs two reports under one number."""
    one, other = Ledger(), Ledger()
    for report in reports:
        one.learn(report, now=0.0)
    mixed = [*reports, *rng.choices(reports, k=5)] if reports else []
    rng.shuffle(mixed)
    for report in mixed:
        other.learn(report, now=0.0)
    assert known(one) == known(other)
    assert one.best() == other.best()


def test_only_a_newer_report_of_an_author_is_news() -> None:
    ledger = Ledger()
    assert ledger.learn(stated(1, 0.5, sequence=2), now=0.0)
    assert not ledger.learn(stated(1, 0.5, sequence=2), now=1.0)
    assert not ledger.learn(stated(1, 0.1, sequence=1), now=1.0)
    assert ledger.learn(stated(1, 0.9, sequence=3), now=1.0)
    assert ledger.learn(stated(1, 0.9, boot=2, sequence=1), now=1.0)


def test_the_best_is_that_of_the_offered_weights_not_of_the_present_ones() -> None:
    ledger = Ledger()
    ledger.learn(stated(1, 0.5), now=0.0)
    ledger.learn(stated(2, None), now=0.0)
    best = ledger.best()
    assert best is not None
    assert best.sender == peer(1)


def test_equal_losses_have_one_winner_everywhere() -> None:
    one, other = Ledger(), Ledger()
    reports = [stated(1, 0.5), stated(2, 0.5), stated(3, 0.5)]
    for ledger, order in ((one, reports), (other, reports[::-1])):
        for report in order:
            ledger.learn(report, now=0.0)
    assert one.best() == other.best() == reports[0]


@pytest.mark.parametrize("seed", [2])
def test_knowledge_is_bounded_and_the_best_and_the_newest_stay(seed: int) -> None:
    rng, ledger, best = Random(seed), Ledger(), 1e9
    for author in range(4 * limits.REPORTS_MAX):
        loss = round(rng.uniform(1, 1000), 6)
        best = min(best, loss)
        newest = stated(author, loss)
        ledger.learn(newest, now=0.0)
        assert len(known(ledger)) <= limits.REPORTS_MAX, seed
        assert len(ledger._turn) <= limits.REPORTS_MAX, seed
        assert ledger.of(newest.sender), seed
        found = ledger.best()
        assert found is not None
        assert found.message.loss == best, seed


def test_everybodys_report_has_its_turn() -> None:
    ledger = Ledger()
    assert ledger.next_in_turn() is None
    reports = [stated(author, author / 8) for author in range(1, 6)]
    for report in reports:
        ledger.learn(report, now=0.0)
    for _ in range(3):
        turn = [ledger.next_in_turn() for _ in reports]
        assert sorted(r.sender for r in turn if r) == [r.sender for r in reports]


def test_a_forgotten_author_misses_its_turn() -> None:
    ledger = Ledger()
    for author in (1, 2):
        ledger.learn(stated(author, 0.5), now=0.0)
    ledger.next_in_turn()
    ledger.forget(peer(1))
    ledger.forget(peer(2))
    assert ledger.next_in_turn() is None


def test_old_reports_and_ones_without_weights_are_not_chosen_from() -> None:
    ledger = Ledger()
    ledger.learn(stated(1, 0.5), now=0.0)
    ledger.learn(stated(2, 0.25), now=20.0)
    ledger.learn(stated(3, None), now=20.0)
    ledger.learn(stated(4, 0.75), now=20.0)
    chosen = [report.sender for report, _ in ledger.ranked(now=30.0, fresh_s=15.0, without=peer(4))]
    assert chosen == [peer(2)]
    assert [r.sender for r, _ in ledger.ranked(30.0, 60.0, peer(9))] == [peer(2), peer(1), peer(4)]
