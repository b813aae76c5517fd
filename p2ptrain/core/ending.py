"""How a search ends: the slower ones are waited for, then everybody keeps the best of all results.

Results of others are claims: they are fetched and measured here, and averaged in where that is better still.
"""

from p2ptrain.core.effects import Accuse, Adopt, Effect, Finish, Note, Publish, SetTimer
from p2ptrain.core.errors import Offence
from p2ptrain.core.inputs import Evaluated, Fetched, FetchFailed, LearnFailed, Published, TimerFired
from p2ptrain.core.ledger import Stated
from p2ptrain.core.messages import Offer
from p2ptrain.core.progress import Progress
from p2ptrain.core.soup import Soup
from p2ptrain.core.strategy import Context, Event
from p2ptrain.core.types import OWN, BlobId, Seconds, short

TRIES = 4
"""So many results of others are measured: some may be lies (guess)."""

LOOK_EVERY_S = 0.5


def claim_limit(claimed: float, tolerance: float, error: float) -> float:
    """Return the largest loss that an honest claim may show here.

    Args:
        claimed: the loss that its author states.
        tolerance: a claim may be wrong by this share.
        error: standard error of the measurement here.
    """
    return claimed + tolerance * abs(claimed) + 3 * error + 1e-3


class Ending:
    """The last part of one peer's run, once its own steps are done.

    Args:
        settle_s: so long at most is waited for the others.
        fresh_s: reports older than this are not looked at.
        tolerance: of `claim_limit`.

    Attributes:
        is_over: nothing changes any more.
    """

    def __init__(self, settle_s: Seconds, fresh_s: Seconds, tolerance: float) -> None:
        self.is_over = False
        self._settle_s, self._fresh_s, self._tolerance = settle_s, fresh_s, tolerance
        self._soup = Soup(OWN)
        self._until: Seconds = 0.0
        self._claim: tuple[Stated, Offer] | None = None
        self._tasted: dict[BlobId, None] = {}

    def begin(self, ctx: Context, own: Progress) -> list[Effect]:
        """The own steps are done, and the best own weights are written."""
        self._soup = Soup(own.keep.offer.blob if own.keep.offer else OWN)
        self._until = ctx.now + self._settle_s
        return [SetTimer("settle", 0.0)]

    def handle(self, ctx: Context, event: Event, own: Progress) -> list[Effect]:
        """Answer an event; a mixture that is better than each result becomes the own offer."""
        match event:
            case TimerFired(key="settle") if self._claim is None:
                return self._wait(ctx)
            case Fetched(blob=blob) if self._awaits(blob):
                return self._soup.taste(self._tag(), blob)
            case FetchFailed(blob=blob) if self._awaits(blob):
                return self._next(ctx)
            case Evaluated() if event.tag == self._tag() and self._claim is not None:
                return self._on_tasted(ctx, self._claim, event)
            case LearnFailed() if event.tag == self._tag() and self._claim is not None:
                return self._next(ctx)
            case Published(tag="final") if self._soup.is_mixed:
                own.keep.offer = Offer(event.blob, event.size_bytes, self._soup.loss, own.lr_scale)
                return [*own.tell(), *self._end()]
            case LearnFailed(tag="final"):
                return self._end()
            case _:
                return []

    def _awaits(self, blob: BlobId) -> bool:
        return self._claim is not None and self._claim[1].blob == blob

    def _tag(self) -> str:
        return f"taste:{len(self._tasted)}"

    def _wait(self, ctx: Context) -> list[Effect]:
        """Let slower peers finish, so that everyone chooses from the same offers."""
        reports = [entry.report.message for entry in map(ctx.ledger.of, ctx.partners()) if entry]
        missing = sum(not report.finished and report.step < ctx.manifest.steps for report in reports)
        if missing and ctx.now < self._until:
            return [SetTimer("settle", LOOK_EVERY_S)]
        return self._next(ctx)

    def _next(self, ctx: Context) -> list[Effect]:
        """Taste one result after the other, the best first; then keep what tasted best."""
        self._claim = None
        left = [
            (stated, offer)
            for stated, offer in ctx.ledger.ranked(ctx.now, self._fresh_s, ctx.me)
            if ctx.trusts(stated.sender) and offer.blob not in self._tasted
        ]
        if left and len(self._tasted) < TRIES:
            stated, offer = self._claim = left[0]
            self._tasted[offer.blob] = None
            return [ctx.fetch(stated.sender, offer)]
        soup, adopt = self._soup, Adopt("final", self._soup.ref)
        if not soup.others:
            return [adopt, *self._end()]
        note = Note("result", {"from": soup.others, "with_own": soup.is_own, "loss": soup.loss})
        return [note, adopt, Publish("final", soup.ref)] if soup.is_mixed else [note, adopt, *self._end()]

    def _on_tasted(self, ctx: Context, claim: tuple[Stated, Offer], event: Evaluated) -> list[Effect]:
        stated, offer = claim
        measured = event.losses[1]
        if not measured <= claim_limit(offer.loss, self._tolerance, event.errors[1]):
            detail = f"claimed {offer.loss:.4g}, measured {measured:.4g}"
            return [Accuse(stated.sender, Offence.FALSE_CLAIM, detail), *self._next(ctx)]
        self._soup.judge(offer.blob, short(stated.sender), event.losses)
        return self._next(ctx)

    def _end(self) -> list[Effect]:
        self.is_over = True
        return [Finish(f"all steps done; {self._soup.why}")]
