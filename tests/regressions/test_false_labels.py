"""Whose loss is it? Weights take seconds to be written, and much can be measured in the meantime.

The loss of an offer was looked up when the weights were written, not when they were measured. With
another's weights adopted in between, an honest peer claimed a loss that its blob did not have and was
punished for lying; with a new start in between, it tried to say `inf` and crashed. No simulation found
this, because there weights are written at once; the fuzz of tests/sim did, with nearly every seed.
"""

import math

import msgspec

from p2ptrain.core.effects import Effect, Fetch, Publish, Sign
from p2ptrain.core.inputs import (
    Adopted,
    Evaluated,
    Fetched,
    LearnFailed,
    Published,
    Started,
    TimerFired,
    Trained,
    TrainerReady,
)
from p2ptrain.core.messages import Offer
from p2ptrain.core.progress import Memory
from tests.helpers import READY, Author, Table, blob, only

ANNA = 2
COMPARE = TimerFired("strategy:compare")


def measured(tag: str, *losses: float) -> Evaluated:
    zeros = (0.0,) * len(losses)
    return Evaluated(tag, losses, zeros, zeros, zeros, 500)


def offers(effects: list[Effect]) -> list[Offer | None]:
    return [sign.statement.offer for sign in only(Sign, effects)]


def searching(steps: int) -> Table:
    """A restart node that published its start, and knows of better weights of Anna's."""
    node, anna = Table(strategy="restart", others=[ANNA], steps=steps), Author(ANNA)
    node.feed(READY, Adopted("fresh"), measured("own:1", 5.0), Published("keep", blob(1), 64))
    node.feed(anna.news(anna.reports(1.0)))
    return node


def test_weights_are_offered_with_the_loss_that_was_measured_on_them() -> None:
    """While they are being written, Anna's are adopted: those have a loss of 1."""
    node = searching(steps=100)
    assert only(Publish, node.feed(Trained(50, 1600, 4.0, 1.0), measured("own:1", 4.0)))
    (fetch,) = only(Fetch, node.feed(COMPARE))
    node.feed(Fetched(fetch.blob, fetch.sources[0]), measured("claim:1", 4.0, 1.0))
    assert offers(node.feed(Published("keep", blob(2), 64))) == [Offer(blob(2), 64, 4.0)]


def test_a_new_start_while_weights_are_written_leaves_nothing_to_say() -> None:
    """The loss of the new weights is not known for a moment."""
    node = searching(steps=1000)
    assert only(Publish, node.feed(Trained(50, 1600, 4.0, 1.0), measured("own:1", 4.0)))
    node.feed(COMPARE)
    assert offers(node.feed(Published("keep", blob(2), 64))) == []
    assert offers(node.feed(Adopted("fresh"), measured("own:2", 6.0))) == [Offer(blob(2), 64, 4.0)]


def test_a_measurement_from_before_a_new_start_is_not_one_of_the_new_weights() -> None:
    """They would be published under the old loss."""
    node = searching(steps=1000)
    node.feed(COMPARE)
    assert only(Publish, node.feed(measured("own:1", 3.0))) == []


def test_weights_that_could_not_be_written_do_not_lend_their_loss_to_the_next() -> None:
    node = searching(steps=1000)
    node.feed(Trained(50, 1600, 4.0, 1.0), measured("own:1", 4.0), LearnFailed("keep", "disk full"))
    node.feed(Trained(100, 3200, 3.0, 1.0), measured("own:1", 3.0))
    assert offers(node.feed(Published("keep", blob(3), 64))) == [Offer(blob(3), 64, 3.0)]


def test_gossip_offers_are_not_relabelled_either() -> None:
    node = Table(strategy="gossip", others=[ANNA], steps=1000)
    node.feed(READY, measured("own", 5.0), measured("own", math.nan))
    assert offers(node.feed(Published("keep", blob(1), 64))) == []
    node.feed(measured("own", 4.0), measured("own", 3.0))
    assert offers(node.feed(Published("keep", blob(2), 64))) == [Offer(blob(2), 64, 4.0)]


def test_weights_that_did_not_survive_a_crash_are_not_offered_again() -> None:
    """The checkpoint may name a blob that was dropped between the checkpoint and the crash."""
    kept = Offer(blob(1), 64, 0.1)
    ready = TrainerReady(50, 1600, 8, 64, msgspec.msgpack.encode(Memory(kept, 1.0)))
    with_it, without = Table(strategy="restart", steps=1000), Table(strategy="restart", steps=1000)
    assert offers(with_it.feed(Started(held=(blob(1),)), ready, measured("own:0", 4.0))) == [kept]
    assert only(Publish, without.feed(Started(), ready, measured("own:0", 4.0)))
