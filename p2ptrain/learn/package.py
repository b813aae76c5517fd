"""The package that brings a task: what peers must have equal, since code never travels."""

import contextlib
import hashlib
import importlib.metadata
import sys
from importlib.metadata import entry_points
from pathlib import Path

from msgspec import Struct

from p2ptrain.learn.task import ENTRY_POINTS


class Package(Struct, frozen=True):
    """Whence a task comes.

    name: of the top package or module. version: of the distribution that installed it; empty: none did.
    sha256: over the names and contents of its Python files: equal for equal code, however it was installed.
    """

    name: str
    version: str
    sha256: str


def package_of(reference: str) -> Package:
    """Find the package that a task is in; it must have been loaded."""
    entry = next((entry for entry in entry_points(group=ENTRY_POINTS) if entry.name == reference), None)
    name = reference if ":" in reference else entry.value if entry else "p2ptrain"
    top = name.partition(":")[0].partition(".")[0]
    module = sys.modules.get(top)
    folders = [Path(folder) for folder in getattr(module, "__path__", ())]
    file = getattr(module, "__file__", None)
    files = [(path, path.relative_to(folder)) for folder in folders for path in folder.rglob("*.py")]
    if not folders and file:
        files = [(Path(file), Path(Path(file).name))]
    return Package(top, _version(top), _digest(files))


def _version(top: str) -> str:
    for distribution in [*importlib.metadata.packages_distributions().get(top, []), top]:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            return importlib.metadata.version(distribution)
    return ""


def _digest(files: list[tuple[Path, Path]]) -> str:
    digest = hashlib.sha256()
    for path, name in sorted(files, key=lambda named: named[1].as_posix()):
        content = hashlib.sha256(path.read_bytes().replace(b"\r\n", b"\n")).hexdigest()
        digest.update(f"{name.as_posix()} {content}\n".encode())
    return digest.hexdigest()
