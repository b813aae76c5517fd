"""What must hold after every input, whatever the weather. A broken rule ends the run with its name."""

import math
from collections.abc import Callable
from typing import Any

from msgspec import Struct

from p2ptrain.core import limits
from p2ptrain.core.effects import (
    Adopt,
    Combine,
    Effect,
    Evaluate,
    Fetch,
    Fresh,
    Reduce,
    Send,
    Sign,
    Stage,
    Train,
)
from p2ptrain.core.lifecycle import State
from p2ptrain.core.messages import Report
from p2ptrain.core.types import OWN, BlobId, PeerId, Ref, Seconds, is_blob, short
from p2ptrain.sim.host import Host
from p2ptrain.sim.world import World


class BrokenInvariantError(AssertionError):
    """A rule of the protocol does not hold: a bug, found."""


class Watch(Struct):
    """What one host did so far.

    mixtures: what is in each slot: weights that were fetched, and rings, by name.
    """

    boot: int = 0
    finished: bool = False
    best_offer: float = math.inf
    own_blobs: dict[BlobId, None] = {}
    measured: dict[str, None] = {}
    mixtures: dict[Ref, tuple[str, ...]] = {}

    def sources(self, ref: Ref) -> tuple[str, ...]:
        """Say what of others is in some weights, as far as this host took them from there."""
        return (ref,) if is_blob(ref) else self.mixtures.get(ref, ())


class Checks:
    """Observes a world."""

    def __init__(self, world: World) -> None:
        self._watches: dict[PeerId, Watch] = {}
        self._rules: dict[type[Effect], Callable[[Host, Watch, Any], None]] = {
            Send: self._check_send,
            Train: self._check_end,
            Stage: self._check_end,
            Fresh: self._check_end,
            Adopt: self._check_adopt,
            Combine: self._check_combine,
            Reduce: self._check_reduce,
            Evaluate: self._check_evaluate,
            Sign: self._check_sign,
            Fetch: self._check_fetch,
        }
        world.observers.append(self.observe)

    def observe(self, host: Host, now: Seconds) -> None:
        """Look at what a host just did."""
        watch = self._watches.get(host.peer)
        if watch is None or watch.boot != host.boot:
            watch = self._watches[host.peer] = Watch(boot=host.boot)
        if host.lies:
            return
        for effect in host.effects:
            rule = self._rules.get(type(effect))
            if rule is not None:
                rule(host, watch, effect)
        watch.finished = watch.finished or host.node.state is State.FINISHED
        if len(host.blobs) > limits.HELD_BLOBS_MAX + 1 + limits.FETCHES_MAX:
            self._fail(host, f"holds {len(host.blobs)} blobs")

    def _check_send(self, host: Host, watch: Watch, effect: Send) -> None:
        if effect.to == host.peer:
            self._fail(host, "sends to itself")

    def _check_fetch(self, host: Host, watch: Watch, effect: Fetch) -> None:
        if host.peer in effect.sources:
            self._fail(host, "fetches from itself")

    def _check_end(self, host: Host, watch: Watch, effect: Effect) -> None:
        if watch.finished:
            self._fail(host, f"wants {type(effect).__name__} after the end (G9)")

    def _check_adopt(self, host: Host, watch: Watch, effect: Adopt) -> None:
        self._check_end(host, watch, effect)
        for source in watch.sources(effect.ref):
            self._check_trust(host, watch, source)

    def _check_combine(self, host: Host, watch: Watch, effect: Combine) -> None:
        sources = tuple(dict.fromkeys(one for _, ref in effect.terms for one in watch.sources(ref)))
        if effect.out != OWN:
            kept = watch.sources(effect.out) if effect.ranges else ()
            watch.mixtures[effect.out] = (*kept, *sources)
            return
        self._check_end(host, watch, effect)
        for source in sources:
            self._check_trust(host, watch, source)

    def _check_reduce(self, host: Host, watch: Watch, effect: Reduce) -> None:
        """A mean of a ring is as foreign as what was fetched."""
        if effect.out == OWN:
            self._fail(host, "takes the mean of a ring over unmeasured (G7)")
        kept = watch.sources(effect.out) if effect.ranges else ()
        watch.mixtures[effect.out] = (*kept, effect.name)

    def _check_evaluate(self, host: Host, watch: Watch, effect: Evaluate) -> None:
        for ref in effect.refs:
            watch.measured.update(dict.fromkeys(watch.sources(ref)))

    def _check_sign(self, host: Host, watch: Watch, effect: Sign) -> None:
        if isinstance(effect.statement, Report):
            self._check_report(host, watch, effect.statement)

    def _check_trust(self, host: Host, watch: Watch, source: str) -> None:
        """Nobody's weights are adopted that were not measured, alone or in a mixture (G7)."""
        if source not in watch.measured and source not in watch.own_blobs:
            self._fail(host, f"adopts {source[:12]} unmeasured (G7)")

    def _check_report(self, host: Host, watch: Watch, report: Report) -> None:
        if report.offer is None:
            return
        if report.offer.blob not in host.blobs:
            self._fail(host, f"offers {report.offer.blob[:12]} and does not have it")
        watch.own_blobs[report.offer.blob] = None
        if report.offer.loss > watch.best_offer:
            self._fail(host, "offers worse weights than before (G6)")
        watch.best_offer = min(watch.best_offer, report.offer.loss)

    def _fail(self, host: Host, what: str) -> None:
        raise BrokenInvariantError(
            f"peer {host.number} ({short(host.peer)}) at {host.world.now:.3f} s: {what}"
        )
