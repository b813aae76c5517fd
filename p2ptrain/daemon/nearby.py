"""Members on the local network: found without anybody's help, unless the owner says no."""

import asyncio
import ipaddress
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from p2ptrain.control.api import Finding
from p2ptrain.core.types import PeerId, SwarmId
from p2ptrain.daemon.config import Network
from p2ptrain.daemon.doctor.findings import skipped
from p2ptrain.daemon.doctor.verdicts import lan
from p2ptrain.daemon.logs import logger
from p2ptrain.net.addresses import Address
from p2ptrain.net.lan.interfaces import Interface, usable_interfaces
from p2ptrain.net.transport import Transport

if TYPE_CHECKING:
    from p2ptrain.net.lan.open_swarm import Visible
    from p2ptrain.net.lan.search import Lan


def interfaces_of(config: Network) -> tuple[Interface, ...]:
    """Return the interfaces that the owner's settings leave for the local network."""
    return usable_interfaces(str(ipaddress.ip_address(config.listen)) if config.listen else "")


class Nearby:
    """Runs the search on the local network beside a transport, and hands it what was found.

    Args:
        config: where to look, and whether.
        swarm: whose members are looked for.
        peer: this node.
        transport: meets them.
        title: name and task of the swarm.
        is_visible: says whether strangers may read the title and ask to join.
    """

    def __init__(
        self,
        config: Network,
        swarm: SwarmId,
        peer: PeerId,
        transport: Transport,
        title: tuple[str, str],
        is_visible: Callable[[], bool],
    ) -> None:
        self._config = config
        self._title = title
        self._is_visible = is_visible
        self._swarm = swarm
        self._peer = peer
        self._transport = transport
        self._lan: Lan | None = None
        self._task: asyncio.Task[None] | None = None

    @property
    def state(self) -> str:
        """How it goes, in words."""
        if not self._config.lan:
            return "not searched: `lan = false` under [network]"
        if self._is_only_here:
            return "not searched: `listen` under [network] allows this computer only"
        if self._lan is None:
            return "not searched yet"
        return f"{self._lan.state}; members found there: {self._lan.near}"

    @property
    def twin(self) -> Address | None:
        """Where somebody with this node's identity was heard; None: nowhere."""
        return self._lan.twin if self._lan else None

    def finding(self) -> Finding:
        """Say for `p2ptrain doctor` how it goes."""
        if self._lan is None:
            return skipped("lan", self.state)
        return lan(self.state, self._lan.announced, self._lan.near)

    def start(self) -> None:
        """Begin; the transport listens already."""
        if not self._config.lan or self._is_only_here:
            return
        from p2ptrain.net.lan.search import Lan  # zeroconf takes 4 MB

        self._lan = Lan(
            self._swarm,
            self._peer,
            self._transport.port,
            self._transport.meet,
            partial(logger.info, "local network: %s"),
            interfaces=partial(interfaces_of, self._config),
            visible=self._shown,
        )
        self._task = asyncio.create_task(self._lan.run())

    def stop(self) -> None:
        """Begin to take back what was announced."""
        if self._task is not None:
            self._task.cancel()

    async def close(self) -> None:
        """Wait until nobody is told of this computer any more: 0.3 s."""
        self.stop()
        if self._task is not None:
            await asyncio.gather(self._task, return_exceptions=True)

    def _shown(self) -> "Visible | None":
        from p2ptrain.net.lan.open_swarm import Visible

        return Visible(*self._title) if self._is_visible() else None

    @property
    def _is_only_here(self) -> bool:
        listen = self._config.listen
        return bool(listen) and ipaddress.ip_address(listen).is_loopback
