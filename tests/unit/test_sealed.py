"""The walls of tests/conftest.py hold: what they forbid fails with its reason."""

import socket
import time
from collections.abc import Callable

import pytest


@pytest.mark.parametrize(
    "use",
    [
        socket.socket,
        lambda: socket.create_connection(("192.0.2.1", 9)),
        lambda: socket.getaddrinfo("a.invalid", 9),
    ],
    ids=["a socket", "a connection", "a name"],
)
def test_a_unit_test_cannot_use_the_network(use: Callable[[], object]) -> None:
    with pytest.raises(AssertionError, match="may not use the network"):
        use()


@pytest.mark.parametrize("clock", ["time", "monotonic", "perf_counter", "time_ns"])
def test_a_unit_test_cannot_read_the_clock(clock: str) -> None:
    with pytest.raises(AssertionError, match=f"may not use time.{clock}"):
        getattr(time, clock)()
