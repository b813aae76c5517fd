"""Lines of peers in virtual time: who asks for the same line takes its steps together."""

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

from p2ptrain.core.effects import Stage
from p2ptrain.core.inputs import Layer, Staged, Trained
from p2ptrain.core.types import PeerId, Seconds

if TYPE_CHECKING:
    from p2ptrain.sim.host import Host
    from p2ptrain.sim.world import World


class Part:
    """One peer in a line.

    line: all of it, in order; empty before everyone has asked.
    """

    def __init__(self, host: "Host", effect: Stage) -> None:
        self.host, self.effect = host, effect
        self.boot = host.boot
        self.line: tuple[Part, ...] = ()
        self.is_over = False
        self.taken = 0
        self.loss_sum = 0.0
        self.seconds: Seconds = 0.0

    @property
    def lives(self) -> bool:
        """Whether it still takes part."""
        return not self.is_over and self.host.alive and self.host.boot == self.boot

    def take(self, trained: Trained, seconds: Seconds) -> None:
        """A step was taken."""
        self.host.trainer.last = trained
        self.taken += 1
        self.loss_sum += trained.loss
        self.seconds += seconds

    def end(self, reason: str = "", silent: PeerId | None = None) -> None:
        """Answer."""
        if not self.lives:
            return
        self.is_over = True
        last = self.host.trainer.last
        loss = self.loss_sum / self.taken if self.taken else math.nan
        tag, step, samples = self.effect.tag, last.step, last.samples
        staged = Staged(tag, step, samples, self.taken, loss, self.seconds, reason, silent)
        self.host.answer(0.0, staged)


class Stages:
    """All lines of a world."""

    def __init__(self, world: "World") -> None:
        self._world = world
        self._parts: dict[PeerId, Part] = {}

    def ask(self, host: "Host", effect: Stage) -> None:
        """A host is ready for its part; it has one at a time."""
        self.stop(host, "another line was asked for")
        part = self._parts[host.peer] = Part(host, effect)
        line = self._whole(part)
        if line:
            for one in line:
                one.line = line
            self._world.after(self._step_s(line), self._step, line)
        else:
            self._world.after(effect.meet_s, self._give_up, part)

    def stop(self, host: "Host", reason: str) -> None:
        """A host ends its part; the others learn of it at once."""
        part = self._parts.pop(host.peer, None)
        if part is not None:
            part.end(reason)

    # -- who is in it ------------------------------------------------------------------------------

    def _whole(self, part: Part) -> tuple[Part, ...]:
        """Return the line of a part if all of it have asked, else nothing."""
        line = [part]
        while (before := line[0].effect.before) is not None:
            if len(line) > len(self._parts) or not self._fits(before, line[0], before_it=True):
                return ()
            line.insert(0, self._parts[before])
        while (after := line[-1].effect.after) is not None:
            if len(line) > len(self._parts) or not self._fits(after, line[-1], before_it=False):
                return ()
            line.append(self._parts[after])
        return tuple(line)

    def _fits(self, peer: PeerId, part: Part, *, before_it: bool) -> bool:
        """Say whether a neighbour has asked for the same line, and can be reached."""
        other, mine = self._parts.get(peer), part.effect
        if other is None or not other.lives or other.line or not self._reach(other, part):
            return False
        first, second = (other.effect, mine) if before_it else (mine, other.effect)
        ends_meet = first.after == (part if before_it else other).host.peer
        starts_meet = second.before == (other if before_it else part).host.peer
        same = (first.name, first.steps, first.micro) == (second.name, second.steps, second.micro)
        return same and ends_meet and starts_meet and first.layers[1] == second.layers[0]

    def _reach(self, one: Part, other: Part) -> bool:
        return self._world.reaches(one.host.peer, other.host.peer)

    def _give_up(self, part: Part) -> None:
        """Nobody waits for ever."""
        if part.line or not part.lives:
            return
        missing = [peer for peer in (part.effect.before, part.effect.after) if peer is not None]
        part.end("the line did not come together", missing[0] if len(missing) == 1 else None)

    # -- its steps ---------------------------------------------------------------------------------

    def _step(self, line: tuple[Part, ...]) -> None:
        """Everyone takes a step, unless somebody is gone."""
        broken = [not (one.lives and other.lives and self._reach(one, other)) for one, other in _pairs(line)]
        if any(broken) or not line[0].lives:
            return self._break(line, broken)
        shares = _shares(line)
        learner = line[0].host.learner
        taken = learner.step_in_line([(part.host.learner, part.effect) for part in line])
        for part, trained, share in zip(line, taken, shares, strict=True):
            part.take(trained, share * part.host.step_s)
        for one, other in _pairs(line):
            for host in (one.host, other.host):
                host.bytes_sent += learner.line_bytes
                host.bytes_received += learner.line_bytes
        if not all(math.isfinite(trained.loss) for trained in taken):
            for part, trained in zip(line, taken, strict=True):
                part.end("the line ended" if math.isfinite(trained.loss) else "its numbers are not finite")
        elif line[0].taken == line[0].effect.steps:
            for part in line:
                part.end()
        else:
            self._world.after(self._step_s(line), self._step, line)

    def _break(self, line: tuple[Part, ...], broken: Sequence[bool]) -> None:
        """Who is next to a gap blames who is beyond it; the others only hear that it is over."""
        for at, part in enumerate(line):
            silent = None
            if at > 0 and broken[at - 1]:
                silent = line[at - 1]
            elif at < len(broken) and broken[at]:
                silent = line[at + 1]
            if silent is None or silent.is_over:  # it said so itself
                self._world.after(self._world.faults.latency_s, part.end, "the line ended")
            else:
                wait_s = part.effect.silence_s
                self._world.after(wait_s, part.end, "a neighbour is silent", silent.host.peer)

    def _step_s(self, line: tuple[Part, ...]) -> Seconds:
        """A batch fills the line, flows at the pace of what is slowest, and drains."""
        micro, faults = line[0].effect.micro, self._world.faults
        times = [share * part.host.step_s / micro for part, share in zip(line, _shares(line), strict=True)]
        sent_bytes = line[0].host.learner.line_bytes / micro if len(line) > 1 else 0.0
        sending_s = sent_bytes / faults.upload if faults.upload else 0.0
        hops = len(line) - 1
        return sum(times) + 2 * hops * (faults.latency_s + sending_s) + (micro - 1) * max(*times, sending_s)


def _pairs(line: tuple[Part, ...]) -> list[tuple[Part, Part]]:
    return list(pairwise(line))


def _shares(line: tuple[Part, ...]) -> list[float]:
    """Which share of a step each of them computes."""
    layers: tuple[Layer, ...] = line[0].host.learner.layers
    total = sum(layer.cost for layer in layers)
    parts = [layers[part.effect.layers[0] : part.effect.layers[1]] for part in line]
    return [sum(layer.cost for layer in part) / total if total else 1 / len(line) for part in parts]
