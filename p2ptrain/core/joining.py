"""Layers that several peers trained from the same weights, put together, and judged before they count.

Each number becomes the mean over those that trained it, weighted by their steps; what nobody trained stays.
The whole is compared with the weights before, and if it is worse, so is each part on its own: bad ones are
left out, and who claimed another loss is named. How far to go towards the result is a search along a line.
Source: ALGORITHMS 2.3, with each part tried alone in place of each left out: one of several bad ones is
found like this, too.
"""

import math
from itertools import groupby

from msgspec import Struct

from p2ptrain.core.blocks import Block, ranges_of
from p2ptrain.core.effects import Combine, Effect, Evaluate
from p2ptrain.core.ending import claim_limit
from p2ptrain.core.inputs import Evaluated, Layer, LearnFailed
from p2ptrain.core.messages import Offer
from p2ptrain.core.types import BlobId, PeerId, Ref, Slot

BASE = Slot(Ref("base"))
JOINT = Slot(Ref("joint"))
LINE = {1.0: JOINT, 0.5: Slot(Ref("half")), 0.25: Slot(Ref("quarter"))}
"""Shares of the way from the weights before to the joint ones (ALGORITHMS 2.3), and where they are tried."""

ALONE = LINE[0.5]
"""Where parts are tried alone: not at the same time."""


class Part(Struct, frozen=True):
    """Layers that one peer trained, in so many steps; the loss is its own measurement, a claim."""

    author: PeerId
    block: Block
    offer: Offer
    steps: int


class Verdict(Struct, frozen=True):
    """What the joint weights are worth.

    share: of the way that is gone; 0: the weights stay as they are.
    loss: there, as measured.
    false: who claimed another loss than was measured, and the two in words.
    """

    share: float
    loss: float
    false: tuple[tuple[PeerId, str], ...] = ()


class Joining:
    """One round's parts.

    Args:
        name: begins the tags of what is asked, and no other's.
        layers: of the net.
        base: where all parts began. Its loss: as measured here on the same examples; inf: not yet.
        search: whether points of the line are compared in any case, or only if the joint weights are worse.
        examples: held-out examples to measure on.
        tolerance: so much worse, as a share, may the joint weights be, and a claim be wrong.

    Attributes:
        parts: joined so far.
        verdict: None before it is known.
        is_lost: the weights are gone: nothing can be known any more.
    """

    def __init__(
        self,
        name: str,
        layers: tuple[Layer, ...],
        base: Offer,
        *,
        search: bool,
        examples: int,
        tolerance: float,
    ) -> None:
        self.parts: list[Part] = []
        self.verdict: Verdict | None = None
        self.is_lost = self.is_judging = False
        self._name, self._layers, self._base = name, layers, base
        self._search, self._examples, self._tolerance = search, examples, tolerance
        self._before = base.loss
        self._weights = [0] * len(layers)
        self._asked: tuple[float, ...] = ()
        self._alone: dict[int, float] = {}
        self._false: list[tuple[PeerId, str]] = []
        self._tried_alone = False

    @property
    def covered(self) -> float:
        """The share of the layers that somebody trained."""
        return sum(weight > 0 for weight in self._weights) / len(self._weights)

    def begin(self) -> list[Effect]:
        """Keep the weights before at hand; the joint ones begin there."""
        blob = self._base.blob
        return [self._copy(BASE, blob), self._copy(JOINT, blob)]

    def add(self, part: Part) -> list[Effect]:
        """Join a part whose weights are here; they are not needed any more, unless the whole is bad."""
        self.parts.append(part)
        return self._join(part)

    def judge(self) -> list[Effect]:
        """Measure the whole; `parts` are complete."""
        self.is_judging = True
        return self._look(tuple(LINE) if self._search else (1.0,))

    def answer(self, event: Evaluated | LearnFailed) -> list[Effect]:
        """Take in what was asked for; nothing means that the verdict is known, or more is to come."""
        if self.verdict is not None or not self.is_judging:
            return []
        stage, _, number = event.tag.removeprefix(f"{self._name}:").partition(":")
        if stage == "alone" and number.isdecimal() and int(number) < len(self.parts):
            return self._on_alone(int(number), event)
        if stage != "line" or number != self._stage():
            return []
        if isinstance(event, LearnFailed):
            self.is_lost = True
            return []
        return self._on_line(event)

    # -- the line ----------------------------------------------------------------------------------

    def _stage(self) -> str:
        return f"{len(self._asked)}{'b' if self._tried_alone else 'a'}"

    def _look(self, shares: tuple[float, ...]) -> list[Effect]:
        self._asked = shares
        tag = f"{self._name}:line:{self._stage()}"
        between = [
            Combine(tag, LINE[share], ((1 - share, BASE), (share, JOINT))) for share in shares if share < 1
        ]
        before = (BASE,) if math.isinf(self._before) else ()
        refs = (*before, *(LINE[share] for share in shares))
        return [*between, Evaluate(tag, refs, examples_max=self._examples)]

    def _on_line(self, event: Evaluated) -> list[Effect]:
        found = list(zip(event.losses, event.errors, strict=True))
        if len(found) == len(self._asked) + 1:
            self._before, _ = found.pop(0)
        if len(found) != len(self._asked):
            return []
        tried = [(loss, share) for (loss, _), share in zip(found, self._asked, strict=True)]
        loss, share = min((one for one in tried if math.isfinite(one[0])), default=(math.inf, 0.0))
        hopeless = not math.isfinite(self._before) and loss < math.inf
        if loss <= self._limit(found[0][1]) or hopeless:
            return self._decide(share, loss)
        if not self._tried_alone:
            self._tried_alone = True
            return self._try_alone()
        if len(self._asked) < len(LINE):
            return self._look(tuple(LINE))
        return self._decide(0.0, self._before)

    def _limit(self, error: float) -> float:
        return claim_limit(self._before, self._tolerance, error if math.isfinite(error) else 0.0)

    def _decide(self, share: float, loss: float) -> list[Effect]:
        self.verdict = Verdict(share, loss, tuple(self._false))
        return [self._copy(JOINT, LINE[share])] if 0 < share < 1 else []

    # -- each part alone ---------------------------------------------------------------------------

    def _try_alone(self) -> list[Effect]:
        effects: list[Effect] = []
        for number, part in enumerate(self.parts):
            tag = f"{self._name}:alone:{number}"
            effects += [
                self._copy(ALONE, BASE, tag),
                Combine(tag, ALONE, ((1.0, part.offer.blob),), ranges=ranges_of(self._layers, part.block)),
                Evaluate(tag, (ALONE,), examples_max=self._examples),
            ]
        return effects or self._decide(0.0, self._before)

    def _on_alone(self, number: int, event: Evaluated | LearnFailed) -> list[Effect]:
        if (
            not self._tried_alone
            or number in self._alone
            or (isinstance(event, Evaluated) and len(event.losses) != 1)
        ):
            return []
        part, self._alone[number] = self.parts[number], math.inf
        if isinstance(event, Evaluated):
            measured, error = event.losses[0], event.errors[0]
            if measured <= self._limit(error):
                self._alone[number] = measured
            elif not measured <= claim_limit(part.offer.loss, self._tolerance, error):
                detail = f"claimed {part.offer.loss:.4g}, measured {measured:.4g}"
                self._false.append((part.author, detail))
        return self._join_good() if len(self._alone) == len(self.parts) else []

    def _join_good(self) -> list[Effect]:
        good = [part for number, part in enumerate(self.parts) if self._alone[number] < math.inf]
        if not good:
            return self._decide(0.0, self._before)
        self._weights = [0] * len(self._layers)
        effects: list[Effect] = [self._copy(JOINT, BASE)]
        for part in good:
            effects += self._join(part)
        return [*effects, *self._look(tuple(LINE))]

    # -- weights -----------------------------------------------------------------------------------

    def _join(self, part: Part) -> list[Effect]:
        """Move the mean of each layer towards the part, by its weight."""
        effects: list[Effect] = []
        for before, layers in groupby(range(*part.block), key=self._weights.__getitem__):
            block = list(layers)
            share = part.steps / (before + part.steps)
            terms: tuple[tuple[float, Ref], ...] = ((1 - share, JOINT), (share, part.offer.blob))
            ranges = ranges_of(self._layers, (block[0], block[-1] + 1))
            effects.append(
                Combine(f"{self._name}:join", JOINT, terms if before else terms[1:], ranges=ranges)
            )
        for layer in range(*part.block):
            self._weights[layer] += part.steps
        return effects

    def _copy(self, to: Slot, what: Ref | BlobId, tag: str = "") -> Combine:
        return Combine(tag or f"{self._name}:copy", to, ((1.0, what),))
