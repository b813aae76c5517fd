"""What a command loads: `status` must answer at once, and torch takes a second."""

import subprocess
import sys

import msgspec
import pytest

from tests.daemon.helpers import Home

LIST_MODULES = """
import sys
from p2ptrain.cli.main import main
sys.argv = ["p2ptrain", *sys.argv[1:]]
try:
    main()
except SystemExit:
    pass
import json
print(json.dumps(sorted(sys.modules)))
"""


def loaded(*words: object) -> list[str]:
    """Run a command line in a fresh process; return the modules that were there at its end."""
    line = [sys.executable, "-c", LIST_MODULES, *map(str, words)]
    done = subprocess.run(line, capture_output=True, text=True, check=True)
    return list(msgspec.json.decode(done.stdout.splitlines()[-1]))


@pytest.mark.parametrize(
    "words", ["--help", "--version", "start --help", "status", "stop", "pause", "resume", "logs", "peers"]
)
def test_daily_commands_load_neither_torch_nor_a_network(words: str, home: Home) -> None:
    modules = loaded(*words.split(), *([] if "--" in words else ["--home", home.home]))
    assert not {"torch", "numpy", "aiohttp", "cryptography"} & set(modules)


@pytest.mark.parametrize("words", ["invite --json", "swarm list", "swarm show", "swarm leave test --yes"])
def test_commands_about_swarms_do_not_load_torch(words: str, home: Home) -> None:
    home.found(task="digits")
    assert "torch" not in loaded(*words.split(), "--home", home.home)


def test_making_a_swarm_of_a_built_in_task_does_not_load_torch(home: Home) -> None:
    assert "torch" not in loaded("swarm", "create", "--task", "digits", "--home", home.home)


def test_simulating_the_toy_does_not_load_torch() -> None:
    assert "torch" not in loaded("simulate", "toy", "--for", "1s")
