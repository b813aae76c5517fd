"""Short runs of small swarms on the toy learner, with the invariants looked at after every input."""

import math
from collections.abc import Callable
from statistics import fmean
from typing import Any, NamedTuple

from p2ptrain.core.effects import Adopt, Combine, Effect, Fresh, Publish, Stage, Train
from p2ptrain.core.envelope import Verified
from p2ptrain.core.inputs import Input, LearnFailed
from p2ptrain.core.lifecycle import State
from p2ptrain.core.manifest import Manifest, Settings
from p2ptrain.core.messages import Message
from p2ptrain.core.strategy import Rules
from p2ptrain.core.types import OWN, PeerId, Seconds
from p2ptrain.sim.checks import BrokenInvariantError, Checks
from p2ptrain.sim.faults import Faults
from p2ptrain.sim.host import Host
from p2ptrain.sim.scenario import Scenario, build, patience
from p2ptrain.sim.toy import ToyBlobs, ToyLearner, Vector
from p2ptrain.sim.world import World

STEPS = 300


class Variant(NamedTuple):
    """A strategy with settings of its own."""

    strategy: str
    settings: Settings


def scenario(
    strategy: str | Variant, *, peers: int = 8, seed: int = 1, faults: Faults | None = None, **options: Any
) -> Scenario:
    """Describe a short run: every peer takes its steps."""
    tried = Variant(strategy, {}) if isinstance(strategy, str) else strategy
    manifest = Manifest(
        name="t", task="toy", strategy=tried.strategy, strategy_config=tried.settings, steps=STEPS
    )
    return Scenario(
        manifest=manifest, peers=peers, faults=faults or Faults(), seed=seed, for_s=0, alone=False, **options
    )


class Swarm:
    """A world that is watched: the invariants, and that the end is the end."""

    def __init__(
        self,
        described: Scenario,
        learner: Callable[[int], ToyLearner] | None = None,
        rules: Rules | None = None,
    ) -> None:
        self.world: World = build(described, learner, rules)
        self.hosts: list[Host] = list(self.world.hosts.values())
        self._patience: Seconds = patience(described)
        Checks(self.world)
        self.world.observers.append(self._ends_once)
        self._ended: dict[int, int] = {}

    def _ends_once(self, host: Host, now: Seconds) -> None:
        """G9, also for combinations into the own weights."""
        if (
            self._ended.get(host.number) == host.boot
            and not host.lies
            and any(map(changes_weights, host.effects))
        ):
            raise BrokenInvariantError(
                f"peer {host.number} at {now:.1f} s changes weights after the end (G9)"
            )
        if host.node.state is State.FINISHED:
            self._ended[host.number] = host.boot

    def die(self, host: Host, messages: int) -> None:
        """Let a peer be gone for ever as soon as it has sent so many messages."""
        world = self.world
        send = world.send

        def send_until_then(source: Host, target: PeerId, frame: Verified[Message] | bytes) -> None:
            if source is not host or host.messages_sent < messages:
                send(source, target, frame)

        def end(one: Host, _: Seconds) -> None:
            if one is host and host.alive and host.messages_sent >= messages:
                host.crash()

        world.send = send_until_then  # type: ignore[method-assign]
        world.observers.append(end)

    @property
    def honest(self) -> list[Host]:
        """Living peers that do not lie."""
        return [host for host in self.hosts if host.alive and not host.lies]

    def finish(self) -> bool:
        """Let time pass until every living honest peer has finished; say whether it did."""
        return self.world.run_until(self.has_finished, self._patience)

    def has_finished(self) -> bool:
        """Say whether every living honest peer has finished."""
        honest = self.honest
        return bool(honest) and all(host.node.state is State.FINISHED for host in honest)

    def losses(self) -> list[float]:
        """Losses on the test split of all honest peers."""
        return [host.learner.score()[0] for host in self.hosts if not host.lies]

    def loss(self) -> float:
        """Their mean."""
        return fmean(self.losses())


def changes_weights(effect: Effect) -> bool:
    """Say whether an effect changes the own weights."""
    if isinstance(effect, Combine):
        return effect.out == OWN
    return isinstance(effect, Train | Stage | Fresh | Adopt)


class Breaking(ToyLearner):
    """A learner whose training diverges once, at a given step."""

    def __init__(self, seed: int, own_seed: int, blobs: ToyBlobs, breaks_at: int) -> None:
        super().__init__(seed, own_seed, blobs)
        self._breaks_at = breaks_at

    def perform(self, effect: Effect) -> Input | None:
        """Break after the training that passes the step."""
        before = self._step
        answer = super().perform(effect)
        if before < self._breaks_at <= self._step:
            self._own: Vector = (math.nan,) * len(self._own)
        return answer


class Full(ToyLearner):
    """A learner that can publish only so many weights: then the disk is full."""

    def __init__(self, seed: int, own_seed: int, blobs: ToyBlobs, room: int) -> None:
        super().__init__(seed, own_seed, blobs)
        self._room = room

    def perform(self, effect: Effect) -> Input | None:
        """Refuse to write when the disk is full."""
        if isinstance(effect, Publish):
            self._room -= 1
            if self._room < 0:
                return LearnFailed(effect.tag, "no space left on device")
        return super().perform(effect)
