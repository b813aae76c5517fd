"""What one member could do to all others, with a message or two. Each is refused, or harmless, now."""

import pytest

from p2ptrain.core import inputs
from p2ptrain.core.effects import Adopt, Fetch, Hangup, Remember, SetTimer
from p2ptrain.core.envelope import Opener
from p2ptrain.core.errors import RemoteProtocolError
from p2ptrain.core.inputs import (
    Adopted,
    Evaluated,
    Fetched,
    Published,
    Started,
    TimerFired,
    Trained,
    TrainerLost,
)
from p2ptrain.core.messages import Contact, Contacts, Message, News, Offer, Report
from p2ptrain.sim.keys import SWARM, SimVerifier
from tests.helpers import READY, Author, Table, blob, codec, offer, only

pytestmark = pytest.mark.attack

ANNA, BERT = 2, 3
COMPARE, SEEK = TimerFired("strategy:compare"), TimerFired("strategy:seek")


def measured(tag: str, *losses: float) -> Evaluated:
    zeros = (0.0,) * len(losses)
    return Evaluated(tag, losses, zeros, zeros, zeros, 500)


def searching(target: float | None = None) -> Table:
    """A restart node half-way, with a loss of 5."""
    node = Table(strategy="restart", others=[ANNA, BERT], steps=100, target=target)
    node.feed(READY, Adopted("fresh"), measured("own:1", 5.0), Published("keep", blob(1), 64))
    node.feed(Trained(50, 1600, 5.0, 1.0))
    return node


@pytest.mark.parametrize(
    "message",
    [News((Author(BERT).contact("192.0.2.3:1").raw,)), Contacts((Author(BERT).reports(0.5).raw,))],
    ids=["a contact among reports", "a report among contacts"],
)
def test_end_a_daemon_by_a_statement_of_the_wrong_kind(message: Message) -> None:
    """The second was even kept on disk, and ended the daemon at each start."""
    node, mallory = Table(), Author(ANNA)
    with pytest.raises(RemoteProtocolError) as caught:
        Opener(SimVerifier(), SWARM, codec(())).receive(mallory.says(message).raw, mallory.peer)
    effects = node.feed(Started(), inputs.Offended(mallory.peer, caught.value.offence, caught.value.detail))
    assert [hangup.peer for hangup in only(Hangup, effects)] == [mallory.peer]
    assert only(Remember, effects) == []


def test_have_honest_peers_banned_for_introducing_it() -> None:
    """Whoever passed on a contact that a node refused, or that had expired, was refused too."""
    node, anna = Table(others=[ANNA]), Author(ANNA)
    refused = Author(BERT).says(Contact(b"expired", ("192.0.2.3:1",)))
    assert node.feed(anna.sends(Contacts((refused.raw,)))) == []
    assert node.node.view(0.0).peers[0].strikes == 0


@pytest.mark.parametrize("rate", [1e6, 1e-300])
def test_stop_or_break_training_by_good_weights_with_an_absurd_learning_rate(rate: float) -> None:
    node, mallory = searching(), Author(ANNA)
    node.feed(mallory.news(mallory.says(Report(50, 1600, 1.0, None, Offer(blob(9), 64, 1.0, rate)))))
    node.feed(COMPARE, Fetched(blob(9), mallory.peer))
    (adopt,) = only(Adopt, node.feed(measured("claim:1", 5.0, 1.0)))
    assert 1 / 64 <= adopt.lr_scale <= 1.0


def test_end_a_daemon_by_many_offers_while_its_line_is_full() -> None:
    """Each fetch failed at once and led to the next, without end: RecursionError."""
    others = range(10, 260)
    node = Table(strategy="restart", others=others, target=2.0)
    node.feed(READY)
    for boot, author in enumerate(others, start=2):
        node.feed(Author(10, boot=boot).news(Author(author).reports(1.0 + author / 1000)))
    for second in range(1, 6):  # what a lost trainer asked for is still on its way
        effects = node.feed(TrainerLost("killed", 1.0), READY, SEEK, at=float(second))
    assert only(Fetch, effects) == []
    again = [timer for timer in only(SetTimer, effects) if timer.key == SEEK.key]
    assert [timer.after_s for timer in again] == [0.5]
    assert len(node.node._strategy._tried) == 1  # type: ignore[union-attr]


def test_keep_others_from_the_target_by_an_offer_that_comes_first() -> None:
    """While it was checked nobody looked further, and later no report was an improvement: storm seed 4."""
    node, anna, bert = searching(target=0.5), Author(ANNA), Author(BERT)
    node.feed(anna.news(anna.reports(1.0)), COMPARE)
    assert only(Fetch, node.feed(bert.news(bert.reports(0.4)))) == []
    node.feed(Fetched(offer(1.0).blob, anna.peer), measured("claim:1", 5.0, 1.0))
    assert [fetch.blob for fetch in only(Fetch, node.feed(COMPARE))] == [offer(0.4).blob]
