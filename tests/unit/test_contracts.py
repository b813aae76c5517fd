"""Data flows one way: the direction of imports is a rule that is checked, not a hope."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import p2ptrain.strategies
from p2ptrain.strategies import names

REPOSITORY = Path(__file__).parents[2]
HEAVY = ("torch", "asyncio", "aiohttp", "cryptography", "numpy", "safetensors", "socket", "ssl", "logging")


def python(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, check=False
    )


def test_imports_keep_the_contracts_of_pyproject() -> None:
    done = python(
        "import sys; from importlinter.cli import lint_imports; sys.exit(lint_imports(no_cache=True))"
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("modules", ["p2ptrain.core.node, p2ptrain.strategies", "p2ptrain.sim.scenario"])
def test_a_node_in_a_fresh_process_loads_nothing_heavy(modules: str) -> None:
    """Proof by running: what import-linter cannot see, such as an import in a library, shows here."""
    load_all = f"from p2ptrain.strategies import load; [load(name) for name in {names()}]"
    done = python(f"import {modules}, sys; {load_all}; print(*[m for m in {HEAVY} if m in sys.modules])")
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == []


@pytest.mark.parametrize("name", names())
def test_a_strategy_knows_the_core_and_itself_only(name: str) -> None:
    """Also of strategies that came after the contract was written."""
    (folder,) = p2ptrain.strategies.__path__
    files = [*Path(folder).glob(f"{name}.py"), *Path(folder).glob(f"{name}/**/*.py")]
    assert files
    nodes = [node for file in files for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))]
    imported = [node.module or "" for node in nodes if isinstance(node, ast.ImportFrom)]
    imported += [alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names]
    for module in imported:
        if module.startswith("p2ptrain"):
            assert f"{module}.".startswith(("p2ptrain.core.", f"p2ptrain.strategies.{name}.")), module
