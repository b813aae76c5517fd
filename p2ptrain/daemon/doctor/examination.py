"""All checks, in the order in which people read them: with a daemon, and as far as it goes without one."""

import platform
import re
from pathlib import Path

from msgspec import Struct

from p2ptrain import __version__
from p2ptrain.control.api import Finding, Status
from p2ptrain.control.client import Client
from p2ptrain.core.errors import ConfigError, ControlError, P2PTrainError
from p2ptrain.core.manifest import Manifest
from p2ptrain.core.types import PeerId
from p2ptrain.daemon.config import Config
from p2ptrain.daemon.doctor import computer, files, graphics, lines, membership
from p2ptrain.daemon.doctor.findings import broken, failure, ok, skipped
from p2ptrain.daemon.doctor.probing import Probing
from p2ptrain.daemon.home import Home
from p2ptrain.daemon.swarms import SwarmFolder, Swarms
from p2ptrain.learn.process.equipment import Equipment, Wanted
from p2ptrain.net.addresses import is_public
from p2ptrain.net.trust.certificates import wall_clock

SCHEMA = 1

_HOST = re.compile(
    r"(?<![\w.])\d{1,3}(?:\.\d{1,3}){3}(?!\w|\.\d)"
    r"|(?<![\w:.])[0-9a-fA-F]*:[0-9a-fA-F:]*:[0-9a-fA-F:]*(?![\w:])"
)
"""What may be an IP address."""


class Diagnosis(Struct, frozen=True):
    """What `p2ptrain doctor --json` writes: no keys, invites or public addresses. Fields are only added."""

    schema: int
    at: str
    version: str
    system: str
    findings: tuple[Finding, ...]


def examine(home: Home) -> tuple[Finding, ...]:
    """Look at everything; takes up to 10 s, most of it while torch is imported and members are asked."""
    config_found, config = files.settings(home.config)
    daemon, client, status = _daemon(home)
    identity, here = files.identity(home.identity)
    folder, manifest, standing = _swarm(home, status, here)
    serves = status is not None and status.node.state == "serving"
    probing = None if serves else Probing(_wanted(config, manifest))
    try:
        found = [
            computer.versions(),
            computer.memory(),
            computer.disk(home.path),
            identity,
            config_found,
            daemon,
            standing,
            _port(config, folder, status),
            lines.internet(),
            lines.networks(config.network),
        ]
        outside = _outside(client, status)
    finally:
        equipment = probing.finish() if probing else None
    return (*found[:2], *_learning(config, manifest, equipment), *found[2:], *outside)


def diagnose(findings: tuple[Finding, ...]) -> Diagnosis:
    """Make of findings what may be shown to everybody."""
    shown = tuple(Finding(one.name, one.state, hide(one.seen), hide(one.repair)) for one in findings)
    at = wall_clock().isoformat(timespec="seconds")
    return Diagnosis(SCHEMA, at, __version__, platform.platform(), shown)


def hide(text: str) -> str:
    """Shorten public IP addresses, and write the owner's own folder as `~`."""
    folder = str(Path.home())
    return _HOST.sub(_shortened, text.replace(folder, "~") if len(folder) > 1 else text)


def _shortened(match: re.Match[str]) -> str:
    text = match[0]
    try:
        if not is_public(text):
            return text
    except ValueError:
        return text
    if ":" in text:
        return ":".join([*text.split(":")[:2], "x"])
    return ".".join([*text.split(".")[:2], "x", "x"])


def _daemon(home: Home) -> tuple[Finding, Client | None, Status | None]:
    if not home.control.exists():
        return skipped("daemon", "not running; with it also members are asked: `p2ptrain start`"), None, None
    try:
        client = Client(home.control)
        status = client.status()
    except ControlError as error:
        return broken("daemon", error), None, None
    words = f"pid {status.pid}, {status.node.state}: {status.node.reason}"
    if status.node.state == "recovering":
        return failure("daemon", words, "`p2ptrain logs` says what happened before"), client, status
    return ok("daemon", words), client, status


def _swarm(
    home: Home, status: Status | None, here: PeerId | None
) -> tuple[SwarmFolder | None, Manifest | None, Finding]:
    """Return the swarm that is trained, or that would be; and how this node stands in it."""
    swarms = Swarms(home.swarms)
    try:
        folder = swarms.find(status.swarm.id[:16] if status else None)
        return folder, folder.manifest(), membership.certificate(folder, here)
    except P2PTrainError as error:
        if swarms.all():
            return None, None, broken("swarm", error)
        return None, None, skipped("swarm", f"{error.message}; {error.hint}")


def _port(config: Config, folder: SwarmFolder | None, status: Status | None) -> Finding:
    try:
        kept = folder.record().port if folder else 0
    except P2PTrainError as error:
        return broken("port", error)
    listening = config.network.port or kept if status else None
    return lines.port(config.network, kept, listening)


def _wanted(config: Config, manifest: Manifest | None) -> Wanted:
    if manifest is None:
        return Wanted(config.training.device)
    return Wanted(config.training.device, manifest.task, manifest.task_config)


def _learning(config: Config, manifest: Manifest | None, found: Equipment | None) -> tuple[Finding, ...]:
    if found is None:
        return (skipped("gpu", "not needed: this node serves, it does not train"),)
    gpu = graphics.gpu(graphics.find_cards(), found, config.training.device)
    if manifest is None:
        return (gpu,)
    return gpu, membership.task(manifest, found), membership.data(manifest, found)


def _outside(client: Client | None, status: Status | None) -> tuple[Finding, ...]:
    if client is None or status is None:
        return ()
    try:
        return client.checkup().findings
    except ControlError as error:
        return (broken("members", ConfigError(f"they were not asked: {error.message}", error.hint)),)
