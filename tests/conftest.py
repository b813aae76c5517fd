"""Rules for all tests: unit tests and simulations open no socket and read no clock; torch takes one core."""

import os
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

settings.register_profile("house", deadline=None, print_blob=True)
settings.load_profile("house")

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("P2PTRAIN_OFFLINE", "1")

HERE = Path(__file__).parent
OURS = (HERE, HERE.parent / "p2ptrain")
SEALED = (HERE / "unit", HERE / "sim", HERE / "regressions", HERE / "golden")
"""Tests in these folders see neither network nor time."""

NETWORK = ("socket.__new__", "socket.connect", "socket.bind", "socket.getaddrinfo")
CLOCKS = ("time", "time_ns", "monotonic", "monotonic_ns", "perf_counter", "perf_counter_ns", "sleep")

_sealed = False


def _no_network(event: str, _: tuple[Any, ...]) -> None:
    if _sealed and event in NETWORK:
        raise AssertionError(f"a unit test or a simulation may not use the network ({event})")


sys.addaudithook(_no_network)


def _no_clock(name: str, real: Callable[..., Any]) -> Callable[..., Any]:
    """Refuse a clock to our own code; pytest and its plugins go on using it."""

    def guarded(*arguments: Any) -> Any:
        asking = Path(sys._getframe(1).f_code.co_filename)
        if any(asking.is_relative_to(folder) for folder in OURS):
            raise AssertionError(f"a unit test or a simulation may not use time.{name} ({asking.name})")
        return real(*arguments)

    return guarded


@pytest.fixture(autouse=True)
def sealed(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Forbid network and wall clock in unit tests and simulations."""
    global _sealed
    if not any(request.path.is_relative_to(folder) for folder in SEALED):
        yield
        return
    for name in CLOCKS:
        monkeypatch.setattr(time, name, _no_clock(name, getattr(time, name)))
    _sealed = True
    yield
    _sealed = False


@pytest.fixture(autouse=True)
def one_core() -> None:
    """Keep torch from taking all cores: several tests run side by side."""
    torch = sys.modules.get("torch")
    if torch is not None and torch.get_num_threads() != 1:
        torch.set_num_threads(1)
