"""Are the owner's files good: the identity and the settings."""

import os
import stat
from pathlib import Path

from p2ptrain.control.api import Finding
from p2ptrain.core.errors import ConfigError, P2PTrainError
from p2ptrain.core.types import PeerId, short
from p2ptrain.daemon.config import Config, load_config
from p2ptrain.daemon.doctor.findings import broken, ok, skipped, warning
from p2ptrain.daemon.words import nickname
from p2ptrain.net.trust.identity import Identity


def identity(path: Path) -> tuple[Finding, PeerId | None]:
    """Look at the key of this node: there, whole, and nobody else's to read."""
    try:
        mode = stat.S_IMODE(path.stat().st_mode)
        peer = Identity.load(path).peer
    except FileNotFoundError:
        return skipped("identity", "none yet: `p2ptrain start` or `p2ptrain join` makes one"), None
    except P2PTrainError as error:
        return broken("identity", error), None
    except OSError as error:
        problem = ConfigError(f"{path} cannot be read: {error.strerror}", "check who owns its folder")
        return broken("identity", problem), None
    seen = f"{short(peer)}, {nickname(peer)}"
    if os.name == "posix" and mode & 0o077:
        repair = f"if others use this computer, make a new one: delete {path}, and join again"
        seen = f"{seen}; others could read the key (mode {mode:o}), now they cannot"
        return warning("identity", seen, repair), peer
    return ok("identity", seen), peer


def settings(path: Path) -> tuple[Finding, Config]:
    """Look at the settings; wrong ones count as none for the other checks."""
    try:
        config = load_config(path)
    except ConfigError as error:
        return broken("config", ConfigError(error.message, error.hint or f"correct {path}")), Config()
    return ok("config", str(path) if path.exists() else "defaults"), config
