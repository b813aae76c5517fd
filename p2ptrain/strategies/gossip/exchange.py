"""A meeting of two peers: who asked, what was written, fetched, asked again, and why it failed.

Messages are lost, doubled and late, and partners die: how two snapshots come together all the same. What is
shown, and what is done with the two, is the strategy's affair.
"""

from collections.abc import Callable
from enum import Enum, auto
from statistics import median

from msgspec import Struct

from p2ptrain.core.effects import Effect, Send, SetTimer
from p2ptrain.core.inputs import FetchFailed, LearnFailed, PeerDown, Published, TimerFired
from p2ptrain.core.messages import BlobBytes, BlobName, Message, Natural, Offer
from p2ptrain.core.strategy import Context, Event
from p2ptrain.core.types import BlobId, PeerId, Seconds

FETCH_TRIES = 3

PATIENCE_MAX = 12.0
"""No partner is waited for longer than so many times `timeout_s` (guess)."""

USUAL_S = 0.2
"""Before the first meeting (guess)."""


class Swap(Message, frozen=True):
    """My weights of this moment, give me yours.

    number: the starter's count of meetings.
    turn: of the law of pairs, where the starter is.
    age: steps behind the weights.
    """

    number: Natural
    blob: BlobName
    size_bytes: BlobBytes
    turn: Natural = 0
    age: Natural = 0


class Answer(Message, frozen=True):
    """Mine, for the exchange of that number of yours."""

    number: Natural
    blob: BlobName
    size_bytes: BlobBytes
    age: Natural = 0


class Busy(Message, frozen=True):
    """Not now: another exchange is under way."""

    number: Natural


class Meeting(Struct):
    """Who meets, and the two snapshots as far as they are known.

    number: the starter's count of meetings. turn: where the starter is.
    age, their_age: steps behind the weights that are shown.
    mass: what the starter gives along (push-sum).
    mine: shown to the partner, if this node `shows` anything.
    fetched: theirs was asked for; failures: so often it did not come.
    share: of theirs in the mixture.
    """

    partner: PeerId
    number: int
    turn: int
    starter: bool
    begun: Seconds
    age: int = 0
    their_age: int = 0
    mass: float = 0.0
    shows: bool = True
    mine: BlobId | None = None
    mine_bytes: int = 0
    theirs: Offer | None = None
    fetched: bool = False
    failures: int = 0
    share: float = 0.5

    @property
    def is_prepared(self) -> bool:
        """Whether the own part is done."""
        return self.mine is not None or not self.shows


def say_swap(meeting: Meeting) -> list[Effect]:
    """Show the own snapshot, and ask for the other or answer."""
    if meeting.mine is None:
        return []
    number, shown = meeting.number, (meeting.mine, meeting.mine_bytes)
    swap, answer = Swap(number, *shown, meeting.turn, meeting.age), Answer(number, *shown, meeting.age)
    return [Send(meeting.partner, swap if meeting.starter else answer)]


class Failure(Struct, frozen=True):
    """The meeting is in vain."""

    why: str


class Heard(Enum):
    """What a question means to who hears it."""

    NEW = auto()
    BUSY = auto()
    KNOWN = auto()


class Exchange:
    """At most one meeting at a time.

    Args:
        ask_again_s: what was said is said again after this, while nothing came.
        timeout_s: a silent partner is given up after this, or 4 times the usual.
        say: tells the partner what it needs to know, once the own snapshot is written.
        prefix: of tags and timer, where a strategy has several of these.

    meeting: the one under way.
    """

    __slots__ = ("_ask_again_s", "_count", "_durations", "_prefix", "_say", "_timeout_s", "meeting")

    def __init__(
        self,
        ask_again_s: Seconds,
        timeout_s: Seconds,
        say: Callable[[Meeting], list[Effect]],
        prefix: str = "",
    ) -> None:
        self.meeting: Meeting | None = None
        self._ask_again_s, self._timeout_s, self._say, self._prefix = ask_again_s, timeout_s, say, prefix
        self._count = 0
        self._durations: list[Seconds] = []

    def tag(self, what: str) -> str:
        """Name what is asked for this meeting: answers to an earlier one mean nothing."""
        return f"{self._prefix}{what}:{self._count}"

    @property
    def turn(self) -> int:
        """Of the meeting under way."""
        return self.meeting.turn if self.meeting is not None else 0

    @property
    def next_number(self) -> int:
        """Of a question that this node asks now."""
        return self._count + 1

    def begin(self, meeting: Meeting) -> list[Effect]:
        """Meet; what is to be shown is to be written under the tag `swap`."""
        self.meeting = meeting
        self._count += 1
        return [SetTimer(f"{self._prefix}exchange", self._ask_again_s)]

    def hear(self, me: PeerId, question: Meeting) -> Heard:
        """Take in that somebody asks; both may have asked at once, and either question may be lost.

        The question of who is behind counts, or else of the smaller id.
        """
        meeting = self.meeting
        if meeting is None:
            return Heard.NEW
        if meeting.partner != question.partner or (meeting.starter and meeting.theirs is not None):
            return Heard.BUSY
        if not meeting.starter:
            return Heard.KNOWN if meeting.number == question.number else Heard.NEW
        if (question.turn, question.partner) < (meeting.turn, me):
            meeting.starter, meeting.theirs, meeting.their_age = False, question.theirs, question.their_age
            meeting.number, meeting.turn = question.number, question.turn
        return Heard.KNOWN

    def is_with(self, sender: PeerId, number: int) -> bool:
        """Say whether that is the meeting under way, and this node asked."""
        now = self.meeting
        return now is not None and now.starter and (now.partner, now.number) == (sender, number)

    def answer(self, ctx: Context, theirs: Offer, their_age: int) -> list[Effect]:
        """The partner shows its snapshot."""
        if self.meeting is None or self.meeting.theirs is not None:
            return []
        self.meeting.theirs, self.meeting.their_age = theirs, their_age
        return self._fetch(ctx)

    def handle(self, ctx: Context, event: Event) -> list[Effect] | Failure:
        """Answer an event."""
        meeting = self.meeting
        if meeting is None:
            return []
        match event:
            case Published() if event.tag == self.tag("swap") and meeting.mine is None:
                meeting.mine, meeting.mine_bytes = event.blob, event.size_bytes
                return self.show(ctx)
            case FetchFailed(blob=blob) if meeting.theirs is not None and meeting.theirs.blob == blob:
                return self._on_fetch_failed(ctx, meeting)
            case LearnFailed() if event.tag in (self.tag("swap"), self.tag("mix")):
                return Failure("weights were gone")
            case PeerDown(peer=peer) if peer == meeting.partner:
                return Failure("partner lost")
            case TimerFired(key=key) if key == f"{self._prefix}exchange":
                return self._on_timer(ctx, meeting)
            case _:
                return []

    def show(self, ctx: Context) -> list[Effect]:
        """Tell the partner where the own snapshot is, as soon as there is one, and get theirs."""
        if self.meeting is None or not self.meeting.is_prepared:
            return []
        return [*self._say(self.meeting), *self._fetch(ctx)]

    def is_complete(self, blob: BlobId) -> bool:
        """Say whether this is what was missing."""
        now = self.meeting
        return now is not None and now.is_prepared and now.theirs is not None and now.theirs.blob == blob

    def end(self, ctx: Context, *, well: bool) -> Meeting | None:
        """The meeting is over; how long a good one takes is remembered."""
        meeting, self.meeting = self.meeting, None
        if meeting is not None and well:
            self._durations = [*self._durations[-7:], ctx.now - meeting.begun]
        return meeting

    @property
    def usual_s(self) -> Seconds:
        """How long a meeting takes here."""
        return median(self._durations) if self._durations else USUAL_S

    def _fetch(self, ctx: Context) -> list[Effect]:
        meeting = self.meeting
        if meeting is None or meeting.theirs is None or not meeting.is_prepared or meeting.fetched:
            return []
        meeting.fetched = True
        return [ctx.fetch(meeting.partner, meeting.theirs)]

    def _on_fetch_failed(self, ctx: Context, meeting: Meeting) -> list[Effect] | Failure:
        meeting.failures += 1
        if meeting.failures >= FETCH_TRIES or not ctx.trusts(meeting.partner):
            return Failure("weights did not come")
        meeting.fetched = False
        return self._fetch(ctx)

    def _on_timer(self, ctx: Context, meeting: Meeting) -> list[Effect] | Failure:
        usual_s, timeout_s = self.usual_s, self._timeout_s
        patience_s = min(max(timeout_s, 4 * usual_s), PATIENCE_MAX * timeout_s)
        left_s = meeting.begun + patience_s - ctx.now
        if left_s <= 0.01:
            return Failure("no answer in time")
        again = self.show(ctx) if meeting.starter and meeting.theirs is None else []
        return [*again, SetTimer(f"{self._prefix}exchange", min(left_s, self._ask_again_s))]
