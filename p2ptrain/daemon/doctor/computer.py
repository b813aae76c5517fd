"""Is this computer fit: versions, memory, disk."""

import sys
import tempfile
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Protocol

import psutil

from p2ptrain import __version__
from p2ptrain.control.api import Finding
from p2ptrain.core.limits import GIB, MIB
from p2ptrain.daemon.doctor.findings import failure, ok, warning

PYTHON_MIN = (3, 11, 5)
"""Before, TLS has a hole (CVE-2023-40217), see `net/trust/tls.py`."""

MEMORY_MIN = GIB
"""The daemon and a trainer with a small net take half of it (measured, 2026-11-20)."""

DISK_MIN = 2 * GIB
DISK_NEEDED = 200 * MIB
"""Below the first it may not last; below the second checkpoints of small nets fail already (guess)."""


class Usage(Protocol):
    """Of a disk, in bytes."""

    @property
    def free(self) -> int: ...


def versions(python: tuple[int, ...] = sys.version_info[:3]) -> Finding:
    """Look at Python, p2ptrain, and the torch that is installed; whether that runs is another check."""
    try:
        torch = version("torch")
    except PackageNotFoundError:
        torch = "missing"
    words = ".".join(map(str, python))
    seen = f"Python {words}, p2ptrain {__version__}, torch {torch}"
    if python < PYTHON_MIN:
        return failure(
            "versions", f"{seen}: this Python has a hole in its TLS", "install Python 3.11.5 or newer"
        )
    if torch == "missing":
        return failure("versions", seen, "install p2ptrain again: torch comes with it")
    return ok("versions", seen)


def memory(available: int | None = None) -> Finding:
    """Look at the memory that programs can have now."""
    total = psutil.virtual_memory().total
    available = psutil.virtual_memory().available if available is None else available
    seen = f"{_gb(available)} of {_gb(total)} available"
    if available < MEMORY_MIN:
        return warning(
            "memory", seen, "end other programs: below 1 GB the trainer may be killed by the system"
        )
    return ok("memory", seen)


def disk(home: Path, usage: Callable[[Path], Usage] = lambda path: psutil.disk_usage(str(path))) -> Finding:
    """Look at the room for checkpoints and weights, and whether files can be written at all."""
    place = next((path for path in (home, *home.parents) if path.exists()), home)
    try:
        free = usage(place).free
        if home.exists():
            with tempfile.TemporaryFile(dir=home) as file:
                file.write(bytes(64 * 1024))
    except OSError as error:
        seen = f"nothing can be written in {home}: {error.strerror}"
        return failure("disk", seen, "make room, check who owns the folder, or choose another with --home")
    seen = f"{_gb(free)} free for {home}"
    if free < DISK_NEEDED:
        return failure("disk", seen, "make room: checkpoints cannot be written")
    if free < DISK_MIN:
        return warning("disk", seen, "make room: a dozen sets of weights and a checkpoint must fit")
    return ok("disk", seen)


def _gb(count: int) -> str:
    return f"{count / 1e9:.1f} GB"
