"""Two peers ask each other at the same moment, one of them a turn ahead.

Only the smaller id was heard. If it was the one ahead, the other did not answer, since it was not there yet,
and was not answered either: both gave up, and began again, until the end of a run took a minute.
"""

import pytest

from p2ptrain.core.effects import Send
from p2ptrain.core.inputs import Evaluated, Published, Trained
from p2ptrain.strategies.gossip import MESSAGES, Answer, Swap
from tests.helpers import READY, Author, Table, blob, only

ANNA = 2


def asking(turn_of_anna: int) -> list[Send]:
    """A node that has just asked Anna in turn 1 hears her question of another turn."""
    node = Table(strategy="gossip", others=[ANNA], steps=10_000)
    node.feed(READY, Evaluated("own", (0.6,), (0.0,), (0.5,), (0.0,), 128), Published("keep", blob(9), 64))
    effects = node.feed(Trained(50, 1600, 0.5, 1.0), Published("swap:1", blob(1), 64))
    (asked,) = [send.message for send in only(Send, effects) if isinstance(send.message, Swap)]
    assert asked.turn == 1
    question = Swap(7, blob(2), 64, turn_of_anna)
    return only(Send, node.feed(Author(ANNA, private=MESSAGES).sends(question)))


@pytest.mark.parametrize(("turn", "kind"), [(0, Answer), (1, Swap), (2, Swap)])
def test_the_question_of_who_is_behind_counts(turn: int, kind: type) -> None:
    """This node's id is the smaller one: it counts in the same turn only."""
    (sent,) = asking(turn)
    assert isinstance(sent.message, kind)
