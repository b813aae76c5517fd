"""Swarms whose peers state one fixed loss each at the start and never train: only the news travel."""

import math
from itertools import pairwise
from statistics import fmean, pstdev
from typing import Any

import msgspec

from p2ptrain.core.effects import Effect, Tell
from p2ptrain.core.inputs import TrainerReady
from p2ptrain.core.manifest import Manifest
from p2ptrain.core.messages import Offer, Report
from p2ptrain.core.node import Setup
from p2ptrain.core.spread import SpreadConfig
from p2ptrain.core.strategy import Context, Event, Rules
from p2ptrain.core.types import BlobId, PeerId, Ref, Seconds
from p2ptrain.sim.faults import Faults
from p2ptrain.sim.host import Host
from p2ptrain.sim.keys import peer_number
from p2ptrain.sim.toy import ToyBlobs, ToyLearner
from p2ptrain.sim.world import World
from tests.helpers import NoConfig


class Stater:
    """States a random loss and stays there."""

    def start(self, ctx: Context, ready: TrainerReady) -> list[Effect]:
        blob = BlobId(Ref(f"{ctx.rng.getrandbits(256):064x}"))
        return [Tell(Report(0, 0, 1.0, None, Offer(blob, 64, ctx.rng.random())))]

    def handle(self, ctx: Context, event: Event) -> list[Effect]:
        return []

    def memory(self) -> bytes:
        return b""

    def activity(self) -> str:
        return "stating"


PERIOD_S = SpreadConfig().period_s
SPAN = 2 * PERIOD_S, 18 * PERIOD_S
"""When arrivals are counted: 16 periods."""

RULES = Rules("stater", NoConfig, (), lambda _: Stater())
PUSH_ONLY = {"law": "expo_sync", "reply": False, "forward_hops": 0, "adaptive": False}


def swarm(peers: int, seed: int, faults: Faults | None = None, **spread: Any) -> World:
    """Make a swarm; everyone speaks at once, as all programs were started at the same moment."""
    config = msgspec.convert(spread, SpreadConfig)
    manifest = Manifest(name="t", task="toy", strategy="stater")
    blobs: ToyBlobs = {}
    setups = [
        Setup(peer_number(number), manifest, RULES, NoConfig(), seed * 1_000_003 + number, spread=config)
        for number in range(peers)
    ]
    return World(setups, faults or Faults(), seed, lambda number: ToyLearner(0, number, blobs))


class Knowledge:
    """Watches who knows the best report of all."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._informed: dict[PeerId, Seconds] = {}
        world.run(0.0)
        self._loss = min(map(best_loss, world.hosts.values()))
        for host in world.hosts.values():
            self._observe(host, 0.0)
        world.observers.append(self._observe)

    def _observe(self, host: Host, now: Seconds) -> None:
        if host.peer not in self._informed and best_loss(host) == self._loss:
            self._informed[host.peer] = now

    def share(self) -> float:
        """Return the share of the peers that know it."""
        return len(self._informed) / len(self._world.hosts)

    def time_for_all(self, most: Seconds = 300.0) -> Seconds:
        """Let time pass until everyone knows; return when the last one came to know."""
        assert self._world.run_until(lambda: self.share() == 1.0, most)
        return max(self._informed.values())


def best_loss(host: Host) -> float:
    """Return the lowest loss that a peer knows of."""
    best = host.node.ledger.best()
    return best.message.offer.loss if best and best.message.offer else math.inf


class Arrivals:
    """Watches when each peer hears something."""

    def __init__(self, world: World, since: Seconds, until: Seconds) -> None:
        self._times: dict[PeerId, list[Seconds]] = {peer: [] for peer in world.hosts}
        self._heard = dict.fromkeys(world.hosts, 0)
        world.observers.append(self._observe)
        world.run(until)
        self._span = (since, until)

    @classmethod
    def of(cls, peers: int, seed: int, law: str) -> "Arrivals":
        """Let everyone speak by a law, without answers and passing on."""
        return cls(swarm(peers, seed, **{**PUSH_ONLY, "law": law}), *SPAN)

    def _observe(self, host: Host, now: Seconds) -> None:
        if host.frames_received > self._heard[host.peer]:
            self._heard[host.peer] = host.frames_received
            self._times[host.peer].append(now)

    def variation(self) -> float:
        """Return the coefficient of variation over the peers of how much each heard."""
        since, until = self._span
        counts = [sum(since <= time < until for time in times) for times in self._times.values()]
        return pstdev(counts) / fmean(counts)

    def longest_silence(self) -> Seconds:
        """Return the longest time in which somebody heard nothing."""
        since, until = self._span
        gaps = []
        for times in self._times.values():
            marks = [since, *[time for time in times if since <= time < until], until]
            gaps += [later - earlier for earlier, later in pairwise(marks)]
        return max(gaps)


def periods_until_all_know(peers: int, seeds: range, faults: Faults | None = None, **spread: Any) -> float:
    """Return the mean over seeds."""
    times = [Knowledge(swarm(peers, seed, faults, **spread)).time_for_all() for seed in seeds]
    return fmean(times) / PERIOD_S


def messages_per_period(peers: int, seed: int, periods: int, **spread: Any) -> float:
    """Return the mean over peers."""
    world = swarm(peers, seed, **spread)
    world.run(periods * PERIOD_S)
    return fmean(host.messages_sent for host in world.hosts.values()) / periods
