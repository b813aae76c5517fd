"""Talks to the daemon of a home. Free of asyncio: a command line must answer at once."""

import http.client
from pathlib import Path
from typing import TypeVar

import msgspec
from msgspec import Struct

from p2ptrain.control.api import (
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

TIMEOUT_S = 5.0
CHECKUP_S = 9.0
"""Members are asked, who may be slow."""

START = "`p2ptrain start` starts it"

T = TypeVar("T")


class Client:
    """One daemon, found by its `control.json`.

    Raises:
        ControlError: no daemon runs in this home, or the file cannot be read.
    """

    def __init__(self, control: Path) -> None:
        try:
            self.endpoint = msgspec.json.decode(control.read_bytes(), type=Endpoint)
        except FileNotFoundError:
            raise ControlError("p2ptrain is not running", START) from None
        except (OSError, msgspec.DecodeError) as error:
            raise ControlError(f"{control} cannot be read: {error}", START) from None

    def status(self) -> Status:
        """Ask how things are."""
        return self._call("GET", "/v1/status", None, Status)

    def stop(self, *, now: bool = False) -> Done:
        """Ask the daemon to end."""
        return self._call("POST", "/v1/stop", StopCommand(now), Done)

    def pause(self, reason: str) -> Done:
        """Ask the daemon to stop the work."""
        return self._call("POST", "/v1/pause", PauseCommand(reason), Done)

    def resume(self) -> Done:
        """Ask the daemon to go on."""
        return self._call("POST", "/v1/resume", None, Done)

    def reload(self) -> Done:
        """Ask the daemon to take what a command wrote into its swarm's folder."""
        return self._call("POST", "/v1/reload", None, Done)

    def requests(self) -> Requests:
        """Ask who wants to join."""
        return self._call("GET", "/v1/requests", None, Requests)

    def admit(self, code: str) -> Done:
        """Make a member of whoever shows that code."""
        return self._call("POST", "/v1/admit", AdmitCommand(code), Done)

    def checkup(self) -> Checkup:
        """Ask the daemon to find out how others see it: takes seconds."""
        return self._call("POST", "/v1/checkup", None, Checkup, CHECKUP_S)

    def _call(
        self, method: str, path: str, body: Struct | None, type_: type[T], timeout_s: float = TIMEOUT_S
    ) -> T:
        connection = http.client.HTTPConnection("127.0.0.1", self.endpoint.port, timeout=timeout_s)
        headers = {"Authorization": f"Bearer {self.endpoint.token}"}
        try:
            connection.request(method, path, msgspec.json.encode(body) if body else None, headers)
            answer = connection.getresponse()
            data = answer.read()
        except ConnectionRefusedError:
            raise ControlError("p2ptrain is not running (it was killed)", START) from None
        except (OSError, http.client.HTTPException) as error:
            raise ControlError(f"the daemon does not answer: {error}", "look at `p2ptrain logs`") from None
        finally:
            connection.close()
        try:
            if answer.status != 200:
                refused = msgspec.json.decode(data, type=Refused)
                raise ControlError(refused.message, refused.hint)
            return msgspec.json.decode(data, type=type_)
        except msgspec.DecodeError:
            raise ControlError(
                "the daemon answers in a way that this version does not know",
                "restart it: `p2ptrain stop`, then `p2ptrain start`",
            ) from None
