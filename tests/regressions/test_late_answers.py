"""Answers that come when nobody waits for them any more.

Measuring takes seconds. Meanwhile the last step was taken, or the run has ended, and the answer was
understood as if nothing had happened: weights were adopted in the wrong phase, or over the result.
"""

import math

from p2ptrain.core.effects import Adopt, Effect, Evaluate, Fetch
from p2ptrain.core.inputs import (
    Adopted,
    Evaluated,
    Fetched,
    Input,
    LearnFailed,
    PeerDown,
    Published,
    TimerFired,
    Trained,
)
from p2ptrain.core.lifecycle import State
from p2ptrain.sim.swarm import changes_weights
from tests.helpers import READY, Author, Table, blob, offer, only, peer

ANNA = 2


def measured(tag: str, *losses: float) -> Evaluated:
    zeros = (0.0,) * len(losses)
    return Evaluated(tag, losses, zeros, zeros, zeros, 500)


def changes(effects: list[Effect]) -> list[Effect]:
    return [effect for effect in effects if changes_weights(effect)]


def searching(steps: int, target: float | None = None) -> Table:
    """A restart node that measured its start, half of its steps, and knows of better weights of Anna's."""
    node = Table(strategy="restart", others=[ANNA], steps=steps, target=target)
    node.feed(READY, Adopted("fresh"), measured("own:1", 5.0), Published("keep", blob(1), 64))
    node.feed(Trained(50, 1600, 5.0, 1.0), measured("own:1", 4.0), Published("keep", blob(2), 64))
    node.feed(Author(ANNA).news(Author(ANNA).reports(1.0, step=50)))
    return node


def test_a_claim_that_is_answered_while_settling_is_not_a_new_start() -> None:
    """All own steps are taken: Anna's weights are compared as a result, not adopted to train on."""
    node = searching(steps=100)
    (fetch,) = only(Fetch, node.feed(TimerFired("strategy:compare")))
    node.feed(Fetched(fetch.blob, peer(ANNA)))
    node.feed(Trained(100, 3200, 4.0, 1.0), measured("own:1", 3.0), Published("keep", blob(3), 64))
    effects = node.feed(measured("claim:1", 3.0, 1.0))
    assert changes(effects) == []
    node.feed(Author(ANNA, boot=2).news(Author(ANNA, boot=2).reports(1.0, step=100)))
    (taste,) = only(Evaluate, node.feed(TimerFired("strategy:settle")))
    assert taste.refs[:2] == (blob(3), offer(1.0).blob), "her weights are still here: they are tasted"
    effects = node.feed(measured(taste.tag, 3.0, 1.0, 2.0))
    assert [effect.ref for effect in only(Adopt, effects)] == [offer(1.0).blob]
    assert node.node.state is State.FINISHED


def test_the_target_reached_here_while_anothers_weights_are_checked_is_the_end() -> None:
    """Fuzz seed 6: the other's weights were adopted over the result."""
    node, anna = searching(steps=1000, target=0.5), Author(ANNA, boot=2)
    (fetch,) = only(Fetch, node.feed(anna.news(anna.reports(0.4))))
    node.feed(Trained(100, 3200, 0.3, 1.0), measured("own:1", 0.3))
    effects = node.feed(Published("keep", blob(3), 64))
    assert [effect.ref for effect in only(Adopt, effects)] == [blob(3)], "what was measured is the result"
    assert node.node.state is State.FINISHED
    assert changes(node.feed(Fetched(fetch.blob, anna.peer), measured("claim:1", 0.3, 0.4))) == []


def test_an_answer_about_one_claim_is_none_about_the_next() -> None:
    """Fuzz seed 209: a liar's weights were adopted on the measurement of somebody else's."""
    node, anna = searching(steps=100), Author(ANNA, boot=2)
    (first,) = only(Fetch, node.feed(TimerFired("strategy:compare")))
    node.feed(Fetched(first.blob, anna.peer))
    assert only(Adopt, node.feed(measured("claim:1", 4.0, 1.0)))
    node.feed(anna.news(anna.reports(0.5)))
    (second,) = only(Fetch, node.feed(TimerFired("strategy:compare")))
    assert changes(node.feed(LearnFailed("adopt", "weights are gone"), measured("claim:1", 1.0, 0.4))) == []
    (check,) = only(Evaluate, node.feed(Fetched(second.blob, anna.peer)))
    assert (check.tag, check.refs[1]) == ("claim:2", offer(0.5).blob)


def averaging(*before_the_end: Input) -> Table:
    """A gossiping node that has taken its steps, is alone by then, and has finished."""
    node = Table(strategy="gossip", others=[ANNA], steps=50)
    node.feed(READY, *before_the_end, PeerDown(peer(ANNA), "gone"))
    node.feed(Trained(50, 1600, 0.5, 1.0), measured("own", 0.5), Published("keep", blob(1), 64))
    node.feed(TimerFired("strategy:turn"), measured("own", 0.5), Published("keep", blob(1), 64))
    assert node.node.state is State.FINISHED
    return node


def test_weights_fetched_for_joining_are_not_adopted_after_the_end() -> None:
    """Anna was far ahead, but what she offers came too late."""
    ahead = Author(ANNA).news(Author(ANNA).reports(0.1, step=5000))
    node = averaging(ahead, Trained(10, 320, 0.9, 1.0))
    late = node.feed(Fetched(offer(0.1).blob, peer(ANNA)))
    assert [effect.tag for effect in only(Evaluate, late)] == ["join"]
    assert changes(node.feed(measured("join", 0.5, 0.1))) == []


def test_a_loss_that_is_not_finite_after_the_end_changes_nothing() -> None:
    assert changes(averaging().feed(measured("own", math.nan))) == []
