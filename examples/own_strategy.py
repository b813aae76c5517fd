"""A strategy of your own: after each round, average with somebody who is about as good, if that helps here.

`python examples/own_strategy.py` lets a simulated swarm use it. `cd examples` and `p2ptrain strategy check
own_strategy:Strategy` tries it in all weathers; `--strategy own_strategy:Strategy` makes a swarm of it.
"""

import math

import msgspec
from msgspec import Struct

from p2ptrain.core import keep
from p2ptrain.core.effects import (
    Adopt,
    Combine,
    Evaluate,
    Finish,
    Fresh,
    Note,
    OptimizerState,
    Tell,
    Train,
)
from p2ptrain.core.inputs import Adopted, Evaluated, Fetched, FetchFailed, LearnFailed, Published, Trained
from p2ptrain.core.keep import Keep
from p2ptrain.core.messages import Offer, Report
from p2ptrain.core.types import OWN, Ref, Slot

MIX = Slot(Ref("mix"))
MESSAGES = ()  # reports say it all


class Config(Struct, frozen=True, forbid_unknown_fields=True):
    """Settings, equal for the swarm."""

    round_steps: int = 20
    examples: int = 256
    near: int = 3


class Strategy:
    def __init__(self, config):
        self.config = config
        self.keep = Keep()  # the best own weights: what others may fetch
        self.theirs = None
        self.loss, self.accuracy = math.inf, None

    def start(self, ctx, ready):
        self.step, self.samples = ready.step, ready.samples
        if ready.memory:
            self.keep = Keep(ctx.best_kept(msgspec.msgpack.decode(ready.memory, type=Offer | None)))
        return [Evaluate("own", (OWN,))]

    def memory(self):
        return msgspec.msgpack.encode(self.keep.offer)

    def activity(self):
        return "looking at somebody's weights" if self.theirs else "training"

    def handle(self, ctx, event):
        match event:
            case Trained():
                self.step, self.samples = event.step, event.samples
                return [Evaluate("own", (OWN,))]
            case Evaluated(tag="own"):
                return self.measured(ctx, event)
            case Published(tag=keep.TAG):
                self.keep.on_published(event)
                return self.tell(ctx)
            case LearnFailed(tag=keep.TAG):  # the disk is full
                self.keep.on_failed()
                return self.tell(ctx)
            case Fetched(blob=blob) if self.theirs == blob:
                mix = Combine("mix", MIX, ((0.5, OWN), (0.5, blob)))
                return [mix, Evaluate("mix", (OWN, MIX), examples_max=self.config.examples)]
            case Evaluated(tag="mix", losses=(mine, mixed)):
                better = [Adopt("mixed", MIX), Note("averaged")] if mixed < mine else []
                return [*better, *self.train(ctx)]
            case FetchFailed() | LearnFailed(tag="mix") if self.theirs:
                return self.train(ctx)
            case Adopted(tag="back" | "fresh"):
                return [Evaluate("own", (OWN,))]
            case LearnFailed(tag="back"):
                return [Fresh(ctx.rng.getrandbits(32))]
        return []

    def measured(self, ctx, event):
        self.loss, accuracy = event.losses[0], event.accuracies[0]
        self.accuracy = accuracy if math.isfinite(accuracy) else None
        if math.isfinite(self.loss):
            return self.keep.propose(self.loss) or self.tell(ctx)
        offer = self.keep.offer
        back = Adopt("back", offer.blob, OptimizerState.RESET) if offer else Fresh(ctx.rng.getrandbits(32))
        return [Note("diverged", {"step": self.step}), back]

    def tell(self, ctx):
        told = Tell(Report(self.step, self.samples, self.loss, self.accuracy, self.keep.offer))
        if 0 < ctx.manifest.steps <= self.step:
            return [told, Finish("all steps done")]
        offers = [
            (abs(offer.loss - self.loss), stated.sender, offer)
            for stated, offer in ctx.ledger.ranked(ctx.now, math.inf, ctx.me)
            if ctx.trusts(stated.sender)
        ]
        if not offers:
            return [told, *self.train(ctx)]
        _, author, offer = ctx.rng.choice(sorted(offers, key=lambda one: one[:2])[: self.config.near])
        self.theirs = offer.blob
        return [told, ctx.fetch(author, offer)]

    def train(self, ctx):
        self.theirs = None
        left = ctx.manifest.steps - self.step if ctx.manifest.steps else self.config.round_steps
        return [Train(min(self.config.round_steps, left))]


if __name__ == "__main__":
    from p2ptrain.core.manifest import Manifest
    from p2ptrain.sim.scenario import Scenario, run

    manifest = Manifest(name="example", task="toy", strategy="own_strategy:Strategy", steps=300)
    result = run(Scenario(manifest=manifest, peers=16, seed=1, for_s=0))
    print(f"loss {result.loss:.3f} together, {result.alone_loss:.3f} alone; {result.notes}")
