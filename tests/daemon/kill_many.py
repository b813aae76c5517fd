"""Kill -9 at random moments, daemons and trainers alike: nobody waits, nothing is lost.

By hand, because it takes minutes: python -m tests.daemon.kill_many --kills 20 --seed 1
"""

import argparse
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from random import Random
from threading import Event

import click

from p2ptrain.cli.output import say, table
from tests.daemon.helpers import Home, Pulse, until

PEERS = 3
WAIT_S = (1.0, 8.0)
"""Checkpoints come every 5 s: some kills hit soon after one, some long after, some while one is written."""

PAUSE_MAX_S = 2.0
ORPHAN_MAX_S = 5.0
DAEMON, TRAINER = "daemon", "trainer"


@dataclass
class Kill:
    """One kill and its consequences."""

    number: int
    name: str
    what: str
    at_step: int
    saved: int
    resumed_at: int = 0
    away_s: float = 0.0
    orphan_s: float = 0.0
    pause_s: float = 0.0
    pause_wall_s: float = 0.0

    @property
    def violations(self) -> list[str]:
        """What should not have happened."""
        found = {
            f"survivors paused {self.pause_s:.1f} s": self.pause_s > PAUSE_MAX_S,
            f"resumed at {self.resumed_at}, though {self.saved} was saved": self.resumed_at < self.saved,
            "began again": self.resumed_at <= 0,
            f"its trainer outlived it by {self.orphan_s:.1f} s": self.orphan_s > ORPHAN_MAX_S,
        }
        return [words for words, is_so in found.items() if is_so]

    @property
    def row(self) -> list[str]:
        """A line of the table."""
        seconds = [f"{value:.2f}" for value in (self.away_s, self.orphan_s, self.pause_s, self.pause_wall_s)]
        steps = [str(value) for value in (self.at_step, self.saved, self.resumed_at)]
        return [str(self.number), self.name, self.what, *steps, *seconds, "; ".join(self.violations)]


HEAD = [
    "#",
    "PEER",
    "KILLED",
    "AT STEP",
    "SAVED",
    "RESUMED AT",
    "AWAY s",
    "ORPHAN s",
    "PAUSE s",
    "WALL s",
    "WRONG",
]
"""PAUSE: the longest of a survivor without a step, WALL: with the time in which the computer was busy."""


def kill(number: int, victim: Home, what: str) -> Kill:
    """Kill a daemon or a trainer, and wait until it trains again."""
    node, trainer = victim.now().node, victim.now().trainer_pid
    done = Kill(number, victim.name, what, node.step, node.saved_step)
    began = time.monotonic()
    if what == DAEMON:
        victim.kill()
        until(lambda: not victim.processes, "its trainer lives on")
        done.orphan_s = time.monotonic() - began
        victim.start()
    else:
        victim.kill_trainer()
    back = victim.until(
        lambda status: status.node.state == "training" and status.trainer_pid not in (None, trainer),
        "it does not come back",
    )
    done.resumed_at = back.node.saved_step
    done.away_s = time.monotonic() - began
    return done


def run(folder: Path, kills: int, seed: int) -> list[Kill]:
    """Train with three daemons, and kill."""
    rng = Random(seed)
    homes = [Home(folder / name) for name in ("first", "second", "third")]
    try:
        homes[0].found("--parts", str(PEERS), task="fashion")
        homes[0].start()
        invite = homes[0].invite()
        for home in homes[1:]:
            home.join(invite)
            home.start()
        for home in homes:
            home.until(lambda status: status.node.saved_step, "no checkpoint")
        done = []
        for number in range(1, kills + 1):
            victim, what = rng.choice(homes), rng.choice((DAEMON, TRAINER))
            survivors = [home for home in homes if home is not victim]
            with Pulse(*survivors) as pulse:
                one = kill(number, victim, what)
                Event().wait(rng.uniform(*WAIT_S))
            one.pause_s = max(map(pulse.longest_s, survivors))
            one.pause_wall_s = max(map(pulse.longest_wall_s, survivors))
            say("  ".join(one.row))
            done.append(one)
        return done
    finally:
        for home in homes:
            home.end()


def main() -> int:
    """Read the options, kill, and show."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    say(f"seed {options.seed}")
    with tempfile.TemporaryDirectory(prefix="p2ptrain-kills-") as folder:
        kills = run(Path(folder), options.kills, options.seed)
    click.echo(table([HEAD, *(one.row for one in kills)], right="r  rrrrrrr"))
    wrong = sum(bool(one.violations) for one in kills)
    longest = max(one.pause_s for one in kills)
    click.echo(f"{len(kills)} kills, {wrong} with a violation; longest pause of a survivor: {longest:.2f} s")
    return min(wrong, 1)


if __name__ == "__main__":
    sys.exit(main())
