"""Parameter server: workers bring changes of the weights to servers, which give the new weights out.

The vector is cut into shards, each served by one of the peers, which works as well. A worker takes some steps
from the newest weights, publishes its change of each shard, and asks the shard's server for the next version:
in `sync` it waits until enough others have brought theirs, in `async` it trains on and each change counts at
once, less the staler it is. Servers measure changes before they take them in, workers measure what servers
give. A coordinator names the servers; of one that is gone another peer takes the shard over, and goes on from
the newest version that anybody has. Source: 002, 003, ALGORITHMS 2.4; what is let in: 2.7.
"""

from enum import StrEnum
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta, Struct
from msgspec.structs import replace

from p2ptrain.core import keep, law
from p2ptrain.core.effects import Combine, Effect, Note, Send, SetTimer
from p2ptrain.core.ending import Ending
from p2ptrain.core.inputs import (
    Evaluated,
    Fetched,
    FetchFailed,
    LearnFailed,
    PeerDown,
    PeerUp,
    Published,
    TimerFired,
    Trained,
    TrainerReady,
)
from p2ptrain.core.intake import Intake, Wanted
from p2ptrain.core.messages import Message, Natural, Offer
from p2ptrain.core.mixing import Mixing
from p2ptrain.core.progress import Progress
from p2ptrain.core.strategy import Context, Event, Learned, Told
from p2ptrain.core.types import OWN, PeerId, Ranges, Seconds, short
from p2ptrain.strategies.parameter_server import serving
from p2ptrain.strategies.parameter_server.messages import SHARDS_MAX, Grad, Params, Piece, Servers, Silent
from p2ptrain.strategies.parameter_server.posts import Posts
from p2ptrain.strategies.parameter_server.serving import Brought, Change, Rule, Serving
from p2ptrain.strategies.parameter_server.stragglers import Stragglers
from p2ptrain.strategies.parameter_server.worker import BASE, GIVE_UP, PATIENCE_S, Answer, Worker, cut

SETTLE_SHARE = 0.25
LOOK_EVERY_S = 0.5

Steps = Annotated[int, Meta(ge=1)]


class Config(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Settings, equal for the swarm. Defaults: ALGORITHMS 5 unless said otherwise.

    mode: `sync`: all wait for each other's changes; `async`: nobody waits.
    shards: pieces of the weights with a server each; with fewer peers one serves several.
    round_steps: optimiser steps of a change; 1 is the gradient of sources 002 and 003.
    quorum: this share of the workers is enough for a version; who comes later was in vain (sync).
    staleness: changes that are so many versions late are not taken; 0: twice the number of workers (async).
    momentum: of the servers' heavy ball; breaks under delay (ALGORITHMS 4.6), so 0.
    examples: held-out examples on which changes and new weights are measured; 64 are enough (2.7).
    report_s: time between two measurements of the own loss, or 200 times as long as one takes (guess).
    settle_s: at the end, so long is waited for somebody's next steps, or a quarter of the own time (guess).
    fresh_s, tolerance: as in `restart`.
    """

    mode: Literal["sync", "async"] = "sync"
    shards: Annotated[int, Meta(ge=1, le=SHARDS_MAX)] = SHARDS_MAX
    round_steps: Steps = 50
    quorum: Annotated[float, Meta(gt=0.0, le=1.0)] = 0.8
    staleness: Natural = 0
    momentum: Annotated[float, Meta(ge=0.0, lt=1.0)] = 0.0
    examples: Steps = 64
    report_s: Annotated[float, Meta(gt=0.0)] = 2.0
    settle_s: Annotated[float, Meta(ge=0.0)] = 20.0
    fresh_s: Annotated[float, Meta(gt=0.0)] = 45.0
    tolerance: Annotated[float, Meta(ge=0.0)] = 0.10


MESSAGES: tuple[type[Message], ...] = (Servers, Grad, Params, Silent)


class Phase(StrEnum):
    """Where a run stands."""

    TRAIN = "training"
    WAIT = "waiting for new weights"
    SERVE = "own steps done, waiting for the others"
    LAST = "taking the final weights"
    SETTLE = "choosing among the results"
    DONE = "done"


PHASES: dict[tuple[Phase, str], Phase] = {
    (Phase.TRAIN, "a change is brought"): Phase.WAIT,
    (Phase.TRAIN, "own steps done"): Phase.SERVE,
    (Phase.WAIT, "new weights taken over"): Phase.TRAIN,
    (Phase.WAIT, "own steps done"): Phase.SERVE,
    (Phase.SERVE, "nobody trains any more"): Phase.LAST,
    (Phase.LAST, "the final weights are here"): Phase.SETTLE,
    (Phase.SETTLE, "results compared"): Phase.DONE,
}


class Memory(Struct, frozen=True):
    """What survives a restart of the program."""

    own: bytes
    changes: Mixing


class Strategy:
    """A worker, and a server of some shards."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._waits = config.mode == "sync"
        self._phase = Phase.TRAIN
        self._own = Progress()
        self._ending = Ending(config.settle_s, config.fresh_s, config.tolerance)
        self._stragglers = Stragglers()
        self._intake: Intake[Any] = Intake()
        self._posts = Posts(config.shards)
        self._worker = Worker(self._waits, ((),), config.examples, self._intake, self._bring, self._over)
        rule = Rule(self._waits, config.quorum, config.staleness, config.momentum, config.examples)
        self._serving = Serving(rule, self._intake, self._workers, self._give)
        self._ranges: tuple[Ranges, ...] = ((),)
        self._began: Seconds = 0.0
        self._samples = self._turn = 0
        self._missed = False
        self._measured = False

    def start(self, ctx: Context, ready: TrainerReady) -> list[Effect]:
        """Train from the common start, or from the checkpoint until the servers have answered."""
        if ready.memory:
            memory = msgspec.msgpack.decode(ready.memory, type=Memory)
            self._serving.mixing = memory.changes
            ready = replace(ready, memory=memory.own)
        self._own.resume(ctx, ready)
        self._ranges = cut(ready.numbers or ready.parameters, self._config.shards)
        self._posts = Posts(len(self._ranges))
        examples = self._config.examples
        self._worker = Worker(self._waits, self._ranges, examples, self._intake, self._bring, self._over)
        self._began, self._samples = ctx.now, ready.samples
        self._turn = ctx.rng.randrange(64)
        begin = [Combine("base", BASE, ((1.0, OWN),)), SetTimer("posts", LOOK_EVERY_S)]
        return [*begin, *self._coordinate(ctx), *self._next_round(ctx)]

    def memory(self) -> bytes:
        """Keep the best offer, the learning rate, and whom not to believe."""
        memory = Memory(self._own.memory(), self._serving.mixing)
        return msgspec.msgpack.encode(memory)

    def activity(self) -> str:
        """Say what goes on."""
        served = len(self._serving.seats)
        words = f"; serves {served} of {len(self._ranges)} shards" if served else ""
        return f"{self._phase}{words}"

    def handle(self, ctx: Context, event: Event) -> list[Effect]:
        """Answer an event."""
        match event:
            case Learned():
                return []
            case Told(sender=sender, message=message):
                return self._on_message(ctx, sender, message) if ctx.trusts(sender) else []
            case Trained():
                self._own.take(event)
                return self._on_trained(ctx)
            case Fetched() | FetchFailed():
                return self._on_fetch(ctx, event)
            case PeerUp() | PeerDown():
                return [SetTimer("posts", LOOK_EVERY_S)] if self._phase is not Phase.DONE else []
            case TimerFired(key="posts" | "ask" | "poll" | "fetch" | serving.TIMER):
                return self._on_timer(ctx, event.key)
            case Evaluated() | Published() | LearnFailed():
                return self._on_learned(ctx, event)
            case _:
                return self._settle(ctx, event)

    # -- rounds ------------------------------------------------------------------------------------

    def _turn_to(self, cause: str) -> None:
        self._phase = PHASES[self._phase, cause]

    def _next_round(self, ctx: Context) -> list[Effect]:
        if not self._own.is_done(ctx):
            return [*self._tend(ctx), self._own.train(ctx, self._config.round_steps)]
        self._turn_to("own steps done")
        return [*self._tend(ctx), SetTimer("poll", 0.0)]

    def _tend(self, ctx: Context) -> list[Effect]:
        """Once a round measure the own weights, for the last time because all wait; tell who serves."""
        self._stragglers.look(ctx)
        self._turn += 1
        is_due = self._own.is_due(ctx.now, self._config.report_s) or self._own.is_done(ctx)
        look = self._own.look("own") if is_due else []
        to = law.expo(ctx.membership.trainers, ctx.me, self._turn, lambda peer: self._posts.usable(ctx, peer))
        told: list[Effect] = [Send(to, self._servers())] if to is not None and self._posts.servers else []
        return [*look, *told, *self._coordinate(ctx)]

    def _on_trained(self, ctx: Context) -> list[Effect]:
        """Bring the change; in `async` train on meanwhile."""
        if self._phase is not Phase.TRAIN:
            return []
        effects = [] if self._worker.asked is not None else self._ask(ctx)
        if self._waits or self._own.is_done(ctx):
            self._turn_to("a change is brought")
            return effects
        return [*effects, self._own.train(ctx, self._config.round_steps)]

    def _ask(self, ctx: Context) -> list[Effect]:
        samples, self._samples = max(0, self._own.samples - self._samples), self._own.samples
        asked = self._worker.begin(ctx, self._own.step, samples)
        return [*asked, SetTimer("ask", self._worker.again_s)]

    def _over(self, ctx: Context, step: int, taken: bool) -> list[Effect]:
        """The answers were taken over, or given up."""
        shown = self._worker.show(list(self._serving.seats)) if taken else []
        if self._phase is Phase.LAST:
            self._turn_to("the final weights are here")
            return [*shown, *self._own.look("last")]
        if self._phase is not Phase.WAIT:
            return [*shown, *self._tend(ctx)]
        if not self._own.is_done(ctx):
            self._turn_to("new weights taken over")
        elif self._own.step > step:
            return [*shown, *self._ask(ctx)]
        return [*shown, *self._next_round(ctx)]

    # -- who serves --------------------------------------------------------------------------------

    def _servers(self) -> Servers:
        posts = self._posts
        return Servers(posts.lease.term, posts.lease.holder or bytes(32), posts.number, posts.servers)

    def _find_servers(self, ctx: Context) -> list[Effect]:
        """Until it is known who serves, ask the coordinator."""
        holder = self._posts.lease.holder
        if self._posts.servers or holder in (None, ctx.me):
            return []
        return [Send(holder, self._servers()), SetTimer("posts", self._worker.again_s)]

    def _coordinate(self, ctx: Context) -> list[Effect]:
        """If it is this node's turn, name servers for the shards that have none."""
        lease, posts = self._posts.lease, self._posts
        if lease.holder is None:
            lease.watch(ctx, PATIENCE_S[1])
        if lease.holder != ctx.me or ctx.paused or self._phase is Phase.DONE or not posts.name(ctx):
            return []
        note = Note("named", {"term": lease.term, "servers": [short(peer) for peer in posts.servers]})
        told = [Send(peer, self._servers()) for peer in ctx.partners()]
        return [note, *told, *self._take_posts(ctx)]

    def _take_posts(self, ctx: Context) -> list[Effect]:
        """The servers are others: begin or stop to serve, and ask the new ones."""
        effects: list[Effect] = []
        worker = self._worker
        for shard, ranges in enumerate(self._ranges):
            is_mine = self._posts.of(shard) == ctx.me
            if is_mine and shard not in self._serving.seats:
                version, piece = worker.versions[shard], worker.pieces[shard]
                effects += self._serving.begin(ctx, shard, ranges, BASE, version, piece)
            elif not is_mine:
                self._serving.end(shard)
        return [*effects, *worker.show(list(self._serving.seats)), *worker.ask(ctx)]

    def _miss(self, ctx: Context) -> list[Effect]:
        """Tell the coordinator of servers that are gone or silent; if it is silent too, the next one."""
        asked, posts = self._worker.asked, self._posts
        if asked is None or not asked.ready or asked.joined or ctx.paused or self._phase is Phase.LAST:
            return []
        patience_s = self._worker.patience_s
        late = ctx.now - asked.began > 2 * patience_s
        lost = [shard for shard in self._worker.missing if late or not posts.is_served(ctx, shard)]
        if not lost:
            return []
        if not asked.missed:
            asked.missed = True
            posts.miss(ctx)
        if posts.lease.watch(ctx, patience_s, lambda peer: peer == ctx.me or posts.usable(ctx, peer)):
            return self._replace(ctx, ctx.me, tuple(lost))
        assert posts.lease.holder is not None
        return [Send(posts.lease.holder, Silent(*posts.state, tuple(lost)))]

    def _replace(self, ctx: Context, sender: PeerId, shards: tuple[int, ...]) -> list[Effect]:
        for shard in shards:
            self._posts.complain(ctx, sender, shard, self._workers(ctx))
        return self._coordinate(ctx)

    def _workers(self, ctx: Context) -> int:
        return max(1, len(self._stragglers.training(ctx)) + (not self._own.is_done(ctx)))

    # -- messages ----------------------------------------------------------------------------------

    def _on_message(self, ctx: Context, sender: PeerId, message: Message) -> list[Effect]:
        posts, is_done = self._posts, self._phase is Phase.DONE
        match message:
            case Grad(shard=shard, change=change) if not is_done or change is None:
                brought, base = (piece.offer if piece else None for piece in (change, message.known))
                weight = self._weight(message.samples)
                asked = Change(sender, message.turn, message.version, brought, base, weight)
                return [*self._compare(sender, message), *self._serving.take(ctx, shard, asked)]
            case Params(shard=shard, turn=turn) if not is_done and posts.of(shard) == sender:
                answer = Answer(sender, message.version, message.numbers.offer)
                return [*self._compare(sender, message), *self._worker.answer(ctx, turn, shard, answer)]
            case Servers(term=term, holder=holder, number=number, servers=servers) if not is_done:
                if posts.hear(ctx, sender, PeerId(holder), (term, number), tuple(map(PeerId, servers))):
                    return self._take_posts(ctx)
                return [Send(sender, self._servers())] if posts.state > (term, number) else []
            case Silent(term=term, shards=shards) if not is_done:
                if term > posts.lease.term:
                    posts.lease.renew(ctx, ctx.me, term)
                named = self._replace(ctx, sender, shards) if posts.lease.holder == ctx.me else []
                return named or [Send(sender, self._servers())]
            case _:
                return []

    def _compare(self, sender: PeerId, said: Grad | Params) -> list[Effect]:
        """Who knows other servers than this node is told, and answers if they are newer."""
        is_same = (said.term, said.number) == self._posts.state or self._phase is Phase.DONE
        return [] if is_same else [Send(sender, self._servers())]

    def _bring(self, ctx: Context, shard: int, change: Change) -> list[Effect]:
        server = self._posts.of(shard)
        if server == ctx.me:
            return self._serving.take(ctx, shard, replace(change, weight=self._weight(change.weight)))
        final = self._phase is Phase.LAST and server is not None and ctx.is_partner(server)
        if server is None or not (self._posts.is_served(ctx, shard) or final):
            return []
        pieces, samples = (Piece.of(change.base), Piece.of(change.offer)), int(change.weight)
        return [Send(server, Grad(*self._posts.state, shard, change.turn, change.version, *pieces, samples))]

    def _give(self, ctx: Context, shard: int, change: Change, version: int, offer: Offer) -> list[Effect]:
        if change.sender == ctx.me:
            return self._worker.answer(ctx, change.turn, shard, Answer(ctx.me, version, offer))
        state, piece = self._posts.state, Piece(offer.blob, offer.size_bytes)
        return [Send(change.sender, Params(*state, shard, change.turn, version, piece))]

    def _weight(self, samples: float) -> float:
        """Nobody counts for more than a whole round, whatever it claims."""
        usual = self._config.round_steps * self._own.samples / max(1, self._own.step)
        return min(1.0, samples / usual) if usual > 0 else 1.0

    # -- answers of the trainer, fetches, timers ---------------------------------------------------

    def _on_learned(self, ctx: Context, event: Evaluated | Published | LearnFailed) -> list[Effect]:
        tag, serving_, worker = event.tag, self._serving, self._worker
        match event:
            case Evaluated(tag="own" | "last"):
                return self._on_own_loss(ctx, event)
            case Published(tag=keep.TAG) | LearnFailed(tag=keep.TAG):
                return self._on_kept(ctx, event)
            case Evaluated() if tag.startswith("mine:"):
                return worker.on_measured_own(ctx, event, self._own)
            case Evaluated():
                measured = [*serving_.on_measured(ctx, event), *worker.on_measured(ctx, event)]
            case Published():
                measured = [*serving_.on_written(ctx, event), *worker.on_written(ctx, event)]
            case LearnFailed():
                if serving_.on_not_written(tag):
                    return self._resign(ctx)
                measured = [*serving_.on_failed(ctx, tag), *worker.on_failed(ctx, tag)]
        return measured or self._settle(ctx, event)

    def _resign(self, ctx: Context) -> list[Effect]:
        """The disk is full: somebody else must serve."""
        posts, self._posts.unfit = self._posts, True
        mine = tuple(self._serving.seats)
        if posts.lease.holder in (None, ctx.me):
            return self._coordinate(ctx)
        assert posts.lease.holder is not None
        return [Send(posts.lease.holder, Silent(*posts.state, mine))]

    def _on_fetch(self, ctx: Context, event: Fetched | FetchFailed) -> list[Effect]:
        here = isinstance(event, Fetched)
        wanted: Wanted[Any] | None = (
            self._intake.take(event.blob) if here else self._intake.fail(ctx, event.blob)
        )
        if wanted is None:
            return [*([] if here else [SetTimer("fetch", LOOK_EVERY_S)]), *self._settle(ctx, event)]
        effects: list[Effect] = []
        if isinstance(wanted.what, Brought):
            serving_ = self._serving
            effects = serving_.on_fetched(wanted.what) if here else serving_.on_missing(ctx, wanted.what)
        else:
            effects = (self._worker.on_here if here else self._worker.on_missing)(ctx, wanted.what)
        return [*effects, *self._intake.go_on(ctx)]

    def _on_timer(self, ctx: Context, key: str) -> list[Effect]:
        if key == serving.TIMER:
            return self._serving.close(ctx)
        if key == "fetch":
            return self._intake.go_on(ctx)
        if self._phase is Phase.DONE:
            return []
        if key == "posts":
            return self._find_servers(ctx) or self._coordinate(ctx) or self._miss(ctx)
        return self._look_for_others(ctx) if key == "poll" else self._ask_again(ctx)

    def _ask_again(self, ctx: Context) -> list[Effect]:
        asked, patience_s = self._worker.asked, self._worker.patience_s
        if asked is None:
            return []
        timer = SetTimer("ask", self._worker.again_s)
        if ctx.paused:
            asked.began = ctx.now
        if ctx.now - asked.began > patience_s * (1 if self._phase is Phase.LAST else GIVE_UP):
            return [timer, *self._worker.join(ctx)]
        return [timer, *self._worker.ask(ctx), *self._miss(ctx), *self._intake.go_on(ctx)]

    # -- the own result ----------------------------------------------------------------------------

    def _on_own_loss(self, ctx: Context, event: Evaluated) -> list[Effect]:
        if self._phase is Phase.DONE:
            return []
        self._measured = self._measured or event.tag == "last"
        told = (self._own.propose() or self._own.tell()) if self._own.measure(event) else []
        return [*told, *self._choose(ctx)]

    def _on_kept(self, ctx: Context, event: Published | LearnFailed) -> list[Effect]:
        self._own.keep.on_written(event)
        return [*self._own.tell(), *self._choose(ctx)]

    def _choose(self, ctx: Context) -> list[Effect]:
        """Look at the results of others once the own is measured and written."""
        ready = self._phase is Phase.SETTLE and self._measured and not self._own.keep.is_writing
        return self._ending.begin(ctx, self._own) if ready else []

    def _look_for_others(self, ctx: Context) -> list[Effect]:
        """As long as somebody trains, it may need the shards that are served here, and its changes count."""
        if self._phase is not Phase.SERVE:
            return []
        patience_s = max(self._config.settle_s, SETTLE_SHARE * (ctx.now - self._began))
        if self._stragglers.moving(ctx, patience_s):
            return [SetTimer("poll", LOOK_EVERY_S), *self._coordinate(ctx)]
        self._turn_to("nobody trains any more")
        return [*self._worker.begin(ctx, self._own.step, 0), SetTimer("ask", self._worker.again_s)]

    def _settle(self, ctx: Context, event: Event) -> list[Effect]:
        if self._phase is not Phase.SETTLE:
            return []
        effects = self._ending.handle(ctx, event, self._own)
        if self._ending.is_over:
            self._turn_to("results compared")
        return effects
