"""What must hold after every input, whatever the weather. A broken rule ends the run with its name."""

import math

from msgspec import Struct

from p2ptrain.core import limits
from p2ptrain.core.effects import Adopt, Combine, Evaluate, Fetch, Fresh, Note, Send, Sign, Train
from p2ptrain.core.lifecycle import State
from p2ptrain.core.messages import News, Report
from p2ptrain.core.types import OWN, BlobId, PeerId, Ref, Seconds, is_blob, short
from p2ptrain.sim.host import Host
from p2ptrain.sim.world import World


class BrokenInvariantError(AssertionError):
    """A rule of the protocol does not hold: a bug, found."""


class Watch(Struct):
    """What one host did so far."""

    boot: int = 0
    finished: bool = False
    best_offer: float = math.inf
    own_blobs: dict[BlobId, None] = {}
    measured: dict[BlobId, None] = {}
    mixtures: dict[Ref, tuple[BlobId, ...]] = {}
    fetches: int = 0
    news_allowed: float = 0.0
    refilled: Seconds = 0.0


class Checks:
    """Observes a world.

    Args:
        keeps_best: the strategy promises that its offer never gets worse (ALGORITHMS G6).
    """

    def __init__(self, world: World, *, keeps_best: bool) -> None:
        self._keeps_best = keeps_best
        self._watches: dict[PeerId, Watch] = {}
        self.inputs = 0
        world.observers.append(self.observe)

    def observe(self, host: Host, now: Seconds) -> None:
        """Look at what a host just did."""
        self.inputs += 1
        watch = self._watches.get(host.peer)
        if watch is None or watch.boot != host.boot:
            watch = self._watches[host.peer] = Watch(boot=host.boot)
        if host.lies:
            return
        for effect in host.effects:
            self._check(host, watch, effect)
        watch.finished = watch.finished or host.node.state is State.FINISHED
        if len(host.blobs) > limits.HELD_BLOBS_MAX + 1 + limits.FETCHES_MAX:
            self._fail(host, f"holds {len(host.blobs)} blobs")

    def _check(self, host: Host, watch: Watch, effect: object) -> None:
        match effect:
            case Send(to=to) if to == host.peer:
                self._fail(host, "sends to itself")
            case Send(message=News(carried=carried)) if len(carried) > limits.REPORTS_PER_NEWS_MAX:
                self._fail(host, "sends too many reports")
            case Train() | Fresh() if watch.finished:
                self._fail(host, f"{type(effect).__name__} after the end (G9)")
            case Adopt(ref=ref):
                if watch.finished:
                    self._fail(host, "adopts after the end (G9)")
                if is_blob(ref):
                    self._check_trust(host, watch, BlobId(ref))
            case Combine(out=out, terms=terms) if out == OWN:
                if watch.finished:
                    self._fail(host, "changes its weights after the end (G9)")
                for _, ref in terms:
                    if is_blob(ref):
                        self._check_trust(host, watch, BlobId(ref))
            case Combine(out=out, terms=terms):
                watch.mixtures[out] = tuple(BlobId(ref) for _, ref in terms if is_blob(ref))
            case Evaluate(refs=refs):
                for ref in refs:
                    blobs = (BlobId(ref),) if is_blob(ref) else watch.mixtures.get(ref, ())
                    watch.measured.update(dict.fromkeys(blobs))
            case Sign(statement=Report() as report):
                self._check_report(host, watch, report)
            case Fetch(sources=sources) if host.peer in sources:
                self._fail(host, "fetches from itself")
            case Note(event="internal_error"):
                self._fail(host, "reports an internal error")
            case _:
                pass

    def _check_trust(self, host: Host, watch: Watch, blob: BlobId) -> None:
        """Nobody's weights are adopted that were not measured, alone or in a mixture (G7)."""
        if blob not in watch.measured and blob not in watch.own_blobs:
            self._fail(host, f"adopts {blob[:12]} unmeasured (G7)")

    def _check_report(self, host: Host, watch: Watch, report: Report) -> None:
        if not math.isfinite(report.loss):
            self._fail(host, "reports a loss that is not finite")
        if report.offer is None:
            return
        if report.offer.blob not in host.blobs:
            self._fail(host, f"offers {report.offer.blob[:12]} and does not have it")
        watch.own_blobs[report.offer.blob] = None
        if self._keeps_best and report.offer.loss > watch.best_offer:
            self._fail(host, "offers worse weights than before (G6)")
        watch.best_offer = min(watch.best_offer, report.offer.loss)

    def _fail(self, host: Host, what: str) -> None:
        raise BrokenInvariantError(
            f"peer {host.number} ({short(host.peer)}) at {host.world.now:.3f} s: {what}"
        )
