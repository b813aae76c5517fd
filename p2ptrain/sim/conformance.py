"""What every strategy must do, tried in virtual time.

The tests try the built-in ones, `p2ptrain strategy check` those of others.
"""

import traceback
from collections.abc import Callable, Iterator
from functools import partial
from statistics import fmean
from types import TracebackType
from typing import NamedTuple

from p2ptrain.core import inputs, limits
from p2ptrain.core.effects import Fetch, Train
from p2ptrain.core.errors import P2PTrainError
from p2ptrain.core.lifecycle import State
from p2ptrain.core.spread import SpreadConfig
from p2ptrain.core.types import Seconds
from p2ptrain.sim.checks import BrokenInvariantError
from p2ptrain.sim.faults import Faults, draw
from p2ptrain.sim.host import Host
from p2ptrain.sim.poison import Poison
from p2ptrain.sim.scenario import alone_score, run
from p2ptrain.sim.swarm import STEPS, Breaking, Full, Swarm, Variant, scenario
from p2ptrain.sim.toy import ToyBlobs, ToyLearner
from p2ptrain.strategies import load

GAIN = 0.85
"""Together, a strategy must come below this share of the loss that its peers reach alone."""

SEEDS = range(5)

MORTALS = 4
"""Each of so many peers dies after each of its messages."""

LATE_MAX_S = 120.0
"""So much later at most a swarm ends that lost a peer: a few deadlines (guess)."""

MESSAGES_PER_S_MAX = 2 * SpreadConfig().rate_max / SpreadConfig().period_s
"""News at the highest rate, a reply to each, and a strategy's own messages within what those leave unused."""

WEATHERS = {
    "calm": Faults(),
    "30 % loss": Faults(loss=0.3, until_s=100),
    "doubled and reordered messages": Faults(duplicate=0.3, reorder=0.5),
    "a partition that heals": Faults(partition=0.5, partition_s=20, until_s=90),
    "30 % churn": Faults(churn=0.3, session_s=20, until_s=120),
    "slow peers": Faults(slow=0.3),
    "slow lines": Faults(upload=300.0, latency_s=0.3),
    "liars": Faults(liars=0.25),
    "clocks that jump": Faults(clock_jumps=0.002, until_s=100),
    "all of it": Faults(
        loss=0.2,
        duplicate=0.1,
        reorder=0.2,
        partition=0.2,
        churn=0.2,
        slow=0.2,
        liars=0.2,
        clock_jumps=0.001,
        until_s=120,
    ),
}


class NotMetError(P2PTrainError):
    """A requirement does not hold: the message says how."""


class Requirement(NamedTuple):
    """Something that every strategy must do.

    name: a short sentence without its subject.
    try_: takes the strategy's name, or a variant; raises NotMetError.
    """

    name: str
    try_: Callable[[str | Variant], None]


def demand(holds: bool, otherwise: str) -> None:
    """Go on if it holds.

    Raises:
        NotMetError: it does not.
    """
    if not holds:
        raise NotMetError(otherwise)


class Blaming:
    """Turns whatever a strategy's own code raises into one sentence with its place."""

    def __enter__(self) -> None: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if isinstance(error, BrokenInvariantError):
            raise NotMetError(str(error)) from error
        if isinstance(error, Exception) and not isinstance(error, P2PTrainError):
            place = traceback.extract_tb(trace)[-1]
            words = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
            raise NotMetError(f"{words} (line {place.lineno} of {place.filename})") from error


def examine(strategy: str) -> Iterator[tuple[str, str]]:
    """Try each requirement; give its name and what is wrong, empty if nothing is.

    Raises:
        ManifestError: there is no such strategy.
    """
    load(strategy)
    for requirement in REQUIREMENTS:
        try:
            with Blaming():
                requirement.try_(strategy)
        except NotMetError as error:
            yield requirement.name, error.message
        else:
            yield requirement.name, ""


# -- progress --------------------------------------------------------------------------------------


def lonely_loss(strategy: str | Variant, seed: int) -> float:
    """What the same peers reach in the same steps with nobody to talk to."""
    described = scenario(strategy, seed=seed)
    return fmean(alone_score(described, host)[0] for host in Swarm(described).hosts)


def ended(swarm: Swarm, what: str = "") -> Swarm:
    """Let a swarm finish."""
    where = f" ({what})" if what else ""
    demand(swarm.finish(), f"after {swarm.world.now:.0f} s not every peer has ended with `Finish`{where}")
    return swarm


def gains(strategy: str | Variant) -> None:
    """Equal steps, five seeds, mean over all peers."""
    swarms = (ended(Swarm(scenario(strategy, seed=seed)), f"seed {seed}") for seed in SEEDS)
    together = fmean(swarm.loss() for swarm in swarms)
    alone = fmean(lonely_loss(strategy, seed) for seed in SEEDS)
    demand(together < GAIN * alone, f"loss {together:.3f} together, {alone:.3f} alone: no gain of 15 %")


def survives(weather: str, strategy: str | Variant) -> None:
    """Every living peer ends, with usable weights that are no worse than those that it would have alone."""
    seeds = (1, 2)
    losses: list[float] = []
    for seed in seeds:
        losses += ended(
            Swarm(scenario(strategy, seed=seed, faults=WEATHERS[weather])), f"seed {seed}"
        ).losses()
    together, alone = fmean(losses), fmean(lonely_loss(strategy, seed) for seed in seeds)
    demand(together < alone, f"loss {together:.3f} together, {alone:.3f} alone")


def works_with_few(strategy: str | Variant) -> None:
    """One, two, three and five peers."""
    for peers in (1, 2, 3, 5):
        swarm = ended(Swarm(scenario(strategy, peers=peers)), f"{peers} peers")
        steps = min(host.learner.ready().step for host in swarm.hosts)
        demand(steps >= STEPS, f"of {peers} peers one took {steps} of {STEPS} steps")


def keeps_to_the_plan(strategy: str | Variant) -> None:
    """Nobody takes more steps than were agreed."""
    swarm = Swarm(scenario(strategy, faults=WEATHERS["all of it"]))
    most = 0

    def look(host: Host, _: Seconds) -> None:
        nonlocal most
        most = max(most, host.node.view(0.0).step) if not host.lies else most

    swarm.world.observers.append(look)
    ended(swarm)
    demand(most == STEPS, f"the most steps that a peer took were {most}; {STEPS} were agreed")


# -- weights that break ----------------------------------------------------------------------------


def recovers(strategy: str | Variant) -> None:
    """Two of eight peers' weights become NaN in the middle."""
    blobs: ToyBlobs = {}

    def learner(number: int) -> ToyLearner:
        return Breaking(0, number, blobs, breaks_at=120 if number < 2 else 10**9)

    swarm = ended(Swarm(scenario(strategy), learner))
    demand(
        "diverged" in swarm.hosts[0].note_counts, 'whose loss became NaN did not say so: `Note("diverged")`'
    )
    worst = max(swarm.losses(), key=lambda loss: loss if loss == loss else float("inf"))
    demand(worst < 2.0, f"two peers' NaN left a peer with a loss of {worst:.3g}")


def bears_a_full_disk(strategy: str | Variant) -> None:
    """One peer can publish only so many weights."""
    for room in (0, 1, 5):
        blobs: ToyBlobs = {}

        def learner(number: int, room: int = room, blobs: ToyBlobs = blobs) -> ToyLearner:
            return Full(0, number, blobs, room if number == 0 else 10**9)

        ended(Swarm(scenario(strategy), learner), f"`Publish` fails after {room} times")


def distrusts(strategy: str | Variant) -> None:
    """Or a peer with broken weights could fill everyone's line with them."""
    swarm = Swarm(scenario(strategy, peers=12))
    for host in swarm.hosts[2::3]:
        host.lies, host.learner.poison = True, Poison.NAN

    def look(host: Host, now: Seconds) -> None:
        for effect in host.effects:
            if isinstance(effect, Fetch) and not host.lies:
                trusted = host.node._context.trusts(effect.sources[0])
                demand(trusted, f"peer {host.number} at {now:.1f} s: ask `ctx.trusts` before `ctx.fetch`")

    swarm.world.observers.append(look)
    ended(swarm)
    charged = sum(host.note_counts.get("peer_charged", 0) for host in swarm.honest)
    demand(charged > 0, "four of twelve peers offered NaN, and nobody noticed")


# -- coming and going ------------------------------------------------------------------------------


def pauses(strategy: str | Variant) -> None:
    """An owner may pause and resume."""
    swarm = Swarm(scenario(strategy))
    world, host = swarm.world, swarm.hosts[0]
    world.run(10.0)
    host.feed(inputs.Paused("a game runs"))
    world.run(10.1)
    paused_at = host.node.view(0.0).step
    world.run(100.0)
    demand(host.node.view(0.0).step == paused_at, "a paused peer went on training")
    others = all(other.node.state is State.FINISHED for other in swarm.hosts[1:])
    demand(others, "the others wait for ever for a paused peer")
    host.feed(inputs.Resumed())
    ended(swarm, "after a pause")
    demand(host.node.view(0.0).step == STEPS, "who was paused did not take its other steps")


def resumes(strategy: str | Variant) -> None:
    """A trainer that dies takes up where it was."""
    swarm = Swarm(scenario(strategy))
    world, host = swarm.world, swarm.hosts[0]
    world.run(20.0)
    host.feed(inputs.TrainerLost("out of memory", 3.0))
    world.run(23.0)
    host.feed(host.learner.ready())
    ended(swarm, "after a trainer died")
    steps = host.node.view(0.0).step
    demand(steps == STEPS, f"whose trainer died ended after {steps} of {STEPS} steps")


def bears_deaths(strategy: str | Variant) -> None:
    """Whoever is gone for ever, whatever it was about to say, the others end in time and have gained."""
    described = scenario(strategy, peers=MORTALS)
    usual = ended(Swarm(described))
    alone = fmean(alone_score(described, host)[0] for host in usual.hosts)
    losses: list[float] = []
    for number, host in enumerate(usual.hosts):
        for messages in range(1, host.messages_sent):
            swarm, what = Swarm(described), f"peer {number} was gone after {messages} messages"
            swarm.die(swarm.hosts[number], messages)
            ended(swarm, what)
            late = swarm.world.now - usual.world.now
            demand(late < LATE_MAX_S, f"it ended {late:.0f} s late ({what})")
            losses += [one.learner.score()[0] for one in swarm.honest]
    together = fmean(losses)
    demand(together < alone, f"loss {together:.3f} for who was left, {alone:.3f} alone")


# -- bounds ----------------------------------------------------------------------------------------


def spares_messages(strategy: str | Variant) -> None:
    """Of sixteen peers, none sends more than that."""
    swarm = ended(Swarm(scenario(strategy, peers=16)))
    most = max(host.messages_sent / swarm.world.now for host in swarm.hosts)
    demand(most <= MESSAGES_PER_S_MAX, f"{most:.1f} messages a second, more than {MESSAGES_PER_S_MAX:.1f}")


def keeps_little(strategy: str | Variant) -> None:
    """With 64 peers there is room for many times more."""
    swarm = Swarm(scenario(strategy, peers=64))
    world = swarm.world
    for second in range(0, 60, 10):
        world.run(float(second))
        most = max(len(host.learner.ready().memory) for host in swarm.hosts)
        demand(most <= limits.MEMORY_BYTES_MAX // 4, f"`memory()` is {most} bytes with 64 peers")


# -- the end ---------------------------------------------------------------------------------------


def stays_ended(strategy: str | Variant) -> None:
    """G9: the watch of every swarm here looks at each effect; here some time passes too."""
    swarm = ended(Swarm(scenario(strategy, faults=WEATHERS["30 % loss"])))
    results = swarm.losses()
    swarm.hosts[0].feed(inputs.TrainerLost("killed", 1.0))
    swarm.hosts[0].feed(swarm.hosts[0].learner.ready())
    swarm.world.run(swarm.world.now + 120.0)
    demand(swarm.losses() == results, "the result changed after the end")
    trains = any(isinstance(effect, Train) for host in swarm.hosts for effect in host.effects)
    demand(not trains, "it trains after the end")


def repeats(strategy: str | Variant) -> None:
    """Equal seeds give equal runs, in any weather."""
    for seed in (5, 6):
        described = scenario(strategy, peers=12, seed=seed, faults=draw(seed))
        same = run(described).trace_digest == run(described).trace_digest
        demand(same, f"two runs of seed {seed} differ: take all chance from `ctx.rng`")


REQUIREMENTS = (
    Requirement("ends with 1, 2, 3 and 5 peers", works_with_few),
    Requirement("comes further together than alone", gains),
    *(Requirement(f"survives {weather}", partial(survives, weather)) for weather in WEATHERS),
    Requirement("takes the steps that were agreed, and no more", keeps_to_the_plan),
    Requirement("comes back from NaN and harms nobody", recovers),
    Requirement("ends with a full disk", bears_a_full_disk),
    Requirement("fetches nothing from whom it does not believe", distrusts),
    Requirement("can be paused", pauses),
    Requirement("goes on after its trainer died", resumes),
    Requirement("goes on when anybody is gone for ever, at any message", bears_deaths),
    Requirement("keeps to its budget of messages", spares_messages),
    Requirement("keeps little across restarts", keeps_little),
    Requirement("changes nothing after the end", stays_ended),
    Requirement("does the same again with the same seed", repeats),
)
