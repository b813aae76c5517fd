"""Offences have consequences that grow and end."""

import pytest

from p2ptrain.core import limits
from p2ptrain.core.conduct import CLOSES, DISTRUST_S, DISTRUSTS, DOUBLINGS_MAX, REFUSE_S, Conduct
from p2ptrain.core.effects import Hangup
from p2ptrain.core.errors import Offence
from tests.helpers import notes, only, peer

pytestmark = pytest.mark.byzantine

LIAR = peer(1)


def test_every_offence_has_its_consequence_written_down() -> None:
    assert set(CLOSES) == set(Offence)


@pytest.mark.parametrize("offence", [offence for offence in Offence if CLOSES[offence]])
def test_a_broken_protocol_ends_the_connection_for_a_while(offence: Offence) -> None:
    conduct = Conduct()
    effects = conduct.charge(LIAR, offence, "details", now=100.0)
    assert notes(effects) == ["peer_charged"]
    assert only(Hangup, effects) == [Hangup(LIAR, str(offence), REFUSE_S)]
    assert not conduct.admits(LIAR, now=100.0 + REFUSE_S - 1)
    assert conduct.admits(LIAR, now=100.0 + REFUSE_S)


@pytest.mark.parametrize("offence", [offence for offence in Offence if not CLOSES[offence]])
def test_an_offence_that_may_be_an_accident_does_not_end_the_connection(offence: Offence) -> None:
    conduct = Conduct()
    assert only(Hangup, conduct.charge(LIAR, offence, "", now=100.0)) == []
    assert conduct.admits(LIAR, now=100.0)


@pytest.mark.parametrize("offence", DISTRUSTS)
def test_who_offered_bad_weights_is_not_believed_for_a_while(offence: Offence) -> None:
    conduct = Conduct()
    conduct.charge(LIAR, offence, "", now=100.0)
    assert not conduct.believes(LIAR, now=100.0 + DISTRUST_S - 1)
    assert conduct.believes(LIAR, now=100.0 + DISTRUST_S)


def test_a_replayed_message_alone_costs_nothing() -> None:
    conduct = Conduct()
    for _ in range(100):
        conduct.charge(LIAR, Offence.REPLAYED, "", now=100.0)
    assert conduct.believes(LIAR, now=100.0)
    assert conduct.of(LIAR).strikes == 0


def test_each_offence_doubles_the_ban_up_to_a_bound() -> None:
    conduct, lengths, now = Conduct(), [], 0.0
    for _ in range(DOUBLINGS_MAX + 4):
        (hangup,) = only(Hangup, conduct.charge(LIAR, Offence.FORGED, "", now))
        lengths.append(hangup.refuse_s / REFUSE_S)
        now += hangup.refuse_s
        assert conduct.admits(LIAR, now), "every ban ends"
    assert lengths == [min(2.0**n, 2.0**DOUBLINGS_MAX) for n in range(DOUBLINGS_MAX + 4)]


def test_a_lesser_offence_does_not_shorten_a_ban() -> None:
    conduct = Conduct()
    for _ in range(3):
        conduct.charge(LIAR, Offence.FALSE_CLAIM, "", now=0.0)
    banned_until = conduct.of(LIAR).distrusted_until
    conduct.charge(LIAR, Offence.REPLAYED, "", now=1.0)
    assert conduct.of(LIAR).distrusted_until == banned_until


def test_others_are_not_blamed() -> None:
    conduct = Conduct()
    conduct.charge(LIAR, Offence.FORGED, "", now=0.0)
    assert conduct.admits(peer(2), now=0.0)
    assert conduct.believes(peer(2), now=0.0)


def test_records_are_bounded_and_the_latest_stay() -> None:
    conduct = Conduct()
    for number in range(limits.PEERS_MAX + 5):
        conduct.charge(peer(number), Offence.FORGED, "", now=0.0)
    assert len(conduct._records) == limits.PEERS_MAX
    assert not conduct.admits(peer(limits.PEERS_MAX + 4), now=0.0)


def test_details_from_outside_are_cut() -> None:
    (note, _) = Conduct().charge(LIAR, Offence.MALFORMED, "x" * 10_000, now=0.0)
    assert len(note.fields["detail"]) == 200  # type: ignore[attr-defined]
