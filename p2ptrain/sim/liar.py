"""Peers that cheat: they claim the best loss of all, offer poisoned weights (poison.py), and send rubbish."""

import math
from typing import TYPE_CHECKING

from msgspec.structs import replace

from p2ptrain.core.effects import Effect, Send, Sign
from p2ptrain.core.messages import Report

if TYPE_CHECKING:
    from p2ptrain.sim.host import Host

CLAIM = 1e-6
RUBBISH_SHARE = 0.02


def twist(host: "Host", effect: Effect) -> Effect:
    """Replace what an honest node would do."""
    world = host.world
    if isinstance(effect, Sign) and isinstance(effect.statement, Report) and effect.statement.offer:
        offer = replace(effect.statement.offer, loss=CLAIM)
        return Sign(replace(effect.statement, loss=CLAIM, offer=offer))
    if isinstance(effect, Send) and world.rng.random() < RUBBISH_SHARE:
        world.send(host, effect.to, world.rng.randbytes(math.ceil(world.rng.expovariate(1 / 200))))
    return effect
