"""How reports travel: each rule of the law of speaking. ALGORITHMS 1.3 and 2.1."""

from collections.abc import Iterable
from typing import Any

import msgspec
import pytest

from p2ptrain.core import law, limits, spread
from p2ptrain.core.effects import Effect, Send, SetTimer
from p2ptrain.core.inputs import PeerDown, PeerUp, Published, Started, TimerFired
from p2ptrain.core.messages import News
from p2ptrain.core.spread import OTHERS_BY_MEMBERS, SpreadConfig
from p2ptrain.core.types import PeerId
from tests.helpers import Author, Table, offer, only, peer

ME, ANNA, BERT, CARA = 1, 2, 3, 4
OTHERS = range(2, 17)
SPEAK = TimerFired(spread.TIMER)


def table(*, others: Iterable[int] = OTHERS, **options: Any) -> Table:
    node = Table(me=ME, others=others, spread=msgspec.convert(options, SpreadConfig))
    node.feed(Started())
    return node


def told(effects: Iterable[Effect]) -> list[Send]:
    return [send for send in only(Send, effects) if isinstance(send.message, News)]


def wait_s(effects: Iterable[Effect]) -> float:
    (timer,) = [timer for timer in only(SetTimer, effects) if timer.key == spread.TIMER]
    return timer.after_s


# -- speaking --------------------------------------------------------------------------------------


def test_who_knows_nothing_says_nothing() -> None:
    assert told(table().feed(SPEAK)) == []


def test_nodes_started_together_do_not_speak_together() -> None:
    first = [Table(me=me, others=OTHERS).feed(Started()) for me in (1, 2, 3)]
    assert len(dict.fromkeys(map(wait_s, first))) == 1, "equal seeds: the same moment"
    assert 0 <= wait_s(first[0]) < SpreadConfig().period_s


def test_in_a_large_swarm_the_best_the_own_and_one_other_are_told() -> None:
    node = table(others=range(2, 1 + OTHERS_BY_MEMBERS))
    mine = node.signed(Author(ME).reports(5.0).message)
    others = [Author(number).reports(float(number)) for number in (ANNA, BERT, CARA)]
    node.feed(mine, Author(ANNA).news(*others))
    carried = [send.message.carried for send in told(node.feed(*[SPEAK] * 4))]
    assert all(news[:2] == (others[0].raw, mine.message.raw) for news in carried)
    third = dict.fromkeys(news[2] for news in carried if len(news) > 2)
    assert list(third) == [others[2].raw, others[1].raw], "everybody has a turn"


def test_in_a_small_swarm_everything_is_told_each_time() -> None:
    numbers = range(2, 1 + limits.REPORTS_PER_NEWS_MAX)
    node = table(others=numbers)
    mine = node.signed(Author(ME).reports(0.5).message)
    others = [Author(number).reports(float(number)) for number in numbers]
    node.feed(mine, *(Author(number).news(report) for number, report in zip(numbers, others, strict=True)))
    for send in told(node.feed(*[SPEAK] * 4)):
        assert sorted(send.message.carried) == sorted(one.raw for one in (mine.message, *others))


def test_a_message_never_carries_more_than_it_may() -> None:
    numbers = range(2, 2 + limits.REPORTS_PER_NEWS_MAX)
    node = table(others=numbers)
    node.feed(*(Author(number).news(Author(number).reports(float(number))) for number in numbers))
    for send in told(node.feed(*[SPEAK] * 8)):
        assert 1 < len(send.message.carried) <= limits.REPORTS_PER_NEWS_MAX


def test_whose_weights_are_here_is_said() -> None:
    node = table()
    mine = Author(ME).reports(0.5).message
    node.feed(
        node.signed(mine), Author(ANNA).news(Author(ANNA).reports(0.25)), Published("x", offer(0.5).blob, 64)
    )
    (send,) = told(node.feed(SPEAK))
    assert send.message.held == (False, True)


def test_one_word_a_period_while_others_are_heard() -> None:
    node, period_s = table(), SpreadConfig().period_s
    report = Author(ANNA).reports(0.5)
    for period in range(20):
        effects = node.feed(Author(ANNA).news(report, reply=True), SPEAK, at=period * period_s)
        assert len(told(effects)) == 1
        assert 0.9 * period_s <= wait_s(effects) <= 1.1 * period_s


def test_addresses_follow_the_law_so_that_all_are_reached() -> None:
    node = table()
    node.feed(Author(ANNA).news(Author(ANNA).reports(0.5)))
    to = [send.to for n in range(1, 9) for send in told(node.feed(SPEAK, at=4.0 * n))]
    assert len(dict.fromkeys(to[:4])) == 4, "16 members: 4 turns, 4 addresses"
    assert to[:4] == to[4:]


# -- who hears nothing speaks more often -----------------------------------------------------------


def test_silence_doubles_the_rate_up_to_a_bound() -> None:
    node, config = table(), SpreadConfig()
    silence_s = config.silence_periods * config.period_s
    for silent, rate in ((0.9, 1), (1.1, 2), (2.1, 4), (3.1, 4), (1e6, 4), (1e300, 4)):
        wait = wait_s(node.feed(SPEAK, at=silent * silence_s))
        assert 0.9 * config.period_s / rate <= wait <= 1.1 * config.period_s / rate, silent


def test_one_word_of_another_ends_the_silence() -> None:
    node, config = table(), SpreadConfig()
    node.feed(Author(ANNA).news(), at=1000.0)
    assert wait_s(node.feed(SPEAK, at=1000.0)) >= 0.9 * config.period_s


def test_without_the_adaptive_rate_silence_changes_nothing() -> None:
    node, config = table(adaptive=False), SpreadConfig()
    assert wait_s(node.feed(SPEAK, at=1e6)) >= 0.9 * config.period_s


# -- who knows better answers ----------------------------------------------------------------------


def test_who_knows_better_answers_once() -> None:
    node = table()
    best = Author(ANNA).reports(0.25)
    node.feed(Author(ANNA).news(best))
    worse = Author(BERT).news(Author(BERT).reports(0.5))
    (answer,) = told(node.feed(worse))
    assert answer.to == peer(BERT)
    assert answer.message.reply
    assert answer.message.carried[0] == best.raw


def test_an_answer_is_never_answered() -> None:
    node = table()
    node.feed(Author(ANNA).news(Author(ANNA).reports(0.25)))
    assert told(node.feed(Author(BERT).news(Author(BERT).reports(0.5), reply=True))) == []


def test_who_knows_nothing_better_does_not_answer() -> None:
    node, best = table(), Author(ANNA).reports(0.25)
    node.feed(Author(ANNA).news(best))
    assert told(node.feed(Author(BERT).news(best))) == []
    assert told(table().feed(Author(BERT).news())) == []


def test_who_says_nothing_is_told_the_best() -> None:
    node = table()
    node.feed(Author(ANNA).news(Author(ANNA).reports(0.25)))
    (answer,) = told(node.feed(Author(BERT).news()))
    assert answer.message.reply


def test_answers_can_be_turned_off() -> None:
    node = table(reply=False)
    node.feed(Author(ANNA).news(Author(ANNA).reports(0.25)))
    assert told(node.feed(Author(BERT).news(Author(BERT).reports(0.5)))) == []


# -- an improvement is passed on at once -----------------------------------------------------------


@pytest.mark.parametrize("hops", [1, 3, 16])
def test_each_passing_on_leaves_a_hop_less(hops: int) -> None:
    node = table()
    (sent,) = told(node.feed(Author(ANNA).news(Author(ANNA).reports(0.5), hops=hops)))
    assert sent.message.hops == hops - 1


def test_news_without_hops_are_not_passed_on() -> None:
    assert told(table().feed(Author(ANNA).news(Author(ANNA).reports(0.5), hops=0))) == []


def test_what_is_no_improvement_is_not_passed_on() -> None:
    node, report = table(), Author(ANNA).reports(0.5)
    node.feed(Author(ANNA).news(report, hops=8))
    assert told(node.feed(Author(BERT).news(report, hops=8))) == []


def test_the_own_report_coming_back_is_not_passed_on() -> None:
    mine = Author(ME, boot=7).reports(0.5)
    assert told(table().feed(Author(ANNA).news(mine, hops=8))) == []


# -- bounds ----------------------------------------------------------------------------------------


def test_however_many_improvements_come_few_are_passed_on() -> None:
    """A token bucket: a flood of improvements does not become a flood of messages."""
    node, config = table(others=range(2, 60)), SpreadConfig()
    sent = []
    for n in range(500):
        improvement = Author(BERT, boot=n + 1).reports(500.0 - n)
        sent += told(
            node.feed(Author(ANNA, boot=n + 1).news(improvement, hops=16), at=n * 0.01 * config.period_s)
        )
    assert len(sent) <= config.rate_max * (1 + 5), "what was saved up, and five periods"
    assert len(sent) >= config.rate_max * 5, "but what is allowed is used"


def test_however_often_the_timer_fires_the_bound_holds() -> None:
    node, config = table(), SpreadConfig()
    node.feed(Author(ANNA).news(Author(ANNA).reports(0.5)))
    sent = told(effect for n in range(1000) for effect in node.feed(SPEAK, at=n * 0.01 * config.period_s))
    assert len(sent) <= config.rate_max * (1 + 10)


def test_a_clock_that_jumps_does_not_save_up_words() -> None:
    node, config = table(), SpreadConfig()
    node.feed(Author(ANNA).news(Author(ANNA).reports(0.5)))
    node.feed(SPEAK, at=1e9)
    assert len(told(node.feed(*[SPEAK] * 50))) <= config.rate_max


def test_each_message_is_answered_by_at_most_one_answer() -> None:
    node = table()
    node.feed(Author(ANNA).news(Author(ANNA).reports(0.25)))
    for n in range(50):
        assert len(told(node.feed(Author(BERT, boot=n + 1).news()))) == 1


# -- whose words count -----------------------------------------------------------------------------


def test_statements_of_strangers_are_not_learned() -> None:
    node, stranger = table(others=[ANNA]), Author(99)
    node.feed(Author(ANNA).news(stranger.reports(0.1)))
    assert node.node.ledger.best() is None


def test_a_newcomer_is_told_the_best_at_once() -> None:
    node = table()
    node.feed(Author(ANNA).news(Author(ANNA).reports(0.5)))
    (send,) = told(node.feed(PeerUp(peer(99))))
    assert send.to == peer(99)
    assert send.message.reply, "nobody needs to thank for it"


# -- whom to try again -----------------------------------------------------------------------------


def addressed(node: Table, turns: int) -> list[PeerId]:
    return [send.to for n in range(turns) for send in told(node.feed(SPEAK, at=4.0 * n))]


def test_the_unreachable_are_skipped_but_tried_now_and_then() -> None:
    node = table()
    node.feed(Author(ANNA).news(Author(ANNA).reports(0.5)))
    node.feed(*[PeerDown(peer(number), "gone") for number in OTHERS if number != BERT])
    to = addressed(node, turns=170)
    assert len(to) == 170
    assert 5 <= sum(peer(BERT) != other for other in to) <= 10


@pytest.mark.parametrize("count", [3, 5, 9, 16, 33, 65, 129, 1025])
def test_everyone_of_the_law_is_tried_again_not_always_the_same_one(count: int) -> None:
    """An isolated node must find back through whoever lives."""
    node = table(others=range(1, count + 1))
    node.feed(Author(ANNA).news(Author(ANNA).reports(0.5)))
    node.feed(*[PeerDown(peer(number), "gone") for number in range(1, count + 1)])
    tried = addressed(node, turns=law.PROBE_EVERY * law.turns(count))
    assert len(dict.fromkeys(tried)) == law.turns(count)


def test_with_the_synchronised_law_everyone_hears_from_one_a_period() -> None:
    period_s, heard = SpreadConfig().period_s, []
    for me in range(1, 17):
        node = Table(me=me, others=range(1, 17), spread=SpreadConfig(law="expo_sync"))
        node.feed(Started(), node.signed(Author(me).reports(0.5).message))
        heard += [send.to for send in told(node.feed(SPEAK, at=5 * period_s + 0.1))]
    assert sorted(heard) == [peer(number) for number in range(1, 17)]
