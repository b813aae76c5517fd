"""The house rules that a machine can check. Whoever breaks one changes it here first, with a reason."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]
PACKAGE = REPOSITORY / "p2ptrain"

FILE_LINES_MAX = 450
LONGER: dict[str, int] = {}
"""A ratchet: these numbers only go down."""

FUNCTION_LINES_MAX = 70

BANNED_WORDS = re.compile(r"\b(TODO|FIXME|XXX|HACK|dbg|breakpoint|set_trace)\b")
MACHINE_PATHS = re.compile(r"/(home|root|Users|tmp|work|mnt)/\w|[A-Z]:\\\\")

CATCHES_ALL: dict[str, int] = {"learn/blame.py": 1}
"""Where anything may be caught and not raised again, and how often: somebody's task raises what it likes."""

PURE = ("core", "strategies", "sim")
"""Equal inputs give equal effects here, on any machine and hash seed."""


def sources(*folders: str) -> list[Path]:
    found = [path for folder in folders for path in sorted((PACKAGE / folder).rglob("*.py"))]
    return found or sorted(PACKAGE.rglob("*.py"))


def name_of(path: Path) -> str:
    return path.relative_to(REPOSITORY).as_posix()


def parse(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def places(path: Path, nodes: Iterator[ast.AST]) -> list[str]:
    return [f"{name_of(path)}:{getattr(node, 'lineno', 0)}" for node in nodes]


every_source = pytest.mark.parametrize("path", sources(), ids=name_of)
every_pure_source = pytest.mark.parametrize("path", sources(*PURE), ids=name_of)


@every_source
def test_a_file_can_be_read_in_one_sitting(path: Path) -> None:
    lines = len(path.read_text(encoding="utf-8").splitlines())
    assert lines <= LONGER.get(name_of(path), FILE_LINES_MAX)


@every_source
def test_a_function_fits_on_a_screen(path: Path) -> None:
    functions = [
        node for node in ast.walk(parse(path)) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    ]
    long = [f.name for f in functions if (f.end_lineno or 0) - f.lineno + 1 > FUNCTION_LINES_MAX]
    assert long == []


@every_source
def test_nothing_is_left_for_later_and_nobodys_machine_is_named(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert BANNED_WORDS.findall(text) == []
    assert MACHINE_PATHS.findall(text) == []


@every_source
def test_only_the_command_line_prints(path: Path) -> None:
    if "cli" in path.parts:
        return
    calls = (n for n in ast.walk(parse(path)) if isinstance(n, ast.Call) and isinstance(n.func, ast.Name))
    assert places(path, (call for call in calls if call.func.id == "print")) == []  # type: ignore[attr-defined]


def swallows_all(handler: ast.AST) -> bool:
    if not isinstance(handler, ast.ExceptHandler) or ast.unparse(handler.body[-1]) == "raise":
        return False
    names = (
        [node.id for node in ast.walk(handler.type) if isinstance(node, ast.Name)] if handler.type else [""]
    )
    return any(name in ("", "Exception", "BaseException") for name in names)


@every_source
def test_errors_are_caught_by_their_names(path: Path) -> None:
    caught = places(path, (node for node in ast.walk(parse(path)) if swallows_all(node)))
    assert len(caught) == CATCHES_ALL.get(path.relative_to(PACKAGE).as_posix(), 0), caught


@every_pure_source
def test_nothing_depends_on_the_order_of_a_set_or_on_a_hash(path: Path) -> None:
    def unordered(node: ast.AST) -> bool:
        is_name = isinstance(node, ast.Name) and node.id in ("set", "frozenset", "hash", "id")
        return is_name or isinstance(node, ast.Set | ast.SetComp)

    assert places(path, (node for node in ast.walk(parse(path)) if unordered(node))) == []


@every_pure_source
def test_nothing_waits(path: Path) -> None:
    waiting = ast.AsyncFunctionDef | ast.AsyncFor | ast.AsyncWith | ast.Await
    assert places(path, (node for node in ast.walk(parse(path)) if isinstance(node, waiting))) == []


@every_pure_source
def test_time_and_randomness_are_given_not_taken(path: Path) -> None:
    """Only the processor's time is measured, for the summary of a simulation."""
    text = path.read_text(encoding="utf-8")
    assert re.findall(r"\btime\.(?!process_time\b)\w+|\bdatetime\b|^import random", text, re.MULTILINE) == []
    assert re.findall(r"\bRandom\(\)|SystemRandom|urandom|\bsecrets\.|\buuid\b", text) == []


@pytest.mark.parametrize("path", sources("core", "strategies"), ids=name_of)
def test_the_core_opens_no_files(path: Path) -> None:
    opened = (
        n
        for n in ast.walk(parse(path))
        if isinstance(n, ast.Name) and n.id in ("open", "input", "exec", "eval")
    )
    assert places(path, opened) == []


def test_every_limit_says_its_reason() -> None:
    body = parse(PACKAGE / "core" / "limits.py").body
    unexplained = [
        ast.unparse(limit)
        for limit, reason in zip(body, [*body[1:], ast.Pass()], strict=True)
        if isinstance(limit, ast.Assign)
        and not (isinstance(reason, ast.Expr) and isinstance(reason.value, ast.Constant))
        and not ast.unparse(limit).startswith(("KIB", "MIB", "GIB"))
    ]
    assert unexplained == []


def in_tests(*folders: str) -> list[Path]:
    return [path for name in folders for path in sorted((REPOSITORY / "tests" / name).rglob("*.py"))]


@pytest.mark.parametrize("path", in_tests("unit", "sim", "golden", "regressions"), ids=name_of)
def test_tests_neither_sleep_nor_mock(path: Path) -> None:
    found = re.findall(r"\bmock\b|\bMock\b|\bsleep\(", path.read_text(encoding="utf-8"))
    assert found == [] or path == Path(__file__)
