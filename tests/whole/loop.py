"""An event loop in virtual time, and processes on it that can be killed.

asyncio's own selector loop, transports and TLS run on it unchanged: only the selector, the clock, threads
and child processes are ours. Callbacks due at the same time run in the order in which they were asked for,
and tasks hash by number, so that a run depends on nothing but its seed.
"""

import asyncio
import itertools
import selectors
from asyncio.selector_events import BaseSelectorEventLoop
from collections.abc import Callable, Coroutine
from contextvars import ContextVar, copy_context
from heapq import heappop, heappush
from random import Random
from typing import Any

DISK_S = 0.0005
"""What a thread was asked for is done then (guess)."""

SAME_S = 1e-9
"""What lies so close together happens at the same time: a sum of seconds is rounded."""

READ, WRITE = selectors.EVENT_READ, selectors.EVENT_WRITE


class Process:
    """What an operating system ends at once: its callbacks never run again. Its sockets belong to a `Host`.

    kept: its tasks when it died; they live as long as the world: nothing of it runs at their deletion.
    """

    def __init__(self, host: Any, rng: Random) -> None:
        self.host = host
        self.rng = rng
        self.alive = True
        self.sockets: dict[Any, None] = {}
        self.kept: list[asyncio.Task[Any]] = []
        self.children: list[Any] = []

    @property
    def tasks(self) -> "list[asyncio.Task[Any]]":
        """Those that are not done."""
        return [task for task in asyncio.all_tasks() if getattr(task, "process", None) is self]

    def run(self, work: Coroutine[Any, Any, Any]) -> "asyncio.Task[Any]":
        """Start a task that belongs to this process, and everything that comes of it."""
        context = copy_context()
        context.run(HERE.set, self)
        return context.run(asyncio.get_running_loop().create_task, work)


HERE: ContextVar[Process | None] = ContextVar("here", default=None)
"""Whose code runs; None: the weather's."""


class Readiness:
    """A selector whose sockets say themselves when they are ready, and that lets time pass.

    waiting: numbers of sockets that may be ready.
    """

    def __init__(self) -> None:
        self.now = 0.0
        self._keys: dict[int, selectors.SelectorKey] = {}
        self._sockets: dict[int, Any] = {}
        self.waiting: dict[int, None] = {}

    def register(self, fileobj: Any, events: int, data: Any = None) -> selectors.SelectorKey:
        """Watch a socket, or the number of one."""
        fd = fileobj if isinstance(fileobj, int) else fileobj.fileno()
        key = self._keys[fd] = selectors.SelectorKey(fileobj, fd, events, data)
        self.waiting[fd] = None
        return key

    modify = register

    def unregister(self, fileobj: Any) -> selectors.SelectorKey:
        """Watch it no more."""
        return self._keys.pop(fileobj if isinstance(fileobj, int) else fileobj.fileno())

    def get_key(self, fileobj: Any) -> selectors.SelectorKey:
        """Say what it is watched for; KeyError: it is not."""
        return self._keys[fileobj if isinstance(fileobj, int) else fileobj.fileno()]

    def get_map(self) -> dict[int, selectors.SelectorKey]:
        """All that is watched."""
        return self._keys

    def close(self) -> None:
        """Forget everything."""
        self._keys.clear()

    def add(self, sock: Any) -> None:
        """Know a socket by its number."""
        self._sockets[sock.fd] = sock

    def drop(self, sock: Any) -> None:
        """A socket is closed; its number is never used again."""
        self._sockets.pop(sock.fd, None)
        self._keys.pop(sock.fd, None)

    def changed(self, sock: Any) -> None:
        """A socket may have become ready."""
        self.waiting[sock.fd] = None

    def ready(self) -> list[tuple[selectors.SelectorKey, int]]:
        """Return what is ready now."""
        found = []
        for fd in list(self.waiting):
            key, sock = self._keys.get(fd), self._sockets.get(fd)
            mask = sock.ready() & key.events if key and sock else 0
            if key and mask:
                found.append((key, mask))
            else:
                del self.waiting[fd]
        return found


class _Task(asyncio.Task):  # type: ignore[type-arg]
    """Sets of tasks have the same order in every run."""

    def __hash__(self) -> int:
        return self.number  # type: ignore[no-any-return, attr-defined]


class VirtualLoop(BaseSelectorEventLoop):
    """Time is what the timers say.

    failures: what nobody caught, in words: each is a defect.
    spawn: makes a child process of arguments, for the process that asks.
    tls: makes a TLS transport; None: asyncio's own.
    """

    def __init__(self) -> None:
        self.readiness = Readiness()
        self.failures: list[str] = []
        self.spawn: Callable[..., Any] | None = None
        self.tls: Callable[..., asyncio.Transport] | None = None
        self._timers: list[tuple[float, int, Any, Any]] = []
        self._numbers = itertools.count()
        super().__init__(self.readiness)  # type: ignore[call-arg]
        self._clock_resolution = SAME_S
        self.set_task_factory(self._make_task)  # type: ignore[arg-type]
        self.set_exception_handler(_note_failure)

    def time(self) -> float:
        """Return virtual seconds since the beginning."""
        return self.readiness.now

    def call_soon(self, callback: Any, *args: Any, context: Any = None) -> asyncio.Handle:
        """Run something next."""
        handle = asyncio.Handle(callback, args, self, context)
        self._ready.append(handle)  # type: ignore[attr-defined]
        return handle

    def call_at(self, when: float, callback: Any, *args: Any, context: Any = None) -> asyncio.TimerHandle:
        """Run something at a time."""
        timer = asyncio.TimerHandle(when, callback, args, self, context)
        heappush(self._timers, (when, next(self._numbers), timer, self))
        return timer

    def call_later(self, delay: float, callback: Any, *args: Any, context: Any = None) -> asyncio.TimerHandle:
        """Run something after a time."""
        return self.call_at(self.readiness.now + delay, callback, *args, context=context)

    def bring(self, when: float, arrive: Callable[[Any], None], what: Any) -> None:
        """Let something happen at a time that is nobody's code: cheaper than a timer."""
        heappush(self._timers, (when, next(self._numbers), arrive, what))

    def run_in_executor(self, executor: Any, func: Callable[..., Any], *args: Any) -> Any:
        """Do at once what a thread would do meanwhile."""
        future = self.create_future()
        try:
            result = func(*args)
        except Exception as error:  # noqa: BLE001
            self.call_later(DISK_S, _settle, future, future.set_exception, error)
        else:
            self.call_later(DISK_S, _settle, future, future.set_result, result)
        return future

    async def subprocess_exec(self, protocol_factory: Any, *args: Any, **_: Any) -> Any:
        """Start a child of the process that asks."""
        assert self.spawn is not None
        protocol = protocol_factory()
        return self.spawn(protocol, args), protocol

    def _make_ssl_transport(self, *args: Any, **kwargs: Any) -> Any:
        make = self.tls or super()._make_ssl_transport  # type: ignore[misc]
        return make(*args, **kwargs)

    def _make_task(self, loop: Any, work: Any, context: Any = None) -> "asyncio.Task[Any]":
        task = _Task.__new__(_Task)
        task.number = next(self._numbers)
        task.__init__(work, loop=loop, context=context)  # type: ignore[misc]
        task.process = HERE.get() if context is None else context.get(HERE)
        return task

    def _run_once(self) -> None:
        ready, timers, readiness = self._ready, self._timers, self.readiness  # type: ignore[attr-defined]
        if not ready and not readiness.waiting and not self._stopping:  # type: ignore[attr-defined]
            assert timers, "everything waits, and for nothing"
            readiness.now = max(readiness.now, timers[0][0])
        until, due = readiness.now + SAME_S, []
        while timers and timers[0][0] <= until:
            _, _, timer, what = heappop(timers)
            if what is not self:
                timer(what)
            elif not timer._cancelled:
                due.append(timer)
        if readiness.waiting:  # what came is read before what is due is done, as in any selector loop
            self._process_events(readiness.ready())  # type: ignore[attr-defined]
        ready.extend(due)
        for _ in range(len(ready)):
            handle = ready.popleft()
            if not handle._cancelled:
                process = handle._context.get(HERE)
                if process is None or process.alive:
                    handle._run()

    def _make_self_pipe(self) -> None:
        """No thread ever has to wake this loop."""

    def _close_self_pipe(self) -> None: ...

    def _timer_handle_cancelled(self, handle: asyncio.TimerHandle) -> None: ...


def _settle(future: "asyncio.Future[Any]", settle: Callable[[Any], None], value: Any) -> None:
    if not future.done():
        settle(value)


def _note_failure(loop: Any, context: dict[str, Any]) -> None:
    process = HERE.get()
    who = getattr(getattr(process, "host", None), "name", "?")
    loop.failures.append(f"{loop.time():.3f} s, {who}: {context['message']}: {context.get('exception')!r}")
