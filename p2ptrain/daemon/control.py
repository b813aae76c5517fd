"""The control server: HTTP on loopback for this computer's owner, and for nobody else.

Web pages are kept out by Host and Origin, other users by the token in a file that only the owner reads.
"""

import asyncio
import hmac
import os
import secrets
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Protocol

import msgspec
from aiohttp import web

from p2ptrain import __version__
from p2ptrain.control.api import (
    TOKEN_BYTES,
    AdmitCommand,
    Checkup,
    Done,
    Endpoint,
    PauseCommand,
    Refused,
    Requests,
    Status,
    StopCommand,
)
from p2ptrain.core.errors import ControlError
from p2ptrain.net.trust.private_files import write_private

BODY_BYTES_MAX = 64 * 1024
BODY_S = 5.0
"""Our own client sends its few bytes at once."""


class Commands(Protocol):
    """What the daemon does for its owner."""

    def status(self) -> Status:
        """Show everything."""
        ...

    def stop(self, *, now: bool) -> Done:
        """Begin to end."""
        ...

    def pause(self, reason: str) -> Done:
        """Stop the work."""
        ...

    def resume(self) -> Done:
        """Go on."""
        ...

    def reload(self) -> Done:
        """Take what a command wrote into the swarm's folder."""
        ...

    def requests(self) -> Requests:
        """Show who asks to join."""
        ...

    def admit(self, code: str) -> Done:
        """Make a member of whoever shows that code; raises ControlError if nobody does."""
        ...

    async def checkup(self) -> Checkup:
        """Ask members how they see this node."""
        ...


class ControlServer:
    """Listens on a random port of 127.0.0.1 and writes `control.json`."""

    def __init__(self, commands: Commands, path: Path, started_at: str, started_by: str) -> None:
        self._commands = commands
        self._path = path
        self._token = secrets.token_urlsafe(TOKEN_BYTES)
        self._started = started_at, started_by
        self._port = 0
        application = web.Application(middlewares=[self._guard], client_max_size=BODY_BYTES_MAX)
        application.router.add_get("/v1/status", self._status)
        application.router.add_post("/v1/stop", self._stop)
        application.router.add_post("/v1/pause", self._pause)
        application.router.add_post("/v1/resume", self._resume)
        application.router.add_post("/v1/reload", self._reload)
        application.router.add_get("/v1/requests", self._requests)
        application.router.add_post("/v1/admit", self._admit)
        application.router.add_post("/v1/checkup", self._checkup)
        self._runner = web.AppRunner(application, access_log=None, shutdown_timeout=1.0)

    async def start(self) -> None:
        """Listen, and say where."""
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        self._port = self._runner.addresses[0][1]
        endpoint = Endpoint(os.getpid(), self._port, self._token, __version__, *self._started)
        write_private(self._path, msgspec.json.encode(endpoint))

    async def close(self) -> None:
        """Stop to listen, and take the file away."""
        self._path.unlink(missing_ok=True)
        await self._runner.cleanup()

    @web.middleware
    async def _guard(
        self, request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        if request.host not in (f"127.0.0.1:{self._port}", f"localhost:{self._port}"):
            return _refuse(403, "this address is not the daemon's")
        if "Origin" in request.headers or request.headers.get("Sec-Fetch-Site", "none") != "none":
            return _refuse(403, "web pages may not talk to the daemon")
        given = request.headers.get("Authorization", "")
        if not hmac.compare_digest(given.encode(errors="replace"), f"Bearer {self._token}".encode()):
            return _refuse(401, "wrong token", "only the owner of this home can control its daemon")
        return await handler(request)

    async def _status(self, _: web.Request) -> web.StreamResponse:
        return _answer(self._commands.status())

    async def _stop(self, request: web.Request) -> web.StreamResponse:
        command = await _read(request, StopCommand)
        return _answer(self._commands.stop(now=command.now))

    async def _pause(self, request: web.Request) -> web.StreamResponse:
        command = await _read(request, PauseCommand)
        return _answer(self._commands.pause(command.reason))

    async def _resume(self, _: web.Request) -> web.StreamResponse:
        return _answer(self._commands.resume())

    async def _reload(self, _: web.Request) -> web.StreamResponse:
        return _answer(self._commands.reload())

    async def _requests(self, _: web.Request) -> web.StreamResponse:
        return _answer(self._commands.requests())

    async def _admit(self, request: web.Request) -> web.StreamResponse:
        command = await _read(request, AdmitCommand)
        try:
            return _answer(self._commands.admit(command.code))
        except ControlError as error:
            return _refuse(404, error.message, error.hint)

    async def _checkup(self, _: web.Request) -> web.StreamResponse:
        return _answer(await self._commands.checkup())


async def _read(request: web.Request, type_: type[Any]) -> Any:
    try:
        async with asyncio.timeout(BODY_S):
            data = await request.read()
        return msgspec.json.decode(data or b"{}", type=type_)
    except TimeoutError:
        problem = f"it did not come within {BODY_S:g} s"
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        problem = str(error)
    refused = Refused(f"the command cannot be read: {problem}")
    raise web.HTTPBadRequest(text=msgspec.json.encode(refused).decode(), content_type="application/json")


def _answer(value: Status | Done | Requests | Checkup) -> web.Response:
    return web.Response(body=msgspec.json.encode(value), content_type="application/json")


def _refuse(status: int, message: str, hint: str = "") -> web.Response:
    body = msgspec.json.encode(Refused(message, hint))
    return web.Response(status=status, body=body, content_type="application/json")
