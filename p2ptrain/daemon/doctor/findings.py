"""Makes findings: every check ends with one of these."""

import shutil
import sys

from p2ptrain.control.api import Finding
from p2ptrain.core.errors import P2PTrainError


def ok(name: str, seen: str) -> Finding:
    """It is as it should be."""
    return Finding(name, "ok", seen)


def warning(name: str, seen: str, repair: str) -> Finding:
    """It works, but worse than it could, or not for long."""
    return Finding(name, "warning", seen, repair)


def failure(name: str, seen: str, repair: str) -> Finding:
    """Something does not work."""
    return Finding(name, "failure", seen, repair)


def skipped(name: str, why: str) -> Finding:
    """Nobody can tell, or there is nothing to tell."""
    return Finding(name, "skipped", why)


def broken(name: str, error: P2PTrainError) -> Finding:
    """An error that says by itself what to do."""
    return failure(name, error.message, error.hint)


def open_firewall(port: int) -> str:
    """Say how to let others in at a port, with the firewall that is here."""
    if sys.platform == "win32":
        rule = f"New-NetFirewallRule -DisplayName p2ptrain -Direction Inbound -Protocol TCP -LocalPort {port}"
        return f"allow it in an administrator's PowerShell: `{rule} -Action Allow`"
    if sys.platform == "darwin":
        return "let python accept connections: System Settings, Network, Firewall, Options"
    if shutil.which("ufw"):
        return f"allow it in the firewall: `sudo ufw allow {port}/tcp`"
    if shutil.which("firewall-cmd"):
        return (
            f"allow it in the firewall: `sudo firewall-cmd --permanent --add-port={port}/tcp` and `--reload`"
        )
    return f"allow TCP port {port} in this computer's firewall"
