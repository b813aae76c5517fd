"""Anything that can happen to a node, in any order: what `handle` must survive (ALGORITHMS G2, G3, A5)."""

import math
from collections.abc import Callable
from random import Random
from typing import Any

from msgspec.structs import replace

from p2ptrain.core import inputs
from p2ptrain.core.effects import (
    Effect,
    Evaluate,
    Fetch,
    Fresh,
    Publish,
    Reduce,
    SetTimer,
    Sign,
    Stage,
    Train,
)
from p2ptrain.core.errors import Offence
from p2ptrain.core.inputs import Input
from p2ptrain.core.messages import Contact, Contacts, Leave, Message, News, Offer, Report
from p2ptrain.core.node import TEST_TAG
from p2ptrain.core.strategy import Rules
from p2ptrain.core.types import BlobId
from p2ptrain.strategies.allreduce import words
from p2ptrain.strategies.parameter_server.messages import SHARDS_MAX, Piece
from p2ptrain.strategies.pipeline.lineup import Line, Place
from p2ptrain.strategies.polytope import Met
from tests.helpers import Author, blob, peer

ME = 1
STRANGER = 40
NUMBERS = (0.0, -0.0, 0.5, 0.25, 1.0, -1.0, 1e-6, 1e30, -1e30)
"""What the border lets through."""

OWN_NUMBERS = (*NUMBERS, math.nan, math.inf, -math.inf, 1e300, -1e300)
"""What an own trainer may come to."""

FROM_TRAINER = (
    inputs.Adopted,
    inputs.Combined,
    inputs.Evaluated,
    inputs.LearnFailed,
    inputs.Published,
    inputs.Saved,
    inputs.Staged,
    inputs.Trained,
)

NATURALS = (0, 1, 2, 50, 300, 2**53)


class Chaos:
    """Draws inputs, half of them answers to what the node asked for, late and out of order.

    Args:
        wild: the own trainer answers twice, and says what nobody asked for; somebody else has the own key.
    """

    def __init__(self, rules: Rules, seed: int, *, wild: bool) -> None:
        self.rng = Random(seed)
        self.rules = rules
        self.now = 0.0
        self._wild = wild
        self._authors = [Author(number, private=rules.messages) for number in range(2, 18)]
        self._stranger = Author(STRANGER, private=rules.messages)
        self._me = Author(ME, private=rules.messages)
        self._due: list[Input] = []
        self._mine: list[BlobId] = []
        self._makers: list[Callable[[], Input]] = [
            self._news,
            self._news,
            self._news,
            self._private,
            self._private,
            self._contacts,
            self._timer,
            self._network,
            self._owner,
        ]
        if wild:
            self._makers += [self._learned, self._learned]

    def draw(self) -> Input:
        """Return the next input, and let time pass."""
        rng = self.rng
        self.now += rng.choice((0.0, 0.0, 0.01, 0.5, 4.0)) if rng.random() < 0.999 else rng.uniform(0, 1e6)
        if self._due and rng.random() < 0.6:
            at = rng.randrange(len(self._due))
            twice = self._wild and rng.random() < 0.1
            return self._due[at] if twice else self._due.pop(at)
        made = rng.choice(self._makers)()
        if rng.random() < 0.05:
            self._due.append(made)
        return made

    def after(self, effects: list[Effect]) -> None:
        """Prepare answers to effects."""
        for effect in effects:
            if isinstance(effect, Sign):
                self._due.append(inputs.Signed(self._me.says(effect.statement)))
            elif isinstance(effect, SetTimer):
                self._due.append(inputs.TimerFired(effect.key))
            elif isinstance(effect, Evaluate | Publish | Train | Stage | Fresh | Fetch):
                self._due.append(self._answer(effect))
            elif isinstance(effect, Reduce):
                self._due.append(self._reduced(effect))
            elif getattr(effect, "tag", None):
                self._due.append(self._result(effect.tag))  # type: ignore[attr-defined]
        del self._due[:-60]

    def forget_trainer(self) -> None:
        """A trainer died: its answers do not come any more."""
        self._due = [event for event in self._due if not isinstance(event, FROM_TRAINER)]

    # -- answers -----------------------------------------------------------------------------------

    def _answer(self, effect: Evaluate | Publish | Train | Stage | Fresh | Fetch) -> Input:
        rng = self.rng
        match effect:
            case Evaluate():
                return self._evaluated(effect.tag, len(effect.refs))
            case Publish():
                self._mine.append(self._blob())
                return inputs.Published(effect.tag, self._mine[-1], 64)
            case Train():
                step = rng.choice(NATURALS)
                return inputs.Trained(step, step, rng.choice(OWN_NUMBERS), 1.0)
            case Stage():
                step, taken, loss = (
                    rng.choice(NATURALS),
                    rng.choice((0, effect.steps)),
                    rng.choice(OWN_NUMBERS),
                )
                return inputs.Staged(effect.tag, step, step, taken, loss, rng.choice(OWN_NUMBERS))
            case Fresh():
                return inputs.Adopted("fresh")
            case Fetch():
                good = rng.random() < 0.7
                failed = inputs.FetchFailed(effect.blob, "no", rng.choice((None, peer(3))))
                return inputs.Fetched(effect.blob, peer(2)) if good else failed

    def _reduced(self, effect: Reduce) -> Input:
        silent = self.rng.choice((None, peer(self.rng.randrange(1, 20))))
        failed = inputs.ReduceFailed(effect.tag, "no", silent)
        return inputs.Reduced(effect.tag, 1.0) if self.rng.random() < 0.7 else failed

    def _result(self, tag: str) -> Input:
        rng = self.rng
        kinds = (inputs.Adopted(tag), inputs.Combined(tag), inputs.LearnFailed(tag, "gone"))
        return rng.choice(kinds)

    def _evaluated(self, tag: str, count: int) -> Input:
        rng = self.rng
        losses = tuple(rng.choice(OWN_NUMBERS) if rng.random() < 0.2 else rng.random() for _ in range(count))
        others = [tuple(rng.choice(OWN_NUMBERS) for _ in range(count)) for _ in range(3)]
        errors, accuracies, distances = others
        sure = tuple(map(abs, errors)) if rng.random() < 0.5 else ()
        return inputs.Evaluated(
            tag, losses, errors, accuracies, tuple(map(abs, distances)), 100, differences=sure
        )

    # -- out of the blue ---------------------------------------------------------------------------

    def _blob(self) -> BlobId:
        return blob(self.rng.randrange(40))

    def _author(self) -> Author:
        rng = self.rng
        if rng.random() < 0.02:
            number = rng.randrange(2, 18)
            self._authors[number - 2] = Author(number, boot=rng.randrange(1, 9), private=self.rules.messages)
        return self._stranger if rng.random() < 0.05 else rng.choice(self._authors)

    def _report(self) -> Report:
        rng = self.rng
        loss = rng.choice(NUMBERS) if rng.random() < 0.2 else rng.random()
        scale = rng.choice((1.0, 1e-300, 1e6))
        found = Offer(self._blob(), rng.choice((1, 64, 2**34)), loss, scale) if rng.random() < 0.9 else None
        step = rng.choice(NATURALS)
        return Report(step, step, rng.choice(NUMBERS), rng.random(), found, rng.random() < 0.1)

    def _echo(self) -> Report:
        """What the node said once: of weights that it wrote itself, unless somebody has its key."""
        report = self._report()
        if report.offer is None or self._wild:
            return report
        offer = replace(report.offer, blob=self.rng.choice(self._mine)) if self._mine else None
        return replace(report, offer=offer)

    def _news(self) -> Input:
        rng = self.rng
        said = [self._author().says(self._report()).raw for _ in range(rng.randrange(9))]
        if rng.random() < 0.1:
            said = [*said[:7], self._me.says(self._echo()).raw]
        held = tuple(rng.random() < 0.5 for _ in range(rng.randrange(9)))
        return self._author().sends(News(tuple(said), held, rng.random() < 0.5, rng.randrange(17)))

    def _private(self) -> Input:
        rng = self.rng
        if not self.rules.messages:
            return self._news()
        type_: Any = rng.choice(self.rules.messages)
        drawn = {
            "number": rng.choice(NATURALS),
            "blob": self._blob(),
            "size_bytes": rng.choice((1, 64, 2**34)),
            "turn": rng.choice(NATURALS),
            "origin": peer(rng.randrange(1, 20)),
            "hop": rng.choice(NATURALS),
            "count": rng.randint(1, 1000),
            "mean": self._blob(),
            "shard": rng.randrange(SHARDS_MAX),
            "shards": tuple(rng.randrange(SHARDS_MAX) for _ in range(rng.randrange(SHARDS_MAX + 1))),
            "servers": tuple(peer(rng.randrange(1, 20)) for _ in range(rng.choice((0, 1, 4, 4, 4)))),
            "version": rng.choice((0, 0, 0, 1, 2, 50, 2**53)),
            "known": rng.choice((None, Piece(self._blob(), 64))),
            "change": rng.choice((None, Piece(self._blob(), 64))),
            "numbers": Piece(self._blob(), rng.choice((1, 64, 2**34))),
            "outcome": rng.choice(tuple(words.Outcome)),
            "silent": rng.choice((None, peer(rng.randrange(1, 20)))),
            "shown": self._shown(),
            "avoids": tuple(peer(rng.randrange(1, 20)) for _ in range(rng.randrange(17))),
            "name": f"{rng.getrandbits(128):032x}",
            "members": tuple(
                words.Place(peer(rng.randrange(1, 20)), rng.choice(NATURALS), self._shown())
                for _ in range(rng.randint(1, 16))
            ),
            "mass": rng.choice((0.0, 1e-300, 0.5, 1.0, 1e4)),
            "age": rng.choice(NATURALS),
            "final": rng.random() < 0.1,
            "term": rng.choice((0, 0, 1, 2, 50, 2**53)),
            "round": rng.choice(NATURALS),
            "base": self._blob(),
            "lines": tuple(self._line() for _ in range(rng.randrange(4))),
            "step": rng.choice(NATURALS),
            "base_bytes": rng.choice((0, 1, 64, 2**34)),
            "taken": rng.choice(NATURALS),
            "pace": rng.choice(NUMBERS),
            "piece": rng.choice((None, self._blob())),
            "piece_bytes": rng.choice((0, 64, 2**34)),
            "loss": rng.choice(NUMBERS),
            "holder": peer(rng.randrange(1, 20)),
            "asked": rng.random() < 0.7,
            "last": rng.random() < 0.1,
            "got": rng.choice(NATURALS),
            "deadline_s": rng.choice((0.0, 1e-300, 1.0, 1e6)),
            "control": rng.choice((None, self._blob())),
            "control_bytes": rng.choice((1, 64, 2**34)),
            "steps": rng.choice(NATURALS),
            "samples": rng.choice(NATURALS),
            "train_loss": rng.choice(NUMBERS),
            "begin": rng.choice((0, 0, 1, 2**53)),
            "end": rng.choice((0, 1, 1, 2**53)),
            "left": rng.choice(NATURALS),
            "seconds": rng.choice(NUMBERS),
            "newest": Offer(self._blob(), 64, rng.choice(NUMBERS)) if rng.random() < 0.7 else None,
            "met": tuple(Met(peer(n), rng.choice(NUMBERS)) for n in range(rng.randrange(33))),
        }
        message: Message = type_(**{name: drawn[name] for name in type_.__struct_fields__})
        return self._author().sends(message)

    def _line(self) -> Line:
        rng = self.rng
        ends = (0, 0, 1, 1, 2, 4, 2**53)
        places = [
            Place(peer(rng.choice((ME, 2, 3, 4))), rng.choice(ends), rng.choice(ends)) for _ in range(3)
        ]
        return Line(rng.choice((1, 2, 50, 300, 2**53)), tuple(places[: rng.randint(1, 3)]))

    def _shown(self) -> words.Shown | None:
        return words.Shown(self._blob(), self.rng.choice((1, 64, 2**34))) if self.rng.random() < 0.5 else None

    def _contacts(self) -> Input:
        rng = self.rng
        said = [
            self._author().says(Contact(b"member", ("192.0.2.1:1",) * rng.randrange(3))).raw for _ in range(3)
        ]
        message = Contacts(tuple(said)) if rng.random() < 0.7 else Leave("bye")
        return self._author().sends(message)

    def _learned(self) -> Input:
        """Answers that nobody asked for."""
        rng = self.rng
        tag = rng.choice(
            ("own", "keep", "offer", "claim", "final", "join", "fresh", "back", TEST_TAG, "", "x")
        )
        evaluated = self._evaluated(tag, 3)
        return rng.choice(
            (
                evaluated,
                evaluated,
                inputs.Published(tag, self._blob(), 64),
                inputs.Saved(rng.choice(NATURALS), rng.choice((0.0, 1.0, 1e9))),
                inputs.LearnFailed(tag, "no space left on device"),
                inputs.Trained(50, 50, math.nan, 0.0),
                self._result(tag),
            )
        )

    def _timer(self) -> Input:
        keys = ("spread", "dial", "checkpoint", "strategy:compare", "strategy:seek", "strategy:settle")
        return inputs.TimerFired(
            self.rng.choice((*keys, "strategy:exchange", "strategy:taking-exchange", "strategy:nothing", ""))
        )

    def _network(self) -> Input:
        rng = self.rng
        who = peer(rng.choice((*range(2, 18), 41, 42)))
        return rng.choice(
            (
                inputs.PeerUp(who),
                inputs.PeerDown(who, "x" * rng.randrange(500)),
                inputs.Offended(who, rng.choice(list(Offence)), "details"),
                inputs.Fetched(self._blob(), who),
                inputs.FetchFailed(self._blob(), "no", who),
            )
        )

    def _owner(self) -> Input:
        rng = self.rng
        draw = rng.random()
        if draw < 0.45:
            return inputs.Paused("a game runs")
        if draw < 0.9:
            return inputs.Resumed()
        return inputs.TrainerLost("killed", 5.0)
