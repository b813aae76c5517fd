"""How long a gossiping node waits for its partner.

The timer of an exchange was set to the patience of its beginning; the patience grew with slow exchanges,
the timer fired too early, found nothing to do and was never set again: the node waited for ever. And a
clock that jumped by an hour made one exchange take an hour, so that four hours were thought usual.
"""

from p2ptrain.core.effects import Combine, Effect, Fetch, Send, SetTimer
from p2ptrain.core.inputs import Evaluated, Fetched, Published, TimerFired, Trained
from p2ptrain.strategies.gossip import MESSAGES, Answer, Config, Swap
from p2ptrain.strategies.gossip.exchange import PATIENCE_MAX
from tests.helpers import READY, Author, Table, blob, notes, only, peer

ANNA = 2
EXCHANGE = TimerFired("strategy:exchange")


def table() -> Table:
    """Begin the first exchange: a round is over, the snapshot is published."""
    node = Table(strategy="gossip", others=[ANNA], steps=10_000)
    node.feed(READY, Evaluated("own", (0.6,), (0.0,), (0.5,), (0.0,), 128), Published("keep", blob(9), 64))
    node.feed(Trained(50, 1600, 0.5, 1.0), Published("swap:1", blob(1), 64))
    return node


def timers(effects: list[Effect]) -> list[float]:
    return [timer.after_s for timer in only(SetTimer, effects) if timer.key == EXCHANGE.key]


def meet(node: Table, number: int, took_s: float) -> list[Effect]:
    """Let Anna answer, and let the mixture be measured after so long."""
    (swap,) = [s for s in only(Send, node.feed(EXCHANGE)) if isinstance(s.message, Swap)]
    answer = Author(ANNA, boot=number, private=MESSAGES).sends(Answer(swap.message.number, blob(2), 64))
    assert only(Fetch, node.feed(answer))
    node.feed(Fetched(blob(2), peer(ANNA)), at=node.now + took_s)
    better = (0.5, 0.4)
    return node.feed(Evaluated(f"mix:{number}", better, (0.0,) * 2, (0.5,) * 2, (0.0, 0.5), 128))


def test_a_timer_that_fires_early_is_set_again() -> None:
    node = table()
    for n in range(1, 9):
        assert timers(node.feed(EXCHANGE, at=0.5 * n)), "as long as the exchange lasts, something must end it"
    assert notes(node.feed(EXCHANGE, at=Config().timeout_s)) == ["exchange_failed"]


def test_a_slow_exchange_makes_more_patient_and_the_timer_goes_on() -> None:
    node = table()
    assert only(Combine, meet(node, 1, took_s=4.0))
    begun = node.now
    node.feed(Trained(100, 3200, 0.5, 1.0), Published("swap:2", blob(3), 64))
    for second in range(1, 16):
        effects = node.feed(EXCHANGE, at=begun + second)
        assert (notes(effects), len(timers(effects))) == ([], 1), "four times the usual: 16 s"
    assert notes(node.feed(EXCHANGE, at=begun + 16.0)) == ["exchange_failed"]


def test_a_clock_that_jumped_does_not_make_patience_endless() -> None:
    node = table()
    assert only(Combine, meet(node, 1, took_s=3600.0))
    begun = node.now
    node.feed(Trained(100, 3200, 0.5, 1.0), Published("swap:2", blob(3), 64))
    longest = PATIENCE_MAX * Config().timeout_s
    assert timers(node.feed(EXCHANGE, at=begun + longest - 1.0))
    assert notes(node.feed(EXCHANGE, at=begun + longest)) == ["exchange_failed"]
