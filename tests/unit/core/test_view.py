"""What the outside sees of a node: everything that is known, nothing that could harm."""

from p2ptrain.core.effects import Tell
from p2ptrain.core.errors import Offence
from p2ptrain.core.inputs import Offended, Paused, PeerDown, PeerUp, Started, Trained, TrainerLost
from p2ptrain.core.messages import Contacts, Report
from p2ptrain.core.types import peer_text, short
from p2ptrain.core.view import PeerView
from tests.helpers import READY, Author, Scripted, Table, offer, peer

ME, ANNA, BERT = 1, 2, 3


def view_of(table: Table, number: int) -> PeerView:
    return next(view for view in table.node.view(table.now).peers if view.peer == peer_text(peer(number)))


def test_a_node_that_just_started_says_what_it_waits_for() -> None:
    view = Table().node.view(0.0)
    assert (view.state, view.reason) == ("starting", "loading the task and the last checkpoint")
    assert (view.loss, view.test_loss, view.step) == (None, None, 0)


def test_a_node_alone_says_so_and_what_to_do() -> None:
    table = Table(others=())
    table.feed(READY)
    assert "alone" in table.node.view(0.0).reason
    assert "p2ptrain invite" in table.node.view(0.0).reason


def test_a_node_among_others_counts_them() -> None:
    table = Table(others=(ANNA, BERT))
    table.feed(READY)
    assert table.node.view(0.0).reason == "with 2 other peers"
    table.feed(PeerDown(peer(BERT), "gone"))
    assert table.node.view(0.0).reason == "with 1 other peer"


def test_no_pause_and_no_loss_is_unexplained() -> None:
    table = Table()
    table.feed(READY, Paused("on battery", "plug in"))
    assert table.node.view(0.0).reason == "on battery"
    assert table.node.view(0.0).until == "plug in"
    table = Table()
    table.feed(READY, TrainerLost("out of memory", retry_s=7.0))
    assert table.node.view(0.0).reason == "out of memory"
    assert table.node.view(0.0).until == "the next try in 7 s"


def test_progress_and_the_own_report_are_shown() -> None:
    report = Report(50, 1600, 0.5, 0.9, offer(0.25))
    table = Table(Scripted(start=[Tell(report)]))
    table.feed(READY, Trained(50, 1600, 0.5, 1.0))
    view = table.node.view(0.0)
    assert (view.step, view.samples, view.loss, view.accuracy, view.best_loss) == (50, 1600, 0.5, 0.9, 0.25)
    assert view.activity == "as written"


def test_a_member_that_said_nothing_is_shown_too() -> None:
    view = view_of(Table(), ANNA)
    assert view == PeerView(peer_text(peer(ANNA)), short(peer(ANNA)), "", connected=False, trouble="")


def test_a_members_report_is_shown_with_its_age() -> None:
    table, anna = Table(), Author(ANNA)
    table.feed(anna.news(anna.reports(0.5, step=50, finished=True)), PeerUp(anna.peer), at=10.0)
    table.now = 14.0
    view = view_of(table, ANNA)
    assert (view.step, view.samples, view.loss, view.best_loss) == (50, 1600, 0.5, 0.5)
    assert (view.finished, view.age_s, view.connected) == (True, 4.0, True)


def test_names_and_reasons_of_peers_are_harmless() -> None:
    table, bert = Table(contact=None), Author(BERT)
    evil = bert.contact(name="\x1b[2Jroot\u202e")
    table.feed(Started(), Author(ANNA).sends(Contacts((evil.raw,))), PeerDown(bert.peer, "\x1b]0;x\x07"))
    assert view_of(table, BERT).name == "·[2Jroot·"
    assert view_of(table, BERT).trouble == "·]0;x·"


def test_what_a_peer_was_charged_with_is_shown() -> None:
    table = Table()
    table.feed(Offended(peer(ANNA), Offence.FALSE_CLAIM, "claimed 0.1, measured 3"))
    assert view_of(table, ANNA).trouble == "weights worse than claimed"
    assert view_of(table, ANNA).strikes == 1


def test_a_node_does_not_list_itself() -> None:
    table = Table(others=(ANNA,))
    assert [view.peer for view in table.node.view(0.0).peers] == [peer_text(peer(ANNA))]
