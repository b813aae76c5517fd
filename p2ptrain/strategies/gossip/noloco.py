"""Outer momentum in pairs (NoLoCo): a second optimiser whose steps are the exchanges.

phi are the slow weights, w the fast ones that some steps led away from them, means are over the pair:

    m   <- a m + b mean(w - phi) + g (mean(phi) - phi)
    phi <- phi + m;  w <- phi, and the steps since the snapshot

With (a, b, g) = (0, 1, 1) that is the mean of w. One vector a peer is enough for any of them: with
v = phi + b/g (w - phi), it is m <- a m + g (mean(v) - phi), and v = w if b = g.
Source: arXiv 2506.10911, ALGORITHMS 2.6, 3.1. DiLoCo's outer Nesterov step needs one point that all start
from: it is the momentum of the server in `federated`.
"""

from p2ptrain.core.effects import Combine, Effect
from p2ptrain.core.types import OWN, Ranges, Ref, Slot

SLOW = Slot(Ref("slow"))
MOMENTUM = Slot(Ref("momentum"))
SHOWN = Slot(Ref("shown"))

MOMENTUM_MAX = 0.9
"""From here on it diverges in pairs (measured, ALGORITHMS 4.4)."""

Terms = tuple[tuple[float, Ref], ...]


class SlowWeights:
    """The slow weights and their momentum, in slots of the trainer.

    Args:
        momentum, step, pull: a, b and g, which is above 0.
    """

    __slots__ = ("_momentum", "_pull", "_step")

    def __init__(self, momentum: float, step: float, pull: float) -> None:
        self._momentum, self._step, self._pull = momentum, step, pull

    @property
    def are_plain(self) -> bool:
        """Whether it all comes to the mean, which needs no slow weights."""
        return (self._momentum, self._step, self._pull) == (0.0, 1.0, 1.0)

    @property
    def show_own(self) -> bool:
        """Whether partners need the fast weights as they are."""
        return self._step == self._pull

    def begin(self) -> list[Effect]:
        """Start, or start again, from the own weights, without momentum."""
        if self.are_plain:
            return []
        return [Combine("slow", SLOW, ((1.0, OWN),)), Combine("slow", MOMENTUM, ((0.0, OWN),))]

    def show(self, mine: Ref) -> Combine:
        """Put what partners need, v, into `SHOWN`."""
        far = self._step / self._pull
        return Combine("slow", SHOWN, ((far, mine), (1 - far, SLOW)))

    def target(self, mean: Terms) -> Terms:
        """Return the next slow weights. `mean`: that of both v."""
        scaled = tuple((self._pull * share, ref) for share, ref in mean)
        return (*scaled, (1 - self._pull, SLOW), (self._momentum, MOMENTUM))

    def move(self, share: float, mine: Ref, reached: Ref, ranges: Ranges, *, plainly: bool) -> list[Effect]:
        """The fast weights went that share of the way from `mine` to `reached`: the slow ones go there too.

        plainly: it was no outer step, so the momentum stays.
        """
        if self.are_plain:
            return []
        there: Terms = ((1 - share, mine), (share, reached))
        if plainly:
            return [Combine("slow", SLOW, there, ranges=ranges)]
        return [
            Combine("slow", MOMENTUM, (*there, (-1.0, SLOW)), ranges=ranges),
            Combine("slow", SLOW, ((1.0, SLOW), (1.0, MOMENTUM)), ranges=ranges),
        ]
