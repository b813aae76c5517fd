"""The border: what passes is signed by its author for this swarm, in form, and new. Each attack by name."""

import struct
from contextlib import suppress
from random import Random

import msgspec
import pytest

from p2ptrain.core import limits
from p2ptrain.core.codec import Codec
from p2ptrain.core.envelope import DOMAIN, VERSION, Opened, Opener, ReplayGuard, Sealer, Verified
from p2ptrain.core.errors import Offence, RemoteProtocolError
from p2ptrain.core.messages import Contact, Contacts, Leave, News, Report
from p2ptrain.core.types import SwarmId
from p2ptrain.sim.keys import SWARM, SimSigner, SimVerifier
from tests.fuzz import RealSigner, RealVerifier, accepted_forgeries, honest_envelopes, mutated
from tests.helpers import Author, peer

pytestmark = pytest.mark.attack

ANNA, BERT, CARA = 1, 2, 3
HEAD_BYTES, BODY_AT, MESSAGE_AT = 36, 100, 116


def opener(swarm: SwarmId = SWARM) -> Opener:
    return Opener(SimVerifier(), swarm, Codec())


def offence(raw: bytes, via: int, border: Opener | None = None) -> Offence:
    with pytest.raises(RemoteProtocolError) as caught:
        (border or opener()).receive(raw, peer(via))
    return caught.value.offence


def resigned(author: int, raw: bytes) -> bytes:
    """Let a member sign an envelope that was tampered with in its name: a member may be the attacker."""
    head = raw[:4] + peer(author)
    body = raw[BODY_AT:]
    return head + SimSigner(peer(author)).sign(DOMAIN + SWARM + head[2:] + body) + body


def of_kind(kind: int, raw: bytes) -> bytes:
    return raw[:3] + bytes([kind]) + raw[4:]


# -- honest messages -------------------------------------------------------------------------------


def test_a_message_arrives_with_its_author_and_order() -> None:
    anna = Author(ANNA, boot=7)
    anna.says(Leave("first"))
    sealed = anna.says(Leave("second"))
    assert opener().receive(sealed.raw, peer(ANNA)) == Verified(peer(ANNA), 7, 2, Leave("second"), sealed.raw)


def test_the_layout_is_that_of_the_protocol_page() -> None:
    raw = Author(ANNA, boot=7).says(Leave("bye")).raw
    assert struct.unpack_from(">2sBB32s", raw) == (b"P2", VERSION, 5, peer(ANNA))
    assert raw[HEAD_BYTES:BODY_AT] == SimSigner(peer(ANNA)).sign(DOMAIN + SWARM + raw[2:36] + raw[100:])
    assert struct.unpack_from(">QQ", raw, BODY_AT) == (7, 1)
    assert raw[MESSAGE_AT:] == b"\x91\xa3bye"


def test_statements_of_others_arrive_verified_and_as_they_were_signed() -> None:
    reports = Author(ANNA).reports(0.5), Author(BERT, boot=9).reports(0.25)
    received = Author(CARA).news(*reports).message
    assert received.carried == reports
    assert [statement.raw for statement in received.carried] == [report.raw for report in reports]


def test_a_statement_may_be_passed_on_again_and_again() -> None:
    border, report, cara = opener(), Author(ANNA).reports(0.5), Author(CARA)
    for _ in range(3):
        assert border.receive(cara.says(News((report.raw,))).raw, peer(CARA)) is not None


# -- forgery ---------------------------------------------------------------------------------------


def test_a_changed_message_is_forged() -> None:
    raw = Author(ANNA).says(Leave("bye")).raw
    assert offence(raw[:-1] + b"?", via=ANNA) is Offence.FORGED


def test_a_changed_boot_or_sequence_is_forged() -> None:
    raw = Author(ANNA).says(Leave("bye")).raw
    for at in (BODY_AT + 7, MESSAGE_AT - 1):
        assert offence(raw[:at] + b"\x09" + raw[at + 1 :], via=ANNA) is Offence.FORGED


def test_a_changed_kind_is_forged() -> None:
    raw = Author(ANNA).says(Leave("bye")).raw
    assert offence(of_kind(4, raw), via=ANNA) is Offence.FORGED


def test_a_message_in_anothers_name_is_forged() -> None:
    """Bert puts Anna's name over what he signed."""
    raw = Author(BERT).says(Leave("bye")).raw
    assert offence(raw[:4] + peer(ANNA) + raw[36:], via=ANNA) is Offence.FORGED


def test_a_message_relayed_in_anothers_name_is_forged() -> None:
    """Anna's own words, but it is Bert who brings them."""
    assert offence(Author(ANNA).says(Leave("bye")).raw, via=BERT) is Offence.FORGED


def test_a_message_for_another_swarm_is_forged() -> None:
    elsewhere = Sealer(SimSigner(peer(ANNA)), SwarmId(b"\1" * 32), Codec(), 1).seal(Leave("bye"))
    assert offence(elsewhere.raw, via=ANNA) is Offence.FORGED


def test_a_statement_forged_inside_of_an_honest_message_is_forged() -> None:
    report = Author(ANNA).reports(0.5).raw
    forged = report[:-1] + bytes([report[-1] ^ 1])
    assert offence(Author(CARA).says(News((forged,))).raw, via=CARA) is Offence.FORGED


def test_a_statement_for_another_swarm_is_forged() -> None:
    elsewhere = Sealer(SimSigner(peer(ANNA)), SwarmId(b"\1" * 32), Codec(), 1).seal(Report(0, 0, 0.5))
    assert offence(Author(CARA).says(News((elsewhere.raw,))).raw, via=CARA) is Offence.FORGED


def test_a_forged_statement_does_not_become_known_by_repetition() -> None:
    border, cara, report = opener(), Author(CARA), Author(ANNA).reports(0.5).raw
    forged = report[:-1] + bytes([report[-1] ^ 1])
    for _ in range(3):
        assert offence(cara.says(News((forged,))).raw, via=CARA, border=border) is Offence.FORGED


def test_a_contact_without_a_certificate_of_this_swarm_does_not_count() -> None:
    stranger = Author(BERT).says(Contact(b"of another root", ("192.0.2.1:1",)))
    with pytest.raises(RemoteProtocolError, match="certificate of another swarm"):
        opener().open_statement(stranger.raw)


def test_who_passes_on_a_contact_that_does_not_count_here_is_not_blamed() -> None:
    """It may have expired since, or be of somebody whom only this node refuses."""
    gone, here = Author(BERT).says(Contact(b"expired")), Author(CARA).contact("192.0.2.3:1")
    received = opener().receive(Author(ANNA).says(Contacts((gone.raw, here.raw))).raw, peer(ANNA))
    assert received is not None
    assert received.carried == (here,)


# -- form ------------------------------------------------------------------------------------------


def test_a_statement_outside_of_any_message_is_malformed() -> None:
    for statement in (Report(0, 0, 0.5), Contact(b"member")):
        assert offence(Author(ANNA).says(statement).raw, via=ANNA) is Offence.MALFORMED


def test_only_statements_of_the_right_kind_can_be_carried() -> None:
    """A contact among reports, or the other way round, would be taken for what it is not."""
    bert = Author(BERT)
    report, contact, leave, news = bert.reports(0.5), bert.contact(), bert.says(Leave()), bert.says(News(()))
    for wrong in (contact, leave, news):
        assert offence(Author(ANNA).says(News((wrong.raw,))).raw, via=ANNA) is Offence.MALFORMED
    for wrong in (report, leave, news):
        assert offence(Author(ANNA).says(Contacts((wrong.raw,))).raw, via=ANNA) is Offence.MALFORMED


def test_a_frame_that_is_too_long_is_not_even_looked_at() -> None:
    raw = Author(ANNA).says(Leave("bye")).raw
    assert offence(raw + bytes(limits.FRAME_BYTES_MAX), via=ANNA) is Offence.OVERSIZED


def test_less_than_an_envelope_is_malformed() -> None:
    raw = Author(ANNA).says(Leave("bye")).raw
    for length in (0, 1, 2, HEAD_BYTES, BODY_AT, MESSAGE_AT - 1):
        assert offence(raw[:length], via=ANNA) is Offence.MALFORMED


def test_another_protocol_is_malformed() -> None:
    raw = Author(ANNA).says(Leave("bye")).raw
    assert offence(b"P3" + raw[2:], via=ANNA) is Offence.MALFORMED


def test_a_signed_message_out_of_range_is_charged_to_its_author() -> None:
    raw = Author(ANNA).says(News(())).raw
    wrong = resigned(ANNA, raw[:MESSAGE_AT] + msgspec.msgpack.encode([[], [], False, 17]))
    assert offence(wrong, via=ANNA) is Offence.OUT_OF_RANGE


# -- other versions --------------------------------------------------------------------------------


def test_another_version_is_ignored_without_blame() -> None:
    raw = Author(ANNA).says(Leave("bye")).raw
    assert opener().receive(raw[:2] + bytes([VERSION + 1]) + raw[3:], peer(ANNA)) is None


def test_a_kind_of_a_newer_version_is_ignored_without_blame() -> None:
    raw = Author(ANNA).says(Leave("bye")).raw
    assert opener().receive(resigned(ANNA, of_kind(31, raw)), peer(ANNA)) is None


# -- replay ----------------------------------------------------------------------------------------


def test_a_replayed_message_is_refused() -> None:
    border, raw = opener(), Author(ANNA).says(Leave("bye")).raw
    assert border.receive(raw, peer(ANNA)) is not None
    assert offence(raw, via=ANNA, border=border) is Offence.REPLAYED


def test_messages_that_overtook_each_other_all_arrive_once() -> None:
    border, anna = opener(), Author(ANNA)
    sent = [anna.says(Leave(str(number))) for number in range(200)]
    Random(5).shuffle(sent)
    for message in sent:
        assert border.receive(message.raw, peer(ANNA)) is not None
    for message in sent:
        assert offence(message.raw, via=ANNA, border=border) is Offence.REPLAYED


def test_a_message_later_than_the_window_is_refused() -> None:
    guard = ReplayGuard()
    assert guard.fresh(peer(ANNA), 1, limits.REPLAY_WINDOW + 10)
    assert guard.fresh(peer(ANNA), 1, 11)
    assert not guard.fresh(peer(ANNA), 1, 10)


def test_a_restarted_peer_counts_from_one_again_and_its_old_messages_are_refused() -> None:
    border = opener()
    before, after = Author(ANNA, boot=1), Author(ANNA, boot=2)
    early, late = before.says(Leave("early")), before.says(Leave("late"))
    for message in (early, after.says(Leave("again"))):
        assert border.receive(message.raw, peer(ANNA)) is not None
    assert offence(late.raw, via=ANNA, border=border) is Offence.REPLAYED


def test_one_peers_numbers_do_not_touch_anothers() -> None:
    border = opener()
    for number in (ANNA, BERT):
        assert border.receive(Author(number).says(Leave()).raw, peer(number)) is not None


def test_a_forged_message_does_not_move_the_window() -> None:
    border, anna = opener(), Author(ANNA)
    honest = anna.says(Leave()).raw
    far = honest[:BODY_AT] + struct.pack(">QQ", 2**63, 2**63) + honest[MESSAGE_AT:]
    assert offence(far, via=ANNA, border=border) is Offence.FORGED
    assert border.receive(honest, peer(ANNA)) is not None


@pytest.mark.parametrize("seed", [3])
def test_the_window_agrees_with_a_plain_list_of_what_came(seed: int) -> None:
    rng, guard = Random(seed), ReplayGuard()
    seen: set[tuple[int, int]] = set()
    boot, top = 0, 0
    for _ in range(20_000):
        if rng.random() < 0.001:
            boot, top = boot + 1, 0
        late = rng.randrange(2 * limits.REPLAY_WINDOW) if rng.random() < 0.1 else rng.randrange(8)
        old_boot = rng.random() < 0.01
        number = (boot - old_boot, max(1, top + 4 - late))
        fresh = not old_boot and number not in seen and number[1] > top - limits.REPLAY_WINDOW
        assert guard.fresh(peer(ANNA), *number) is fresh, (seed, number, top)
        seen.add(number)
        top = top if old_boot else max(top, number[1])


# -- bounds ----------------------------------------------------------------------------------------


def test_windows_and_opened_statements_are_bounded() -> None:
    opened: Opened = Opened()
    border = Opener(SimVerifier(), SWARM, Codec(), opened)
    for number in range(limits.SENDERS_MAX + 10):
        author = Author(number)
        border.open_statement(author.reports(0.5).raw)
        border.receive(author.says(Leave()).raw, author.peer)
    assert len(opened) == limits.OPENED_MAX
    assert len(border._replays._windows) == limits.SENDERS_MAX


# -- mutations -------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", [11])
def test_of_a_hundred_thousand_mutated_envelopes_none_is_accepted(seed: int) -> None:
    honest = honest_envelopes(Author(ANNA), Author(BERT))
    assert accepted_forgeries(opener(), seed, 100_000, honest) == 0, seed


@pytest.mark.parametrize("seed", [12])
def test_mutated_statements_in_an_attackers_own_message_are_never_accepted(seed: int) -> None:
    """The message around them is signed properly: only the statements inside are forged."""
    rng, border, cara = Random(seed), opener(), Author(CARA)
    said = honest_envelopes(Author(ANNA), Author(BERT))
    honest = [m.raw for m in said if isinstance(m.message, Report)]
    honest += [raw for m in said for raw in getattr(m.message, "carried", ())]
    for _ in range(10_000):
        forged = mutated(rng, rng.choice(honest), honest)
        if forged in honest:
            continue
        with pytest.raises(RemoteProtocolError):
            border.receive(cara.says(News((forged,))).raw, peer(CARA))


@pytest.mark.parametrize("seed", [13])
def test_mutated_contents_that_a_member_signs_itself_give_only_messages_and_offences(seed: int) -> None:
    """Whoever holds a key can sign any rubbish: it reaches the codec."""
    rng, border = Random(seed), opener()
    raws = [message.raw for message in honest_envelopes(Author(ANNA))]
    for number in range(20_000):
        data = bytearray(resigned(ANNA, mutated(rng, rng.choice(raws), raws).ljust(MESSAGE_AT, b"\0")))
        data[BODY_AT:MESSAGE_AT] = struct.pack(">QQ", 1, number + 1)
        with suppress(RemoteProtocolError):
            border.receive(resigned(ANNA, bytes(data)), peer(ANNA))


@pytest.mark.parametrize("seed", [14])
def test_mutated_envelopes_under_real_signatures_are_never_accepted(seed: int) -> None:
    signer = RealSigner(1)
    sealer = Sealer(signer, SWARM, Codec(), 1)
    honest = [sealer.seal(Leave("bye")), sealer.seal(News((sealer.seal(Report(0, 0, 0.5)).raw,)))]
    border = Opener(RealVerifier(), SWARM, Codec())
    assert border.receive(sealer.seal(Leave("honest")).raw, signer.peer) is not None
    assert accepted_forgeries(border, seed, 2_000, honest) == 0, seed
