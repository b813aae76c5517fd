"""A node connects its parts: what it does with each input, and what it never does."""

import math

import pytest

from p2ptrain.core import inputs, limits
from p2ptrain.core.effects import (
    OWN,
    Accuse,
    Adopt,
    Checkpoint,
    Combine,
    Dial,
    Drop,
    Effect,
    Evaluate,
    Fetch,
    Finish,
    Fresh,
    Halt,
    Hangup,
    Note,
    Publish,
    Send,
    SetTimer,
    Sign,
    Split,
    Tell,
    Train,
    digest,
)
from p2ptrain.core.errors import Offence
from p2ptrain.core.inputs import (
    Evaluated,
    Fetched,
    FetchFailed,
    LearnFailed,
    Leaving,
    Offended,
    Paused,
    PeerDown,
    PeerUp,
    Published,
    Resumed,
    Saved,
    Started,
    TimerFired,
    Trained,
    TrainerLost,
    TrainerReady,
)
from p2ptrain.core.lifecycle import State
from p2ptrain.core.messages import Contact, Contacts, Leave, Message, News, Push, Report
from p2ptrain.core.node import CHECKPOINT_EVERY_MAX_S, CHECKPOINT_EVERY_S, CHECKPOINT_TIMER, TEST_TAG
from p2ptrain.core.strategy import Context, Event, Learned, Told
from p2ptrain.core.types import PeerId
from p2ptrain.strategies import load
from tests.helpers import READY, Author, Scripted, Table, blob, notes, offer, only, peer

ME, ANNA, BERT = 1, 2, 3
EXCHANGE_STEPS = load("gossip").config().exchange_steps
LOSS = ("own", (0.5,), (0.0,), (0.5,), (0.0,), 128)


class Ping(Message, frozen=True):
    """A message of a strategy."""


NOW = TimerFired("strategy:now")
TRAINED = Trained(50, 1600, 0.5, 1.0)


class Hello(Message, frozen=True):
    """A message that only this test's strategy knows."""

    word: str


def when_timer(*effects: Effect) -> Scripted:
    """Wish for something whenever a timer rings."""

    def answer(ctx: Context, event: Event) -> list[Effect]:
        return list(effects) if isinstance(event, TimerFired) else []

    return Scripted(answer=answer)


def trains_on(ctx: Context, event: Event) -> list[Effect]:
    return [Train(50)] if isinstance(event, Trained) else []


def learning(effects: list[Effect]) -> list[Effect]:
    return [e for e in effects if isinstance(e, Train | Fresh | Adopt | Combine | Publish | Evaluate)]


# -- the beginning ---------------------------------------------------------------------------------


def test_the_own_contact_is_signed_and_told() -> None:
    contact = Contact(b"member", ("192.0.2.1:1",))
    table = Table(contact=contact)
    assert only(Sign, table.feed(Started())) == [Sign(contact)]
    table.feed(PeerUp(peer(ANNA)))
    signed = table.signed(contact)
    assert Send(peer(ANNA), Push((signed.message.raw,))) in table.feed(signed)


def test_remembered_members_are_dialled() -> None:
    effects = Table(others=()).feed(Started((Author(ANNA).contact("192.0.2.2:1"),)))
    assert only(Dial, effects) == [Dial(peer(ANNA), ("192.0.2.2:1",))]


def test_training_begins_when_the_trainer_is_ready() -> None:
    table = Table(Scripted(start=[Train(50)]))
    assert only(Train, table.feed(Started())) == []
    assert only(Train, table.feed(READY)) == [Train(50)]
    assert table.node.state is State.TRAINING


# -- messages --------------------------------------------------------------------------------------


def test_the_strategys_own_messages_reach_it_with_their_sender() -> None:
    strategy = Scripted()
    table = Table(strategy, messages=(Hello,))
    table.feed(READY, Author(ANNA, private=(Hello,)).sends(Hello("hi")))
    assert strategy.seen == [Told(peer(ANNA), Hello("hi"))]


def test_an_improvement_reaches_the_strategy_and_anything_else_does_not() -> None:
    strategy, anna, bert = Scripted(), Author(ANNA), Author(BERT)
    table = Table(strategy)
    good, worse = anna.reports(0.5), bert.reports(0.75)
    table.feed(READY, anna.news(good), bert.news(worse), bert.news(good))
    assert strategy.seen == [Learned(good)]


def test_goodbyes_and_contacts_are_the_nodes_affair() -> None:
    strategy = Scripted()
    table = Table(strategy)
    table.feed(
        READY, Author(ANNA).sends(Contacts((Author(9).contact().raw,))), Author(ANNA).sends(Leave("night"))
    )
    assert strategy.seen == [PeerDown(peer(ANNA), "left: night")]
    assert table.node.view(0.0).peers[0].trouble == "left: night"
    assert peer(9) in table.node.members


def test_who_was_refused_is_not_listened_to_until_the_ban_ends() -> None:
    strategy, anna = Scripted(), Author(ANNA, private=(Hello,))
    table, report = Table(strategy, messages=(Hello,)), anna.reports(0.5)
    (hangup,) = only(Hangup, table.feed(READY, Offended(anna.peer, Offence.FORGED, "")))
    assert table.feed(anna.sends(Hello("hi")), anna.sends(Leave("bye")), anna.news(report)) == []
    assert strategy.seen == []
    assert table.node.ledger.best() is None
    table.feed(anna.news(report), at=hangup.refuse_s)
    assert strategy.seen == [Learned(report)]


def test_reports_of_who_lied_do_not_count_whoever_brings_them() -> None:
    table, anna, bert = Table(), Author(ANNA), Author(BERT)
    table.feed(bert.news(anna.reports(0.1)), Offended(anna.peer, Offence.FALSE_CLAIM, ""))
    assert table.node.ledger.best() is None
    table.feed(bert.news(anna.reports(0.05)))
    assert table.node.ledger.best() is None


def test_statements_of_strangers_do_not_count() -> None:
    table = Table()
    table.feed(Author(ANNA).news(Author(77).reports(0.1)))
    assert table.node.ledger.best() is None
    assert peer(77) not in table.node.members


# -- weights ---------------------------------------------------------------------------------------


def test_weights_that_are_here_are_not_fetched_again() -> None:
    strategy = when_timer(Fetch(blob(1), 64, (peer(ANNA),), 10.0))
    table = Table(strategy)
    assert only(Fetch, table.feed(READY, Published("x", blob(1), 64), NOW)) == []
    assert strategy.seen[-1] == Fetched(blob(1), peer(ME))


def test_weights_that_nobody_offers_are_not_waited_for() -> None:
    strategy = when_timer(Fetch(blob(1), 64, (), 10.0))
    table = Table(strategy)
    table.feed(READY, NOW)
    assert strategy.seen[-1] == FetchFailed(blob(1), "nobody offers it")


def test_few_weights_are_fetched_at_once_and_none_twice() -> None:
    wishes = [Fetch(blob(n), 64, (peer(ANNA),), 10.0) for n in range(limits.FETCHES_MAX + 2)]
    strategy = when_timer(wishes[0], *wishes)
    table = Table(strategy)
    assert only(Fetch, table.feed(READY, NOW)) == wishes[: limits.FETCHES_MAX]
    assert strategy.seen[1:] == [FetchFailed(wish.blob, "too many fetches at once") for wish in wishes[2:]]


def test_the_end_of_a_fetch_makes_room_and_reaches_the_strategy_once() -> None:
    strategy = when_timer(Fetch(blob(1), 64, (peer(ANNA),), 10.0))
    table = Table(strategy)
    table.feed(READY, NOW, Fetched(blob(1), peer(ANNA)), Fetched(blob(1), peer(ANNA)))
    assert strategy.seen[1:] == [Fetched(blob(1), peer(ANNA))]
    table.feed(FetchFailed(blob(9), "nobody asked for it"))
    assert strategy.seen[1:] == [Fetched(blob(1), peer(ANNA))]


def test_old_weights_are_dropped_but_never_those_of_the_own_report() -> None:
    table = Table(Scripted(start=[Tell(Report(0, 0, 0.5, None, offer(0.5, 0)))]))
    table.feed(READY, Published("x", blob(0), 64))
    effects = table.feed(*[Published("x", blob(n), 64) for n in range(1, 40)])
    dropped = [drop.blob for drop in only(Drop, effects)]
    assert dropped == [blob(n) for n in range(1, 40 - limits.HELD_BLOBS_MAX)]


def test_a_false_claim_is_charged_and_the_report_forgotten() -> None:
    table = Table(when_timer(Accuse(peer(ANNA), Offence.FALSE_CLAIM, "claimed 0.1, measured 3")))
    table.feed(READY, Author(ANNA).news(Author(ANNA).reports(0.1)))
    assert notes(table.feed(NOW)) == ["peer_charged"]
    assert table.node.ledger.best() is None


# -- the own report --------------------------------------------------------------------------------


def test_what_the_strategy_tells_is_signed_known_here_and_spread() -> None:
    report = Report(50, 1600, 0.5, None, offer(0.25))
    table = Table(Scripted(start=[Tell(report)]))
    assert only(Sign, table.feed(READY)) == [Sign(report)]
    signed = table.signed(report)
    table.feed(Started(), signed)
    assert table.node.ledger.best() == signed.message
    (send,) = only(Send, table.feed(TimerFired("spread")))
    assert isinstance(send.message, News)
    assert send.message.carried == (signed.message.raw,)


def measured(loss: float, accuracy: float) -> Evaluated:
    """Let the trainer measure something odd, and return what the strategy sees of it."""
    strategy = Scripted()
    table = Table(strategy)
    table.feed(READY, Evaluated("own", (loss, 0.5), (0.0, 0.0), (accuracy, 0.5), (0.0, 1.0), 100))
    (seen,) = strategy.seen
    assert isinstance(seen, Evaluated)
    assert (seen.losses[1], seen.accuracies[1]) == (0.5, 0.5)
    return seen


@pytest.mark.parametrize("loss", [math.nan, math.inf, -math.inf, 1e31, -1e31])
def test_a_loss_that_no_peer_would_believe_means_useless_weights(loss: float) -> None:
    """Said aloud it would be a number out of range: an honest peer would be refused for diverging."""
    assert measured(loss, 0.5).losses[0] == math.inf


@pytest.mark.parametrize("accuracy", [math.nan, math.inf, -0.1, 1.1, 97.0])
def test_an_accuracy_that_is_no_share_is_none(accuracy: float) -> None:
    assert math.isnan(measured(0.5, accuracy).accuracies[0])


# -- a bootstrap -----------------------------------------------------------------------------------


def bootstrap() -> Table:
    contact = Contact(b"member", trains=False)
    table = Table(contact=contact)
    table.feed(Started(), table.signed(contact))
    return table


def test_a_bootstrap_serves_and_says_whom() -> None:
    table = bootstrap()
    assert table.node.state is State.SERVING
    assert table.node.view(0.0).reason == "introduces and relays for 2 peers"
    table.feed(PeerDown(peer(ANNA), "gone"))
    assert table.node.view(0.0).reason == "introduces and relays for 1 peer"


def test_a_bootstrap_passes_on_what_it_hears() -> None:
    table, report = bootstrap(), Author(ANNA).reports(0.5)
    effects = table.feed(PeerUp(peer(BERT)), Author(ANNA).news(report, hops=3))
    assert any(isinstance(e.message, News) and report.raw in e.message.carried for e in only(Send, effects))
    contact = Author(ANNA).contact("192.0.2.2:1")
    effects = table.feed(Author(ANNA).sends(Contacts((contact.raw,))))
    assert Send(peer(BERT), Push((contact.raw,))) in effects


def test_a_bootstrap_has_nothing_to_pause_and_says_goodbye() -> None:
    table = bootstrap()
    assert table.feed(Paused("on battery"), Resumed()) == []
    assert table.node.state is State.SERVING
    goodbyes = only(Send, table.feed(Leaving()))
    assert [(send.to, type(send.message)) for send in goodbyes] == [(peer(ANNA), Leave), (peer(BERT), Leave)]
    assert table.node.state is State.LEFT


def test_a_bootstrap_is_no_partner_of_those_who_train() -> None:
    found: list[list[PeerId]] = []
    table = Table(Scripted(answer=lambda ctx, _: found.append(ctx.partners()) or []))
    table.feed(Started((Author(ANNA).contact(trains=False),)), READY, NOW)
    assert found[-1] == [peer(BERT)]
    table.feed(PeerDown(peer(BERT), "gone"))
    assert table.node.view(0.0).reason.startswith("alone: nobody else trains now")
    assert [one.trains for one in table.node.view(0.0).peers] == [False, True]


def test_a_bootstrap_is_left_out_of_the_pairs_of_gossip() -> None:
    """Four that train come to the mean in two turns, as if the fifth were not there."""
    table = Table(strategy="gossip", steps=10_000, others=(ANNA, BERT, 4, 5))
    table.feed(Started((Author(ANNA).contact(trains=False),)), READY, Evaluated(*LOSS))
    met = []
    for turn in range(1, 9):
        table.feed(Trained(turn * EXCHANGE_STEPS, 0, 0.5, 1.0))
        sends = only(Send, table.feed(Published(f"swap:{turn}", blob(turn), 64), at=float(turn)))
        met += [send.to for send in sends if type(send.message).__name__ == "Swap"]
        table.feed(LearnFailed(f"swap:{turn}", "the test goes on"))
    assert met == [peer(4), peer(BERT)] * 4


def test_a_bootstrap_hears_the_goodbye_of_those_who_train() -> None:
    table = Table(others=(ANNA,))
    table.feed(Started((Author(ANNA).contact(trains=False),)), READY)
    assert [send.to for send in only(Send, table.feed(Leaving()))] == [peer(ANNA)]


# -- pausing ---------------------------------------------------------------------------------------


def test_a_pause_stops_training_and_keeps_what_was_reached() -> None:
    table = Table(Scripted(start=[Train(50)], keeps=b"memory"))
    table.feed(READY)
    assert table.feed(Paused("on battery")) == [
        Note("paused", {"reason": "on battery"}),
        Halt(),
        Checkpoint(b"memory"),
    ]
    assert table.node.state is State.PAUSED


def test_a_pause_is_told_to_the_others_at_once_and_so_is_its_end() -> None:
    """Who waits for this node, or wants to exchange with it, must know."""
    table = Table(Scripted(start=[Tell(Report(1, 32, 0.5))]))
    table.feed(READY)
    for event, paused in ((Paused("on battery"), True), (Resumed(), False)):
        (sign,) = only(Sign, table.feed(event))
        assert sign.statement == Report(1, 32, 0.5, paused=paused)
        sent = only(Send, table.feed(table.signed(sign.statement)))
        assert {send.to for send in sent} == {peer(ANNA), peer(BERT)}


def test_a_paused_node_does_no_work_for_others() -> None:
    table = Table(Scripted(answer=lambda ctx, event: [Publish("swap")]), messages=(Ping,))
    anna = Author(ANNA, private=(Ping,))
    table.feed(READY)
    assert only(Publish, table.feed(anna.sends(Ping()))) == [Publish("swap")]
    table.feed(Paused("a game runs"))
    assert table.feed(anna.sends(Ping())) == []


def test_a_paused_peer_is_no_partner() -> None:
    found: list[list[PeerId]] = []
    table = Table(Scripted(answer=lambda ctx, _: found.append(ctx.partners()) or []))
    anna = Author(ANNA)
    table.feed(READY, anna.news(anna.says(Report(1, 32, 0.5, paused=True))), NOW)
    table.feed(anna.news(anna.says(Report(1, 32, 0.5))), NOW)
    assert found[-2:] == [[peer(BERT)], sorted([peer(ANNA), peer(BERT)])]


def test_what_the_strategy_wanted_to_train_in_a_pause_begins_after_it() -> None:
    table = Table(Scripted(start=[Train(50)], answer=trains_on))
    table.feed(READY, Paused("on battery"))
    assert only(Train, table.feed(Trained(7, 224, 0.5, 0.1))) == []
    assert only(Train, table.feed(Resumed())) == [Train(50)]
    assert table.node.state is State.TRAINING
    assert only(Train, table.feed(Resumed())) == []


def test_a_node_that_starts_paused_trains_only_after_the_pause() -> None:
    table = Table(Scripted(start=[Train(50)]))
    assert only(Train, table.feed(Started(), Paused("at night only"), READY)) == []
    assert table.node.state is State.PAUSED
    assert only(Train, table.feed(Resumed())) == [Train(50)]


def test_a_pause_over_before_the_trainer_is_ready_delays_nothing() -> None:
    table = Table(Scripted(start=[Train(50)]))
    assert only(Train, table.feed(Paused("short"), Resumed())) == []
    assert only(Train, table.feed(READY)) == [Train(50)]


def test_a_second_reason_for_the_pause_is_the_one_shown() -> None:
    table = Table()
    table.feed(READY, Paused("on battery"), Paused("a game runs", "when it ends"))
    view = table.node.view(0.0)
    assert (view.reason, view.until) == ("a game runs", "when it ends")
    table.feed(Resumed())
    assert table.node.view(0.0).reason == "with 2 other peers"


def test_a_finished_node_has_nothing_to_pause_and_says_why_it_is_done() -> None:
    table = Table(Scripted(start=[Finish("all steps done")]))
    table.feed(READY, Paused("on battery"))
    assert (table.node.state, table.node.view(0.0).reason) == (State.FINISHED, "all steps done")


# -- a trainer that dies ---------------------------------------------------------------------------


def test_a_lost_trainer_is_explained_and_its_strategy_starts_again_from_memory() -> None:
    first, second = Scripted(start=[Train(50)]), Scripted(start=[Train(30)])
    table = Table(first, second)
    table.feed(READY)
    assert notes(table.feed(TrainerLost("out of memory", 5.0))) == ["trainer_lost"]
    assert table.node.state is State.RECOVERING
    table.feed(TRAINED, NOW)
    assert first.seen == [], "what belongs to the lost trainer means nothing any more"
    effects = table.feed(TrainerReady(40, 1280, 8, 64, b"kept"))
    assert (second.resumed_from, only(Train, effects)) == (b"kept", [Train(30)])
    assert table.node.state is State.TRAINING
    assert table.node.view(0.0).step == 40


def test_what_a_lost_trainer_should_have_done_after_a_pause_is_forgotten() -> None:
    table = Table(Scripted(start=[Train(50)]), Scripted(start=[Train(30)]))
    table.feed(Paused("on battery"), READY, TrainerLost("killed", 5.0))
    assert only(Train, table.feed(Resumed())) == []
    assert only(Train, table.feed(READY)) == [Train(30)]


def test_a_trainer_that_comes_back_in_a_pause_waits_for_its_end() -> None:
    table = Table(Scripted(start=[Train(50)]), Scripted(start=[Train(30)]))
    assert only(Train, table.feed(READY, Paused("on battery"), TrainerLost("killed", 5.0), READY)) == [
        Train(50)
    ]
    assert table.node.state is State.PAUSED
    assert only(Train, table.feed(Resumed())) == [Train(30)]


def test_a_trainer_that_comes_back_after_the_end_touches_nothing() -> None:
    """G9: neither weights nor what was kept change, whatever peers still ask for."""
    table = Table(
        Scripted(start=[Finish("done")], keeps=b"result"), Scripted(start=[Train(50)], answer=trains_on)
    )
    table.feed(READY, TrainerLost("killed", 5.0))
    effects = table.feed(READY, TRAINED, NOW, TimerFired(CHECKPOINT_TIMER))
    assert learning(effects) == [Evaluate(TEST_TAG, (OWN,), Split.TEST)], "only the result is measured"
    assert only(Checkpoint, effects) == []
    assert table.node.state is State.FINISHED


def test_what_the_trainer_could_not_do_is_told_to_the_owner_and_to_the_strategy() -> None:
    strategy = Scripted()
    table = Table(strategy)
    table.feed(READY)
    assert notes(table.feed(LearnFailed("keep", "no space left on device"))) == ["learn_failed"]
    assert strategy.seen == [LearnFailed("keep", "no space left on device")]


# -- saving ----------------------------------------------------------------------------------------


def test_saving_takes_a_bounded_share_of_the_time() -> None:
    table = Table(Scripted(keeps=b"memory"))
    assert SetTimer(CHECKPOINT_TIMER, CHECKPOINT_EVERY_S) in table.feed(READY)
    assert table.feed(TimerFired(CHECKPOINT_TIMER)) == [Checkpoint(b"memory")]
    for took_s, wait_s in ((0.01, CHECKPOINT_EVERY_S), (1.0, 50.0), (60.0, CHECKPOINT_EVERY_MAX_S)):
        assert SetTimer(CHECKPOINT_TIMER, pytest.approx(wait_s)) in table.feed(Saved(50, took_s))
    assert table.node.view(0.0).saved_step == 50


def test_a_memory_that_is_too_large_is_not_kept() -> None:
    table = Table(Scripted(keeps=bytes(limits.MEMORY_BYTES_MAX + 1)))
    table.feed(READY)
    assert table.feed(TimerFired(CHECKPOINT_TIMER)) == [Checkpoint(b"")]


# -- the end ---------------------------------------------------------------------------------------


def finishing(told: Report | None = None) -> Table:
    start: list[Effect] = [Tell(told)] if told else []
    table = Table(
        Scripted(start=[*start, Train(50)], answer=lambda *_: [Finish("all done"), Train(50)], keeps=b"m")
    )
    table.feed(READY)
    return table


def test_the_end_is_said_saved_and_measured_on_the_test_split() -> None:
    report = Report(50, 1600, 0.5, None, offer(0.25))
    assert finishing(report).feed(TRAINED) == [
        Note("finished", {"reason": "all done"}),
        Halt(),
        Sign(Report(50, 1600, 0.5, None, offer(0.25), finished=True)),
        Checkpoint(b"m"),
        Evaluate(TEST_TAG, (OWN,), Split.TEST),
    ]


def test_the_result_on_the_test_split_is_shown_and_not_given_to_the_strategy() -> None:
    table = finishing()
    table.feed(TRAINED)
    effects = table.feed(Evaluated(TEST_TAG, (0.4,), (0.01,), (0.9,), (0.0,), 1000))
    assert effects == [Note("tested", {"loss": 0.4, "accuracy": 0.9})]
    view = table.node.view(0.0)
    assert (view.state, view.reason, view.test_loss, view.test_accuracy) == ("finished", "all done", 0.4, 0.9)


def test_after_the_end_nothing_is_trained_and_it_ends_once() -> None:
    table = finishing()
    table.feed(TRAINED)
    effects = table.feed(TRAINED, NOW, Resumed())
    assert only(Train, effects) == []
    assert notes(effects) == []


def test_what_is_told_after_the_end_still_says_that_it_is_the_end() -> None:
    table = Table(Scripted(start=[Finish("done")], answer=lambda *_: [Tell(Report(50, 1600, 0.5))]))
    assert only(Sign, table.feed(READY, NOW)) == [Sign(Report(50, 1600, 0.5, finished=True))]


def test_after_the_end_the_result_stays_on_offer() -> None:
    report = Report(50, 1600, 0.5, None, offer(0.25))
    table = finishing(report)
    table.feed(Started(), TRAINED, table.signed(Report(50, 1600, 0.5, None, offer(0.25), True)))
    (answer,) = only(Send, table.feed(Author(ANNA).news()))
    assert answer.to == peer(ANNA)


def test_a_node_may_finish_in_a_pause() -> None:
    table = Table(Scripted(answer=lambda *_: [Finish("reached elsewhere")]))
    table.feed(READY, Paused("on battery"), Author(ANNA).news(Author(ANNA).reports(0.1)))
    assert table.node.state is State.FINISHED


# -- leaving ---------------------------------------------------------------------------------------


def test_leaving_saves_and_says_goodbye_to_those_who_can_be_reached() -> None:
    table = Table(Scripted(keeps=b"memory"), others=(ANNA, BERT))
    table.feed(READY, PeerDown(peer(BERT), "gone"))
    goodbye = Send(peer(ANNA), Leave("stopped by its owner"))
    assert table.feed(Leaving()) == [Halt(), Checkpoint(b"memory"), goodbye]
    assert table.node.state is State.LEFT


def test_leaving_a_large_swarm_does_not_take_long() -> None:
    table = Table(others=range(2, 5000))
    table.feed(READY)
    assert len(only(Send, table.feed(Leaving()))) == limits.MESH_PEERS_MAX


AFTERWARDS = [
    Started(),
    Author(ANNA).news(Author(ANNA).reports(0.1)),
    PeerUp(peer(ANNA)),
    PeerDown(peer(ANNA), "gone"),
    Fetched(blob(1), peer(ANNA)),
    READY,
    TRAINED,
    TrainerLost("killed", 5.0),
    NOW,
    TimerFired("spread"),
    TimerFired("dial"),
    TimerFired(CHECKPOINT_TIMER),
    Saved(50, 0.1),
    Paused("on battery"),
    Resumed(),
    Leaving(),
]


@pytest.mark.parametrize("event", AFTERWARDS, ids=lambda event: type(event).__name__)
def test_who_has_left_does_nothing_any_more(event: inputs.Input) -> None:
    table = Table(
        Scripted(start=[Fresh(1), Train(50)], answer=lambda *_: [Publish("x"), Train(50)], keeps=b"m")
    )
    table.feed(Started((Author(BERT).contact("192.0.2.3:1"),)), READY, Leaving())
    assert table.feed(event) == []
    assert table.node.state is State.LEFT


# -- determinism -----------------------------------------------------------------------------------


def test_equal_inputs_give_equal_effects_bit_by_bit() -> None:
    def effects() -> list[Effect]:
        table = Table(strategy="gossip", steps=100, others=range(2, 9))
        return table.feed(Started(), READY, TRAINED, Published("swap", blob(1), 64), TimerFired("spread"))

    assert digest(effects()) == digest(effects())
    assert digest(effects()) != digest(effects()[:-1])
