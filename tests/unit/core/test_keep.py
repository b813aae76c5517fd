"""The best own weights. ALGORITHMS G6."""

from p2ptrain.core.effects import Publish
from p2ptrain.core.inputs import LearnFailed, Published
from p2ptrain.core.keep import TAG, Keep
from p2ptrain.core.messages import Offer
from tests.helpers import blob


def test_only_better_weights_are_written() -> None:
    keep = Keep(Offer(blob(0), 64, 1.0))
    assert keep.propose(1.0) == []
    assert keep.propose(0.5) == [Publish(TAG)]
    assert keep.propose(0.7) == []
    assert keep.propose(0.4) == [Publish(TAG)]


def test_each_offer_names_the_loss_measured_on_it() -> None:
    keep = Keep()
    keep.propose(0.5, 2.0)
    keep.propose(0.4)
    assert keep.is_writing
    assert keep.on_written(Published(TAG, blob(1), 64)) == Offer(blob(1), 64, 0.5, 2.0)
    assert keep.on_written(Published(TAG, blob(2), 64)) == Offer(blob(2), 64, 0.4)
    assert not keep.is_writing
    assert keep.on_written(Published(TAG, blob(3), 64)) is None
    assert keep.offer == Offer(blob(2), 64, 0.4)


def test_what_could_not_be_written_is_not_waited_for() -> None:
    keep = Keep()
    keep.propose(0.5)
    keep.on_written(LearnFailed(TAG, "full"))
    keep.on_written(LearnFailed(TAG, "full"))
    assert not keep.is_writing
    assert keep.propose(0.6) == [Publish(TAG)]
