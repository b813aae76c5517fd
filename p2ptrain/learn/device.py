"""Where the net lives: the best device that is here, or the one that was asked for."""

import torch

from p2ptrain.core.errors import ConfigError
from p2ptrain.core.limits import GIB


def choose(name: str = "auto") -> torch.device:
    """Return a device that works: CUDA (also ROCm), else Apple's MPS, else the CPU.

    Args:
        name: `auto`, `cpu`, `mps`, `cuda` or `cuda:<number>`.

    Raises:
        ConfigError: there is no such device here.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    kind, _, number = name.partition(":")
    counts = {"cpu": 1, "mps": int(torch.backends.mps.is_available()), "cuda": torch.cuda.device_count()}
    if kind not in counts or not (number or "0").isdecimal():
        raise ConfigError(f"`{name}` is not a device", "choose auto, cpu, mps, cuda or cuda:<number>")
    if int(number or 0) >= counts[kind]:
        here = ", ".join(kind for kind, count in counts.items() if count)
        raise ConfigError(f"the device `{name}` is not here; here is: {here}", "choose `auto`")
    return torch.device(kind) if kind != "cuda" else torch.device(kind, int(number or 0))


def choose_all(names: str = "auto") -> list[torch.device]:
    """Return the devices that train together, the first one with the engine.

    Args:
        names: as for `choose`, or several with commas between them, or `cuda:all`.

    Raises:
        ConfigError: one is not here, or is named twice (`cpu,cpu` is for tests).
    """
    if names == "cuda:all":
        names = ",".join(f"cuda:{number}" for number in range(max(1, torch.cuda.device_count())))
    devices = [choose(name.strip()) for name in names.split(",")]
    gpus = [device for device in devices if device.type != "cpu"]
    if len(set(gpus)) < len(gpus) or 0 < len(gpus) < len(devices) or len({one.type for one in devices}) > 1:
        raise ConfigError(f"`{names}` cannot train together", "name GPUs of one kind, each once")
    return devices


def describe(device: torch.device) -> str:
    """Return a line for people."""
    if device.type == "cuda":
        properties = torch.cuda.get_device_properties(device)
        return f"{properties.name}, {properties.total_memory / GIB:.0f} GiB"
    if device.type == "mps":
        return "Apple GPU"
    threads = torch.get_num_threads()
    return f"CPU, {threads} thread{'s' if threads > 1 else ''}"
