"""The watchman watched: bugs are planted, and the invariants must find each of them."""

from collections.abc import Callable

import pytest

from p2ptrain.core.effects import (
    Adopt,
    Combine,
    Effect,
    Evaluate,
    Fetch,
    Finish,
    Fresh,
    Publish,
    Reduce,
    Send,
    SetTimer,
    Tell,
    Train,
)
from p2ptrain.core.inputs import Fetched, Published, Reduced, TimerFired, Trained, TrainerReady
from p2ptrain.core.messages import Leave, Offer, Report
from p2ptrain.core.strategy import Context, Event, Learned, Rules
from p2ptrain.core.types import OWN, Ref, Slot
from p2ptrain.sim.checks import BrokenInvariantError, Checks
from p2ptrain.sim.scenario import build
from p2ptrain.sim.swarm import scenario
from tests.helpers import NoConfig, blob

MEAN, OTHER = Slot(Ref("mean")), Slot(Ref("other"))

Bug = Callable[[Context, Event], list[Effect]]


class Shares:
    """Publishes its weights, tells of them, and trains; what else it does is the planted bug."""

    def __init__(self, bug: Bug) -> None:
        self._bug = bug

    def start(self, ctx: Context, ready: TrainerReady) -> list[Effect]:
        return [Fresh(ctx.rng.getrandbits(32)), Publish("own"), Train(10)]

    def handle(self, ctx: Context, event: Event) -> list[Effect]:
        effects: list[Effect] = []
        if isinstance(event, Published):
            effects.append(
                Tell(Report(0, 0, 1.0, None, Offer(event.blob, event.size_bytes, ctx.rng.random())))
            )
        if isinstance(event, Trained):
            effects.append(Train(10))
        return [*effects, *self._bug(ctx, event)]

    def memory(self) -> bytes:
        return b""

    def activity(self) -> str:
        return "sharing"


def watched(bug: Bug) -> None:
    """Let five such peers live for a minute."""
    world = build(scenario("restart", peers=5), rules=Rules("planted", NoConfig, (), lambda _: Shares(bug)))
    Checks(world)
    world.run(60.0)


def nothing(ctx: Context, event: Event) -> list[Effect]:
    return []


def adopts_what_it_fetched(ctx: Context, event: Event) -> list[Effect]:
    if isinstance(event, Learned) and event.report.message.offer:
        return [ctx.fetch(event.report.sender, event.report.message.offer)]
    return [Adopt("theirs", event.blob)] if isinstance(event, Fetched) else []


def mixes_in_what_it_fetched(ctx: Context, event: Event) -> list[Effect]:
    if isinstance(event, Fetched):
        return [Combine("mix", OWN, ((0.5, OWN), (0.5, event.blob)))]
    return adopts_what_it_fetched(ctx, event)


def adopts_the_mean_of_a_ring(ctx: Context, event: Event) -> list[Effect]:
    if isinstance(event, Trained):
        return [Reduce("r", MEAN, OWN, 1.0, ctx.membership.trainers, "0" * 32, 5.0)]
    return [Adopt("x", MEAN)] if isinstance(event, Reduced) else []


def adopts_it_by_way_of_another_slot(ctx: Context, event: Event) -> list[Effect]:
    if isinstance(event, Reduced):
        return [Combine("x", OTHER, ((1.0, MEAN),)), Combine("y", OWN, ((0.5, OWN), (0.5, OTHER)))]
    return adopts_the_mean_of_a_ring(ctx, event)


def adopts_a_mean_that_was_measured(ctx: Context, event: Event) -> list[Effect]:
    if isinstance(event, Reduced):
        return [Evaluate("x", (OWN, MEAN)), Adopt("x", MEAN)]
    return adopts_the_mean_of_a_ring(ctx, event)


def reduces_into_its_own(ctx: Context, event: Event) -> list[Effect]:
    ring = Reduce("r", OWN, OWN, 1.0, ctx.membership.trainers, "0" * 32, 5.0)
    return [ring] if isinstance(event, Trained) else []


def after_the_end(*effects: Effect) -> Bug:
    def bug(ctx: Context, event: Event) -> list[Effect]:
        if isinstance(event, TimerFired):
            return list(effects)
        done = isinstance(event, Trained) and event.step >= 20
        return [Finish("done"), SetTimer("later", 1.0)] if done else []

    return bug


def every_round(*effects: Effect) -> Bug:
    return lambda _, event: list(effects) if isinstance(event, Trained) else []


def sends_to_itself(ctx: Context, event: Event) -> list[Effect]:
    return [Send(ctx.me, Leave())]


def fetches_from_itself(ctx: Context, event: Event) -> list[Effect]:
    return [Fetch(blob(1), 64, (ctx.me,), 1.0)] if isinstance(event, Trained) else []


def offers_worse(ctx: Context, event: Event) -> list[Effect]:
    if not isinstance(event, Trained) or event.step > 30:
        return []
    return [Publish("again")]


BUGS: dict[str, tuple[Bug, str]] = {
    "adopts unmeasured weights": (adopts_what_it_fetched, "adopts .* unmeasured .G7."),
    "mixes in unmeasured weights": (mixes_in_what_it_fetched, "adopts .* unmeasured .G7."),
    "adopts the mean of a ring": (adopts_the_mean_of_a_ring, "adopts 000000000000 unmeasured .G7."),
    "adopts it by way of another slot": (adopts_it_by_way_of_another_slot, "adopts 0+ unmeasured .G7."),
    "reduces into its own weights": (reduces_into_its_own, "over unmeasured .G7."),
    "starts anew after the end": (after_the_end(Fresh(1)), "Fresh after the end .G9."),
    "adopts after the end": (after_the_end(Adopt("x", OWN)), "Adopt after the end .G9."),
    "mixes after the end": (after_the_end(Combine("x", OWN, ((1.0, OWN),))), "after the end .G9."),
    "offers worse weights than before": (offers_worse, "worse weights than before .G6."),
    "offers weights it does not have": (
        every_round(Tell(Report(0, 0, 1.0, None, Offer(blob(1), 64, -1.0)))),
        "does not have it",
    ),
    "sends to itself": (sends_to_itself, "sends to itself"),
    "fetches from itself": (fetches_from_itself, "fetches from itself"),
}


def test_a_strategy_without_a_bug_passes() -> None:
    watched(nothing)
    watched(adopts_a_mean_that_was_measured)


@pytest.mark.parametrize(("bug", "found"), BUGS.values(), ids=BUGS)
def test_a_planted_bug_is_found(bug: Bug, found: str) -> None:
    with pytest.raises(BrokenInvariantError, match=found):
        watched(bug)


def test_the_report_of_a_bug_names_the_peer_and_the_moment() -> None:
    with pytest.raises(BrokenInvariantError, match=r"^peer \d \(\w{8}\) at \d+\.\d{3} s: "):
        watched(sends_to_itself)


def test_who_trains_after_the_end_is_not_even_asked() -> None:
    """The node itself keeps a strategy from it."""
    watched(after_the_end(Train(10)))
