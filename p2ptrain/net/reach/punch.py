"""TCP simultaneous open: two sides behind routers dial each other from the ports that they listen on.

Each side's first packet makes its own router expect the other's. That needs routers which keep the port of
what goes out, or give one port to all destinations, and which drop what they do not expect: 70 % of pairs
on the internet (arXiv 2510.27500). Tested on Linux. BSD and macOS have the same options and are untested.
Windows has no SO_REUSEPORT, and its SO_REUSEADDR would let any program take the port: not tried there.
"""

import asyncio
import contextlib
import ipaddress
import socket
from collections.abc import Iterable
from functools import partial

from p2ptrain.core.types import Seconds
from p2ptrain.net.addresses import Address, AddressFilter
from p2ptrain.net.channel.sockets import CAN_SHARE
from p2ptrain.net.reach.connector import connect
from p2ptrain.net.reach.race import race
from p2ptrain.net.ways import NoWayError, Opened, Path, WayError

PUNCH_S: Seconds = 3.0
"""97.6 % of successes come with the first attempt (arXiv 2510.27500), which takes one round trip."""

AGAIN_S: Seconds = 0.05
"""A router that answers with a reset may have done so just before the other side began."""

TARGETS_MAX = 4
"""Addresses that the other side may have: two routers with two of each kind (guess)."""


def bound(here: Address, there: Address) -> socket.socket:
    """Make a socket that begins its connection from a port that is listened on.

    Args:
        here: what is listened on; the host may be empty or that of all addresses.
        there: what it will be connected to.

    Raises:
        OSError: not on this system, or not to an address of that kind.
    """
    if not CAN_SHARE:
        raise NoWayError("this system cannot dial from the port that it listens on")
    family = socket.AF_INET6 if ":" in there.host else socket.AF_INET
    everywhere = not here.host or ipaddress.ip_address(here.host).is_unspecified
    made = socket.socket(family, socket.SOCK_STREAM)
    try:
        made.setblocking(False)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        made.bind(("" if everywhere else here.host, here.port))
    except BaseException:
        made.close()
        raise
    return made


async def punch(
    here: Address, targets: Iterable[Address], allow: AddressFilter, lasts_s: Seconds = PUNCH_S
) -> Opened:
    """Connect with whoever does the same from one of the targets. Who that is, TLS must tell.

    Args:
        here: what this node listens on.
        targets: where the other side is seen from outside.
        allow: says which addresses may be dialled.
        lasts_s: how long it is tried.

    Raises:
        NoWayError: there is no target, or this system cannot do it.
        WayError: it did not work.
    """
    good = [target for target in dict.fromkeys(targets) if allow(target)][:TARGETS_MAX]
    if not good:
        raise NoWayError("it is not known where the other side is seen")
    reasons: list[OSError] = []
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(lasts_s):
            attempts = [partial(_knock, here, target) for target in good]
            opened = await race(attempts, 0.0, reasons.append, lambda opened: opened.socket.close())
            if opened is not None:
                return opened
    raise reasons[0] if reasons else WayError("a router between the two let neither in")


async def _knock(here: Address, target: Address) -> Opened:
    """Dial again and again; only what cannot be done at all ends it."""
    while True:
        made = bound(here, target)
        with contextlib.suppress(OSError):
            return Opened(await connect(target, made), Path("punched", target))
        await asyncio.sleep(AGAIN_S)
