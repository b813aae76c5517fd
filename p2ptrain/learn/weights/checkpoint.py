"""All that a trainer needs to go on exactly where it stopped, in one file that survives a kill at any moment.

A checkpoint is a safetensors file: the tensors, and in the metadata a JSON of `Facts` and a SHA-256
over both. The one before is kept, and used when the latest cannot be read.
"""

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import msgspec
import safetensors
import torch
from msgspec import Struct
from safetensors.torch import save_file
from torch import Tensor

from p2ptrain.core.errors import WeightsError
from p2ptrain.learn.task import Task
from p2ptrain.learn.training.optimizer import Number
from p2ptrain.learn.weights.vector import Spec

LATEST = "checkpoint.safetensors"
PREVIOUS = "checkpoint.previous.safetensors"
REFUSED = "checkpoint.refused.safetensors"
PART = "checkpoint.part"


class Facts(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a checkpoint holds besides tensors.

    fingerprint: of the swarm's task; only the same one goes on from here.
    memory: the strategy's own.
    numbers: what the optimiser remembers besides tensors.
    """

    fingerprint: str
    step: int
    lr_scale: float
    memory: bytes
    numbers: dict[str, Number]


@dataclass(frozen=True)
class State:
    """A checkpoint in memory; nobody changes its tensors."""

    facts: Facts
    tensors: dict[str, Tensor]


def fingerprint(task: Task, cfg: Any, seed: int, spec: Spec) -> str:
    """Return what two runs must have equal so that one can go on from the other's checkpoint."""
    parts = (task.name, task.version, msgspec.to_builtins(cfg), seed, spec)
    return hashlib.sha256(msgspec.json.encode(parts)).hexdigest()


class Checkpoints(Protocol):
    """Keeps the latest state."""

    def save(self, state: State) -> None:
        """Keep a state in place of the one before. Raises WeightsError if that cannot be done."""
        ...

    def load(self, fingerprint: str) -> tuple[State | None, list[str]]:
        """Return the latest usable state, and sentences about those that are not usable."""
        ...


class MemoryCheckpoints:
    """The checkpoints of a simulated peer: they outlive its engine."""

    def __init__(self) -> None:
        self._state: State | None = None

    def save(self, state: State) -> None:
        """Keep a state."""
        self._state = state

    def load(self, fingerprint: str) -> tuple[State | None, list[str]]:
        """Return the state, if it is of the same task."""
        fits = self._state is not None and self._state.facts.fingerprint == fingerprint
        return (self._state if fits else None), []


class FolderCheckpoints:
    """The checkpoints of a peer in a folder of its own."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    def save(self, state: State) -> None:
        """Write beside the latest, and take its place when all is on the disk."""
        part, latest = self._folder / PART, self._folder / LATEST
        text = msgspec.json.encode(state.facts)
        metadata = {"facts": text.decode(), "sha256": _digest(text, state.tensors)}
        try:
            save_file(state.tensors, part, metadata)
            _flush(part)
            if latest.exists():
                latest.replace(self._folder / PREVIOUS)
            part.replace(latest)
            _flush_folder(self._folder)
        except (OSError, safetensors.SafetensorError) as error:
            raise WeightsError(
                f"the checkpoint could not be written: {error}", "free some disk space"
            ) from error

    def load(self, fingerprint: str) -> tuple[State | None, list[str]]:
        """Read the latest, else the one before. A file that cannot be used is set aside, not deleted."""
        notices: list[str] = []
        for path in (self._folder / LATEST, self._folder / PREVIOUS):
            if not path.exists():
                continue
            try:
                return _read(path, fingerprint), notices
            except WeightsError as error:
                path.replace(self._folder / REFUSED)
                notices.append(f"{error.message}; it is kept as {REFUSED}")
        return None, notices


def peek(folder: Path, fingerprint: str) -> State:
    """Read the latest usable state and leave all files as they are; a trainer may be writing.

    Raises:
        WeightsError: there is none of this task.
    """
    trouble = WeightsError("nothing was trained and saved yet", "`p2ptrain start` trains")
    for path in (folder / LATEST, folder / PREVIOUS, folder / LATEST):
        try:
            return _read(path, fingerprint)
        except WeightsError as error:
            trouble = error if path.exists() else trouble
    raise trouble


def _read(path: Path, fingerprint: str) -> State:
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118 - no mapping
        text = metadata["facts"].encode()
        facts = msgspec.json.decode(text, type=Facts)
    except (OSError, KeyError, safetensors.SafetensorError, msgspec.DecodeError, UnicodeError) as error:
        raise WeightsError(f"the checkpoint {path.name} cannot be read: {error}") from error
    if metadata.get("sha256") != _digest(text, tensors):
        raise WeightsError(f"the checkpoint {path.name} is damaged")
    if facts.fingerprint != fingerprint:
        raise WeightsError(f"the checkpoint {path.name} is of another task or another version of it")
    return State(facts, tensors)


def _digest(text: bytes, tensors: dict[str, Tensor]) -> str:
    """Hash what a checkpoint says, so that a disk that forgets is noticed."""
    digest = hashlib.sha256(text)
    for name in sorted(tensors):
        tensor = tensors[name]
        digest.update(f"\0{name}\0{tensor.dtype}\0{tuple(tensor.shape)}\0".encode())
        digest.update(tensor.contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _flush(path: Path) -> None:
    with path.open("rb+") as file:
        os.fsync(file.fileno())


def _flush_folder(folder: Path) -> None:
    """Make the renames last. Windows cannot open folders, and orders renames itself."""
    if os.name == "nt":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
