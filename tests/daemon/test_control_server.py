"""Who may control a daemon: its owner with the token, no web page, nobody else; and what garbage gets.

`pytest -m attack` of this file are the 11 cases that were found before the code was written.
"""

import asyncio
import logging
import os
import re
import stat
import subprocess
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import psutil
import pytest

from p2ptrain.control.api import Done, Endpoint, Status
from p2ptrain.control.client import Client
from p2ptrain.core.errors import ControlError
from p2ptrain.daemon import control
from p2ptrain.daemon.control import BODY_BYTES_MAX, ControlServer
from p2ptrain.daemon.home import Home

ANSWER_S = 30.0
NOBODY = 65534

attack = pytest.mark.attack


class Owner:
    """Keeps what was commanded."""

    def __init__(self) -> None:
        self.commands: list[object] = []

    def status(self) -> Status:
        self.commands.append("status")
        return Done("as ever")  # type: ignore[return-value]

    def stop(self, *, now: bool) -> Done:
        self.commands.append(("stop", now))
        return Done("stopping")

    def pause(self, reason: str) -> Done:
        self.commands.append(("pause", reason))
        return Done("paused")

    def resume(self) -> Done:
        self.commands.append("resume")
        return Done("going on")


class Door:
    """A control server, and hand-written requests to it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.owner = Owner()
        self.heads: list[bytes] = []
        self.server = ControlServer(self.owner, path, "now", "test")

    @property
    def endpoint(self) -> Endpoint:
        return msgspec.json.decode(self.path.read_bytes(), type=Endpoint)

    async def ask(
        self,
        line: str = "GET /v1/status",
        *headers: str,
        body: bytes = b"",
        host: str | None = None,
        token: str | None = None,
        length: int | None = None,
    ) -> tuple[int, bytes]:
        """Send a request; by default one that is answered."""
        port, right = self.endpoint.port, self.endpoint.token
        lines = [f"{line} HTTP/1.1", f"Host: {host or f'127.0.0.1:{port}'}", "Connection: close"]
        lines += [f"Authorization: Bearer {right if token is None else token}"] if token != "" else []
        lines += [f"Content-Length: {len(body) if length is None else length}", *headers]
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write("\r\n".join(lines).encode("utf-8", "surrogateescape") + b"\r\n\r\n" + body)
        try:
            async with asyncio.timeout(ANSWER_S):
                head = await reader.readuntil(b"\r\n\r\n")
                self.heads.append(head)
                size = re.search(rb"Content-Length: (\d+)", head)
                return int(head.split()[1]), await reader.readexactly(int(size[1]) if size else 0)
        finally:
            writer.close()
            await writer.wait_closed()


@pytest.fixture
async def door(tmp_path: Path) -> AsyncIterator[Door]:
    door = Door(tmp_path / "control.json")
    await door.server.start()
    yield door
    await door.server.close()


def sentence(body: bytes) -> str:
    return str(msgspec.json.decode(body)["message"])


# -- who -------------------------------------------------------------------------------------------


async def test_the_right_token_is_answered(door: Door) -> None:
    assert (await door.ask())[0] == 200
    assert (await door.ask("POST /v1/pause", body=b'{"reason":"dinner"}'))[0] == 200
    assert (await door.ask("POST /v1/pause"))[0] == 200
    assert (await door.ask("POST /v1/resume"))[0] == 200
    assert (await door.ask("POST /v1/stop", body=b'{"now":true}'))[0] == 200
    assert door.owner.commands == [
        "status",
        ("pause", "dinner"),
        ("pause", "paused by its owner"),
        "resume",
        ("stop", True),
    ]


async def refuses(door: Door, token: str) -> None:
    for line in ("GET /v1/status", "POST /v1/stop", "GET /v1/nothing"):
        status, body = await door.ask(line, token=token)
        assert status == 401
        assert "wrong token" in sentence(body)
    assert door.owner.commands == []


@attack
async def test_control_01_without_a_token_nothing_is_done(door: Door) -> None:
    await refuses(door, "")


@attack
@pytest.mark.parametrize("token", ["wrong", "ungülti\udcff"], ids=["wrong", "not text"])
async def test_control_02_with_a_wrong_token_nothing_is_done(door: Door, token: str) -> None:
    await refuses(door, token)


@attack
async def test_control_03_a_token_that_begins_right_is_wrong(door: Door) -> None:
    assert (await door.ask(token=door.endpoint.token[:-1]))[0] == 401
    assert (await door.ask(token=door.endpoint.token + "a"))[0] == 401


@attack
@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:{port}", "127.0.0.1", "127.0.0.1:1", "[::1]:{port}"]
)
async def test_control_04_a_name_that_was_bent_to_this_computer_is_refused(door: Door, host: str) -> None:
    """DNS rebinding: a page's own name leads here, so the browser believes it talks to the page's server."""
    status, body = await door.ask(host=host.format(port=door.endpoint.port))
    assert status == 403
    assert door.endpoint.token.encode() not in body
    assert door.owner.commands == []


async def is_refused(door: Door, header: str) -> None:
    for line in ("GET /v1/status", "POST /v1/stop"):
        status, body = await door.ask(line, header)
        assert (status, sentence(body)) == (403, "web pages may not talk to the daemon")
    assert door.owner.commands == []


@attack
@pytest.mark.parametrize("origin", ["https://evil.example", "null", "http://127.0.0.1:8000"])
async def test_control_05_what_a_page_sends_is_refused_even_with_the_token(door: Door, origin: str) -> None:
    await is_refused(door, f"Origin: {origin}")


@attack
@pytest.mark.parametrize("site", ["cross-site", "same-site", "same-origin"])
async def test_control_06_what_a_page_fetches_without_saying_its_origin_is_refused(
    door: Door, site: str
) -> None:
    await is_refused(door, f"Sec-Fetch-Site: {site}")


@attack
async def test_control_07_a_browser_that_simply_opens_the_address_learns_nothing(door: Door) -> None:
    status, body = await door.ask("GET /", "Sec-Fetch-Site: none", "User-Agent: Mozilla/5.0", token="")
    assert status == 401
    assert b"p2ptrain" not in body.lower()


@attack
async def test_control_08_no_page_ever_gets_a_permission(door: Door) -> None:
    """A preflight is refused, and no answer, good or bad, lets a page read it."""
    origin = "Origin: https://evil.example"
    asks = [origin, "Access-Control-Request-Method: POST"]
    assert (await door.ask("OPTIONS /v1/stop", *asks, token=""))[0] == 403
    assert (await door.ask("OPTIONS /v1/stop", *asks))[0] == 403
    assert (await door.ask("OPTIONS /v1/stop"))[0] == 405
    await door.ask("GET /v1/status")
    await door.ask("GET /v1/nothing")
    await door.ask("GET /v1/status", token="")
    assert len(door.heads) == 6
    assert b"access-control" not in b"".join(door.heads).lower()


# -- what ------------------------------------------------------------------------------------------


@attack
async def test_control_09_only_the_commands_are_there_and_each_in_one_way(door: Door) -> None:
    for line in ("GET /v2/status", "GET /v1/../control.json", "GET /", "DELETE /v1/other"):
        status, body = await door.ask(line)
        assert status == 404
        assert body == b"404: Not Found"
    for line in ("GET /v1/stop", "PUT /v1/stop", "POST /v1/status", "TRACE /v1/status"):
        assert (await door.ask(line))[0] == 405
    assert door.owner.commands == []


@pytest.mark.parametrize(
    "body", [b"garbage", b"{", b"[]", b'{"reason":7}', b'{"reason":"\xff"}', b"\xff\xfe", b"null"]
)
async def test_garbage_is_answered_with_a_sentence(door: Door, body: bytes) -> None:
    status, answer = await door.ask("POST /v1/pause", body=body)
    assert status == 400
    assert sentence(answer).startswith("the command cannot be read: ")
    assert len(sentence(answer)) > 40
    assert door.owner.commands == []


@attack
async def test_control_10_a_body_that_is_too_large_is_refused(door: Door) -> None:
    body = b'{"reason":"' + b"a" * BODY_BYTES_MAX + b'"}'
    assert (await door.ask("POST /v1/pause", body=body))[0] == 413
    assert door.owner.commands == []


async def test_a_body_that_does_not_come_is_not_waited_for(
    door: Door, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(control, "BODY_S", 0.1)
    status, answer = await door.ask("POST /v1/pause", body=b'{"reas', length=100)
    assert status == 400
    assert "0.1 s" in sentence(answer)
    assert door.owner.commands == []


async def test_others_are_answered_while_a_body_does_not_come(door: Door) -> None:
    slow = asyncio.create_task(door.ask("POST /v1/pause", length=100))
    await asyncio.sleep(0)
    assert (await door.ask())[0] == 200
    slow.cancel()
    with pytest.raises(asyncio.CancelledError):
        await slow


async def test_nothing_that_a_stranger_sends_reaches_the_log(
    door: Door, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.DEBUG):
        await door.ask(token="wrong\udcff")
        await door.ask("POST /v1/pause", body=b"garbage")
        await door.ask("GET /v1/nothing")
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []
    assert door.endpoint.token not in caplog.text


# -- control.json ----------------------------------------------------------------------------------


@attack
@pytest.mark.skipif(os.name != "posix", reason="file modes")
async def test_control_11_another_user_of_this_computer_cannot_read_the_token() -> None:
    """Whatever the owner's umask is, and whatever lay there before."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        await keeps_the_token(Home(Path(folder) / "home"))


async def keeps_the_token(home: Home) -> None:
    before = os.umask(0)
    try:
        home.prepare()
        home.control.write_text("readable by all")
        home.control.chmod(0o666)
        door = Door(home.control)
        await door.server.start()
    finally:
        os.umask(before)
    try:
        assert [stat.S_IMODE(path.stat().st_mode) for path in (home.path, home.swarms)] == [0o700, 0o700]
        assert stat.S_IMODE(home.control.stat().st_mode) == 0o600
        assert [path.name for path in home.path.iterdir() if path.is_file()] == ["control.json"]
        if os.geteuid() == 0:
            home.path.chmod(0o755)
            assert not await asyncio.to_thread(may_nobody_read, home.control)
            home.control.chmod(0o644)  # the control: it is the mode that holds
            assert await asyncio.to_thread(may_nobody_read, home.control)
        assert (await door.ask(token="guess"))[0] == 401
    finally:
        await door.server.close()


def may_nobody_read(path: Path) -> bool:
    """Try it as a user without rights."""
    return subprocess.run(["cat", path], user=NOBODY, group=NOBODY, capture_output=True).returncode == 0


async def test_only_this_computer_can_connect(door: Door) -> None:
    listening = [one for one in psutil.Process().net_connections("tcp") if one.status == "LISTEN"]
    assert {one.laddr.ip for one in listening if one.laddr.port == door.endpoint.port} == {"127.0.0.1"}


async def test_every_start_has_a_token_of_its_own(door: Door) -> None:
    first = door.endpoint.token
    await door.server.close()
    door.server = ControlServer(door.owner, door.path, "later", "test")
    await door.server.start()
    assert door.endpoint.token != first
    assert (await door.ask(token=first))[0] == 401


async def test_the_file_goes_with_the_daemon(door: Door) -> None:
    await door.server.close()
    assert not door.path.exists()
    with pytest.raises(ControlError, match="not running"):
        Client(door.path)


# -- the client ------------------------------------------------------------------------------------


def test_a_file_that_is_no_endpoint_is_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "control.json").write_text('{"pid": "no"')
    with pytest.raises(ControlError, match=r"control\.json cannot be read"):
        Client(tmp_path / "control.json")


async def test_an_answer_of_something_else_is_a_sentence(tmp_path: Path) -> None:
    """The port of a killed daemon may belong to any program today."""

    async def stranger(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello")
        writer.close()

    async with await asyncio.start_server(stranger, "127.0.0.1") as server:
        port = server.sockets[0].getsockname()[1]
        endpoint = Endpoint(1, port, "token", "0", "", "")
        (tmp_path / "control.json").write_bytes(msgspec.json.encode(endpoint))
        with pytest.raises(ControlError, match="in a way that this version does not know"):
            await asyncio.to_thread(Client(tmp_path / "control.json").status)
