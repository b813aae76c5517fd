"""What front ends see of a daemon: the answers of its control server. Keys are only ever added."""

from typing import Literal

from msgspec import Struct

from p2ptrain.core.view import NodeView

SCHEMA = 1

TOKEN_BYTES = 32


class Endpoint(Struct, frozen=True):
    """Where the daemon's control server is: the content of `control.json`."""

    pid: int
    port: int
    token: str
    version: str
    started_at: str
    started_by: str


class SwarmView(Struct, frozen=True):
    """The swarm that is being trained."""

    id: str
    name: str
    task: str
    strategy: str
    slot: int
    parts: int
    codec: str
    issuer: bool
    certificate_expires: str = ""


class PeerTraffic(Struct, frozen=True):
    """Bytes of payload to and from one peer, and how it is connected."""

    peer: str
    path: str
    bytes_sent: int
    bytes_received: int


class Status(Struct, frozen=True):
    """Everything about a running daemon. Times are UTC, ISO 8601; bytes since the start.

    lan: how the search on the local network goes, in words.
    outside: whether others reach this node, in words; router: what the home's router does for that.
    """

    schema: int
    version: str
    pid: int
    trainer_pid: int | None
    home: str
    peer: str
    name: str
    started_at: str
    uptime_s: float
    addresses: tuple[str, ...]
    swarm: SwarmView
    node: NodeView
    bytes_sent: int
    bytes_received: int
    traffic: tuple[PeerTraffic, ...]
    notes: dict[str, int]
    log: str
    lan: str = ""
    outside: str = ""
    router: str = ""


class Done(Struct, frozen=True):
    """A command was carried out, in words."""

    message: str


class Refused(Struct, frozen=True):
    """A command was not carried out: why, and what to do."""

    message: str
    hint: str = ""


class StopCommand(Struct, frozen=True):
    """End the daemon. `now`: without waiting for a checkpoint."""

    now: bool = False


class PauseCommand(Struct, frozen=True):
    """Stop the work until `resume`."""

    reason: str = "paused by its owner"


class JoinRequest(Struct, frozen=True):
    """Somebody on the local network who asks to join. `code`: as on that screen."""

    code: str
    peer: str
    name: str
    address: str
    waiting_s: float


class Requests(Struct, frozen=True):
    """Who asks to join. `visible`: whether anybody can."""

    visible: bool
    requests: tuple[JoinRequest, ...] = ()


class AdmitCommand(Struct, frozen=True):
    """Make a member of whoever shows that code."""

    code: str


class Finding(Struct, frozen=True):
    """One thing that `p2ptrain doctor` looked at.

    state: `skipped`: it could not be looked at, or there is nothing to look at.
    seen: in words. repair: a sentence or a command; empty: nothing needs to be done.
    """

    name: str
    state: Literal["ok", "warning", "failure", "skipped"]
    seen: str
    repair: str = ""


class Checkup(Struct, frozen=True):
    """What only a running daemon can find out: it asks other members, which takes seconds."""

    findings: tuple[Finding, ...]
