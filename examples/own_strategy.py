"""A strategy of your own: after each round, average with somebody, if that helps here.

`cd examples; p2ptrain simulate toy --strategy own_strategy:Strategy --peers 16` lets a swarm use it;
`p2ptrain strategy check own_strategy:Strategy` tries it in all weathers.
"""

import math

from msgspec import Struct

from p2ptrain.core import keep
from p2ptrain.core.effects import Adopt, Combine, Evaluate, Finish, Fresh, Note
from p2ptrain.core.inputs import Adopted, Evaluated, Fetched, FetchFailed, LearnFailed, Published, Trained
from p2ptrain.core.progress import Progress
from p2ptrain.core.types import OWN, Slot

MESSAGES = ()  # reports say it all


class Config(Struct, frozen=True, forbid_unknown_fields=True):
    """Settings, equal for the swarm.

    round_steps: optimiser steps between two looks at others.
    """

    round_steps: int = 20


class Strategy:
    def __init__(self, config):
        self.config, self.own, self.theirs = config, Progress(), None

    def start(self, ctx, ready):
        self.own.resume(ctx, ready)
        return [Evaluate("own", (OWN,))]

    def memory(self):
        return self.own.memory()

    def activity(self):
        return "looking at somebody's weights" if self.theirs else "training"

    def handle(self, ctx, event):
        match event:
            case Trained() | Adopted(tag="back" | "fresh"):
                if isinstance(event, Trained):
                    self.own.take(event)
                return [Evaluate("own", (OWN,))]
            case Evaluated(tag="own") if self.own.measure(event):
                return self.own.keep.propose(self.own.loss) or self.tell(ctx)
            case Evaluated(tag="own"):  # go back to the last weights that were good
                good = self.own.keep.offer
                back = Adopt("back", good.blob) if good else Fresh(ctx.rng.getrandbits(32))
                return [Note("diverged", {"step": self.own.step}), back]
            case Published(tag=keep.TAG) | LearnFailed(tag=keep.TAG):  # it fails where the disk is full
                self.own.keep.on_written(event)
                return self.tell(ctx)
            case Fetched(blob=blob) if self.theirs == blob:
                return [Combine("mix", Slot("mix"), ((0.5, OWN), (0.5, blob))), Evaluate("mix", (OWN, "mix"))]
            case Evaluated(tag="mix", losses=(mine, mixed)):
                better = [Adopt("mixed", "mix"), Note("averaged")] if mixed < mine else []
                return [*better, *self.train(ctx)]
            case FetchFailed() | LearnFailed(tag="mix") if self.theirs:
                return self.train(ctx)
        return []

    def tell(self, ctx):
        if self.own.is_done(ctx):
            return [*self.own.tell(), Finish("all steps done")]
        known = [one for one in ctx.ledger.ranked(ctx.now, math.inf, ctx.me) if ctx.trusts(one[0].sender)]
        if not known:
            return [*self.own.tell(), *self.train(ctx)]
        stated, offer = ctx.rng.choice(known)
        self.theirs = offer.blob
        return [*self.own.tell(), ctx.fetch(stated.sender, offer)]

    def train(self, ctx):
        self.theirs = None
        return [self.own.train(ctx, self.config.round_steps)]
