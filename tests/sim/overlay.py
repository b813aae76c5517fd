"""Large swarms of real nodes that know all members and have connections to few.

`python -m tests.sim.overlay --peers 10000 --seed 1` prints what `test_overlay.py` demands.
"""

import argparse
import sys
import time
from collections.abc import Iterable
from statistics import fmean, pstdev

from p2ptrain.core import membership
from p2ptrain.core.codec import Codec
from p2ptrain.core.directory import Directory
from p2ptrain.core.effects import Effect
from p2ptrain.core.envelope import Sealer, Verified
from p2ptrain.core.inputs import Input, TimerFired, TrainerReady
from p2ptrain.core.links import DIALLED, Links
from p2ptrain.core.manifest import Manifest
from p2ptrain.core.membership import Members
from p2ptrain.core.messages import Contact, Graft, Have, Push
from p2ptrain.core.node import Setup
from p2ptrain.core.spread import SpreadConfig
from p2ptrain.core.strategy import Context, Event, Rules
from p2ptrain.core.types import BlobId, PeerId, Seconds
from p2ptrain.sim.faults import Faults
from p2ptrain.sim.host import Host
from p2ptrain.sim.keys import CERTIFICATE, SWARM, SimSigner, peer_number
from p2ptrain.sim.lines import LinedWorld
from p2ptrain.sim.poison import Poison
from p2ptrain.sim.scenario import without_collecting
from p2ptrain.sim.trainer import Learner
from tests.helpers import NoConfig

LATENCY_S = 0.04
"""As in net 4.2."""

SETTLE_S: Seconds = 10.0
"""From the start until links are looked at: those refused have asked others."""

SPREAD_S: Seconds = 4.0
"""What was not there by then came by comparing."""

MENDED_S: Seconds = 45.0
"""Everybody has compared, who has no link too."""

NOTICED_S: Seconds = 4.5
"""So long after a death no neighbour has noticed it: no link is replaced."""


class Idle:
    """A strategy that does nothing."""

    def start(self, ctx: Context, ready: TrainerReady) -> list[Effect]:
        return []

    def handle(self, ctx: Context, event: Event) -> list[Effect]:
        return []

    def memory(self) -> bytes:
        return b""

    def activity(self) -> str:
        return "idle"


class Nothing:
    """A learner that has nothing to learn."""

    poison: Poison | None = None

    def ready(self) -> TrainerReady:
        return TrainerReady(0, 0, 1, 1)

    def accept(self, blob: BlobId, source: Learner) -> str:
        return ""

    def perform(self, effect: Effect) -> Input | None:
        return None

    def score(self) -> tuple[float, float | None]:
        return 0.0, None


RULES = Rules("idle", NoConfig, (), lambda _: Idle())
QUIET = SpreadConfig(period_s=1e9)
"""Nobody has a loss to tell."""


def address(number: int) -> str:
    return f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}:7070"


class Overlay:
    """A swarm whose members all know each other, and what becomes of it.

    honest: hosts that follow the protocol.
    """

    def __init__(self, peers: int, seed: int) -> None:
        manifest = Manifest(name="t", task="toy", strategy="idle")
        contacts = [Contact(CERTIFICATE, (address(number),)) for number in range(peers)]
        setups = [
            Setup(peer_number(n), manifest, RULES, NoConfig(), seed * 1_000_003 + n, contact, QUIET)
            for n, contact in enumerate(contacts)
        ]
        self.world = LinedWorld(setups, Faults(latency_s=LATENCY_S), seed, lambda _: Nothing())
        self.hosts = list(self.world.hosts.values())
        self.renewed: dict[PeerId, None] = {}
        self.directory = Directory()
        for setup, contact in zip(setups, contacts, strict=True):
            self.directory.learn(first_contact(setup.me, contact), 0.0)
        members = Members((setup.me for setup in setups), self.directory)
        for host in self.hosts:
            host._members = members

    def pass_time(self, seconds: Seconds) -> None:
        self.world.run(self.world.now + seconds)

    @property
    def living(self) -> list[Host]:
        return [host for host in self.hosts if host.alive]

    def broadcast(self, host: Host, wait_s: Seconds = SPREAD_S) -> tuple[float, float, float]:
        """Let a host renew its contact: the share of the living that got it, payloads and names each."""
        self.world.frames.clear()
        self.renewed[host.peer] = None
        host.feed(TimerFired(membership.RENEW_TIMER))
        self.pass_time(wait_s)
        frames, living = self.world.frames, self.living
        share = fmean(self.knows(other, host) for other in living)
        names = frames.get(Have, 0) + frames.get(Graft, 0)
        return share, frames.get(Push, 0) / len(living), names / len(living)

    def knows(self, host: Host, author: Host) -> bool:
        """Say whether a host has the newest contact of another."""
        record, own = directory_of(host).get(author.peer), directory_of(author).get(author.peer)
        return record is not None and own is not None and record.name == own.name

    def missed(self) -> int:
        """Count the living that lack what others have of those who renewed their contacts."""
        renewed = [host for host in self.hosts if host.peer in self.renewed]
        return sum(not all(self.knows(other, host) for host in renewed) for other in self.living)

    def kill(self, share: float) -> None:
        """Let some die at once."""
        for host in self.world.rng.sample(self.living, round(share * len(self.living))):
            host.crash()


def first_contact(peer: PeerId, contact: Contact) -> Verified[Contact]:
    """Sign what a host signs first after its first start."""
    return Sealer(SimSigner(peer), SWARM, Codec(), 1).seal(contact)  # type: ignore[return-value]


def directory_of(host: Host) -> Directory:
    return host.node._membership._directory


def links_of(host: Host) -> Links:
    return host.node._membership._links


def in_degrees(hosts: Iterable[Host]) -> list[int]:
    return [len(links_of(host)._accepted) for host in hosts]


def chance_sd(peers: int) -> float:
    """The standard deviation of how often one is chosen when everyone chooses `DIALLED` others by chance."""
    return (DIALLED * (1 - DIALLED / (peers - 1))) ** 0.5


class Report:
    """Prints figures as they come, with the time they took."""

    def __init__(self, overlay: Overlay) -> None:
        self._overlay = overlay

    def say(self, what: str) -> None:
        sys.stdout.write(f"{time.process_time():6.1f} CPU s, {self._overlay.world.now:5.1f} s: {what}\n")
        sys.stdout.flush()

    def broadcast(self, what: str, wait_s: Seconds = SPREAD_S) -> None:
        overlay = self._overlay
        reached, payloads, names = overlay.broadcast(overlay.world.rng.choice(overlay.living), wait_s)
        self.say(f"{what}: {reached:.4%} reached, {payloads:.2f} payloads and {names:.2f} names each")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--peers", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    overlay = Overlay(options.peers, options.seed)
    report = Report(overlay)
    report.say(f"{options.peers} peers, seed {options.seed}")
    overlay.pass_time(SETTLE_S)
    degrees = [len(links_of(host).neighbours) for host in overlay.hosts]
    spread = pstdev(in_degrees(overlay.hosts))
    share = spread / chance_sd(options.peers)
    report.say(f"{fmean(degrees):.2f} links; sd of the accepted ones {spread:.2f}, {share:.2f} of chance")
    report.broadcast("the first broadcast, which finds the tree")
    for _ in range(3):
        report.broadcast("the next")
    overlay.kill(0.3)
    report.broadcast("30 % dead, before anybody noticed", NOTICED_S)
    overlay.pass_time(MENDED_S)
    missed = overlay.missed()
    report.say(f"after comparing {missed} living peers lack anything of this")
    for _ in range(2):
        report.broadcast("mended")


if __name__ == "__main__":
    with without_collecting():
        main()
