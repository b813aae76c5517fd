"""What coordinator and clients of rounds say to each other, and what both know of the global weights."""

from typing import Annotated

from msgspec import Meta

from p2ptrain.core.messages import BlobBytes, BlobName, Message, Natural, Number, Offer
from p2ptrain.core.strategy import Context
from p2ptrain.core.types import BlobId, PeerId

REMEMBERED = 64
"""Global weights of before that are recognised (guess)."""


ROUND_MAX = 2**53
"""As large as a number in a message may be."""


PeerName = Annotated[PeerId, Meta(min_length=32, max_length=32)]


class Task(Message, frozen=True):
    """The coordinator of a term says where a round begins.

    asked: whether the reader takes part; who does not, waits.
    last: nobody has steps left, these weights are the result.
    got: the reader's way that came last, by its number; 0: none.
    deadline_s: who trains for longer stops and hands in what it has; 0: nobody is late yet.
    control, control_bytes: the mean way per step of all (SCAFFOLD).
    """

    term: Natural
    round: Natural
    blob: BlobName
    size_bytes: BlobBytes
    asked: bool = True
    last: bool = False
    got: Natural = 0
    deadline_s: Annotated[float, Meta(ge=0.0, le=1e6)] = 0.0
    control: BlobName | None = None
    control_bytes: BlobBytes = 1


class Update(Message, frozen=True):
    """What a client hands in, and its question what comes next.

    number: names this way; 0: there was none yet.
    step: so many the client took in all.
    blob, size_bytes: the way from the weights of the round; None: nothing came of it.
    steps, samples: on the way.
    loss: at its end, on held-out examples of the client.
    train_loss: mean over the way.
    """

    term: Natural
    round: Natural
    number: Natural
    step: Natural
    blob: BlobName | None = None
    size_bytes: BlobBytes = 1
    steps: Natural = 0
    samples: Natural = 0
    loss: Number = 0.0
    train_loss: Number = 0.0


class Known(Message, frozen=True):
    """There is another coordinator, or there are other global weights: said to whom does not seem to know.

    holder: who coordinates the term, as far as the speaker knows.
    """

    term: Natural
    round: Natural
    blob: BlobName | None = None
    size_bytes: BlobBytes = 1
    holder: PeerName | None = None


class Newest:
    """The newest global weights that are here.

    round: that begins with them; 0: there are none.
    weights: None if there are none.
    before: those before them.
    """

    __slots__ = ("_past", "before", "round", "weights")

    def __init__(self) -> None:
        self.round = 0
        self.weights: Offer | None = None
        self.before: BlobId | None = None
        self._past: dict[BlobId, None] = {}

    def set(self, round_: int, weights: Offer) -> None:
        """There are newer ones, or the same in a later round."""
        if self.weights is not None and self.weights.blob != weights.blob:
            self.before = self.weights.blob
        self.round, self.weights = min(round_, ROUND_MAX), weights
        self.note(weights.blob)

    def note(self, blob: BlobId) -> None:
        """These are no news any more."""
        self._past[blob] = None
        if len(self._past) > REMEMBERED:
            del self._past[next(iter(self._past))]

    def is_new(self, blob: BlobId) -> bool:
        """Say whether these were never looked at here."""
        return blob not in self._past

    def held(self, ctx: Context) -> Offer | None:
        """Return the newest ones if they are still here."""
        return self.weights if self.weights is not None and ctx.holds(self.weights.blob) else None

    def known(self, term: int, holder: PeerId | None) -> Known:
        """Say what is known."""
        if self.weights is None:
            return Known(term, 0, holder=holder)
        return Known(term, self.round, self.weights.blob, self.weights.size_bytes, holder)
