"""What torch finds on this computer, as values told by `probe`. Free of torch."""

from enum import IntEnum

from msgspec import Struct


class Stage(IntEnum):
    """How far the look got: some tasks load gigabytes, some drivers hang."""

    BEGUN = 0
    TORCH = 1
    DEVICES = 2
    TASK = 3
    DATA = 4


class Gpu(Struct, frozen=True):
    """One device that torch sees. `trouble`: why it does not compute; empty: it does."""

    name: str
    total_bytes: int = 0
    free_bytes: int = 0
    trouble: str = ""


class Equipment(Struct, frozen=True):
    """What was found so far.

    torch: version; empty: it could not be imported.
    cuda, hip: the platform that this torch was built for; empty: without.
    gpus: CUDA, ROCm or Apple's.
    chosen: the device that training takes, in words.
    trouble: why torch does not run, or what it said while it looked for devices, or why the chosen one
        is not there.
    task_version: of the task that is here. task_trouble: why it cannot be loaded.
    examples: in the training data. data_trouble: why it cannot be read.
    """

    stage: Stage = Stage.BEGUN
    torch: str = ""
    cuda: str = ""
    hip: str = ""
    gpus: tuple[Gpu, ...] = ()
    chosen: str = ""
    trouble: str = ""
    task_version: str = ""
    task_trouble: str = ""
    examples: int = 0
    data_trouble: str = ""


class Wanted(Struct, frozen=True):
    """What to look at: the device of the owner's settings, and the swarm's task; none: empty."""

    device: str = "auto"
    task: str = ""
    task_config: dict[str, bool | int | float | str | None] = {}
