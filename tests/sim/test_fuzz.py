"""A5: 100,000 random inputs into a node of each strategy. Nothing raises, all bounds hold, G7 and G9 too."""

import math

import pytest

from p2ptrain.core import inputs, limits
from p2ptrain.core.blobs import HOLDERS_MAX
from p2ptrain.core.effects import (
    Adopt,
    Combine,
    Effect,
    Evaluate,
    Fetch,
    Fresh,
    Halt,
    Send,
    SetTimer,
    Sign,
    Stage,
    Train,
)
from p2ptrain.core.inputs import Input, Published, Trained, TrainerLost, TrainerReady
from p2ptrain.core.lifecycle import State
from p2ptrain.core.manifest import Manifest, Settings
from p2ptrain.core.membership import Members
from p2ptrain.core.node import Node, Setup
from p2ptrain.core.strategy import Rules
from p2ptrain.core.types import OWN, is_blob
from p2ptrain.strategies import load, names, settings
from tests.chaos import ME, Chaos
from tests.helpers import codec, peer

SEEDS = range(20)
INPUTS = 5_000
SENDS_MAX = 32
"""One input may lead to a reply, a few words passed on, or an introduction of all to all."""


class Watched:
    """A node, and what must hold of it."""

    def __init__(self, strategy: str, seed: int, *, wild: bool, config: Settings | None = None) -> None:
        rules = load(strategy)
        self._config = config or {}
        self.chaos = Chaos(rules, seed, wild=wild)
        self._wild = wild
        self.node = self._node(rules, seed)
        self.trainer_runs = False
        self.step = 0
        self.finished = False
        self._trains = False
        self._measured: dict[str, None] = {}
        self._own: dict[str, None] = {}
        self._codec = codec(rules.messages)

    def _node(self, rules: Rules, seed: int) -> Node:
        manifest = Manifest(
            name="t",
            task="toy",
            strategy=rules.name,
            strategy_config=self._config,
            steps=300,
            target_loss=1e-9,
        )
        setup = Setup(
            me=peer(ME),
            manifest=manifest,
            rules=rules,
            settings=settings(rules, manifest),
            seed=seed,
        )
        return Node(setup, Members(map(peer, range(2, 18))))

    def run(self, count: int) -> None:
        self.feed(inputs.Started())
        for _ in range(count):
            self.feed(self._next())
        self._check_bounds()

    def _next(self) -> Input:
        """A trainer that died comes back; answers of a dead one do not come."""
        if not self.trainer_runs and self.chaos.rng.random() < 0.3:
            return TrainerReady(self.step, self.step, 8, 64, self._memory())
        return self.chaos.draw()

    def _memory(self) -> bytes:
        strategy = load(self.chaos.rules.name).build(
            settings(self.chaos.rules, Manifest(name="t", task="toy"))
        )
        return strategy.memory() if self.chaos.rng.random() < 0.5 else b""

    def feed(self, event: Input) -> None:
        if isinstance(event, TrainerReady | TrainerLost):
            self.trainer_runs = isinstance(event, TrainerReady)
            self.chaos.forget_trainer()
        if isinstance(event, Published):
            self._own[event.blob] = None
        if isinstance(event, Trained | TrainerLost):
            self._trains = False
        effects = self.node.handle(self.chaos.now, event)
        self.chaos.after(effects)
        assert sum(isinstance(effect, Send) for effect in effects) <= SENDS_MAX
        for effect in effects:
            self._check(effect)
        self.finished = self.finished or self.node.state is State.FINISHED
        if self.chaos.rng.random() < 0.005:
            self._check_bounds()

    def _check(self, effect: Effect) -> None:
        match effect:
            case Send(to=to, message=message):
                assert to != peer(ME)
                assert self._codec.decode(*self._codec.encode(message)) == message
            case Sign(statement=statement):
                kind, data = self._codec.encode(statement)
                assert self._codec.decode(kind, data) == statement, "what we say, others believe"
            case SetTimer(after_s=after_s):
                assert 0 <= after_s < math.inf
            case Fetch(sources=sources, timeout_s=timeout_s):
                assert sources
                assert peer(ME) not in sources
                assert 0 < timeout_s < math.inf
            case Evaluate(refs=refs):
                self._measured.update(dict.fromkeys(refs))
            case Adopt(ref=ref) if is_blob(ref) and not self._wild:
                assert ref in self._measured or ref in self._own, "adopts weights it never measured (G7)"
            case _:
                pass
        if self.finished and isinstance(effect, Train | Stage | Fresh | Adopt | Combine):
            assert isinstance(effect, Combine), "after the end nothing changes the result (G9)"
            assert effect.out != OWN, "after the end nothing changes the result (G9)"
        if isinstance(effect, Train):
            assert self.node.state is State.TRAINING
            assert effect.steps > 0
            self._trains = True
        if isinstance(effect, Halt):
            assert self._trains or self.node.state is not State.TRAINING, "halts what is not under way"

    def _check_bounds(self) -> None:
        node = self.node
        assert len(list(node.ledger.entries())) <= limits.REPORTS_MAX
        assert len(node._blobs.held) <= limits.HELD_BLOBS_MAX + 1
        assert len(node._blobs._fetching) <= limits.FETCHES_MAX
        assert len(node._blobs._holders) <= limits.REPORTS_MAX
        assert all(len(holders) <= HOLDERS_MAX for holders in node._blobs._holders.values())
        if node._strategy is not None:
            assert len(node._strategy.memory()) <= limits.MEMORY_BYTES_MAX
        assert node.view(self.chaos.now).state == node.state


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("strategy", names())
def test_nothing_that_happens_breaks_a_node(strategy: str, seed: int) -> None:
    Watched(strategy, seed, wild=False).run(INPUTS // 2)
    Watched(strategy, seed, wild=True).run(INPUTS // 2)
