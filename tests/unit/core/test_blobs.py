"""Which weights are here: bounded, and what the own report names is never dropped."""

from p2ptrain.core import limits
from p2ptrain.core.blobs import HOLDERS_MAX, Blobs
from p2ptrain.core.effects import Drop
from tests.helpers import blob, peer


def test_the_least_recently_used_blob_goes_first() -> None:
    blobs = Blobs()
    for number in range(limits.HELD_BLOBS_MAX):
        assert blobs.hold(blob(number)) == []
    assert blobs.hold(blob(0)) == []
    assert blobs.hold(blob(99)) == [Drop(blob(1))]


def test_the_pinned_blob_stays_and_does_not_take_anothers_place() -> None:
    blobs = Blobs()
    blobs.hold(blob(0))
    blobs.pin(blob(0))
    for number in range(1, limits.HELD_BLOBS_MAX + 1):
        assert blobs.hold(blob(number)) == []
    for number in range(100, 200):
        assert blob(0) not in [effect.blob for effect in blobs.hold(blob(number)) if isinstance(effect, Drop)]
    assert blob(0) in blobs.held
    assert len(blobs.held) == limits.HELD_BLOBS_MAX + 1


def test_the_blob_that_was_pinned_before_may_go() -> None:
    blobs = Blobs()
    for number in (0, 1):
        blobs.hold(blob(number))
        blobs.pin(blob(number))
    for number in range(100, 100 + limits.HELD_BLOBS_MAX):
        blobs.hold(blob(number))
    assert blob(0) not in blobs.held
    assert blob(1) in blobs.held


def test_a_pinned_blob_that_is_not_here_yet_takes_no_place() -> None:
    blobs = Blobs()
    blobs.pin(blob(999))
    for number in range(50):
        blobs.hold(blob(number))
    assert len(blobs.held) == limits.HELD_BLOBS_MAX


def test_few_fetches_run_at_once() -> None:
    blobs = Blobs()
    for number in range(limits.FETCHES_MAX):
        assert blobs.begin_fetch(blob(number))
        assert blobs.is_fetching(blob(number))
    assert not blobs.begin_fetch(blob(99))
    assert blobs.end_fetch(blob(0))
    assert not blobs.is_fetching(blob(0))
    assert blobs.begin_fetch(blob(99))


def test_a_fetch_that_nobody_began_is_not_awaited() -> None:
    assert not Blobs().end_fetch(blob(0))


def test_holders_are_bounded_in_both_directions() -> None:
    blobs = Blobs()
    for number in range(2 * HOLDERS_MAX):
        blobs.add_holder(blob(0), peer(number))
        blobs.add_holder(blob(0), peer(number))
    assert blobs.holders(blob(0)) == [peer(number) for number in range(HOLDERS_MAX)]
    for number in range(2 * limits.REPORTS_MAX):
        blobs.add_holder(blob(number), peer(1))
    assert len(blobs._holders) <= limits.REPORTS_MAX
    assert blobs.holders(blob(2 * limits.REPORTS_MAX - 1)) == [peer(1)]


def test_what_is_not_needed_goes_at_once_unless_the_own_report_names_it() -> None:
    blobs = Blobs()
    for number in (0, 1):
        blobs.hold(blob(number))
    blobs.pin(blob(0))
    assert blobs.drop(blob(0)) == []
    assert blobs.drop(blob(1)) == [Drop(blob(1))]
    assert blobs.drop(blob(1)) == []
    assert list(blobs.held) == [blob(0)]
