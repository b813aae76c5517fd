"""Ways that others went from common weights: each is measured here, and added to a mean as it comes.

Somebody's way is let in if the common weights moved along it are no worse, on average over time (robust
mixing, ALGORITHMS 2.7). Nothing is kept but the mean: it does not matter how many take part.
"""

from collections import deque
from collections.abc import Callable
from statistics import median

from msgspec import Struct

from p2ptrain.core.effects import Accuse, Combine, Drop, Effect, Evaluate, Note
from p2ptrain.core.ending import claim_limit
from p2ptrain.core.errors import Offence
from p2ptrain.core.inputs import Evaluated, LearnFailed
from p2ptrain.core.mixing import Mixing
from p2ptrain.core.types import BlobId, PeerId, Ref, Slot, peer_text, short

MEAN = Slot(Ref("mean"))
SPEEDS = Slot(Ref("speeds"))
MIX = Slot(Ref("mix"))

TOLERANCE = 0.10
"""Of a claim about a loss, as in `restart`."""

SURE = 0.5
"""A loss counts as higher if it is so by this many standard errors: of the losses, for those of differences
on the same examples are smaller, and would need the common weights to be measured each time (guess)."""

SAMPLES_FACTOR = 8.0
"""Nobody counts for more than so many times the middle of all (guess)."""


class Part(Struct, frozen=True):
    """What somebody gives to a mean.

    samples: trained on: the weight in the mean.
    steps: of the optimiser.
    loss: of the weights at the end of the way, as claimed.
    scale: the way counts so much, for instance because it began at older weights.
    is_own: this node's: others may still ask for it.
    """

    peer: PeerId
    samples: int
    steps: int
    loss: float
    scale: float = 1.0
    is_own: bool = False


class Gather:
    """One mean after the other.

    Args:
        examples: held-out examples to measure on.
        speeds: whether ways per step are summed up too (SCAFFOLD).

    Attributes:
        alike: all have data of one kind: then each way must be good by itself, and a claim can be checked.
        mixing: what is known of everybody.
        count: ways in the mean.
        losses: claimed for them.
    """

    __slots__ = (
        "_base",
        "_base_loss",
        "_coming",
        "_examples",
        "_here",
        "_measured",
        "_now",
        "_samples",
        "_share",
        "_speeds",
        "_total",
        "alike",
        "count",
        "losses",
        "mixing",
    )

    def __init__(self, examples: int, *, speeds: bool) -> None:
        self._examples, self._speeds = examples, speeds
        self.alike = True
        self.mixing = Mixing()
        self.count = self._measured = 0
        self.losses: list[float] = []
        self._samples: deque[int] = deque(maxlen=32)
        self._base = BlobId(Ref(""))
        self._base_loss: float | None = None
        self._share = 0.5
        self._total = 0.0
        self._coming: dict[BlobId, None] = {}
        self._here: list[tuple[Part, BlobId]] = []
        self._now: tuple[Part, BlobId] | None = None

    def open(self, base: BlobId, parts: int) -> None:
        """Begin a mean of ways from these weights; so many are to come."""
        self._base, self._base_loss = base, None
        self._share = 0.5 if self.alike else 1 / max(2, parts)
        self.count, self._total, self.losses = 0, 0.0, []
        self.close()

    def close(self) -> None:
        """Nothing is added any more."""
        self._coming, self._here, self._now = {}, [], None
        self._measured += 1  # answers that are still to come mean nothing

    @property
    def is_idle(self) -> bool:
        """Whether nothing is awaited or measured."""
        return not self._coming and self._now is None

    def announce(self, blob: BlobId) -> None:
        """A way is being fetched."""
        self._coming[blob] = None

    def lose(self, blob: BlobId) -> None:
        """It did not come."""
        self._coming.pop(blob, None)

    def review(self, is_wanted: Callable[[BlobId], bool]) -> None:
        """What is not fetched any more does not come."""
        self._coming = {blob: None for blob in self._coming if is_wanted(blob)}

    def bring(self, part: Part, blob: BlobId) -> list[Effect]:
        """It is here."""
        if blob not in self._coming:
            return []
        del self._coming[blob]
        self._here.append((part, blob))
        return self._next() if self._now is None else []

    def handle(self, event: Evaluated | LearnFailed) -> list[Effect]:
        """Answer an event of training that may be meant for this."""
        if self._now is None or event.tag not in (self._tag("mix"), self._tag("claim")):
            return []
        if isinstance(event, LearnFailed) or not event.losses:
            return self._end()
        if event.tag == self._tag("claim"):
            return self._on_claim(*self._now, event)
        return self._on_mixture(*self._now, event)

    def _tag(self, what: str) -> str:
        return f"{what}:{self._measured}"

    def _next(self) -> list[Effect]:
        self._measured += 1
        if not self._here:
            return []
        self._now = self._here.pop(0)
        return self._look("mix", self._share)

    def _look(self, what: str, share: float) -> list[Effect]:
        """Measure the common weights moved along this way; the common ones themselves once."""
        assert self._now is not None
        part, blob = self._now
        tag = self._tag(what)
        refs = (self._base, MIX) if self._base_loss is None else (MIX,)
        move = Combine(tag, MIX, ((1.0, self._base), (share * part.scale, blob)))
        return [move, Evaluate(tag, refs, examples_max=self._examples)]

    def _on_mixture(self, part: Part, blob: BlobId, event: Evaluated) -> list[Effect]:
        if self._base_loss is None:
            self._base_loss = event.losses[0]
        mixed = event.losses[-1] - SURE * event.errors[-1]
        if self.mixing.accepts(peer_text(part.peer), self._base_loss, mixed):
            return [*self._add(part, blob), *self._end()]
        note = Note("refused", {"peer": short(part.peer), "loss": self._base_loss, "mixed": mixed})
        return [note, *(self._look("claim", 1.0) if self.alike else self._end())]

    def _on_claim(self, part: Part, blob: BlobId, event: Evaluated) -> list[Effect]:
        """Who is refused, and claimed to bring good weights, lied."""
        measured = event.losses[-1]
        if measured <= claim_limit(part.loss, TOLERANCE, event.errors[-1]):
            return self._end()
        detail = f"claimed {part.loss:.4g}, measured {measured:.4g}"
        return [Accuse(part.peer, Offence.FALSE_CLAIM, detail), *self._end()]

    def _add(self, part: Part, blob: BlobId) -> list[Effect]:
        self._samples.append(part.samples)
        weight = min(part.samples, SAMPLES_FACTOR * median(self._samples))
        share = weight / (self._total + weight)
        first = not self.count
        self._total, self.count = self._total + weight, self.count + 1
        self.losses.append(part.loss)
        way = (share * part.scale, blob)
        effects: list[Effect] = [Combine("add", MEAN, (way,) if first else ((1 - share, MEAN), way))]
        if self._speeds:
            speed = (1 / part.steps, blob)
            effects.append(Combine("add", SPEEDS, (speed,) if first else ((1.0, SPEEDS), speed)))
        return effects

    def _end(self) -> list[Effect]:
        """Go on with the next; what was added or refused is not needed any more."""
        done, self._now = self._now, None
        dropped: list[Effect] = [Drop(done[1])] if done is not None and not done[0].is_own else []
        return [*dropped, *self._next()]
