"""What training led to: a net with its weights, measured, shown, and written as files for others."""

import hashlib
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import msgspec
import safetensors
import torch
from msgspec import Struct
from safetensors.torch import save_file
from torch import Tensor, nn

from p2ptrain.core.errors import ConfigError
from p2ptrain.core.manifest import Settings
from p2ptrain.core.types import Seconds
from p2ptrain.learn.blame import own_code
from p2ptrain.learn.data import splits
from p2ptrain.learn.data.source import Source
from p2ptrain.learn.data.splits import Selection
from p2ptrain.learn.device import choose_all
from p2ptrain.learn.randomness import Randomness, mix
from p2ptrain.learn.task import Task, find
from p2ptrain.learn.weights import foreign
from p2ptrain.learn.weights.checkpoint import State, fingerprint, peek
from p2ptrain.learn.weights.evaluate import Evaluator, evaluating
from p2ptrain.learn.weights.vector import Vector
from p2ptrain.learn.wire import Setup

CARD_VERSION = 1


class Measured(Struct, frozen=True):
    """loss: mean over the examples; error: its standard error. accuracy: None where the task has none.

    seconds: of the measurement alone.
    """

    loss: float
    error: float
    accuracy: float | None
    examples: int
    seconds: Seconds


class Card(Struct, frozen=True, kw_only=True):
    """What must be known of a file of weights. Keys are only ever added. None: not known.

    settings: differences from the task's defaults. loss, error, accuracy: on test data.
    data_licence: terms of the data, for whoever passes the weights on. sha256: of the file.
    """

    card: int = CARD_VERSION
    file: str
    sha256: str
    date: str
    p2ptrain: str
    task: str
    task_version: str
    settings: Settings
    parameters: int
    swarm: str | None = None
    strategy: str | None = None
    members: int | None = None
    steps: int | None = None
    samples: int | None = None
    loss: float | None = None
    error: float | None = None
    accuracy: float | None = None
    examples: int | None = None
    unmeasured: str = ""
    data_licence: str = ""


@dataclass
class Result:
    """A net of a task. Its weights are those of the common start until others are loaded."""

    task: Task
    cfg: Any
    setup: Setup
    device: torch.device
    net: nn.Module
    vector: Vector
    step: int | None = None

    @property
    def parameters(self) -> int:
        """How many numbers training changes."""
        return self.vector.spec.trainable

    def load_file(self, path: Path) -> None:
        """Take weights from a file, our own or another's; see `foreign`."""
        foreign.fit(foreign.read(path), self.net)

    def load_checkpoint(self, folder: Path) -> None:
        """Take the weights that a trainer saved last; it may be at work.

        Raises:
            WeightsError: there are none, or none of this task.
        """
        same = fingerprint(self.task, self.cfg, self.setup.seed, self.vector.spec)
        self.load_state(peek(folder, same))

    def load_state(self, state: State) -> None:
        """Take the weights of a checkpoint."""
        self.vector.flat.copy_(state.tensors["weights"])
        for name, counter in self.vector.counters.items():
            counter.copy_(state.tensors[f"counter/{name}"])
        self.step = state.facts.step

    def measure(self, split: Literal["test", "validation"] = "test") -> Measured:
        """Measure on all examples of a split.

        Raises:
            ConfigError, ManifestError: the data is not here.
        """
        randomness = Randomness(self.device)
        with randomness.borrowed(), own_code("measuring fails"):
            examples = self._examples(split)
            began = time.perf_counter()
            evaluator = Evaluator(self.net, self.task, self.cfg, examples.take(slice(2)))
            randomness.reseed(mix("evaluate", self.setup.seed))
            score = evaluator.score(examples)
        accuracy = score.accuracy if score.accuracy == score.accuracy else None
        return Measured(score.loss, score.error, accuracy, len(examples), time.perf_counter() - began)

    def _examples(self, split: str) -> Selection:
        if split == "validation":
            return splits.split(self.task, self.cfg, self.device, self.setup).validation
        source = Source(splits.load(self.task, self.cfg, "test"), self.device, self.task.collate)
        return Selection(source, torch.arange(len(source)))

    def sample(self, prompt: str) -> Any:
        """Return what the task shows of the net.

        Raises:
            ConfigError: the task shows nothing.
        """
        if self.task.sample is None:
            raise ConfigError(f"the task {self.task.name} has nothing to show", "give it a function `sample`")
        with evaluating(self.net), own_code("`sample` fails"):
            return self.task.sample(self.net, self.cfg, prompt)

    def save(self, path: Path) -> str:
        """Write the weights under the net's own names; return the file's SHA-256.

        Raises:
            ConfigError: the file cannot be written.
        """
        state = self.net.state_dict()
        tensors = {name: value.cpu().clone() for name, value in state.items() if isinstance(value, Tensor)}
        part = path.with_name(f"{path.name}.part")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            save_file(tensors, part, {"format": "pt", "task": self.task.name, "version": self.task.version})
            with part.open("rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
            part.replace(path)
        except (OSError, safetensors.SafetensorError) as error:
            raise ConfigError(f"{path} cannot be written: {error}", "choose another place with -o") from None
        return digest


def write_card(card: Card, path: Path) -> None:
    """Write it as JSON.

    Raises:
        ConfigError: the file cannot be written.
    """
    try:
        path.write_bytes(msgspec.json.format(msgspec.json.encode(card), indent=2) + b"\n")
    except OSError as error:
        raise ConfigError(
            f"{path} cannot be written: {error.strerror}", "choose another place with -o"
        ) from None


def build(setup: Setup) -> Result:
    """Build the net of a setup's task at its common start.

    Raises:
        ManifestError: the task is not here, or cannot be built with these settings.
        ConfigError: the device is not here.
    """
    task = find(setup.task)
    cfg = task.configure(setup.task_config)
    device = choose_all(setup.device)[0]
    randomness = Randomness(device)
    with randomness.borrowed(), own_code("the model cannot be built"):
        randomness.reseed(mix("start", setup.seed))
        net = task.model(cfg).to(device)
    return Result(task, cfg, setup, device, net, Vector(net))
