"""A simulated run from options to a summary: what `p2ptrain simulate` and the tests call."""

import gc
import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from statistics import fmean
from typing import Any

import msgspec
from msgspec import Struct

from p2ptrain.core.ledger import Ledger, Stated, rank
from p2ptrain.core.lifecycle import State
from p2ptrain.core.manifest import Manifest, read_settings
from p2ptrain.core.messages import Contact
from p2ptrain.core.node import Setup
from p2ptrain.core.spread import SpreadConfig
from p2ptrain.core.strategy import Rules
from p2ptrain.core.types import PeerId, Seconds
from p2ptrain.sim import lineage as descent
from p2ptrain.sim.checks import Checks
from p2ptrain.sim.faults import Faults
from p2ptrain.sim.host import Host
from p2ptrain.sim.keys import CERTIFICATE, peer_number
from p2ptrain.sim.toy import ToyBlobs, ToyLearner
from p2ptrain.sim.trainer import Learner
from p2ptrain.sim.world import MakeLearner, Observer, World
from p2ptrain.strategies import load, settings

NEWS_AGE_S = 15.0
"""`informed_share` asks who knows what was known anywhere so long ago."""

FIRST_REPORTS_S = 0.5
"""In a shorter run: what was known as soon as everyone had measured its start."""

ALONE_MAX = 64
"""So many peers are trained alone too: enough for a mean."""

TOY = "toy"


class Scenario(Struct, frozen=True, kw_only=True):
    """What to simulate.

    for_s: virtual seconds; 0: until every peer that lives has finished.
    step_s: virtual seconds of one optimiser step.
    alone: whether each peer is also trained alone, for comparison.
    checks: whether the invariants are looked at after each input.
    """

    manifest: Manifest
    peers: int
    faults: Faults = Faults()
    seed: int = 0
    for_s: Seconds = 60.0
    step_s: Seconds = 0.2
    introduce: bool = False
    alone: bool = True
    checks: bool = True


class Summary(Struct, frozen=True):
    """What came out. Times in virtual seconds but `cpu_s`; accuracy on the test split, mean over peers.

    alone_accuracy, alone_accuracy_best: of the peers that were trained alone.
    lineage: who took whose weights over, and who started again; the first `lineage.STEPS_MAX`.
    balance: how evenly the classes occur in a part, 0 to 1, mean over peers; None: parts are alike.
    rounds: loss of local models, loss and accuracy of the global one, where somebody coordinates rounds.
    """

    seed: int
    peers: int
    strategy: str
    virtual_s: float
    cpu_s: float
    trace_digest: str
    messages_per_peer: float
    bytes_per_peer: float
    informed_share: float
    finished_share: float
    loss: float
    best_loss: float
    accuracy: float | None = None
    accuracy_worst: float | None = None
    accuracy_best: float | None = None
    alone_accuracy: float | None = None
    alone_accuracy_best: float | None = None
    alone_loss: float | None = None
    balance: float | None = None
    notes: dict[str, int] = {}
    rounds: tuple[dict[str, Any], ...] = ()
    lineage: tuple[descent.Step, ...] = ()


def build(scenario: Scenario, learner: MakeLearner | None = None, rules: Rules | None = None) -> World:
    """Make the world of a scenario. `learner` is needed for every task but the toy."""
    manifest = scenario.manifest
    rules = rules or load(manifest.strategy)
    peers = [peer_number(number) for number in range(scenario.peers)]
    first = make_setup(manifest, rules, peers[0], own_seed(scenario, 0))
    setups = [
        msgspec.structs.replace(first, me=me, seed=own_seed(scenario, number))
        for number, me in enumerate(peers)
    ]
    if scenario.introduce:
        contact = Contact(CERTIFICATE, ("simulated",))
        setups = [msgspec.structs.replace(setup, contact=contact) for setup in setups]
    if learner is None:
        blobs: ToyBlobs = {}

        def learner(number: int) -> Learner:
            return toy_learner(scenario, number, blobs)

    return World(
        setups,
        scenario.faults,
        scenario.seed,
        learner,
        step_s=scenario.step_s,
        introduce=scenario.introduce,
    )


def make_setup(manifest: Manifest, rules: Rules, me: PeerId, seed: int) -> Setup:
    """Make the setup of one simulated node."""
    spread = read_settings(SpreadConfig, manifest.spread_config, "the spreading of reports")
    return Setup(
        me=me, manifest=manifest, rules=rules, settings=settings(rules, manifest), seed=seed, spread=spread
    )


def own_seed(scenario: Scenario, number: int) -> int:
    """Return the seed of the n-th peer's own randomness."""
    return scenario.seed * 1_000_003 + number


def toy_learner(scenario: Scenario, number: int, blobs: ToyBlobs) -> ToyLearner:
    """Make the toy of the n-th peer."""
    return ToyLearner(scenario.manifest.seed, own_seed(scenario, number), blobs)


def run(scenario: Scenario) -> Summary:
    """Simulate and sum up.

    Raises:
        ManifestError: strategy, task or a setting is not known.
        BrokenInvariantError: a rule of the protocol did not hold.
    """
    with without_collecting():
        began = time.process_time()
        world = build(scenario, None if scenario.manifest.task == TOY else torch_learners(scenario.manifest))
        if scenario.checks:
            Checks(world)
        informed = let_time_pass(world, scenario)
        cpu_s = time.process_time() - began
        return sum_up(world, scenario, informed, cpu_s)


@contextmanager
def without_collecting() -> Iterator[None]:
    """Collecting garbage means walking over millions of objects that all live on."""
    collecting = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collecting:
            gc.enable()


def torch_learners(manifest: Manifest) -> MakeLearner:
    """Make learners of a real task. Torch is loaded here, not before."""
    from p2ptrain.sim.torch_learner import TorchLearner, use_one_thread

    use_one_thread()
    return lambda number: TorchLearner(manifest, number)


def let_time_pass(world: World, scenario: Scenario) -> float:
    """Run to the end; return the share of the peers that know what was known `NEWS_AGE_S` before it."""
    hosts = list(world.hosts.values())

    def finished() -> bool:
        living = [host for host in hosts if host.alive and not host.lies]
        return bool(living) and all(host.node.state is State.FINISHED for host in living)

    if scenario.for_s:
        world.run(max(FIRST_REPORTS_S, scenario.for_s - NEWS_AGE_S))
        known = best_known(world)
        world.run(scenario.for_s)
    else:
        world.run_until(finished, patience(scenario))
        if math.isfinite(scenario.faults.until_s):
            world.run(max(world.now, scenario.faults.until_s + 1.0))
            world.run_until(finished, world.now + patience(scenario))  # who was away has work left
        known = best_known(world)
        world.run(world.now + NEWS_AGE_S)
    return informed_share(world, known)


def patience(scenario: Scenario) -> Seconds:
    """The longest that a run without a given length may take."""
    return 40 * scenario.manifest.steps * scenario.step_s + 600


def best_known(world: World) -> Stated | None:
    """The report of the lowest loss that any honest peer states now."""
    own = [host.node.ledger.of(host.peer) for host in world.hosts.values() if host.alive and not host.lies]
    offering = [entry.report for entry in own if entry is not None and entry.report.message.offer]
    return min(offering, key=rank, default=None)


def informed_share(world: World, known: Stated | None) -> float:
    """Share of the living honest peers that know this report, a newer one of its author, or a better."""
    living = [host for host in world.hosts.values() if host.alive and not host.lies]
    return fmean(is_informed(host.node.ledger, known) for host in living) if living and known else 0.0


def is_informed(ledger: Ledger, known: Stated) -> bool:
    """Say whether a report, or something that replaces it, has arrived."""
    best, entry = ledger.best(), ledger.of(known.sender)
    if best is not None and rank(best) <= rank(known):
        return True
    return entry is not None and (entry.report.boot, entry.report.sequence) >= (known.boot, known.sequence)


def sum_up(world: World, scenario: Scenario, informed: float, cpu_s: float) -> Summary:
    """Gather the figures of a run."""
    hosts = list(world.hosts.values())
    honest = [host for host in hosts if not host.lies]
    living = [host for host in honest if host.alive]
    scores = [host.learner.score() for host in honest]
    accuracies = [accuracy for _, accuracy in scores if accuracy is not None]
    alone = [alone_score(scenario, host) for host in honest[:ALONE_MAX]] if scenario.alone else []
    alone_accuracies = [accuracy for _, accuracy in alone if accuracy is not None]
    balances = [balance for host in hosts if (balance := getattr(host.learner, "balance", None)) is not None]
    best = best_known(world)
    notes: dict[str, int] = {}
    for host in hosts:
        for event, count in host.note_counts.items():
            notes[event] = notes.get(event, 0) + count
    return Summary(
        seed=scenario.seed,
        peers=scenario.peers,
        strategy=scenario.manifest.strategy,
        virtual_s=world.now,
        cpu_s=cpu_s,
        trace_digest=world.trace_digest,
        messages_per_peer=fmean(host.messages_sent for host in hosts),
        bytes_per_peer=fmean(host.bytes_sent for host in hosts),
        informed_share=informed,
        finished_share=fmean(host.node.state is State.FINISHED for host in living) if living else 0.0,
        loss=fmean(loss for loss, _ in scores),
        best_loss=best.message.offer.loss if best and best.message.offer else math.nan,
        accuracy=fmean(accuracies) if accuracies else None,
        accuracy_worst=min(accuracies, default=None),
        accuracy_best=max(accuracies, default=None),
        alone_accuracy=fmean(alone_accuracies) if alone_accuracies else None,
        alone_accuracy_best=max(alone_accuracies, default=None),
        alone_loss=fmean(loss for loss, _ in alone) if alone else None,
        balance=fmean(balances) if balances else None,
        notes=dict(sorted(notes.items())),
        rounds=recorded_rounds(hosts),
        lineage=descent.steps(hosts)[: descent.STEPS_MAX],
    )


def recorded_rounds(hosts: list[Host]) -> tuple[dict[str, Any], ...]:
    """Return what whoever coordinated noted of each round, in the order of time."""
    notes = [(when, host.number, note) for host in hosts for when, note in host.notes]
    rounds = [one for one in notes if one[2].event == "round"]
    return tuple(note.fields for _, _, note in sorted(rounds, key=lambda one: one[:2]))


def alone_score(scenario: Scenario, host: Host) -> tuple[float, float | None]:
    """Score the same node with the same steps on the same data in a world without others."""
    manifest = scenario.manifest
    if manifest.task == TOY:
        learner: Learner = toy_learner(scenario, host.number, {})
    else:
        learner = torch_learners(manifest)(host.number)
    steps = manifest.steps or int(scenario.for_s / scenario.step_s)
    return live_alone(host.setup, learner, steps).learner.score()


def live_alone(setup: Setup, learner: Learner, steps: int, watch: Observer | None = None) -> Host:
    """Let one node take its steps with nobody to talk to."""
    setup = msgspec.structs.replace(setup, manifest=msgspec.structs.replace(setup.manifest, steps=steps))
    world = World([setup], Faults(), 0, lambda _: learner, step_s=1.0)
    host = world.hosts[setup.me]
    if watch is not None:
        world.observers.append(watch)
    world.run_until(lambda: host.alive and host.node.state is State.FINISHED, 100.0 * steps + 100.0)
    return host
