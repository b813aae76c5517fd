"""Old news was never told while newer came: `python -m tests.whole --first 1 --seeds 1`.

Each message carried one report of another, the newest first. Among 16 peers more came than went, so what lay
below was not told for minutes, and 200 s after all faults had ended some did not know each other yet. With
more of them in a message, one thing was left: an improvement that is passed on took a turn of the law, and
the whole news always went to the same half of the addresses.
"""

from p2ptrain.core import spread
from p2ptrain.core.effects import Effect, Send
from p2ptrain.core.inputs import TimerFired
from p2ptrain.core.messages import News
from tests.helpers import Author, Table, only

CARA = 16
BUSY = range(2, CARA)
SPEAK = TimerFired(spread.TIMER)


def told(effects: list[Effect]) -> list[News]:
    return [send.message for send in only(Send, effects) if isinstance(send.message, News)]


def test_who_spoke_once_is_not_forgotten_among_those_who_speak_all_the_time() -> None:
    node = Table(me=1, others=range(2, CARA + 1))
    once = Author(CARA).reports(9.0)
    node.feed(Author(CARA).news(once))
    authors = [Author(number) for number in BUSY]
    for second in range(1, 20):
        news = [author.news(author.reports(5.0 + second)) for author in authors]
        *_, said = told(node.feed(*news, SPEAK, at=2.0 * second))
        assert once.raw in said.carried


def test_what_is_passed_on_at_once_carries_as_much_as_what_is_said_in_time() -> None:
    node = Table(me=1, others=range(2, CARA + 1))
    node.feed(*(Author(number).news(Author(number).reports(float(number))) for number in BUSY))
    (passed_on,) = told(node.feed(Author(CARA).news(Author(CARA).reports(0.5), hops=3), at=60.0))
    (said,) = told(node.feed(SPEAK, at=62.0))
    assert len(passed_on.carried) == len(said.carried) == CARA - 1
