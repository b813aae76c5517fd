"""A node: `handle(now, input) -> list[effect]`. It only connects the parts; each decides for itself."""

from collections.abc import Callable
from random import Random
from typing import Any, cast

from msgspec import Struct
from msgspec.structs import replace

from p2ptrain.core import inputs, limits, membership, spread
from p2ptrain.core.blobs import Blobs
from p2ptrain.core.conduct import Conduct
from p2ptrain.core.directory import Introduced
from p2ptrain.core.effects import (
    Accuse,
    Checkpoint,
    Drop,
    Effect,
    Evaluate,
    Fetch,
    Finish,
    Halt,
    Note,
    Send,
    SetTimer,
    Sign,
    Split,
    Stage,
    Tell,
    Train,
)
from p2ptrain.core.envelope import Verified
from p2ptrain.core.errors import Offence
from p2ptrain.core.inputs import Input
from p2ptrain.core.ledger import WORST, Ledger, Stated
from p2ptrain.core.lifecycle import State, Turn, follow, usual_reason
from p2ptrain.core.manifest import Manifest
from p2ptrain.core.membership import Members, Membership
from p2ptrain.core.messages import Contact, Leave, News, Report
from p2ptrain.core.spread import Spread, SpreadConfig
from p2ptrain.core.strategy import Context, Event, Learned, Rules, Strategy, Told
from p2ptrain.core.types import OWN, PeerId, Seconds
from p2ptrain.core.view import NodeView, view_peer

CHECKPOINT_TIMER = "checkpoint"
CHECKPOINT_EVERY_S = 5.0
CHECKPOINT_EVERY_MAX_S = 300.0
CHECKPOINT_SHARE = 0.02
"""Saving may take that share of the time, between once in 5 s and once in 5 min (guess)."""

TEST_TAG = "node:test"
STRATEGY_TIMER = "strategy:"


class Setup(Struct, frozen=True):
    """What a node is made of. Equal setups, seeds and inputs give equal effects."""

    me: PeerId
    manifest: Manifest
    rules: Rules
    settings: Any
    """The strategy's settings: the manifest's differences applied to its defaults."""
    seed: int
    contact: Contact | None = None
    """What this node says of itself; None where nobody has to be dialled (simulation)."""
    spread: SpreadConfig = SpreadConfig()


class Node:
    """One member of one swarm."""

    def __init__(self, setup: Setup, members: Members | None = None) -> None:
        self._setup = setup
        self._rng = Random(setup.seed)
        self._conduct = Conduct()
        self._membership = Membership(setup.me, self._rng, self._conduct, members or Members([setup.me]))
        self._ledger = Ledger()
        self._blobs = Blobs()
        self._spread = Spread(setup.spread, setup.me, self._rng, self._ledger, self._membership)
        self._context = Context(
            setup.me, setup.manifest, self._rng, self._ledger, self._membership, self._conduct, self._blobs
        )
        self._strategy: Strategy | None = None
        self._ready: inputs.TrainerReady | None = None
        self._state = State.STARTING
        self._reason = ""
        self._until = ""
        self._postponed: Train | None = None
        self._told: Report | None = None
        self._turned = False
        self._position = (0, 0)
        self._tested: inputs.Evaluated | None = None
        self._saved_step = 0

    def handle(self, now: Seconds, event: Input) -> list[Effect]:
        """Take one input and return what is to be done, in order. Never awaits, never fails for a peer."""
        self._context.now = now
        if self._state is State.LEFT:
            return []
        return ROUTES[type(event)](self, event)

    @property
    def ledger(self) -> Ledger:
        """What this node knows of everybody's losses."""
        return self._ledger

    @property
    def state(self) -> State:
        """What this node is doing."""
        return self._state

    @property
    def members(self) -> tuple[PeerId, ...]:
        """All members, sorted, this node among them."""
        return self._membership.members

    @property
    def own_contact(self) -> bytes | None:
        """What this node says of itself, signed; None before that."""
        return self._membership.own_contact

    def view(self, now: Seconds) -> NodeView:
        """Show this node to the outside."""
        told, tested = self._told, self._tested
        return NodeView(
            state=str(self._state),
            reason=self._reason_now(now),
            until=self._until,
            activity=self._strategy.activity() if self._strategy and self._state is not State.PAUSED else "",
            step=self._position[0],
            samples=self._position[1],
            steps=self._setup.manifest.steps,
            loss=told.loss if told else None,
            accuracy=told.accuracy if told else None,
            best_loss=told.offer.loss if told and told.offer else None,
            test_loss=tested.losses[0] if tested else None,
            test_accuracy=tested.accuracies[0] if tested else None,
            saved_step=self._saved_step,
            parameters=self._ready.parameters if self._ready else 0,
            peers=tuple(
                view_peer(peer, self._membership, self._ledger, self._conduct, now)
                for peer in self._membership.members
                if peer != self._setup.me
            ),
        )

    # -- network -----------------------------------------------------------------------------------

    def _on_started(self, event: inputs.Started) -> list[Effect]:
        now = self._context.now
        self._blobs.held.update(dict.fromkeys(event.held))
        effects = self._membership.start(event.contacts, now)
        contact = self._setup.contact
        if contact is not None:
            effects.append(Sign(contact))
            if not contact.trains:
                self._turn(Turn.SERVE)
        return [*effects, *self._spread.start(now)]

    def _on_received(self, event: inputs.Received) -> list[Effect]:
        now, via = self._context.now, event.via
        if not self._conduct.admits(via, now):
            return []
        message = event.message.message
        if isinstance(message, Leave):
            return self._on_leave(via, message)
        self._membership.on_heard(via)
        if isinstance(message, News):
            return self._on_news(via, cast("Verified[News]", event.message))
        if type(message) in membership.HANDLERS:
            return self._membership.on_message(via, event.message, now)
        self._membership.on_used(via, now)
        if self._state is State.PAUSED:
            return []  # the owner wants the computer for other things; peers know, and ask others
        return self._to_strategy(Told(via, message))

    def _on_leave(self, via: PeerId, message: Leave) -> list[Effect]:
        reason = f"left: {message.reason}"
        gone = self._membership.on_leave(via, reason)
        return [*gone, *self._to_strategy(inputs.PeerDown(via, reason))]

    def _on_news(self, via: PeerId, news: Verified[News]) -> list[Effect]:
        improved, effects = self._spread.on_news(self._context.now, via, news, self._blobs.held)
        for report, held in zip(cast("tuple[Stated, ...]", news.carried), news.message.held, strict=False):
            if held and (offer := report.message.offer) is not None:
                self._blobs.add_holder(offer.blob, via)
        return [*effects, *self._to_strategy(Learned(improved))] if improved else effects

    def _on_signed(self, event: inputs.Signed) -> list[Effect]:
        if isinstance(event.message.message, Contact):
            return self._membership.on_own_contact(cast("Introduced", event.message), self._context.now)
        stated = cast("Stated", event.message)
        before = self._ledger.best_rank
        self._ledger.learn(stated, self._context.now)
        turned, self._turned = self._turned, False
        if turned:
            return self._announce()
        improved = WORST > before > self._ledger.best_rank
        return self._spread.pass_on(self._context.now, self._blobs.held) if improved else []

    def _announce(self) -> list[Effect]:
        """Tell some peers at once that this node has done its steps, finished, paused or goes on."""
        partners = self._membership.neighbours or self._membership.partners(self._context.now)
        some = self._rng.sample(partners, min(len(partners), limits.MESH_PEERS_MAX - 1))
        return self._spread.announce(self._context.now, some, self._blobs.held)

    def _on_peer_up(self, event: inputs.PeerUp) -> list[Effect]:
        now = self._context.now
        news = self._spread.announce(now, [event.peer], self._blobs.held)
        return [*self._membership.on_up(event.peer, now), *news, *self._to_strategy(event)]

    def _on_peer_down(self, event: inputs.PeerDown) -> list[Effect]:
        effects = self._membership.on_down(event.peer, event.reason, self._context.now)
        return [*effects, *self._to_strategy(event)]

    def _on_offended(self, event: inputs.Offended) -> list[Effect]:
        if event.offence in (Offence.FALSE_CLAIM, Offence.BAD_WEIGHTS, Offence.WRONG_BYTES):
            self._ledger.forget(event.peer)
        return self._conduct.charge(event.peer, event.offence, event.detail, self._context.now)

    # -- blobs -------------------------------------------------------------------------------------

    def _on_fetched(self, event: inputs.Fetched) -> list[Effect]:
        if not self._blobs.end_fetch(event.blob):
            return []
        return [*self._blobs.hold(event.blob), *self._to_strategy(event)]

    def _on_fetch_failed(self, event: inputs.FetchFailed) -> list[Effect]:
        awaited = self._blobs.end_fetch(event.blob)
        note = Note("fetch_failed", {"blob": event.blob[:12], "reason": event.reason[:200]})
        return [note, *(self._to_strategy(event) if awaited else [])]

    def _on_published(self, event: inputs.Published) -> list[Effect]:
        return [*self._blobs.hold(event.blob), *self._to_strategy(event)]

    # -- learning ----------------------------------------------------------------------------------

    def _on_trainer_ready(self, event: inputs.TrainerReady) -> list[Effect]:
        self._ready = event
        self._position = (event.step, event.samples)
        self._saved_step = event.step
        note = Note("trainer_ready", {"step": event.step, "parameters": event.parameters})
        if self._state is State.FINISHED:
            # A new strategy would begin again and change the result.
            return [note, *([Evaluate(TEST_TAG, (OWN,), Split.TEST)] if self._tested is None else [])]
        self._strategy = self._setup.rules.build(self._setup.settings)
        self._turn(Turn.TRAINER_READY)
        timer = SetTimer(CHECKPOINT_TIMER, CHECKPOINT_EVERY_S)
        return [note, timer, *self._carry(self._strategy.start(self._context, event))]

    def _on_trainer_lost(self, event: inputs.TrainerLost) -> list[Effect]:
        self._ready = None
        self._strategy = None
        self._postponed = None
        self._turn(Turn.TRAINER_LOST, event.reason, f"the next try in {event.retry_s:.0f} s")
        return [Note("trainer_lost", {"reason": event.reason[:500], "retry_s": event.retry_s})]

    def _on_trained(self, event: inputs.Trained | inputs.Staged) -> list[Effect]:
        self._position = (event.step, event.samples)
        return self._to_strategy(event)

    def _on_evaluated(self, event: inputs.Evaluated) -> list[Effect]:
        event = event.believable()
        if event.tag != TEST_TAG:
            return self._to_strategy(event)
        self._tested = event
        return [Note("tested", {"loss": event.losses[0], "accuracy": event.accuracies[0]})]

    def _on_learn_failed(self, event: inputs.LearnFailed) -> list[Effect]:
        note = Note("learn_failed", {"what": event.tag, "reason": event.reason[:200]})
        return [note, *self._to_strategy(event)]

    def _on_saved(self, event: inputs.Saved) -> list[Effect]:
        self._saved_step = event.step
        wait_s = min(CHECKPOINT_EVERY_MAX_S, max(CHECKPOINT_EVERY_S, event.seconds / CHECKPOINT_SHARE))
        return [Note("saved", {"step": event.step}), SetTimer(CHECKPOINT_TIMER, wait_s)]

    # -- the node itself ---------------------------------------------------------------------------

    def _on_timer(self, event: inputs.TimerFired) -> list[Effect]:
        now = self._context.now
        if event.key == spread.TIMER:
            return self._spread.on_timer(now, self._blobs.held)
        if event.key in membership.TIMERS:
            return self._membership.on_timer(event.key, now)
        if event.key == CHECKPOINT_TIMER:
            return self._checkpoint_in_time()
        return self._to_strategy(inputs.TimerFired(event.key.removeprefix(STRATEGY_TIMER)))

    def _on_paused(self, event: inputs.Paused) -> list[Effect]:
        if self._state is State.SERVING:
            return []
        self._turn(Turn.PAUSE, event.reason, event.until)
        return [Note("paused", {"reason": event.reason}), Halt(), *self._checkpoint(), *self._tell_again()]

    def _on_resumed(self, _: inputs.Resumed) -> list[Effect]:
        self._turn(Turn.RESUME)
        if self._ready is None or self._state is not State.STARTING:
            return []
        self._turn(Turn.TRAINER_READY)
        postponed, self._postponed = self._postponed, None
        return [Note("resumed"), *([postponed] if postponed else []), *self._tell_again()]

    def _on_leaving(self, _: inputs.Leaving) -> list[Effect]:
        goodbyes: list[Effect] = [
            Send(peer, Leave("stopped by its owner"))
            for peer in self._membership.audience(self._context.now)[: limits.MESH_PEERS_MAX]
        ]
        checkpoint = self._checkpoint()
        self._turn(Turn.LEAVE, "stopped")
        return [Halt(), *checkpoint, *goodbyes]

    def _checkpoint_in_time(self) -> list[Effect]:
        """Save at intervals, while there is something new."""
        if self._state is State.TRAINING or self._position[0] != self._saved_step:
            return self._checkpoint()
        return [SetTimer(CHECKPOINT_TIMER, CHECKPOINT_EVERY_S)]

    def _checkpoint(self) -> list[Effect]:
        if self._strategy is None or self._ready is None:
            return []
        memory = self._strategy.memory()
        return [Checkpoint(memory if len(memory) <= limits.MEMORY_BYTES_MAX else b"")]

    def _turn(self, turn: Turn, reason: str = "", until: str = "") -> None:
        after = follow(self._state, turn)
        if after is not self._state or (turn is Turn.PAUSE and after is State.PAUSED):
            self._state, self._reason, self._until = after, reason, until
            self._context.paused = after is State.PAUSED

    def _reason_now(self, now: Seconds) -> str:
        others, partners = self._membership.others(now), self._membership.partners(now)
        return self._reason or usual_reason(self._state, len(others), len(partners))

    # -- the strategy ------------------------------------------------------------------------------

    def _to_strategy(self, event: Event | Input) -> list[Effect]:
        if self._strategy is None:
            return []
        return self._carry(self._strategy.handle(self._context, cast("Event", event)))

    def _carry(self, wishes: list[Effect]) -> list[Effect]:
        """Turn a strategy's wishes into effects: some need the node's word first."""
        effects: list[Effect] = []
        for wish in wishes:
            grant = GRANTS.get(type(wish))
            if grant is None:
                effects.append(wish)
            else:
                effects += grant(self, wish)
        return effects

    def _set_timer(self, wish: SetTimer) -> list[Effect]:
        return [SetTimer(STRATEGY_TIMER + wish.key, wish.after_s)]

    def _accuse(self, wish: Accuse) -> list[Effect]:
        return self._on_offended(inputs.Offended(wish.peer, wish.offence, wish.detail))

    def _train(self, wish: Train) -> list[Effect]:
        if self._state is State.PAUSED:
            self._postponed = wish
            return []
        return [wish] if self._state is State.TRAINING else []

    def _take_stage(self, wish: Stage) -> list[Effect]:
        is_now = self._state is State.TRAINING
        return [wish] if is_now else self._to_strategy(inputs.LearnFailed(wish.tag, self._state))

    def _fetch(self, wish: Fetch) -> list[Effect]:
        if wish.blob in self._blobs.held:
            return self._to_strategy(inputs.Fetched(wish.blob, self._setup.me))
        if not wish.sources:
            return self._to_strategy(inputs.FetchFailed(wish.blob, "nobody offers it"))
        if self._blobs.is_fetching(wish.blob):
            return []
        if not self._blobs.begin_fetch(wish.blob):
            return self._to_strategy(inputs.FetchFailed(wish.blob, "too many fetches at once"))
        return [wish]

    def _drop(self, wish: Drop) -> list[Effect]:
        return self._blobs.drop(wish.blob)

    def _on_tell(self, wish: Tell) -> list[Effect]:
        return self._tell(wish.report)

    def _tell(self, report: Report) -> list[Effect]:
        state = self._state
        report = replace(report, finished=state is State.FINISHED, paused=state is State.PAUSED)
        if self._told is not None:
            self._turned |= self._stage(report) != self._stage(self._told)
        self._told = report
        if report.offer is not None:
            self._blobs.pin(report.offer.blob)
        return [Sign(report)]

    def _stage(self, report: Report) -> tuple[bool, bool, bool]:
        """What others wait for: they are to hear at once when it changes."""
        return report.finished, report.paused, 0 < self._setup.manifest.steps <= report.step

    def _finish(self, wish: Finish) -> list[Effect]:
        if follow(self._state, Turn.FINISH) is self._state:
            return []
        self._turn(Turn.FINISH, wish.reason)
        effects = [Note("finished", {"reason": wish.reason}), Halt(), *self._tell_again()]
        return [*effects, *self._checkpoint(), Evaluate(TEST_TAG, (OWN,), Split.TEST)]

    def _tell_again(self) -> list[Effect]:
        """State the same loss in a new state."""
        return self._tell(self._told) if self._told is not None else []


ROUTES: dict[type[Input], Callable[[Node, Any], list[Effect]]] = {
    inputs.Started: Node._on_started,
    inputs.Received: Node._on_received,
    inputs.Signed: Node._on_signed,
    inputs.PeerUp: Node._on_peer_up,
    inputs.PeerDown: Node._on_peer_down,
    inputs.Offended: Node._on_offended,
    inputs.Fetched: Node._on_fetched,
    inputs.FetchFailed: Node._on_fetch_failed,
    inputs.TrainerReady: Node._on_trainer_ready,
    inputs.TrainerLost: Node._on_trainer_lost,
    inputs.Trained: Node._on_trained,
    inputs.Evaluated: Node._on_evaluated,
    inputs.Combined: Node._to_strategy,
    inputs.Adopted: Node._to_strategy,
    inputs.Published: Node._on_published,
    inputs.Reduced: Node._to_strategy,
    inputs.ReduceFailed: Node._to_strategy,
    inputs.Staged: Node._on_trained,
    inputs.LearnFailed: Node._on_learn_failed,
    inputs.Saved: Node._on_saved,
    inputs.TimerFired: Node._on_timer,
    inputs.Paused: Node._on_paused,
    inputs.Resumed: Node._on_resumed,
    inputs.Leaving: Node._on_leaving,
}

GRANTS: dict[type[Effect], Callable[[Node, Any], list[Effect]]] = {
    Train: Node._train,
    Stage: Node._take_stage,
    Fetch: Node._fetch,
    Drop: Node._drop,
    Tell: Node._on_tell,
    Accuse: Node._accuse,
    Finish: Node._finish,
    SetTimer: Node._set_timer,
}
"""Wishes that the node has a say in."""
