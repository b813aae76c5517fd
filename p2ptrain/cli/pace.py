"""How fast training with p2ptrain is, beside plain PyTorch loops: real daemons that exchange weights.

Two daemons with a trainer each, and two plain loops, on the same cores or the same GPU, in turns: while the
ones work, the others are paused. All that daemons and strategy do is counted against them: exchanges,
evaluations, checkpoints, and the time from `resume` to the last answer after `pause`.
"""

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from typing import TypeVar

import msgspec
import psutil
from msgspec import Struct
from msgspec.structs import replace

from p2ptrain.cli.fleet import CONFIG, Member, terminated_like_interrupted
from p2ptrain.cli.plain import Built, Stretch, Work
from p2ptrain.cli.quantities import parse_settings
from p2ptrain.control.client import Client
from p2ptrain.core import inputs
from p2ptrain.core.errors import P2PTrainError
from p2ptrain.core.types import Seconds
from p2ptrain.daemon.journal import events
from p2ptrain.daemon.swarms import Swarms
from p2ptrain.daemon.trainer import NICENESS

MEMBERS = 2
PATIENCE_S: Seconds = 900.0
LOOK_EVERY_S: Seconds = 0.5
ROUNDS_MIN = 3
"""A turn lasts at least as long as so many rounds of training: what happens once a round counts in full."""

TURN_MAX_S: Seconds = 90.0
SETTLE_S: Seconds = 1.0
"""After a pause, checkpoints and messages under way end before the loops begin."""

STEPS = 50
"""Between two exchanges, as is usual for gossip."""

TASK = "imagenet_synthetic"
NETS = {
    "cnn": ("model=cnn3", "size=32", "classes=10", "examples=10000"),
    "resnet20": ("model=resnet20", "size=32", "classes=10", "examples=10000"),
    "resnet50": ("model=resnet50", "size=224", "examples=4096"),
}
"""Pictures by chance in the sizes of CIFAR and ImageNet."""

USUAL = {False: ("cnn", "resnet20"), True: ("resnet50",)}
BATCHES = {False: 128, True: 256}
"""On a CPU what the papers of CIFAR use; on a GPU what fills it."""

T = TypeVar("T")


class Workload(Struct, frozen=True, kw_only=True):
    """What is trained. settings: of the task. steps: between two exchanges. precision: `f32`, `bf16`."""

    name: str
    settings: tuple[str, ...]
    steps: int
    device: str
    precision: str
    seconds: Seconds
    rounds: int


class Pace(Struct, frozen=True, kw_only=True):
    """Medians over turns; both members together.

    over_plain_loop: samples a second of the trainers over those of the loops; median of `ratios`, one a turn.
    cpu_over_plain_loop: the same for a second of the processors' time, daemons' included: what other programs
        take does not show in it.
    training_share, measuring_share: of the turns, in which trainers took steps, and measured losses.
    daemon_cpu: processor seconds of a daemon in a second of its turns.
    exchanges: averagings done in all turns, of `rounds_trained` rounds of training, both members together.
    utilisation, plain_utilisation: share of `peak_flops` that the nets' own operations take; the peak is
        of multiplying matrices, measured in the same processes.
    """

    over_plain_loop: float
    ratios: list[float]
    cpu_over_plain_loop: float
    samples_per_s: float
    plain_samples_per_s: float
    device: str
    precision: str
    layout: str
    threads: int
    parameters: int
    training_share: float
    measuring_share: float
    daemon_cpu: float
    turns: int
    turn_s: Seconds
    rounds_trained: float
    exchanges: int
    bytes_sent: int
    bytes_received: int
    flops_per_sample: float
    peak_flops: float
    utilisation: float
    plain_utilisation: float


class Figures(Struct, frozen=True):
    """over_plain_loop: the worst of all."""

    over_plain_loop: float
    models: dict[str, Pace]


class Window(Struct):
    """What one member did between `resume` and the end of the following `pause`."""

    began: Seconds
    samples: int = 0
    steps: int = 0
    seconds: Seconds = 0.0
    training: Seconds = 0.0
    measuring: Seconds = 0.0


def workloads(
    names: tuple[str, ...], seconds: Seconds, rounds: int, device: str, precision: str | None
) -> list[Workload]:
    """Return what the owner wants measured, or what suits this computer.

    Raises:
        ConfigError: the device is not here.
    """
    from p2ptrain.learn.device import choose

    chosen = choose(device)
    on_gpu = chosen.type == "cuda"
    return [
        Workload(
            name=name,
            settings=(*NETS[name], f"batch_size={BATCHES[on_gpu]}"),
            steps=STEPS,
            device=str(chosen),
            precision=precision or ("bf16" if on_gpu else "f32"),
            seconds=seconds,
            rounds=rounds,
        )
        for name in names or USUAL[on_gpu]
    ]


def measure(folder: Path, workload: Workload) -> Pace:
    """Let daemons and loops train in turns.

    Raises:
        P2PTrainError: one of them failed.
    """
    threads = max(1, (os.cpu_count() or 1) // MEMBERS)
    with terminated_like_interrupted(), contextlib.ExitStack() as stack:
        members = [Member(folder / f"peer{slot}", _config(workload, threads)) for slot in range(MEMBERS)]
        for member in members:
            stack.callback(member.stop)
        _found(members, workload)
        _pause(members)
        loops = [stack.enter_context(_loop(workload, threads, part)) for part in range(MEMBERS)]
        built = [_read(loop, Built) for loop in loops]
        rounds_s = ROUNDS_MIN * workload.steps * max(one.step_s for one in built)
        turn_s = max(workload.seconds, min(TURN_MAX_S, rounds_s))
        before, plain, cpu = _counts(members), [], []
        for turn in range(workload.rounds):
            if turn % 2:
                cpu.append(_train(members, turn_s))
            plain.append(_loops(loops, turn_s))
            if turn % 2 == 0:
                cpu.append(_train(members, turn_s))
        after = _counts(members)
        for member in members:
            member.stop()
    windows = [_windows(member) for member in members]
    workload = replace(workload, seconds=turn_s)
    done = [a - b for a, b in zip(after, before, strict=True)]
    return _pace(workload, threads, built, plain, list(zip(*windows, strict=True)), cpu, done)


def _config(workload: Workload, threads: int) -> str:
    lines = {"device": f'"{workload.device}"', "precision": f'"{workload.precision}"', "threads": threads}
    network = CONFIG.partition("[training]")[0]
    return network + "[training]\n" + "".join(f"{name} = {value}\n" for name, value in lines.items())


def _found(members: list[Member], workload: Workload) -> None:
    """Make a swarm, and wait until all of it trains and has exchanged weights."""
    words = ["--task", TASK, "--strategy", "gossip", "--parts", str(len(members)), "--seed", "1"]
    words += [word for pair in workload.settings for word in ("--set", pair)]
    words += ["--strategy-set", f"exchange_steps={workload.steps}", "--name", "bench"]
    first = members[0]
    first.command("swarm", "create", *words)
    first.start()
    invite = first.invite()
    for member in members[1:]:
        member.command("join", invite, "--yes")
        member.start()
    ends = time.monotonic() + PATIENCE_S
    while not all(member.look() and _exchanges(member) for member in members):
        if time.monotonic() > ends:
            raise P2PTrainError("the daemons did not exchange weights in time")
        time.sleep(LOOK_EVERY_S)


def _exchanges(member: Member) -> int:
    return member.status.notes.get("averaged", 0) if member.status else 0


def _counts(members: list[Member]) -> tuple[int, int, int]:
    """Exchanges so far, bytes sent and bytes received."""
    for member in members:
        member.look()
    sent, received = zip(*(member.bytes for member in members), strict=True)
    return sum(map(_exchanges, members)), sum(sent), sum(received)


def _train(members: list[Member], seconds: Seconds) -> tuple[Seconds, Seconds]:
    """Let the members train; return the processors' time of their daemons and of their trainers."""
    before = _cpu(members)
    for member in members:
        Client(member.home / "control.json").resume()
    time.sleep(seconds)
    _pause(members)
    after = _cpu(members)
    return after[0] - before[0], after[1] - before[1]


def _cpu(members: list[Member]) -> tuple[Seconds, Seconds]:
    """The processors' time that daemons and trainers have used."""
    used = [0.0, 0.0]
    for member in members:
        assert member.status is not None
        for kind, pid in enumerate((member.status.pid, member.status.trainer_pid)):
            times = psutil.Process(pid).cpu_times()
            used[kind] += times.user + times.system
    return used[0], used[1]


def _pause(members: list[Member]) -> None:
    for member in members:
        Client(member.home / "control.json").pause("a plain loop is being measured")
    time.sleep(SETTLE_S)


def _windows(member: Member) -> list[Window]:
    """Read what a member did, from the journal that it wrote; call it after its end."""
    journal = Swarms(member.home / "swarms").find(None).journal
    windows: list[Window] = []
    position, window, stopping = (0, 0), None, False
    for now, event in events(journal):
        match event:
            case inputs.Resumed():
                window, stopping = Window(now), False
            case inputs.Paused():
                stopping = True
            case inputs.TrainerLost():
                raise P2PTrainError(f"a trainer was lost: {event.reason}")
            case inputs.Evaluated() if window is not None:
                window.measuring += event.seconds
            case inputs.TrainerReady() | inputs.Trained():
                before, position = position, (event.step, event.samples)
                if window is None or isinstance(event, inputs.TrainerReady):
                    continue
                window.steps += position[0] - before[0]
                window.samples += position[1] - before[1]
                window.training += event.seconds
                if stopping:
                    window.seconds = now - window.began
                    windows.append(window)
                    window = None
    return windows


@contextlib.contextmanager
def _loop(workload: Workload, threads: int, part: int) -> "Iterator[subprocess.Popen[bytes]]":
    """Start a plain loop in a process of its own."""
    work = Work(
        task=TASK,
        task_config=parse_settings(workload.settings),
        device=workload.device,
        precision=workload.precision,
        threads=threads,
        niceness=NICENESS,
        part=part,
        parts=MEMBERS,
    )
    line = [sys.executable, "-m", "p2ptrain.cli.plain"]
    with subprocess.Popen(line, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        try:
            _write(process, msgspec.json.encode(work))
            yield process
        finally:
            process.kill()


def _write(process: "subprocess.Popen[bytes]", line: bytes) -> None:
    assert process.stdin is not None
    process.stdin.write(line + b"\n")
    process.stdin.flush()


def _read(process: "subprocess.Popen[bytes]", type_: type[T]) -> T:
    assert process.stdout is not None
    try:
        return msgspec.json.decode(process.stdout.readline(), type=type_)
    except msgspec.DecodeError:
        raise P2PTrainError("a plain loop failed, so there is nothing to compare with") from None


def _loops(loops: "list[subprocess.Popen[bytes]]", seconds: Seconds) -> list[Stretch]:
    """Let the loops train at the same time."""
    for loop in loops:
        _write(loop, str(seconds).encode())
    return [_read(loop, Stretch) for loop in loops]


def _pace(
    workload: Workload,
    threads: int,
    built: list[Built],
    plain: list[list[Stretch]],
    turns: list[tuple[Window, ...]],
    cpu: list[tuple[Seconds, Seconds]],
    done: list[int],
) -> Pace:
    if len(turns) != len(plain):
        raise P2PTrainError("the daemons did not train in every turn", "give them more --seconds")
    trained = [sum(window.samples / window.seconds for window in turn) for turn in turns]
    looped = [sum(one.samples / one.seconds for one in turn) for turn in plain]
    ratios = [ours / theirs for ours, theirs in zip(trained, looped, strict=True)]
    every = [window for turn in turns for window in turn]
    ours_s = sum(window.seconds for window in every)
    ours_cpu = sum(window.samples for window in every) / sum(map(sum, cpu))
    stretches = [one for turn in plain for one in turn]
    loops_cpu = sum(one.samples for one in stretches) / sum(one.cpu for one in stretches)
    on_cpu = workload.device == "cpu"
    peak = sum(one.peak for one in built) if on_cpu else max(one.peak for one in built)  # a GPU is shared
    flops = built[0].flops
    return Pace(
        over_plain_loop=median(ratios),
        ratios=ratios,
        cpu_over_plain_loop=ours_cpu / loops_cpu,
        samples_per_s=median(trained),
        plain_samples_per_s=median(looped),
        device=built[0].device,
        precision=workload.precision,
        layout=built[0].layout,
        threads=threads,
        parameters=built[0].parameters,
        turns=len(turns),
        turn_s=workload.seconds,
        training_share=sum(window.training for window in every) / ours_s,
        measuring_share=sum(window.measuring for window in every) / ours_s,
        daemon_cpu=sum(daemons for daemons, _ in cpu) / ours_s,
        rounds_trained=sum(window.steps for window in every) / workload.steps,
        exchanges=done[0],
        bytes_sent=done[1],
        bytes_received=done[2],
        flops_per_sample=flops,
        peak_flops=peak,
        utilisation=median(trained) * flops / peak,
        plain_utilisation=median(looped) * flops / peak,
    )
