"""What follows from what members saw of this node, and from what the router says. Pure."""

import ipaddress
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

from p2ptrain.control.api import Finding
from p2ptrain.core.types import PeerId, Seconds
from p2ptrain.daemon.doctor.findings import failure, ok, open_firewall, skipped, warning
from p2ptrain.net.addresses import Address, is_public
from p2ptrain.net.reach.dial_back import Outcome, Seen, agreed, proven
from p2ptrain.net.router.portmap import BEHIND_ANOTHER_HINT, PortState
from p2ptrain.net.speed import Speed

CLOCK_OFF_S: Seconds = 2.0
"""More than the slowest answer takes; computers that ask for the time are right within 0.1 s."""

CLOCK_WRONG_S: Seconds = 300.0
"""From here on logs of two computers cannot be compared at all, and certificates begin to matter (guess)."""

REPLACED_OFTEN = 5
"""Two computers with one identity take turns within seconds; otherwise it hardly ever happens (guess)."""


class Signs(NamedTuple):
    """What hints at a copy of this node's key.

    signed: how often something came that the key signed after this start, which nobody else can do.
    twin: where a record on the local network says that it runs.
    replaced: how often a member closed this node's connection for a newer one that this node did not make.
    """

    signed: int = 0
    twin: Address | None = None
    replaced: int = 0


Near = Callable[[str], bool]
"""Says whether an IP address is on a network of this computer, with no router between."""

NOBODY = "no member is connected that could be asked"

_WORDS = {
    Outcome.SILENT: "nothing answers there",
    Outcome.REFUSED: "the connection is refused there",
    Outcome.NO_ROUTE: "there is no way to it",
    Outcome.NOT_TLS: "something else answers there",
    Outcome.STRANGER: "another p2ptrain answers there",
    Outcome.TURNED_AWAY: "this node hung up",
    Outcome.UNSEEN: "reached through a relay, it does not see where this computer is",
    Outcome.FORBIDDEN: "it does not dial such addresses",
    Outcome.BUSY: "it was asked too often; try again in 10 s",
    Outcome.NO_ANSWER: "it did not say",
}

_KNOWING = (Outcome.SILENT, Outcome.REFUSED, Outcome.NO_ROUTE, Outcome.NOT_TLS, Outcome.STRANGER)
"""Outcomes that say something of the way to this computer."""


def clock(seen: Sequence[Seen]) -> Finding:
    """Compare clocks; the one that agrees best counts, because one member may be wrong or lie."""
    offsets = [one.offset_s for one in seen if one.offset_s is not None]
    if not offsets:
        return skipped("clock", f"not compared: {NOBODY}")
    off = min(offsets, key=abs)
    who = "a member's" if len(offsets) == 1 else f"{len(offsets)} members'"
    if abs(off) <= CLOCK_OFF_S:
        return ok("clock", f"within {CLOCK_OFF_S:.0f} s of {who}")
    words = f"{abs(off):.0f} s {'behind' if off > 0 else 'before'} {who}"
    make = failure if abs(off) > CLOCK_WRONG_S else warning
    return make("clock", words, "let the system set its clock by the network (NTP)")


class Tries(NamedTuple):
    """What members found who tried to dial this node.

    seen: by each. beyond: by those outside its networks. reached: whether one of those got through.
    """

    seen: Sequence[Seen]
    beyond: Sequence[Seen]
    reached: bool


def sort_out(seen: Sequence[Seen], near: Near, where: Callable[[PeerId], str]) -> Tries:
    """Tell neighbours from those who say how this node looks from outside.

    Args:
        seen: what members found.
        near: see `Near`.
        where: the IP address of a member, if it did not come in; empty: not known.
    """
    beyond = [one for one in seen if (host := one.via or where(one.peer)) and not near(host)]
    return Tries(seen, beyond, any(one.outcome is Outcome.REACHED for one in beyond))


def outside(tries: Tries, port: int, host: str, router: PortState, relays: int) -> Finding:
    """Say whether others can dial this node.

    Args:
        tries: what members found.
        port: that they tried.
        host: this computer's own address on the way out; empty: none.
        router: how it stands to this node.
        relays: at how many this node can be called.
    """
    if not tries.seen:
        return skipped("outside", f"not tried: {NOBODY}")
    if tries.reached:
        where = " and ".join(map(str, proven(tries.seen))) or f"port {port}"
        return ok("outside", f"a member outside this network dialled {where} and got through")
    failed = [one for one in tries.seen if one.outcome in _KNOWING]
    first = next((one for one in failed if one in tries.beyond), failed[0] if failed else None)
    if first is None and any(one.outcome is Outcome.REACHED for one in tries.seen):
        return skipped("outside", "only members on this network could try, and they got through")
    if first is None:
        return skipped("outside", f"nobody could tell: {_WORDS[tries.seen[0].outcome]}")
    where = f"{first.address or f'port {port}'}: {_WORDS[first.outcome]}"
    if first not in tries.beyond:
        return warning("outside", f"a member on this network cannot dial {where}", open_firewall(port))
    way = f"works through {relays} relays, slower" if relays else "it works where this node dials"
    return warning(
        "outside", f"nobody outside can dial {where}; {way}", _let_in(first.outcome, port, host, router)
    )


def _let_in(outcome: Outcome, port: int, host: str, router: PortState) -> str:
    if router.hint == BEHIND_ANOTHER_HINT:
        return "see router"
    if host and is_public(host):
        return open_firewall(port)
    if router.address is not None:
        return f"the router opened it, so something else stands before: {open_firewall(port)}"
    if outcome in (Outcome.NOT_TLS, Outcome.STRANGER):
        return f"set another `port` under [network], or forward TCP port {port} to {host} in the router"
    return f"forward TCP port {port} to {host or 'this computer'} in the router, or switch on UPnP there"


def mapping(router: PortState, tries: Tries) -> Finding:
    """Say how the router stands to this node."""
    if router.address is not None or (tries.reached and not router.hint):
        return ok("router", router.words)
    if tries.reached:
        return ok("router", f"{router.words}; but others get through, so nothing needs to be done")
    return warning("router", router.words, router.hint) if router.hint else skipped("router", router.words)


def provider(router: PortState, carrier: str, tries: Tries) -> Finding:
    """Say whether the provider lets customers share an address, so that no port can be opened (CGNAT).

    Args:
        router: how it stands to this node.
        carrier: this computer's own address if it is of a provider's network; empty: it is not.
        tries: what members found.
    """
    hint = "ask the provider for a public IPv4 address or for IPv6; until then members pass things on"
    if tries.reached:
        return ok("provider", "it lets others through to this node")
    if carrier:
        return warning("provider", f"this computer has the shared address {carrier} (CGNAT)", hint)
    if router.hint == BEHIND_ANOTHER_HINT:
        return warning("provider", "it, or a second router, stands before the router: see router", hint)
    outer = [one.host for one in agreed(tries.beyond) if ":" not in one.host]
    if router.address is None or not outer:
        return skipped("provider", "whether it shares addresses (CGNAT): no router and no member told")
    if outer[0] != router.address.host:
        told = f"the router has {router.address.host}, members see {outer[0]} (CGNAT, or a VPN)"
        return warning("provider", told, hint)
    return ok("provider", f"members see the router's own address, {outer[0]}")


def relay(names: Sequence[str], tries: Tries) -> Finding:
    """Say at which relays this node can be called."""
    if names:
        return ok("relay", f"others can call this node at {' and '.join(names)}")
    if tries.reached:
        return ok("relay", "none is needed")
    if not tries.beyond:
        return skipped("relay", "none; whether one is needed is not known: see outside")
    repair = "let a member that others reach run (`p2ptrain bootstrap` is one), or open a port: see outside"
    return warning("relay", "none: who cannot be dialled from here cannot reach this node", repair)


def peers(trips: Sequence[tuple[str, str, Seconds | None]], connected: int, known: int) -> Finding:
    """Say how far members are, and by which way: name, path, round trip in seconds or None."""
    if not connected:
        if not known:
            return skipped("peers", "this node knows no other member yet")
        repair = "look at `p2ptrain peers` for why; if it lasts, ask for a new invite"
        return warning("peers", f"none of {known} is connected", repair)
    words = [f"{name} {path or 'on its way'}, {_ms(trip)}" for name, path, trip in trips]
    seen = f"{connected} of {known} connected: {'; '.join(words)}"
    if any(trip is None for _, _, trip in trips):
        return warning("peers", seen, "if it stays so, that member or its line is overloaded")
    return ok("peers", seen)


def speed(found: Speed | None, name: str, why: str) -> Finding:
    """Say how fast the line to a member is; `why`: there was no measurement."""
    if found is None:
        return skipped("speed", why)
    moved = f"{found.moved / 1e6:.1f} MB moved"
    return ok(
        "speed", f"↑ {_mbit(found.up)}  ↓ {_mbit(found.down)} with {name}, beside other traffic; {moved}"
    )


def copies(signs: Signs) -> Finding:
    """Say whether another computer uses a copy of this node's key: members take the two for one."""
    repair = "stop it there; or here delete identity.pem and join again: two computers need two identities"
    if signs.signed:
        return failure("copies", "another p2ptrain signs with a copy of this identity.pem", repair)
    if signs.twin:
        return failure("copies", f"a p2ptrain with a copy of this identity.pem is at {signs.twin}", repair)
    if signs.replaced >= REPLACED_OFTEN:
        seen = f"members replaced this node's connection {signs.replaced} times for a newer one"
        return warning("copies", seen, f"if a copy of identity.pem is in use elsewhere: {repair}")
    return ok("copies", "nobody else was seen with this identity")


def lan(state: str, working: bool, found: int) -> Finding:
    """Say how the search on the local network goes: its words, whether it announces, how many it found."""
    if not working:
        return warning("lan", state, "others can join by invite all the same")
    if not found:
        return ok(
            "lan",
            f"{state}; if there should be some: same Wi-Fi, no guest network, no VPN, UDP port 5353 open",
        )
    return ok("lan", state)


def near_by(networks: Iterable[str]) -> Near:
    """Make the question of who is near, from networks as `192.168.1.0/24`."""
    here = [ipaddress.ip_network(network) for network in networks]

    def near(host: str) -> bool:
        ip = ipaddress.ip_address(host)
        return ip.is_loopback or any(ip in network for network in here)

    return near


def _ms(trip: Seconds | None) -> str:
    return "no answer" if trip is None else f"{1000 * trip:.0f} ms"


def _mbit(rate: float) -> str:
    mbit = rate * 8 / 1e6
    return f"{mbit:.0f} Mbit/s" if mbit >= 10 else f"{mbit:.1f} Mbit/s"
