"""The server of shards: takes changes in, measures them, applies them, and gives the new numbers out.

Synchronous: one version takes the mean of what comes until there is a quorum, or the usual time is over; what
comes later is not taken. Asynchronous: each change makes a version. Source: ALGORITHMS 2.4, after sources 002
and 003; whose changes are let in: 2.7.
"""

import math
from collections.abc import Callable
from typing import Any

from msgspec import Struct

from p2ptrain.core.arrivals import Arrivals
from p2ptrain.core.effects import Accuse, Combine, Drop, Effect, Evaluate, Note, Publish, SetTimer
from p2ptrain.core.errors import Offence
from p2ptrain.core.inputs import Evaluated, Published
from p2ptrain.core.intake import Intake
from p2ptrain.core.messages import Offer
from p2ptrain.core.mixing import WORSE_MAX, Mixing
from p2ptrain.core.soup import POTS
from p2ptrain.core.strategy import Context
from p2ptrain.core.types import BlobId, PeerId, Ranges, Ref, Seconds, Slot, peer_text, short

SERVED = Slot(Ref("served"))
SUM = Slot(Ref("sum"))
VELOCITY = Slot(Ref("velocity"))
TRIALS = POTS
"""Nothing is mixed before the end: until then its slots are free."""

LIE = 0.5
"""Who gives what raises the loss by more than this share is accused; less may be bad luck (guess)."""

VERSIONS_MAX = 8
"""So many versions back it is remembered when the first change came (guess)."""

WRITTEN_MAX = 3
"""So many versions of a shard are held: who was answered may still be fetching (guess)."""

VERSION_S = (2.0, 60.0)
"""The least and the longest time that a version waits for changes after its first (guess)."""

AHEAD_MAX = 10**6
"""A version so far ahead of the own is a lie (guess)."""

SURE = 3.0
"""By chance losses differ by fewer standard errors (ALGORITHMS 1.2)."""

TIMER = "serve"


def is_worse(event: Evaluated, place: int, share: float) -> bool:
    """Say whether a loss is higher than the first by more than this share of it, and not by chance."""
    before, error = event.losses[0], (event.differences or event.errors)[place]
    rise = event.losses[place] - before - (SURE * error if math.isfinite(error) else 0.0)
    return not rise <= share * (abs(before) + 0.05)


def staleness_rate(workers: int, late: int) -> float:
    """Return how much a change counts: `(1 + staleness)^-0.5` (2.4) at a server's rate of `workers^-0.5`.

    Where all push in turn a change is `workers - 1` versions late, and counts for 1 / workers, as in a mean.
    """
    return 1 / math.sqrt(workers * (1 + late))


class Change(Struct, frozen=True):
    """What a worker asks of a shard's server.

    turn: its own count.
    version: of the numbers that it began from.
    offer: its change of them; None: it only asks for the newest.
    base: those numbers; None if nobody wrote them.
    weight: in the mean.
    """

    sender: PeerId
    turn: int
    version: int
    offer: Offer | None
    base: Offer | None
    weight: float


class Brought(Struct, frozen=True):
    """What is fetched for a shard: a change, or newer numbers than the own."""

    shard: int
    change: Change
    newer: bool = False


class Seat(Struct):
    """One shard served here.

    version, piece: of its numbers, and as they are written; None: not yet.
    opened: when the first change of the last versions came.
    asking: wait for the next version; due: get an answer as soon as numbers of that version are written.
    taken: everyone's last change. pending: being fetched or measured. heard: taken in, or not worth it.
    early: began from a newer version than the own.
    refused: said to be newer, and not good.
    weight: in the sum, so far.
    written: its last versions.
    """

    ranges: Ranges
    version: int
    piece: Offer | None
    opened: dict[int, Seconds] = {}
    asking: dict[PeerId, Change] = {}
    due: dict[PeerId, tuple[Change, int]] = {}
    taken: dict[PeerId, BlobId] = {}
    pending: dict[PeerId, None] = {}
    heard: dict[PeerId, None] = {}
    early: dict[PeerId, Change] = {}
    refused: BlobId | None = None
    weight: float = 0.0
    written: list[BlobId] = []


Give = Callable[[Context, int, Change, int, Offer], list[Effect]]
"""Answers a worker: shard, what it asked, version and numbers."""


class Rule(Struct, frozen=True):
    """How changes are taken in.

    sync: many make a version, else each does.
    quorum: this share of the workers is enough.
    staleness: so many versions late may a change be; 0: twice the number of workers.
    momentum: of the heavy ball.
    examples: on which changes are measured.
    """

    sync: bool
    quorum: float
    staleness: int
    momentum: float
    examples: int


class Serving:
    """The shards served here.

    mixing: whose changes are let in.

    Args:
        rule: how.
        intake: fetches.
        workers: how many take part now.
        give: answers.
    """

    def __init__(
        self,
        rule: Rule,
        intake: Intake[Any],
        workers: Callable[[Context], int],
        give: Give,
    ) -> None:
        self.mixing = Mixing()
        self.seats: dict[int, Seat] = {}
        self._rule, self._intake = rule, intake
        self._arrivals = Arrivals(*VERSION_S)
        self._workers, self._give = workers, give
        self._waiting: list[Brought] = []
        self._trial: list[Brought] = []
        self._trials = self._writes = 0
        self._writing: tuple[int, int] | None = None

    def begin(
        self, ctx: Context, shard: int, ranges: Ranges, base: Slot, version: int, piece: Offer | None
    ) -> list[Effect]:
        """Take a shard over: from the own numbers of it, until somebody has newer ones."""
        held = piece if piece is not None and ctx.holds(piece.blob) else None
        self.seats[shard] = Seat(ranges, version, held)
        still = [Combine("serve", VELOCITY, ((0.0, base),), ranges=ranges)] if self._rule.momentum else []
        note = Note("serves", {"shard": shard, "version": version})
        return [note, Combine("serve", SERVED, ((1.0, base),), ranges=ranges), *still]

    def end(self, shard: int) -> None:
        """Another serves it."""
        self.seats.pop(shard, None)

    # -- what comes --------------------------------------------------------------------------------

    def take(self, ctx: Context, shard: int, change: Change) -> list[Effect]:
        """A worker asks; a question that came before changes nothing."""
        seat = self.seats.get(shard)
        if seat is None:
            return []
        sender, offer = change.sender, change.offer
        ahead = change.version - seat.version
        if 0 < ahead <= AHEAD_MAX and change.base and change.base.blob != seat.refused:
            seat.early[sender] = change
            return self._intake.add(ctx, sender, change.base, Brought(shard, change, newer=True))
        if offer is None or self._is_late(ctx, seat, change):
            self._note_arrival(ctx, seat, change)
            return self._answer(ctx, shard, seat, change, seat.version)
        seat.asking[sender] = change
        if seat.taken.get(sender) == offer.blob:
            asks_again = not self._rule.sync and sender not in seat.pending
            return self._answer(ctx, shard, seat, change, seat.version) if asks_again else []
        seat.taken[sender] = offer.blob
        seat.pending[sender] = None
        self._note_arrival(ctx, seat, change)
        brought = Brought(shard, change)
        if sender == ctx.me:
            return [*self._let_in(ctx, brought, 1.0), *self.close(ctx)]
        return [*self._intake.add(ctx, sender, offer, brought), *self.close(ctx)]

    def _is_late(self, ctx: Context, seat: Seat, change: Change) -> bool:
        late = seat.version - change.version
        if self._rule.sync or late < 0:
            return late != 0
        return late > (self._rule.staleness or 2 * self._workers(ctx))

    def _note_arrival(self, ctx: Context, seat: Seat, change: Change) -> None:
        """Remember how long after the first of its version it came, also if that is too late."""
        if change.offer is None or change.version > seat.version:
            return
        first = seat.opened.get(change.version)
        if first is not None:
            self._arrivals.add(ctx.now - first)
        elif change.version == seat.version:
            seat.opened[change.version] = ctx.now
            seat.opened.pop(change.version - VERSIONS_MAX, None)

    def on_fetched(self, brought: Brought) -> list[Effect]:
        """A change is here, or numbers newer than the own."""
        seat = self.seats.get(brought.shard)
        if seat is not None and (brought.newer or brought.change.sender in seat.pending):
            self._waiting.append(brought)
        return self._measure() if not self._trial else []

    def on_missing(self, ctx: Context, brought: Brought) -> list[Effect]:
        """It did not come, or cannot be used."""
        return [*self._refuse(ctx, brought), *self.close(ctx)]

    # -- measuring ---------------------------------------------------------------------------------

    def _tag(self) -> str:
        return f"trial:{self._trials}"

    def _measure(self) -> list[Effect]:
        """Measure what waits longest, and the next with it, and the numbers of now."""
        self._trials += 1
        self._waiting = [brought for brought in self._waiting if brought.shard in self.seats]
        self._trial, self._waiting = self._waiting[: len(TRIALS)], self._waiting[len(TRIALS) :]
        if not self._trial:
            return []
        effects: list[Effect] = []
        for slot, brought in zip(TRIALS, self._trial, strict=False):
            offer = brought.change.base if brought.newer else brought.change.offer
            assert offer is not None
            if brought.newer:
                ranges = self.seats[brought.shard].ranges
                effects += [Combine(self._tag(), slot, ((1.0, SERVED),))]
                effects += [Combine(self._tag(), slot, ((1.0, offer.blob),), ranges=ranges)]
            else:
                effects += [Combine(self._tag(), slot, ((1.0, SERVED), (0.5, offer.blob)))]
        refs = (SERVED, *TRIALS[: len(self._trial)])
        return [*effects, Evaluate(self._tag(), refs, examples_max=self._rule.examples)]

    def on_measured(self, ctx: Context, event: Evaluated) -> list[Effect]:
        """Take in what does not make it worse."""
        if event.tag != self._tag() or len(event.losses) != 1 + len(self._trial):
            return []
        trial, self._trial = self._trial, []
        effects: list[Effect] = []
        for place, brought in enumerate(trial, 1):
            if brought.shard in self.seats:
                effects += self._judge(ctx, brought, event, place)
            offer = brought.change.offer
            if offer is not None and not brought.newer:
                effects.append(Drop(offer.blob))
        return [*effects, *self._measure(), *self._go_on(ctx)]

    def on_failed(self, ctx: Context, tag: str) -> list[Effect]:
        """An effect of learning failed."""
        if tag != self._tag() or not self._trial:
            return []
        trial, self._trial = self._trial, []
        effects = [effect for brought in trial for effect in self._refuse(ctx, brought)]
        return [*effects, *self._measure(), *self._go_on(ctx)]

    def _go_on(self, ctx: Context) -> list[Effect]:
        """Begin the next version where that is due, and write what is waited for."""
        return [*self.close(ctx), *self._write()]

    def _judge(self, ctx: Context, brought: Brought, event: Evaluated, place: int) -> list[Effect]:
        sender = brought.change.sender
        own, loss = event.losses[0], event.losses[place]
        if brought.newer:
            bad = is_worse(event, place, WORSE_MAX)
            return self._refuse(ctx, brought) if bad else self._renew(ctx, brought)
        if self.mixing.accepts(peer_text(sender), own, loss):
            return self._let_in(ctx, brought, self.mixing.share(2 * event.distances[place]))
        note = Note("refused", {"peer": short(sender), "loss": own, "mixed": loss})
        detail = f"a change of shard {brought.shard} raises the loss from {own:.4g} to {loss:.4g}"
        blame = [Accuse(sender, Offence.FALSE_CLAIM, detail)] if is_worse(event, place, LIE) else []
        return [note, *blame, *self._refuse(ctx, brought)]

    def _refuse(self, ctx: Context, brought: Brought) -> list[Effect]:
        """Not taken in; who asked gets the numbers all the same."""
        seat, change = self.seats.get(brought.shard), brought.change
        if seat is None:
            return []
        if brought.newer:
            seat.refused = change.base.blob if change.base else None
            return self._take_again(ctx, brought.shard, seat)
        seat.pending.pop(change.sender, None)
        if not self._rule.sync:
            return self._answer(ctx, brought.shard, seat, change, seat.version)
        if change.version == seat.version:
            seat.heard[change.sender] = None
        return []

    def _renew(self, ctx: Context, brought: Brought) -> list[Effect]:
        """Somebody had newer numbers, from a server before this one: go on from there."""
        seat, change = self.seats[brought.shard], brought.change
        base = change.base
        if base is None or change.version <= seat.version:
            return self._take_again(ctx, brought.shard, seat)
        seat.version, seat.piece = change.version, base
        seat.weight = 0.0
        seat.heard.clear()
        note = Note("renewed", {"shard": brought.shard, "version": seat.version})
        move = Combine("serve", SERVED, ((1.0, base.blob),), ranges=seat.ranges)
        asking, seat.asking = seat.asking, {}
        effects: list[Effect] = [note, move]
        for late in asking.values():
            effects += self._answer(ctx, brought.shard, seat, late, seat.version)
        return [*effects, *self._take_again(ctx, brought.shard, seat)]

    def _take_again(self, ctx: Context, shard: int, seat: Seat) -> list[Effect]:
        early, seat.early = seat.early, {}
        return [effect for change in early.values() for effect in self.take(ctx, shard, change)]

    # -- applying ----------------------------------------------------------------------------------

    def _let_in(self, ctx: Context, brought: Brought, share: float) -> list[Effect]:
        seat, change = self.seats[brought.shard], brought.change
        seat.pending.pop(change.sender, None)
        offer, late = change.offer, seat.version - change.version
        if offer is None or late < 0 or (self._rule.sync and late):
            return self._answer(ctx, brought.shard, seat, change, seat.version)
        if self._rule.sync:
            seat.heard[change.sender] = None
            before = ((1.0, SUM),) if seat.weight else ()
            seat.weight += change.weight
            weight = change.weight * share
            return [Combine("serve", SUM, (*before, (weight, offer.blob)), ranges=seat.ranges)]
        rate = change.weight * share * staleness_rate(self._workers(ctx), late)
        effects = self._apply(seat, rate, offer.blob)
        seat.version += 1
        seat.piece = None
        return [*effects, *self._answer(ctx, brought.shard, seat, change, seat.version)]

    def _apply(self, seat: Seat, rate: float, ref: Ref) -> list[Effect]:
        ranges, momentum = seat.ranges, self._rule.momentum
        if not momentum:
            return [Combine("serve", SERVED, ((1.0, SERVED), (rate, ref)), ranges=ranges)]
        return [
            Combine("serve", VELOCITY, ((momentum, VELOCITY), (rate, ref)), ranges=ranges),
            Combine("serve", SERVED, ((1.0, SERVED), (1.0, VELOCITY)), ranges=ranges),
        ]

    def close(self, ctx: Context) -> list[Effect]:
        """Synchronous: the next version begins when all are heard, a quorum in the usual time, or any."""
        if not self._rule.sync:
            return []
        effects: list[Effect] = []
        workers = self._workers(ctx)
        enough = math.ceil(self._rule.quorum * workers)
        deadline_s = self._arrivals.deadline_s
        wait_s = math.inf
        for shard, seat in self.seats.items():
            if not seat.heard and not seat.pending:
                continue
            age_s = ctx.now - seat.opened.get(seat.version, ctx.now)
            soon = len(seat.heard) >= enough and not seat.pending
            patience_s = deadline_s if soon else 2 * deadline_s
            full = len(seat.heard) >= workers and not seat.pending
            if full or (age_s >= patience_s and seat.heard):
                effects += self._end_version(ctx, shard, seat)
            else:
                wait_s = min(wait_s, max(patience_s - age_s, 0.5))
        return [*effects, *([SetTimer(TIMER, wait_s)] if wait_s < math.inf else [])]

    def _end_version(self, ctx: Context, shard: int, seat: Seat) -> list[Effect]:
        effects = self._apply(seat, 1 / seat.weight, SUM) if seat.weight else []
        note = Note("applied", {"shard": shard, "version": seat.version + 1, "changes": len(seat.heard)})
        seat.version += 1
        seat.piece, seat.weight = None, 0.0
        seat.heard.clear()
        seat.pending.clear()
        asking, seat.asking = seat.asking, {}
        effects = [note, *effects]
        for change in asking.values():
            effects += self._answer(ctx, shard, seat, change, seat.version)
        return effects

    # -- answers -----------------------------------------------------------------------------------

    def _answer(self, ctx: Context, shard: int, seat: Seat, change: Change, version: int) -> list[Effect]:
        """Give the numbers of this version or a newer one; write them first if they are not written."""
        seat.asking.pop(change.sender, None)
        if seat.piece is not None and ctx.holds(seat.piece.blob):
            return self._give(ctx, shard, change, seat.version, seat.piece)
        seat.due[change.sender] = (change, version)
        return self._write()

    def _write(self) -> list[Effect]:
        """Write a shard that somebody waits for, one at a time, unless more is about to be taken in."""
        busy = [brought.shard for brought in (*self._trial, *self._waiting) if not self._rule.sync]
        for shard, seat in self.seats.items():
            if self._writing is None and seat.due and shard not in busy:
                self._writes += 1
                self._writing = (shard, seat.version)
                return [Publish(f"piece:{self._writes}", SERVED, ranges=seat.ranges)]
        return []

    def on_written(self, ctx: Context, event: Published) -> list[Effect]:
        """Numbers of a version are written: answer who may have them."""
        shard, version = self._end_writing(event.tag)
        seat = self.seats.get(shard)
        if seat is None:
            return self._write()
        offer = Offer(event.blob, event.size_bytes, 0.0)
        if version == seat.version:
            seat.piece = offer
        old = [blob for blob in seat.written[: 1 - WRITTEN_MAX] if blob != event.blob]
        seat.written = [*seat.written[1 - WRITTEN_MAX :], event.blob]
        ready = [change for change, need in seat.due.values() if need <= version]
        seat.due = {peer: (change, need) for peer, (change, need) in seat.due.items() if need > version}
        effects = [e for change in ready for e in self._give(ctx, shard, change, version, offer)]
        return [*map(Drop, old), *effects, *self._write()]

    def on_not_written(self, tag: str) -> bool:
        """A full disk: say whether that is why shards cannot be served."""
        return self._end_writing(tag)[0] in self.seats

    def _end_writing(self, tag: str) -> tuple[int, int]:
        if self._writing is None or tag != f"piece:{self._writes}":
            return -1, 0
        written, self._writing = self._writing, None
        return written
