"""Records: learned in any order, forgotten in time, never back from the dead; made equal in pairs."""

from collections.abc import Iterable
from random import Random
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2ptrain.core import limits, repair
from p2ptrain.core.directory import AGE_BELIEVED_S, CHANGE_AGAIN_S, CHANGES_MAX, LIFE_S, Directory
from p2ptrain.core.effects import Send
from p2ptrain.core.envelope import Verified
from p2ptrain.core.messages import BUCKETS_MAX, TAG_BYTES, Compare, Contact, Contacts, Tags, Want
from p2ptrain.core.repair import Repair
from p2ptrain.core.types import PeerId
from tests.helpers import Author, only, peer

ANNA, BERT = 1, 2


def contact(number: int, boot: int = 1, port: int = 1, issuer: str = "") -> Verified[Contact]:
    """Sign a contact; equal arguments give equal bytes."""
    chain = msgspec.msgpack.encode([b"leaf", issuer.encode()]) if issuer else b"member"
    return Author(number, boot=boot).says(Contact(chain, (f"192.0.2.1:{port}",)))


def spread_id(number: int) -> PeerId:
    """Name peers that fall into different buckets."""
    return PeerId(bytes([number % 256]) + number.to_bytes(31, "big"))


def scattered(number: int) -> Verified[Contact]:
    return msgspec.structs.replace(contact(number), sender=spread_id(number))


def filled(contacts: Iterable[Verified[Contact]], now: float = 0.0) -> Directory:
    directory = Directory()
    for each in contacts:
        directory.learn(each, now)
    return directory


def content(directory: Directory) -> dict[PeerId, bytes]:
    return {record.contact.sender: record.contact.raw for record in directory}


statements = st.lists(
    st.builds(contact, st.integers(1, 4), st.integers(1, 3), st.integers(1, 3)), max_size=12
)


@given(statements, st.randoms(use_true_random=False))
def test_the_order_and_repeats_do_not_matter(contacts: list[Verified[Contact]], rng: Random) -> None:
    shuffled = contacts * 2
    rng.shuffle(shuffled)
    one, other = filled(contacts), filled(shuffled)
    assert content(one) == content(other)
    assert one.hashes(4) == other.hashes(4)
    assert one.places == other.places


@given(statements)
def test_what_is_shared_does_not_change(contacts: list[Verified[Contact]]) -> None:
    start = filled(contacts)
    before = content(start), start.hashes(BUCKETS_MAX)
    changed = Directory(start)
    changed.learn(contact(ANNA, boot=99), 1.0)
    changed.expire(1.0 + 2 * LIFE_S, ())
    assert (content(start), start.hashes(BUCKETS_MAX)) == before


@given(statements, st.lists(st.floats(0, 2 * LIFE_S), max_size=12))
def test_what_expired_never_comes_back(contacts: list[Verified[Contact]], waits: list[float]) -> None:
    directory, now, expired = Directory(), 0.0, {}
    for each, wait_s in zip(contacts, waits, strict=False):
        now += wait_s
        expired.update(dict.fromkeys(r.contact.raw for r in directory if now - r.seen > LIFE_S))
        directory.expire(now, ())
        directory.learn(each, now, age=wait_s)
        assert not expired.keys() & content(directory).values()


def test_who_renews_stays_and_who_does_not_goes() -> None:
    directory = filled([contact(ANNA), contact(BERT)])
    directory.learn(contact(ANNA, boot=2), LIFE_S / 2)
    assert directory.expire(LIFE_S, ()) == []
    assert directory.expire(LIFE_S + 1, ()) == [peer(BERT)]
    assert list(content(directory)) == [peer(ANNA)]
    assert len(directory) == 1
    assert [each.sender for each in directory.former] == [peer(BERT)]


def test_who_is_connected_does_not_expire_and_has_its_whole_time_afterwards() -> None:
    directory = filled([contact(ANNA)])
    assert directory.expire(2 * LIFE_S, (peer(ANNA),)) == []
    assert directory.expire(3 * LIFE_S, ()) == []
    assert directory.expire(3 * LIFE_S + 1, ()) == [peer(ANNA)]


def test_only_the_subject_itself_or_something_newer_brings_a_record_back() -> None:
    directory = filled([contact(ANNA)])
    directory.expire(LIFE_S + 1, ())
    assert directory.learn(contact(ANNA), LIFE_S + 2) is None
    directory.revive(peer(ANNA), LIFE_S + 3)
    assert len(directory) == 1
    directory.expire(3 * LIFE_S, ())
    assert directory.learn(contact(ANNA, boot=2), 3 * LIFE_S) is not None


def test_a_record_comes_with_its_age_but_cannot_be_made_to_die_before_its_renewal() -> None:
    directory = Directory()
    directory.learn(contact(ANNA), 100.0, age=30.0)
    directory.learn(contact(BERT), 100.0, age=1e300)
    assert directory.get(peer(ANNA)).seen == 70.0  # type: ignore[union-attr]
    assert directory.get(peer(BERT)).seen == 100.0 - AGE_BELIEVED_S  # type: ignore[union-attr]


def test_a_member_that_changes_all_the_time_is_not_passed_on_all_the_time() -> None:
    def urgent(gap_s: float) -> int:
        directory = Directory()
        records = [directory.learn(contact(ANNA, boot=n), n * gap_s) for n in range(1, 101)]
        return sum(record is not None and record.urgent for record in records)

    assert urgent(CHANGE_AGAIN_S) == 100
    assert urgent(0.1) == CHANGES_MAX
    assert 50 <= urgent(CHANGE_AGAIN_S / 2) <= 55


def test_a_full_directory_takes_nobody_of_the_issuer_that_fills_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "PEERS_MAX", 6)
    directory = filled(contact(number, issuer="big") for number in range(10, 20))
    assert len(directory) == 6
    taken = [directory.learn(contact(n, issuer="small"), 1.0, kept=[peer(10)]) for n in range(20, 30)]
    assert sum(record is not None for record in taken) == 3
    assert len(directory) == 6
    assert peer(10) in content(directory)
    assert directory.learn(contact(99, issuer="big"), 1.0, own=True) is not None


# -- repair ----------------------------------------------------------------------------------------


class Pair:
    """Two nodes that compare, and what they say to each other."""

    def __init__(self, one: Directory, other: Directory, seed: int = 0) -> None:
        self.directories = (one, other)
        self.repairs = (Repair(one, Random(seed)), Repair(other, Random(seed + 1)))
        self.said: list[Any] = []

    def compare(self, now: float) -> None:
        waiting = [(0, effect.message) for effect in only(Send, self.repairs[0].ask(peer(1), now))]
        while waiting:
            who, message = waiting.pop(0)
            self.said.append(message)
            waiting += [(1 - who, effect.message) for effect in only(Send, self.hear(1 - who, message, now))]

    def hear(self, who: int, message: Any, now: float) -> list[Any]:
        one, there = self.repairs[who], peer(1 - who)
        fault = ""
        effects: list[Any] = []
        match message:
            case Compare():
                effects, fault = one.on_compare(there, message, now)
            case Tags():
                effects, fault = one.on_tags(there, message, now)
            case Want():
                effects, fault = one.on_want(there, message, now)
            case Contacts():
                known = {r.contact.raw: r.contact for r in self.directories[1 - who]}
                for raw in message.carried:
                    self.directories[who].learn(known[raw], now)
        assert fault == ""
        return effects


@pytest.mark.parametrize(("one", "other"), [(3, 5), (0, 40), (40, 0), (200, 300), (1000, 1000)])
def test_comparing_makes_two_directories_equal(one: int, other: int) -> None:
    rng = Random(one)
    people = [scattered(number) for number in range(1200)]
    pair = Pair(filled(rng.sample(people, one)), filled(rng.sample(people, other)))
    for turn in range(12):
        pair.compare(now=60.0 * turn)
    assert content(pair.directories[0]) == content(pair.directories[1])


def test_between_equal_directories_one_small_message_is_enough() -> None:
    for count, size in ((3, 1), (100, 32), (3000, BUCKETS_MAX)):
        people = [scattered(number) for number in range(count)]
        pair = Pair(filled(people), filled(reversed(people)))
        pair.compare(0.0)
        assert [type(message) for message in pair.said] == [Compare]
        assert len(pair.said[0].hashes) == size * TAG_BYTES


def test_one_difference_among_many_costs_one_bucket() -> None:
    people = [scattered(number) for number in range(3000)]
    pair = Pair(filled(people), filled(people[1:]))
    pair.compare(0.0)
    _, tags, contacts = pair.said
    assert len(tags.numbers) == 1
    assert contacts.carried == (people[0].raw,)


def test_a_small_question_does_not_bring_large_answers_again_and_again() -> None:
    people = [scattered(number) for number in range(4000)]
    asked = Repair(filled(people), Random(0))
    question = Compare(bytes(TAG_BYTES))
    answers = [asked.on_compare(peer(1), question, now / 100)[0] for now in range(100)]
    assert sum(map(bool, answers)) == repair.QUESTIONS_BURST
    tags = b"".join(record.tag for record in filled(people[: limits.WANTED_MAX]))
    given_ = [asked.on_want(peer(1), Want(tags), 0.0)[0] for _ in range(10)]
    assert sum(len(send.message.carried) for page in given_ for send in only(Send, page)) == limits.WANTED_MAX
    for number in range(2, 10):
        given_.append(asked.on_want(peer(number), Want(tags), 0.0)[0])
    total = sum(len(send.message.carried) for page in given_ for send in only(Send, page))
    assert total == repair.ALL_RECORDS_BURST


@pytest.mark.parametrize("hashes", [bytes(12), bytes(24), bytes(TAG_BYTES * 255)])
def test_hashes_of_no_number_of_buckets_are_a_fault(hashes: bytes) -> None:
    assert Repair(Directory(), Random(0)).on_compare(peer(1), Compare(hashes), 0.0)[1]


@pytest.mark.parametrize(
    "answer",
    [
        Tags(3, b"\x00", (b"",)),
        Tags(4, b"\x04", (b"",)),
        Tags(4, b"\x00\x01", (b"",)),
        Tags(4, b"\x00", (bytes(9),)),
    ],
)
def test_tags_of_buckets_that_there_are_not_are_a_fault(answer: Tags) -> None:
    asker = Repair(Directory(), Random(0))
    asker.ask(peer(1), 0.0)
    assert asker.on_tags(peer(1), answer, 0.0)[1]


def test_tags_that_nobody_asked_for_are_ignored() -> None:
    answer = Tags(1, b"\x00", (bytes(TAG_BYTES),))
    asker = Repair(filled([contact(ANNA)]), Random(0))
    assert asker.on_tags(peer(1), answer, 0.0) == ([], "")
    asker.ask(peer(1), 0.0)
    assert len(asker.on_tags(peer(1), answer, 1.0)[0]) == 2
    assert asker.on_tags(peer(1), answer, 1.0) == ([], "")


def test_a_part_of_a_tag_is_a_fault() -> None:
    assert Repair(Directory(), Random(0)).on_want(peer(1), Want(bytes(7)), 0.0)[1]
