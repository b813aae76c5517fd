"""What a command loads: `status` must answer at once, and torch takes a second."""

import subprocess
import sys

import msgspec

from tests.daemon.helpers import Home

LIST_MODULES = """
import sys
from p2ptrain.cli.main import main
for line in sys.argv[1:]:
    sys.argv = ["p2ptrain", *line.split()]
    try:
        main()
    except SystemExit:
        pass
import json
print(json.dumps(sorted(sys.modules)))
"""
HEAVY = {"torch", "numpy", "aiohttp", "cryptography"}


def loaded(*lines: str) -> set[str]:
    """Run command lines in a fresh process; return the modules that were there at its end."""
    command = [sys.executable, "-c", LIST_MODULES, *lines]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return set(msgspec.json.decode(done.stdout.splitlines()[-1]))


def test_help_loads_nothing_heavy() -> None:
    assert not HEAVY & loaded("--help", "--version", "start --help", "logs --help")


def test_daily_commands_load_neither_torch_nor_a_network(home: Home) -> None:
    at = f"--home {home.home}"
    assert not HEAVY & loaded(
        *(f"{at} {name}" for name in ("status", "stop", "pause", "resume", "peers", "logs"))
    )


def test_commands_about_swarms_do_not_load_torch(home: Home) -> None:
    at = f"--home {home.home}"
    words = (
        "swarm create --task digits",
        "swarm list",
        "swarm show",
        "invite --json",
        "swarm leave digits --yes",
    )
    modules = loaded(*(f"{at} {line}" for line in words))
    assert "cryptography" in modules
    assert "torch" not in modules
    assert home.call("swarm", "list", "--json").json == {"swarms": []}


def test_simulating_the_toy_does_not_load_torch() -> None:
    assert "torch" not in loaded("simulate toy --for 1s")
