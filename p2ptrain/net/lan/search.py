"""Members on the same local network find each other by multicast DNS. What they hear are hints, no more.

A record says nothing to strangers but that p2ptrain runs here (see `lan_record`): its names are random and
new whenever the network changes, and every hour. Who a found address belongs to, mutual TLS decides.
"""

import asyncio
import errno
import secrets
from collections import OrderedDict
from collections.abc import Callable, Sequence

from msgspec import Struct
from zeroconf import DNSQuestionType, Error, RecordUpdate, RecordUpdateListener, ServiceInfo, Zeroconf
from zeroconf.asyncio import AsyncServiceBrowser, AsyncZeroconf

from p2ptrain.core.types import PeerId, Seconds, SwarmId
from p2ptrain.net.addresses import NEAR_MAX, Address
from p2ptrain.net.channel.rates import TokenBucket
from p2ptrain.net.lan.interfaces import Interface, usable_interfaces
from p2ptrain.net.lan.open_swarm import Visible, describe, groups
from p2ptrain.net.lan.record import LanSeal
from p2ptrain.net.trust.certificates import Clock, wall_clock

SERVICE = "_p2ptrain._tcp.local."

HINTS_PER_S = 1.0
HINTS_BURST = 32
"""New hints that are acted upon: each may cost a handshake (guess)."""

LOOK_EVERY_S: Seconds = 5.0
"""How often the interfaces are looked at; takes 0.3 ms (measured, 2026-11-20)."""

RENEW_S: Seconds = 3600.0
"""How long one record is announced; far below `lan_record.AGE_MAX_S`."""

AGAIN_S: Seconds = 60.0
"""How often a member nearby is handed over again, in case it could not be reached (guess)."""

NAME_BYTES = 8
"""Of randomness in the names of a record: enough never to meet another."""

PORT_UNSAID = 9
"""In the readable part of a record; the real port is sealed. 9 is `discard`: whoever asks gets nothing."""

_FORBIDDEN = "this system does not let p2ptrain use UDP port 5353; allow it, or let others join by invite"
_REASONS = {
    errno.EADDRINUSE: "another program keeps UDP port 5353 to itself; end it, or let others join by invite",
    errno.EACCES: _FORBIDDEN,
    errno.EPERM: _FORBIDDEN,
    errno.ENODEV: "a network just went away",
}


class _Near(Struct):
    addresses: tuple[Address, ...]
    told: Seconds


class Lan(RecordUpdateListener):
    """Announces this node on the local networks, and tells of other members there.

    Args:
        swarm: whose members are looked for.
        peer: this node.
        port: TCP, that it listens on.
        found: told of a member and its addresses on a network that both share; again every `AGAIN_S`.
        say: told in words whenever the state changed.
        interfaces: says where to announce; asked every `look_every_s`.
        clock: records are dated by it.
        visible: what strangers may read, if the owner wants to be asked; asked as often.

    state: how it goes, in words for the owner.
    announced: whether others can find this node now.
    twin: where another node with the same identity runs, as members there say; None: none was heard.
    """

    def __init__(
        self,
        swarm: SwarmId,
        peer: PeerId,
        port: int,
        found: Callable[[PeerId, Sequence[Address]], None],
        say: Callable[[str], None],
        *,
        interfaces: Callable[[], tuple[Interface, ...]] = usable_interfaces,
        clock: Clock = wall_clock,
        look_every_s: Seconds = LOOK_EVERY_S,
        visible: Callable[[], Visible | None] = lambda: None,
    ) -> None:
        self.state = "starting"
        self.announced = False
        self.twin: Address | None = None
        self._own: set[Address] = set()
        self._swarm = swarm
        self._visible = visible
        self._seal = LanSeal(swarm)
        self._peer = peer
        self._port = port
        self._found = found
        self._say = say
        self._interfaces = interfaces
        self._clock = clock
        self._look_every_s = look_every_s
        self._here: tuple[Interface, ...] = ()
        self._near: OrderedDict[PeerId, _Near] = OrderedDict()
        self._hints = TokenBucket(HINTS_PER_S, HINTS_BURST)

    @property
    def near(self) -> int:
        """How many members were found on the networks of this moment."""
        return len(self._near)

    async def run(self) -> None:
        """Announce and listen until cancelled, whatever becomes of the network."""
        while True:
            self._here = self._interfaces()
            self._near.clear()
            if not self._here:
                self._tell("no local network")
                await asyncio.sleep(self._look_every_s)
                continue
            try:
                await self._announce()
                continue
            except OSError as error:
                self._tell(_REASONS.get(error.errno or 0) or error.strerror or "the network failed")
            except (Error, RuntimeError) as error:  # an interface went away while it was being used
                self._tell(f"this network does not let itself be searched ({type(error).__name__})")
            await asyncio.sleep(self._look_every_s)

    async def _announce(self) -> None:
        """Announce one record, until it is old or the interfaces are others."""
        loop = asyncio.get_running_loop()
        async with AsyncZeroconf(interfaces=groups(self._here)) as network:
            network.zeroconf.async_add_listener(self, None)
            browser = AsyncServiceBrowser(
                network.zeroconf, SERVICE, handlers=[_ignore], question_type=DNSQuestionType.QM
            )
            try:
                # Nobody has the same random name, so nobody is asked whether he minds.
                await network.async_register_service(self._record(), cooperating_responders=True)
                shown = self._visible()
                if shown is not None:
                    await network.async_register_service(
                        self._open_record(shown), cooperating_responders=True
                    )
                names = ", ".join(one.name for one in self._here)
                self.announced = True
                self._tell(f"{'shown to everyone' if shown else 'announced'} on {names}")
                whole = len(network.zeroconf.engine.senders) == len(self._here)
                ends = loop.time() + (RENEW_S if whole else AGAIN_S)  # an IPv6 address may be too new
                same = True
                while same and loop.time() < ends:
                    await asyncio.sleep(self._look_every_s)
                    self._tell_again(loop.time())
                    same = self._interfaces() == self._here and self._visible() == shown
            finally:
                self.announced = False
                await browser.async_cancel()

    def _open_record(self, shown: Visible) -> ServiceInfo:
        hosts = [host for one in self._here for host in one.addresses]
        return describe(shown, self._swarm, self._peer, self._port, hosts)

    def _record(self) -> ServiceInfo:
        hosts = [host for one in self._here for host in one.addresses]
        self._own |= {Address(host, self._port) for host in hosts}  # an old record may be heard late
        return ServiceInfo(
            SERVICE,
            f"{secrets.token_hex(NAME_BYTES)}.{SERVICE}",
            port=PORT_UNSAID,
            properties=self._seal.seal(self._peer, self._port, hosts, self._clock()),
            server=f"{secrets.token_hex(NAME_BYTES)}.local.",
        )

    # -- what is heard -----------------------------------------------------------------------------

    def async_update_records(self, zc: Zeroconf, now: float, records: list[RecordUpdate]) -> None:
        """Look at all that zeroconf hears; telling rubbish from members takes 2 µs (measured, 2026-11-20)."""
        for update in records:
            record = update.new
            text = getattr(record, "text", None)
            if isinstance(text, bytes) and record.name.endswith(SERVICE):
                self._hear(text, gone=record.is_expired(now))

    def _hear(self, text: bytes, *, gone: bool) -> None:
        record = self._seal.open(text, self._clock())
        if record is None:
            return
        if record.peer == self._peer:
            if record.addresses and self._own.isdisjoint(record.addresses):
                self.twin = None if gone else record.addresses[0]
            return
        if gone:
            self._near.pop(record.peer, None)
            return
        here = tuple(one for one in record.addresses if any(my.reaches(one.host) for my in self._here))
        known = self._near.get(record.peer)
        now = asyncio.get_running_loop().time()
        if not here or (known and known.addresses == here) or not self._hints.take(now):
            return
        self._near[record.peer] = _Near(here, now)
        self._near.move_to_end(record.peer)
        if len(self._near) > NEAR_MAX:
            self._near.popitem(last=False)
        self._found(record.peer, here)

    def _tell_again(self, now: Seconds) -> None:
        for peer, near in self._near.items():
            if now >= near.told + AGAIN_S:
                near.told = now
                self._found(peer, near.addresses)

    def _tell(self, state: str) -> None:
        if state != self.state:
            self.state = state
            self._say(state)


def _ignore(**_: object) -> None:
    """Leave the browser to ask: the answers come to the listener, all at once and unresolved."""
