"""Is the GPU used: what the system has, what the driver can, and what torch makes of it."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

from msgspec import Struct

from p2ptrain.control.api import Finding
from p2ptrain.core.limits import GIB
from p2ptrain.core.types import Seconds
from p2ptrain.daemon.doctor.findings import failure, ok, skipped, warning
from p2ptrain.learn.process.equipment import Equipment, Stage

PCI = Path("/sys/bus/pci/devices")
KFD = Path("/dev/kfd")
"""There if the driver of an AMD card can compute."""

NVIDIA_SMI_S: Seconds = 3.0
"""It takes 0.1 s; with a broken driver it can hang."""

FREE_MIN = GIB
"""Below, small nets fail already: CUDA itself takes half of it (guess)."""

_WSL = Path("/usr/lib/wsl/lib/nvidia-smi")


class Cards(Struct, frozen=True):
    """What this computer has, whatever torch knows of it.

    nvidia: a card of theirs; amd: one that the system's driver can compute on.
    driver: NVIDIA's, as it calls itself; empty: none answers. cuda: the newest that it can.
    """

    nvidia: bool = False
    amd: bool = False
    driver: str = ""
    cuda: str = ""


def find_cards(pci: Path = PCI, kfd: Path = KFD) -> Cards:
    """Ask the system and NVIDIA's driver; takes 0.1 s where there is one."""
    driver, cuda = _ask_driver()
    return Cards(bool(driver) or "0x10de" in _display_vendors(pci), kfd.exists(), driver, cuda)


def read_driver(text: str) -> tuple[str, str]:
    """Read the versions of the driver and of the newest CUDA from what `nvidia-smi` prints."""
    driver = re.search(r"Driver Version: *([\d.]+)", text)
    cuda = re.search(r"CUDA[A-Z ]* Version: *([\d.]+)", text)
    return driver[1] if driver else "", cuda[1] if cuda else ""


def gpu(cards: Cards, found: Equipment, wanted: str = "auto") -> Finding:
    """Say whether training uses the best device that is here; `wanted`: as the settings have it."""
    if found.stage < Stage.DEVICES:
        return _not_looked_at(cards, found)
    if not found.chosen:
        return failure("gpu", found.trouble, "set `device` under [training] to one that is here, or to auto")
    kind = wanted.partition(":")[0]
    if kind == "cpu":
        return ok("gpu", f"not used: `device` is cpu; {found.chosen}")
    for one in found.gpus:
        if one.trouble:
            repair = f"{reinstall()}; if that does not help, update the driver"
            return failure("gpu", f"{one.name} does not compute: {one.trouble}", repair)
    if found.gpus:
        return _free(found)
    return _unused(cards, found)


def reinstall(prefix: str = sys.prefix, python: str = sys.executable) -> str:
    """Say which command puts the torch for this computer's GPU in place."""
    if f"{os.sep}uv{os.sep}tools{os.sep}" in prefix:
        return "`uv tool install --reinstall --torch-backend auto p2ptrain` installs the torch for it"
    uv = "" if shutil.which("uv") else "`pip install uv`, then "
    command = f"uv pip install --python {python} --reinstall-package torch --torch-backend auto torch"
    return f"{uv}`{command}` installs the torch for it"


def _not_looked_at(cards: Cards, found: Equipment) -> Finding:
    if found.trouble:
        return failure("gpu", f"torch does not run: {found.trouble}", reinstall())
    what = "torch" if found.stage is Stage.BEGUN else "the GPU's driver"
    return skipped("gpu", f"{what} did not answer in time; the computer may be busy")


def _free(found: Equipment) -> Finding:
    one = found.gpus[0]
    if not one.total_bytes:
        return ok("gpu", found.chosen)
    best = max(found.gpus, key=lambda gpu: gpu.free_bytes)
    seen = f"{found.chosen}; {best.free_bytes / GIB:.1f} GiB free"
    if best.free_bytes < FREE_MIN:
        return warning("gpu", seen, "end other programs that use it; `nvidia-smi` or `rocm-smi` lists them")
    return ok("gpu", seen)


def _unused(cards: Cards, found: Equipment) -> Finding:
    """Say why training takes the CPU."""
    seen = f"training on the {found.chosen}"
    if cards.nvidia and not cards.driver:
        return failure(
            "gpu", f"an NVIDIA card without its driver; {seen}", "install NVIDIA's driver, and restart"
        )
    if cards.nvidia and not found.cuda:
        return failure("gpu", f"an NVIDIA card, but this torch is for CPUs only; {seen}", reinstall())
    if cards.nvidia and _major(cards.cuda) < _major(found.cuda):
        old = (
            f"the NVIDIA driver {cards.driver} knows CUDA {cards.cuda}, this torch needs {found.cuda}; {seen}"
        )
        return failure("gpu", old, f"update the driver; or {reinstall()}")
    if cards.nvidia:
        why = found.trouble or "torch sees no card"
        return failure(
            "gpu",
            f"the NVIDIA card cannot be used: {why}; {seen}",
            "restart the computer, then look at `nvidia-smi`",
        )
    if cards.amd and not found.hip:
        repair = f"if ROCm knows this card: {reinstall()}"
        return warning("gpu", f"an AMD card, but this torch is without ROCm; {seen}", repair)
    return ok("gpu", f"none found; {seen}")


def _major(version: str) -> int:
    head = version.partition(".")[0]
    return int(head) if head.isdecimal() else 0


def _ask_driver() -> tuple[str, str]:
    program = shutil.which("nvidia-smi") or (str(_WSL) if _WSL.exists() else "")
    if not program:
        return "", ""
    try:
        done = subprocess.run(
            [program], capture_output=True, text=True, timeout=NVIDIA_SMI_S, errors="replace"
        )
    except (OSError, subprocess.TimeoutExpired):
        return "", ""
    return read_driver(done.stdout)


def _display_vendors(pci: Path) -> set[str]:
    """Return the makers of the display and 3D controllers, where the system lists them as files."""
    found = set()
    for device in pci.glob("*"):
        try:
            if (device / "class").read_text().startswith("0x03"):
                found.add((device / "vendor").read_text().strip())
        except OSError:
            continue
    return found
