"""Computers and TCP between them, in memory: what `socket.socket` makes while a simulation runs.

Real: order, back pressure, half-closed connections, resets, refused and unanswered connects, SYN that is sent
again after 1, 3, 7 ... s, ports, accept queues, a line shared by everything that a computer sends.
Not real: no byte is lost within a connection unless the path is gone; acknowledgements take no time and no
bandwidth; what waited for a path is sent again at a random moment within the time that the path was gone.
"""

import errno
import itertools
import os
import socket
from collections import deque
from random import Random
from typing import Any

from tests.whole.loop import HERE, READ, WRITE, Process, VirtualLoop

WINDOW_BYTES = 256 * 1024
"""So much may be sent and not yet read: send and receive buffer of a usual system together."""

BACKLOG = 128
SYN_WAIT_MAX_S = 64.0
"""Waiting for an answer to a SYN doubles from 1 s."""

RETRANSMIT_MAX_S = 60.0
LOOPBACK_S = 0.00005
FD_FIRST = 1 << 20
"""Numbers that no real file has."""

EPHEMERAL_FIRST = 32_768

FIN, RST = "fin", "rst"
Segment = bytes | str


class Host:
    """A computer: an address, ports, a line, power.

    upload: bytes per second. side: hosts of different sides do not reach each other.
    """

    def __init__(self, network: "Network", name: str, ip: str, upload: float) -> None:
        self.network = network
        self.name = name
        self.ip = ip
        self.upload = upload
        self.on = True
        self.side = 0
        self.listening: dict[int, MemorySocket] = {}
        self.line_free = 0.0
        self._ports = itertools.count(EPHEMERAL_FIRST)

    def port(self) -> int:
        """Return one that nobody used before."""
        return next(self._ports)


class Network:
    """All hosts, and the paths between them.

    open: connections that stand, by number; each is named by the socket that dialled.
    """

    def __init__(self, loop: VirtualLoop, rng: Random, latency_s: tuple[float, float]) -> None:
        self.loop = loop
        self.hosts: dict[str, Host] = {}
        self.open: dict[int, MemorySocket] = {}
        self.connects = self.segments = self.bytes = 0
        self._rng = rng
        self._latency_s = latency_s
        self._latencies: dict[tuple[str, str], float] = {}
        self._fds = itertools.count(FD_FIRST)
        self._stalled: dict[MemorySocket, float] = {}

    def fd(self) -> int:
        """Return a new number for a socket."""
        return next(self._fds)

    def latency(self, a: Host, b: Host) -> float:
        """Return seconds one way: the same for a pair in both directions, at all times."""
        if a is b:
            return LOOPBACK_S
        pair = (a.name, b.name) if a.name < b.name else (b.name, a.name)
        if pair not in self._latencies:
            low, high = self._latency_s
            self._latencies[pair] = low * (high / low) ** self._rng.random()
        return self._latencies[pair]

    def blocked(self, a: Host, b: Host) -> bool:
        """Say whether nothing gets from one to the other now."""
        return a is not b and not (a.on and b.on and a.side == b.side)

    def transmit(self, source: "MemorySocket", segment: Segment) -> None:
        """Bring something to the other end, in order, when the path is there."""
        target = source.peer
        if target is None or source.lost:
            return
        if source in self._stalled or self.blocked(source.host, target.host):
            self._stalled.setdefault(source, self.loop.time())
            source.stalled.append(segment)
            return
        host, now = source.host, self.loop.time()
        size = len(segment) if isinstance(segment, bytes) else 40
        self.segments += 1
        self.bytes += size
        if host is target.host:
            leaves = now
        else:
            leaves = host.line_free = max(now, host.line_free) + size / host.upload
        source.arrival = max(source.arrival, leaves + self.latency(host, target.host))
        self.loop.bring(source.arrival, target.arrive, segment)

    def path_changed(self) -> None:
        """Send again what waited for a path that is there now, each connection at its own time."""
        for source, since in list(self._stalled.items()):
            target = source.peer
            if target is None or source.lost:
                del self._stalled[source]
            elif not self.blocked(source.host, target.host):
                waited = min(self.loop.time() - since, RETRANSMIT_MAX_S)
                self.loop.call_later(0.2 + waited * self._rng.random(), self._send_again, source)

    def _send_again(self, source: "MemorySocket") -> None:
        target = source.peer
        if target is None or source not in self._stalled or self.blocked(source.host, target.host):
            return
        del self._stalled[source]
        waiting, source.stalled = source.stalled, []
        for segment in waiting:
            self.transmit(source, segment)

    def cut(self, dialler: "MemorySocket", *, silently: bool) -> None:
        """End a connection from outside, as a router does that forgets it: with resets, or with silence."""
        other = dialler.peer
        for one in (dialler, other):
            if one is not None and one.peer is not None:
                one.lost = True
                if not silently:
                    self.loop.call_later(self.latency(one.host, one.peer.host), one.arrive, RST)


class MemorySocket:
    """A TCP socket, non-blocking whatever is asked."""

    def __init__(self, family: int = -1, type: int = -1, proto: int = -1, fileno: int | None = None) -> None:
        process = HERE.get()
        if process is None or not process.alive:
            raise OSError(errno.EPERM, "no computer, no socket")
        if type not in (-1, socket.SOCK_STREAM) or fileno is not None:
            raise OSError(errno.ENETUNREACH, os.strerror(errno.ENETUNREACH))
        self.family = socket.AF_INET if family == -1 else family
        self.type = socket.SOCK_STREAM
        self.proto = max(0, proto)
        self.process = process
        self.host: Host = process.host
        self.network = self.host.network
        self.fd = self.network.fd()
        self.peer: MemorySocket | None = None
        self.lost = False
        self.stalled: list[Segment] = []
        self.arrival = 0.0
        self._closed = False
        self._name: tuple[str, int] = ("0.0.0.0", 0)
        self._queue: deque[MemorySocket] | None = None
        self._inbox: deque[bytes] = deque()
        self._error = 0
        self._connecting = self._connected = False
        self._ended = self._shut = False
        self._unread = 0
        process.sockets[self] = None
        self.network.loop.readiness.add(self)

    # -- what arrives ------------------------------------------------------------------------------

    def arrive(self, segment: Segment) -> None:
        """Take what the network brings."""
        if self.peer is None or not self.host.on:
            return
        if self._closed:
            if segment != RST:
                self.network.transmit(self, RST)
            return
        if isinstance(segment, bytes):
            self._inbox.append(segment)
        elif segment == FIN:
            self._ended = True
        else:
            self._error = errno.ECONNRESET
            self._inbox.clear()
        self._changed()

    def _changed(self) -> None:
        self.network.loop.readiness.changed(self)

    def ready(self) -> int:
        """Say for what it is ready: see `selectors`."""
        if self._error:
            return READ | WRITE
        if self._queue is not None:
            return READ if self._queue else 0
        readable = READ if self._inbox or self._ended else 0
        writable = self._connected and not self._connecting and self._room() > 0
        return readable | (WRITE if writable else 0)

    def _room(self) -> int:
        return WINDOW_BYTES - self._unread if not self._shut else 1

    # -- connecting --------------------------------------------------------------------------------

    def bind(self, address: Any) -> None:
        host, port = address[:2]
        if port and port in self.host.listening:
            raise OSError(errno.EADDRINUSE, os.strerror(errno.EADDRINUSE))
        self._name = (host or "0.0.0.0", port or self.host.port())

    def listen(self, backlog: int = BACKLOG) -> None:
        if self.host.listening.setdefault(self._name[1], self) is not self:
            raise OSError(errno.EADDRINUSE, os.strerror(errno.EADDRINUSE))
        self._queue = deque() if self._queue is None else self._queue

    def accept(self) -> "tuple[MemorySocket, tuple[str, int]]":
        self._raise_error()
        if not self._queue:
            raise BlockingIOError(errno.EAGAIN, "nobody called")
        made = self._queue.popleft()
        self._changed()
        return made, made.getpeername()

    def connect(self, address: Any) -> None:
        if self._connected:
            return
        self._connecting = True
        if self._name[1] == 0:
            self._name = (self.host.ip, self.host.port())
        self.network.connects += 1
        self._knock((tuple(address[:2]), 1.0))
        raise BlockingIOError(errno.EINPROGRESS, "in progress")

    def connect_ex(self, address: Any) -> int:
        try:
            self.connect(address)
        except OSError as error:
            return error.errno or 0
        return 0

    def _knock(self, attempt: tuple[tuple[str, int], float]) -> None:
        """Send a SYN, again and again: nobody answers while the path is gone."""
        if not self._connecting or self._closed or self.peer or not self.process.alive:
            return
        address, wait_s = attempt
        loop, now = self.network.loop, self.network.loop.time()
        if wait_s > SYN_WAIT_MAX_S:
            self._fail(errno.ETIMEDOUT)
            return
        local = address[0].startswith("127.") or address[0] == self.host.ip
        there = self.host if local else self.network.hosts.get(address[0])
        if there is not None and not self.network.blocked(self.host, there):
            loop.bring(now + self.network.latency(self.host, there), self._reach, (there, address))
        loop.bring(now + wait_s, self._knock, (address, 2 * wait_s))

    def _reach(self, where: tuple[Host, tuple[str, int]]) -> None:
        there, address = where
        if not self._connecting or self._closed or self.peer or self.network.blocked(self.host, there):
            return
        listener = there.listening.get(address[1])
        answered = self.network.loop.time() + self.network.latency(self.host, there)
        if listener is None:
            self.network.loop.bring(answered, self._fail, errno.ECONNREFUSED)
        elif listener._queue is not None and len(listener._queue) < BACKLOG:
            listener._queue.append(listener._answer(self, address))
            listener._changed()
            self.network.open[self.fd] = self
            self.network.loop.bring(answered, self._stand, True)

    def _answer(self, dialler: "MemorySocket", address: tuple[str, int]) -> "MemorySocket":
        token = HERE.set(self.process)
        made = MemorySocket(self.family)
        HERE.reset(token)
        made._name = (self.host.ip if dialler.host is not self.host else "127.0.0.1", address[1])
        made._connected = True
        made.peer, dialler.peer = dialler, made
        return made

    def _stand(self, connected: bool) -> None:
        self._connecting, self._connected = False, connected
        self._changed()

    def _fail(self, number: int) -> None:
        if self._connecting and not self._closed:
            self._error = number
            self._changed()

    # -- moving bytes ------------------------------------------------------------------------------

    def send(self, data: Any, flags: int = 0) -> int:
        self._raise_error()
        if self._shut or not self._connected:
            raise BrokenPipeError(errno.EPIPE, os.strerror(errno.EPIPE))
        room = self._room()
        if room <= 0:
            raise BlockingIOError(errno.EAGAIN, "no room")
        piece = bytes(data if len(data) <= room else memoryview(data)[:room])
        self._unread += len(piece)
        self.network.transmit(self, piece)
        return len(piece)

    def recv(self, size: int, flags: int = 0) -> bytes:
        if not self._inbox:
            self._raise_error()
            if self._ended:
                return b""
            raise BlockingIOError(errno.EAGAIN, "nothing came")
        if len(self._inbox) > 1:
            joined = b"".join(self._inbox)
            self._inbox.clear()
            self._inbox.append(joined)
        whole = self._inbox[0]
        if flags & socket.MSG_PEEK:
            return whole[:size]
        self._inbox.popleft()
        if len(whole) > size:
            self._inbox.append(whole[size:])
            whole = whole[:size]
        if self.peer is not None:
            blocked = self.peer._room() <= 0
            self.peer._unread -= len(whole)
            if blocked:
                self.peer._changed()
        return whole

    def recv_into(self, buffer: Any, nbytes: int = 0, flags: int = 0) -> int:
        data = self.recv(nbytes or len(buffer), flags)
        memoryview(buffer)[: len(data)] = data
        return len(data)

    def shutdown(self, how: int) -> None:
        if not self._connected or self._closed:
            raise OSError(errno.ENOTCONN, os.strerror(errno.ENOTCONN))
        if how != socket.SHUT_RD and not self._shut:
            self._shut = True
            self.network.transmit(self, FIN)
        if how != socket.SHUT_WR:
            self._ended = True
        self._changed()

    def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        for waiting in self._queue or ():
            waiting.close()
        if self._queue is not None and self.host.listening.get(self._name[1]) is self:
            del self.host.listening[self._name[1]]
        if self.peer is not None:
            self.network.open.pop(self.fd, None)
            self.network.open.pop(self.peer.fd, None)
            if self._inbox:
                self.network.transmit(self, RST)
            elif not self._shut and not self._error:
                self.network.transmit(self, FIN)
        self._inbox.clear()
        self.network.loop.readiness.drop(self)
        self.process.sockets.pop(self, None)

    def vanish(self) -> None:
        """Be gone without a word: the power failed."""
        self.lost = True
        self.close()
        self.lost = False

    def _raise_error(self) -> None:
        if self._error:
            raise OSError(self._error, os.strerror(self._error))

    # -- answers -----------------------------------------------------------------------------------

    def fileno(self) -> int:
        return -1 if self._closed else self.fd

    def getsockname(self) -> tuple[str, int]:
        return self._name

    def getpeername(self) -> tuple[str, int]:
        if self.peer is None:
            raise OSError(errno.ENOTCONN, os.strerror(errno.ENOTCONN))
        return self.peer._name

    def getsockopt(self, level: int, option: int, buflen: int = 0) -> int:
        if (level, option) == (socket.SOL_SOCKET, socket.SO_ERROR):
            error, self._error = self._error, 0
            return error
        return 0

    def setsockopt(self, *_: Any) -> None: ...

    def setblocking(self, flag: bool) -> None: ...

    def settimeout(self, value: float | None) -> None: ...

    def gettimeout(self) -> float:
        return 0.0

    def detach(self) -> int:
        raise OSError(errno.EINVAL, "a socket in memory has no number of its own")

    def __enter__(self) -> "MemorySocket":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __hash__(self) -> int:
        return self.fd


def socketpair(*_: Any) -> tuple[MemorySocket, MemorySocket]:
    """Make two sockets of one process that are connected with each other."""
    a, b = MemorySocket(), MemorySocket()
    a.peer, b.peer = b, a
    a._connected = b._connected = True
    return a, b


def kill(process: Process, *, power: bool) -> None:
    """End a process: the system closes its sockets, unless the power failed."""
    process.alive = False
    process.kept += process.tasks
    for child in process.children:
        child.kill()
    for one in list(process.sockets):
        if power:
            one.vanish()
        else:
            one.close()
