"""Homes for daemons, and nothing left of them."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.daemon.helpers import Home

MakeHome = Callable[..., Home]


@pytest.fixture(autouse=True, scope="session")
def own_tasks() -> Iterator[None]:
    """Let everyone find the tasks beside this file, and no command the owner's real home."""
    here = str(Path(__file__).parent)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", here)
        patch.syspath_prepend(here)
        patch.delenv("P2PTRAIN_HOME", raising=False)
        yield


@contextmanager
def homes_in(folder: Path) -> Iterator[MakeHome]:
    """Make homes, and end what was started in them, whatever became of the test."""
    made: list[Home] = []

    def make(name: str = "home") -> Home:
        made.append(Home(folder / name))
        return made[-1]

    try:
        yield make
    finally:
        for home in made:
            home.end()


@pytest.fixture
def homes(tmp_path: Path) -> Iterator[MakeHome]:
    """Make homes: `homes("first")`."""
    with homes_in(tmp_path) as make:
        yield make


@pytest.fixture
def home(homes: MakeHome) -> Home:
    """One home, nothing in it yet."""
    return homes()
