"""Who brings which chunks: ranges in order, and a slow source loses what it will not give in time."""

from p2ptrain.core import limits
from p2ptrain.core.types import PeerId
from p2ptrain.net.blobs.plan import PATIENCE_S, RANGE_CHUNKS, SILENT_S, Plan, Work

MIB = limits.MIB
A, B, C = (PeerId(bytes([number]) * 32) for number in range(1, 4))


def chunks(work: Work | None) -> list[int]:
    return list(range(work.next, work.stop)) if work else []


def give(work: Work, count: int, now: float) -> None:
    """A source gives some whole chunks."""
    for _ in range(count):
        work.hear(MIB, now)
        work.keep()


def test_runs_of_what_is_missing():
    plan = Plan([0, 1, 2, 7, 8, *range(20, 45)])
    works = [plan.take(A, 0.0) for _ in range(4)]
    assert [chunks(work) for work in works] == [[0, 1, 2], [7, 8], [*range(20, 36)], [*range(36, 45)]]
    assert len(chunks(works[2])) == RANGE_CHUNKS


def test_what_was_given_up_is_done_by_the_next():
    plan = Plan(range(6))
    work = plan.take(A, 0.0)
    give(work, 2, 1.0)
    plan.end(work, 1.0)
    assert not plan.done
    rest = plan.take(B, 1.0)
    assert chunks(rest) == [2, 3, 4, 5]
    give(rest, 4, 2.0)
    plan.end(rest, 2.0)
    assert plan.done
    assert plan.take(A, 2.0) is None


def test_nobody_is_judged_at_once():
    plan = Plan(range(16))
    plan.take(A, 0.0)
    assert plan.take(B, 0.9 * PATIENCE_S) is None


def test_who_is_nearly_done_is_left_alone():
    plan = Plan(range(16))
    give(plan.take(A, 0.0), 14, 2.0)
    assert plan.take(B, 2.0) is None


def test_two_of_unknown_speed_share():
    plan = Plan(range(11))
    work = plan.take(A, 0.0)
    give(work, 2, 2.0)
    assert chunks(plan.take(B, 2.0)) == [7, 8, 9, 10]
    assert chunks(work) == [2, 3, 4, 5, 6]


def test_the_faster_takes_more():
    """B has shown three times the speed of A; the chunk that is on its way stays with A."""
    plan = Plan(range(32))
    slow, fast = plan.take(A, 0.0), plan.take(B, 0.0)
    give(slow, 5, 5.0)
    give(fast, 16, 5.0)
    plan.end(fast, 5.0)
    assert chunks(plan.take(B, 5.0)) == [9, 10, 11, 12, 13, 14, 15]
    assert chunks(slow) == [5, 6, 7, 8]
    assert not slow.lost


def test_the_last_chunk_of_a_slow_one_is_fetched_again():
    plan = Plan(range(17))
    fast, slow = plan.take(A, 0.0), plan.take(B, 0.0)
    told = []
    slow.abandon = lambda: told.append(True)
    slow.hear(1000, 2.0)
    give(fast, 16, 2.0)
    plan.end(fast, 2.0)
    work = plan.take(A, 2.0)
    assert chunks(work) == [16]
    assert slow.lost
    assert told == [True]
    plan.end(slow, 2.0)
    assert plan.take(B, 3.5) is None  # no revenge
    work.hear(MIB // 20, 3.5)
    assert plan.take(B, 3.5) is None
    assert not plan.done


def test_who_is_silent_loses_everything():
    """However fast it was before."""
    plan = Plan(range(16))
    work = plan.take(A, 0.0)
    give(work, 15, 1.0)
    assert plan.take(B, 1.0 + 0.9 * SILENT_S) is None
    assert chunks(plan.take(B, 1.0 + SILENT_S)) == [15]
    assert work.lost
