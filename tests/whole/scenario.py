"""A seed's story: a swarm is founded, storms come and go, and after each everybody hears from everybody."""

import asyncio
import gc
import shutil
import tempfile
import time
from collections import Counter
from collections.abc import Coroutine
from contextvars import copy_context
from pathlib import Path
from random import Random
from typing import Any

from msgspec import Struct

from p2ptrain.core.errors import P2PTrainError
from p2ptrain.core.manifest import Manifest
from p2ptrain.core.types import Seconds
from tests.whole.computers import Computer, World, standing

HEALED_S: Seconds = 20.0
"""So long after healing, every node holds a report of every other that was signed since."""

SETTLE_S: Seconds = 60.0
"""A new swarm of full size knows itself by then."""

STORM_S = (30.0, 240.0)
CALM_S = (25.0, 60.0)
FAULT_EVERY_S = 12.0
OFF_S = (1.0, 90.0)
PARTITION_S = (5.0, 120.0)
LOOK_EVERY_S = 0.5

COLLECT = (50_000, 20, 100)
"""Cyclic garbage is rare here, and looking for it as often as usual takes a tenth of the time."""

WEIGHTS = {"crash": 3, "power": 2, "stop": 1, "partition": 2, "cut": 5, "silence": 3, "trainer": 1}
"""How often which fault is drawn."""


class Result(Struct, frozen=True):
    """How a run went. healings: seconds until everybody held fresh state of everybody, one a storm."""

    seed: int
    strategy: str
    trace: str
    failures: tuple[str, ...]
    faults: dict[str, int]
    healings: tuple[Seconds, ...]
    inputs: int
    messages: int
    connects: int
    segments: int
    bytes: int
    notes: dict[str, int]
    cpu_s: Seconds


def run(seed: int, *, peers: int = 16, minutes: float = 20.0, real: bool = False) -> Result:
    """Live through one seed."""
    began = time.process_time()
    usual = gc.get_threshold()
    gc.set_threshold(*COLLECT)
    folder = Path(tempfile.mkdtemp(prefix="p2ptrain-whole-", dir=_memory()))
    world = World(seed, peers, folder, real=real)
    try:
        with standing(world):
            story = Story(world, 60 * minutes)
            world.loop.run_until_complete(story.tell())
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        gc.set_threshold(*usual)
    return Result(
        seed,
        story.strategy,
        world.trace.hexdigest(),
        tuple(world.loop.failures),
        dict(story.faults),
        tuple(story.healings),
        world.inputs,
        world.messages,
        world.network.connects,
        world.network.segments,
        world.network.bytes,
        dict(world.notes),
        time.process_time() - began,
    )


def command(seed: int, peers: int, minutes: float, *, real: bool) -> str:
    """Return what repeats one run."""
    words = f"python -m tests.whole --first {seed} --seeds 1 --peers {peers} --minutes {minutes:g}"
    return words + " --real" * real


def _memory() -> str | None:
    """Return a folder that costs no disk, where there is one."""
    return "/dev/shm" if Path("/dev/shm").is_dir() else None


class Story:
    """Draws the weather of one world, and measures how it heals."""

    def __init__(self, world: World, seconds: Seconds) -> None:
        self.faults: Counter[str] = Counter()
        self.healings: list[Seconds] = []
        self.strategy = "gossip" if world.seed % 6 == 0 else "restart"
        self._world = world
        self._ends = seconds
        self._rng = Random(f"{world.seed} weather")
        self._returning: dict[Computer, None] = {}
        self._stopping: set[asyncio.Task[None]] = set()

    async def tell(self) -> None:
        """Live to the end."""
        world, loop = self._world, self._world.loop
        world.weather = copy_context()
        manifest = Manifest(name="whole", task="toy", strategy=self.strategy, seed=world.seed % 1000)
        try:
            await world.found(manifest)
        except P2PTrainError as error:
            loop.failures.append(f"the swarm could not be founded: {error.message}")
            return
        await self._see_everybody(SETTLE_S, "founding")
        while loop.time() < self._ends - CALM_S[1] and not loop.failures:
            await self._storm(min(loop.time() + self._rng.uniform(*STORM_S), self._ends - CALM_S[1]))
            await self._heal()
            self.healings.append(await self._see_everybody(HEALED_S, "healing"))
            await asyncio.sleep(min(self._rng.uniform(*CALM_S), max(0.0, self._ends - loop.time())))
        await asyncio.gather(*(computer.stop() for computer in world.up))

    # -- faults ------------------------------------------------------------------------------------

    async def _storm(self, until: Seconds) -> None:
        loop = self._world.loop
        while True:
            wait_s = self._rng.expovariate(1 / FAULT_EVERY_S)
            await asyncio.sleep(min(wait_s, until - loop.time()))
            if loop.time() >= until:
                return
            kind = self._rng.choices(list(WEIGHTS), list(WEIGHTS.values()))[0]
            self._strike(kind)

    def _strike(self, kind: str) -> None:
        world, rng, up = self._world, self._rng, self._world.up
        if kind in ("crash", "power", "stop", "trainer"):
            running = [one for one in up if one not in self._returning]
            if len(running) <= 2:
                return
            computer = rng.choice(running)
            if kind == "trainer":
                computer.kill_trainer()
            elif kind == "stop":
                self._leave(computer, self._stop_for_a_while(computer, rng.uniform(*OFF_S)))
            else:
                computer.crash(power=kind == "power")
                self._leave(computer, self._return(computer, rng.uniform(*OFF_S)))
        elif kind == "partition":
            self._divide(rng.uniform(*PARTITION_S))
        else:
            standing = list(world.network.open.values())
            if not standing:
                return
            world.network.cut(rng.choice(standing), silently=kind == "silence")
        self.faults[kind] += 1

    def _leave(self, computer: Computer, work: Coroutine[Any, Any, None]) -> None:
        self._returning[computer] = None
        task = asyncio.get_running_loop().create_task(work)
        self._stopping.add(task)
        task.add_done_callback(self._stopping.discard)

    async def _return(self, computer: Computer, after_s: Seconds) -> None:
        ends = self._world.loop.time() + after_s
        while self._world.loop.time() < ends and computer in self._returning:
            await asyncio.sleep(0.25)
        self._returning.pop(computer, None)
        computer.start()
        self.faults["restart"] += 1

    async def _stop_for_a_while(self, computer: Computer, after_s: Seconds) -> None:
        await computer.stop()
        await self._return(computer, after_s)

    def _divide(self, seconds: Seconds) -> None:
        computers, network = self._world.computers, self._world.network
        parts = self._rng.choice([2, 2, 3])
        for computer in computers:
            computer.side = self._rng.randrange(parts)
        network.path_changed()
        self._world.loop.call_later(seconds, self._unite, [one.side for one in computers])

    def _unite(self, sides: list[int]) -> None:
        computers = self._world.computers
        if any(sides) and sides == [one.side for one in computers]:
            for computer in computers:
                computer.side = 0
            self._world.network.path_changed()
            self.faults["heal"] += 1

    async def _heal(self) -> None:
        """End all faults: everybody is on, and reaches everybody."""
        self._unite([one.side for one in self._world.computers])
        self._returning.clear()
        while self._stopping:
            await asyncio.wait(list(self._stopping))

    # -- health ------------------------------------------------------------------------------------

    async def _see_everybody(self, within_s: Seconds, what: str) -> Seconds:
        world, loop = self._world, self._world.loop
        began = loop.time()
        while missing := world.stale(began):
            if loop.time() - began > within_s:
                found = f"{len(missing)} states are not fresh: {', '.join(missing[:4])}"
                loop.failures.append(f"{within_s:g} s after {what} at {began:.1f} s, {found}")
                break
            await asyncio.sleep(LOOK_EVERY_S)
        return loop.time() - began
