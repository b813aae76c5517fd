"""`task check`: what is wrong with a task, one sentence each, and what it costs where it is right."""

from collections.abc import Callable
from typing import NamedTuple

from msgspec import Struct

from p2ptrain import __version__
from p2ptrain.core.errors import P2PTrainError
from p2ptrain.core.manifest import Settings
from p2ptrain.learn.check import learning, making, running
from p2ptrain.learn.check.bench import Bench, Finding
from p2ptrain.learn.device import choose, describe
from p2ptrain.learn.package import package_of

__all__ = ["Checked", "Figures", "Finding", "check"]


class Part(NamedTuple):
    """One check. `needs`: names of those without which it makes no sense."""

    name: str
    act: Callable[[Bench], str]
    needs: tuple[str, ...] = ()


PARTS = (
    Part("task", making.check_task),
    Part("config", making.check_config, ("task",)),
    Part("model", making.check_model, ("config",)),
    Part("size", making.check_travel, ("model",)),
    Part("train data", making.check_train_data, ("config",)),
    Part("test data", making.check_test_data, ("config",)),
    Part("division", making.check_division, ("train data", "test data")),
    Part("loss", learning.check_loss, ("model", "division")),
    Part("layers", learning.check_layers, ("loss",)),
    Part("gradient", learning.check_gradient, ("loss",)),
    Part("optimizer", learning.check_optimizer, ("gradient",)),
    Part("learning", learning.check_learning, ("optimizer",)),
    Part("evaluation", running.check_evaluation, ("loss",)),
    Part("seed", running.check_seed, ("size", "optimizer", "evaluation")),
    Part("resume", running.check_resume, ("seed",)),
    Part("weights", running.check_weights, ("learning", "seed")),
    Part("sample", running.check_sample, ("model",)),
    Part("speed", running.check_speed, ("seed",)),
)

UNUSABLE = ("broken", "skipped")
"""What needs a check in one of these states is not looked at."""


class Figures(Struct, frozen=True, kw_only=True):
    """What a task costs here, and what peers must have equal.

    megabytes: that each codec sends a round (10^6 bytes).
    memory_bytes: of this process; of the card where one is used.
    train_digest, test_digest: digests of some examples of either split.
    """

    device: str
    parameters: int = 0
    layers: int = 0
    megabytes: dict[str, float] = {}
    samples_per_s: float | None = None
    memory_bytes: int | None = None
    task: str = ""
    version: str = ""
    package: str = ""
    package_version: str = ""
    package_sha256: str = ""
    p2ptrain: str = __version__
    train_examples: int = 0
    train_digest: str = ""
    test_examples: int = 0
    test_digest: str = ""


class Checked(Struct, frozen=True):
    """All that was found."""

    reference: str
    findings: tuple[Finding, ...]
    figures: Figures

    @property
    def broken(self) -> bool:
        """Whether something must be repaired."""
        return any(finding.state == "broken" for finding in self.findings)


def check(
    reference: str,
    settings: Settings | None = None,
    device: str = "auto",
    tell: Callable[[Finding], None] = lambda _: None,
) -> Checked:
    """Look at a task from all sides; takes some seconds. What is broken keeps later checks from running.

    Args:
        reference: name of the task, or `package.module:attribute`.
        settings: differences from the defaults of its config.
        device: as in the owner's settings.
        tell: hears of each finding at once.

    Raises:
        ConfigError: the device is not here.
    """
    bench = Bench(reference, settings or {}, choose(device))
    findings: list[Finding] = []
    with bench.randomness.borrowed():
        for part in PARTS:
            for finding in _look(part, bench, {one.name for one in findings if one.state in UNUSABLE}):
                findings.append(finding)
                tell(finding)
    return Checked(reference, tuple(findings), _figures(bench))


def _look(part: Part, bench: Bench, unusable: set[str]) -> list[Finding]:
    missing = [need for need in part.needs if need in unusable]
    if missing:
        return [Finding(part.name, "skipped", f"not looked at: `{missing[0]}` comes first")]
    bench.notes.clear()
    try:
        found = Finding(part.name, "ok", part.act(bench))
    except P2PTrainError as error:
        return [Finding(part.name, "broken", error.message, error.hint)]
    return [found, *(Finding(part.name, "note", said, fix) for said, fix in bench.notes)]


def _figures(bench: Bench) -> Figures:
    known = bench.figures
    shown = {name: known[name] for name in Figures.__struct_fields__ if name in known}
    if hasattr(bench, "task"):
        package = package_of(bench.reference)
        shown |= {
            "task": bench.task.name,
            "version": bench.task.version,
            "package": package.name,
            "package_version": package.version,
            "package_sha256": package.sha256,
        }
    return Figures(device=describe(bench.device), **shown)
