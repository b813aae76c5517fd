"""Makes two directories equal, whatever was lost: now and then with one neighbour, push and pull.

The asker sends a hash of each bucket; the other one says what lies in the buckets that differ; the asker
sends what is missing there and asks for what is missing here. Between equal directories that is one message.
What a question may cost is bounded for each peer and for all together (net 4.3).
"""

from collections.abc import Iterable, Iterator
from random import Random

from p2ptrain.core import limits
from p2ptrain.core.directory import Directory, Record
from p2ptrain.core.effects import Effect, Send
from p2ptrain.core.messages import BUCKETS_MAX, TAG_BYTES, Compare, Contacts, Tags, Want
from p2ptrain.core.types import PeerId, Seconds

EVERY_S: Seconds = 30.0
"""So often a node compares, a fifth more or less (net 4.3)."""

AGAIN_S: Seconds = 2.0
"""Who lacks more than one answer brings asks again so soon: half a MiB (guess)."""

ANSWERED_S: Seconds = 10.0
"""An answer counts for so long."""

RECORDS_PER_BUCKET = 4
"""Fewer buckets are compared where there are fewer records: 3 members cost 8 bytes, 10,000 cost 2 KiB."""

QUESTIONS_PER_S, QUESTIONS_BURST = 0.5, 4.0
"""More than `AGAIN_S` needs; an answer is up to ten times as long as a question."""

RECORDS_PER_S, RECORDS_BURST = 240.0, float(limits.WANTED_MAX)
"""Records that one peer gets: about 250 KiB a second."""

ALL_RECORDS_PER_S, ALL_RECORDS_BURST = 480.0, 2.0 * limits.WANTED_MAX
"""Records that all get together: 4 Mbit/s of an upload (guess)."""

ASKERS_MAX = 1024
"""Peers whose allowances are remembered: more than are ever connected."""


class Allowance:
    """So much at once and so much a second."""

    __slots__ = ("_burst", "_left", "_per_s", "_since")

    def __init__(self, per_s: float, burst: float, now: Seconds) -> None:
        self._per_s = per_s
        self._burst = self._left = burst
        self._since = now

    def left(self, now: Seconds) -> int:
        """How much may be taken now."""
        self._left = min(self._burst, self._left + max(0.0, now - self._since) * self._per_s)
        self._since = now
        return int(self._left)

    def take(self, much: int) -> None:
        """Take no more than there is."""
        self._left -= much


def allowance_of(
    book: dict[PeerId, Allowance], peer: PeerId, per_s: float, burst: float, now: Seconds
) -> Allowance:
    """Return a peer's allowance; of very many peers the one met first is forgotten first."""
    if peer not in book:
        book[peer] = Allowance(per_s, burst, now)
        if len(book) > ASKERS_MAX:
            del book[next(iter(book))]
    return book[peer]


class Repair:
    """One node's part in it. What breaks the rules of a message is told as a sentence.

    behind: the last answer told of more than was asked for.
    """

    __slots__ = ("_all", "_answers", "_asked", "_directory", "_questions", "_records", "_rng", "behind")

    def __init__(self, directory: Directory, rng: Random) -> None:
        self.behind = False
        self._directory = directory
        self._rng = rng
        self._asked: dict[PeerId, Seconds] = {}
        self._questions: dict[PeerId, Allowance] = {}
        self._records: dict[PeerId, Allowance] = {}
        self._all = Allowance(ALL_RECORDS_PER_S, ALL_RECORDS_BURST, 0.0)

    def ask(self, peer: PeerId, now: Seconds) -> list[Effect]:
        """Begin to compare with a peer."""
        self._asked[peer] = now
        count = groups(len(self._directory))
        return [Send(peer, Compare(b"".join(self._directory.hashes(count))))]

    def forget(self, peer: PeerId) -> None:
        """The connection to a peer is gone; what it may ask is not, or it would only have to come again."""
        self._asked.pop(peer, None)

    def on_compare(self, peer: PeerId, question: Compare, now: Seconds) -> tuple[list[Effect], str]:
        """Say what lies in the buckets that differ; return that and what is wrong with the question."""
        count, rest = divmod(len(question.hashes), TAG_BYTES)
        if rest or count & (count - 1):
            return [], f"{len(question.hashes)} bytes are no hashes of buckets"
        allowance = allowance_of(self._questions, peer, QUESTIONS_PER_S, QUESTIONS_BURST, now)
        if allowance.left(now) < 1:
            return [], ""
        allowance.take(1)
        directory, finer = self._directory, max(count, groups(len(self._directory)))
        width = finer // count
        differing = [
            number * width + part
            for number, hash_ in enumerate(directory.hashes(count))
            if hash_ != question.hashes[number * TAG_BYTES : (number + 1) * TAG_BYTES]
            for part in range(width)
        ]
        return ([Send(peer, self._tags(finer, differing))] if differing else []), ""

    def on_tags(self, peer: PeerId, answer: Tags, now: Seconds) -> tuple[list[Effect], str]:
        """Give what is missing there and ask for what is missing here; and what is wrong with the answer."""
        count, numbers = answer.count, answer.numbers
        if count & (count - 1) or len(numbers) != len(answer.tags) or any(n >= count for n in numbers):
            return [], "tags of buckets that there are not"
        if any(len(tags) % TAG_BYTES for tags in answer.tags):
            return [], "a part of a tag"
        if now - self._asked.pop(peer, -ANSWERED_S) >= ANSWERED_S:
            return [], ""
        lacking: dict[bytes, None] = {}
        surplus: list[Record] = []
        for number, tags in zip(numbers, answer.tags, strict=True):
            here = {record.tag: record for record in self._in(count, number)}
            there = dict.fromkeys(split(tags, TAG_BYTES))
            lacking.update((tag, None) for tag in there if tag not in here)
            surplus += [record for tag, record in here.items() if tag not in there]
        self.behind = len(lacking) > limits.WANTED_MAX
        wanted = self._rng.sample(list(lacking), min(len(lacking), limits.WANTED_MAX))
        question: list[Effect] = [Send(peer, Want(b"".join(wanted)))] if wanted else []
        return [*self._give(peer, surplus, now), *question], ""

    def on_want(self, peer: PeerId, question: Want, now: Seconds) -> tuple[list[Effect], str]:
        """Give records; and what is wrong with the question."""
        if len(question.tags) % TAG_BYTES:
            return [], "a part of a tag"
        wanted = dict.fromkeys(split(question.tags, TAG_BYTES))
        if not self._may_give(peer, now):
            return [], ""
        return self._give(peer, [record for record in self._directory if record.tag in wanted], now), ""

    def allow(self, peer: PeerId, records: list[Record], now: Seconds) -> list[Record]:
        """Return what of these a peer may be given now, and count it."""
        most = self._may_give(peer, now)
        if len(records) > most:
            records = self._rng.sample(records, most)
        self._records[peer].take(len(records))
        self._all.take(len(records))
        return records

    # -- steps -------------------------------------------------------------------------------------

    def _in(self, count: int, number: int) -> Iterator[Record]:
        for bucket in self._directory.group(count, number):
            yield from bucket.records.values()

    def _tags(self, count: int, differing: list[int]) -> Tags:
        """Name what lies in some of them, by chance, if it does not fit."""
        room, page = limits.TAGS_MAX, {}
        for number in self._rng.sample(differing, len(differing)):
            tags = [record.tag for record in self._in(count, number)][: limits.TAGS_MAX]
            if len(tags) > room:
                break
            room -= len(tags)
            page[number] = b"".join(tags)
        return Tags(count, bytes(page), tuple(page.values()))

    def _may_give(self, peer: PeerId, now: Seconds) -> int:
        allowance = allowance_of(self._records, peer, RECORDS_PER_S, RECORDS_BURST, now)
        return min(allowance.left(now), self._all.left(now))

    def _give(self, peer: PeerId, records: list[Record], now: Seconds) -> list[Effect]:
        return [Send(peer, page) for page in pages(self.allow(peer, records, now), now)]


def groups(count: int) -> int:
    """Return how many buckets to compare among so many records: a power of 2."""
    needed = -(-count // RECORDS_PER_BUCKET)
    return min(BUCKETS_MAX, 1 << max(0, needed - 1).bit_length())


def split(data: bytes, size: int) -> list[bytes]:
    """Cut bytes into pieces."""
    return [data[at : at + size] for at in range(0, len(data), size)]


def pages(records: Iterable[Record], now: Seconds) -> Iterator[Contacts]:
    """Divide records into messages: most are small, but some members may say much of themselves."""
    page: list[Record] = []
    free = limits.FRAME_BYTES_MAX // 2
    for record in records:
        size = len(record.contact.raw)
        if page and (size > free or len(page) == limits.CONTACTS_PER_MESSAGE_MAX):
            yield _contacts(page, now)
            page, free = [], limits.FRAME_BYTES_MAX // 2
        page.append(record)
        free -= size
    if page:
        yield _contacts(page, now)


def _contacts(page: list[Record], now: Seconds) -> Contacts:
    ages = tuple(max(0, int(now - record.seen)) for record in page)
    return Contacts(tuple(record.contact.raw for record in page), ages)
