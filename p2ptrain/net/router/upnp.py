"""UPnP (Internet Gateway Device 1 and 2): how most home routers open ports, where their owner lets them.

A search by UDP finds where the router describes itself; the description says where it takes commands.
Whatever is not the default gateway is not heard and not asked.
"""

import asyncio
import contextlib
import re
import secrets
import socket
from typing import Any
from urllib.parse import urljoin

import aiohttp
from msgspec import Struct

from p2ptrain.core import limits
from p2ptrain.net.addresses import Address, plain_host
from p2ptrain.net.router.gateway import Gateway
from p2ptrain.net.router.mapping import LEASE_S, PATIENCE_S, Grant, MappingError
from p2ptrain.net.router.small_xml import XML_BYTES_MAX, Element, read_xml

SEARCH_GROUP = "239.255.255.250"
SEARCH_PORT = 1900
SEARCH_S = 1.0
"""Searched for again after this: datagrams get lost on Wi-Fi (guess)."""

DEVICES = (
    "urn:schemas-upnp-org:device:InternetGatewayDevice:1",
    "urn:schemas-upnp-org:device:InternetGatewayDevice:2",
)
SERVICES = (
    "urn:schemas-upnp-org:service:WANIPConnection:2",
    "urn:schemas-upnp-org:service:WANIPConnection:1",
    "urn:schemas-upnp-org:service:WANPPPConnection:1",
)

FOUND_BYTES_MAX = 2 * limits.KIB
"""An answer to a search has ten lines (guess)."""

URL_CHARS_MAX = 512

_URL = re.compile(r"http://([0-9.]+)(?::([0-9]{1,5}))?(?:/[!-~]*)?")
"""So narrow that no two readers of URLs can differ about the host."""

PORT_TRIES = 4
"""Other ports asked for when the router says that one is taken (guess)."""

CONFLICT, ONLY_PERMANENT = 718, 725

_ENVELOPE = (
    '<?xml version="1.0"?><s:Envelope xmlns:s="http://schemas.xmlsoap.org/soap/envelope/" '
    's:encodingStyle="http://schemas.xmlsoap.org/soap/encoding/"><s:Body>'
    '<u:{action} xmlns:u="{service}">{arguments}</u:{action}></s:Body></s:Envelope>'
)


class Service(Struct, frozen=True):
    """Where the router takes commands, and of what kind."""

    kind: str
    url: str


class UpnpError(MappingError):
    """The router said no, with a number of its standard."""

    def __init__(self, code: int) -> None:
        super().__init__("the port is taken" if code == CONFLICT else f"error {code}")
        self.code = code


class Upnp:
    """One computer's conversation with its router."""

    name = "UPnP"

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway
        self._service: Service | None = None

    async def probe(self) -> None:
        """Find the router's service."""
        async with _bounded():
            location = await _search(self._gateway)
        async with _bounded():
            status, body = await self._request("GET", location)
            if status != 200:
                raise MappingError(f"it describes itself with status {status}")
            self._service = find_service(body, location, self._gateway)

    async def open(self, port: int, wanted: int) -> Grant:
        """Open or renew; another port outside where the wanted one is taken."""
        async with _bounded():
            host = await self._outside()
            for _ in range(PORT_TRIES):
                try:
                    await self._add(port, wanted)
                    return Grant(Address(host, wanted), LEASE_S)
                except UpnpError as error:
                    if error.code != CONFLICT:
                        raise
                wanted = 49152 + secrets.randbelow(16384)
        raise MappingError("the ports are taken")

    async def close(self, port: int, outside: int) -> None:
        """Close."""
        async with _bounded():
            await self._ask("DeletePortMapping", NewRemoteHost="", NewExternalPort=outside, NewProtocol="TCP")

    async def _outside(self) -> str:
        text = (await self._ask("GetExternalIPAddress")).first("NewExternalIPAddress")
        try:
            return plain_host(text)
        except ValueError:
            raise MappingError("the router has no connection to the internet") from None

    async def _add(self, port: int, outside: int) -> None:
        async def add(lease_s: int) -> None:
            await self._ask(
                "AddPortMapping",
                NewRemoteHost="",
                NewExternalPort=outside,
                NewProtocol="TCP",
                NewInternalPort=port,
                NewInternalClient=self._gateway.own,
                NewEnabled=1,
                NewPortMappingDescription="p2ptrain",
                NewLeaseDuration=lease_s,
            )

        try:
            await add(LEASE_S)
        except UpnpError as error:
            if error.code != ONLY_PERMANENT:
                raise
            await add(0)  # until it is closed

    async def _ask(self, action: str, **arguments: object) -> Element:
        """Give a command; the arguments are ours and need no escapes."""
        assert self._service is not None, "probe first"
        inside = "".join(f"<{name}>{value}</{name}>" for name, value in arguments.items())
        text = _ENVELOPE.format(action=action, service=self._service.kind, arguments=inside)
        headers = {
            "Content-Type": 'text/xml; charset="utf-8"',
            "SOAPAction": f'"{self._service.kind}#{action}"',
        }
        status, body = await self._request("POST", self._service.url, headers, text.encode())
        if status not in (200, 500):
            raise MappingError(f"it answers with status {status}")
        return read_answer(status, body)

    async def _request(
        self, method: str, url: str, headers: dict[str, str] | None = None, data: bytes | None = None
    ) -> tuple[int, bytes]:
        session = aiohttp.ClientSession(auto_decompress=False, trust_env=False)
        try:
            async with session.request(
                method,
                url,
                headers={"Accept-Encoding": "identity", "Connection": "close", **(headers or {})},
                data=data,
                allow_redirects=False,
            ) as response:
                body = bytearray()
                async for piece in response.content.iter_any():
                    body += piece
                    if len(body) > XML_BYTES_MAX:
                        raise MappingError("it says too much")
                return response.status, bytes(body)
        finally:
            await session.close()


@contextlib.asynccontextmanager
async def _bounded() -> Any:
    """Bound the time, and say everything that goes wrong in words."""
    try:
        async with asyncio.timeout(PATIENCE_S):
            yield
    except TimeoutError:
        raise MappingError("no answer") from None
    except (OSError, aiohttp.ClientError, ValueError) as error:
        raise MappingError(f"no good answer: {str(error)[:100]}") from None


class _Searcher(asyncio.DatagramProtocol):
    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway
        self.found: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    def datagram_received(self, data: bytes, addr: Any) -> None:
        location = read_found(data, self._gateway) if addr[0] == self._gateway.host else ""
        if location and not self.found.done():
            self.found.set_result(location)

    def error_received(self, exc: Exception) -> None:
        """One of several ways to ask is closed."""


async def _search(gateway: Gateway) -> str:
    """Return where the gateway describes itself; both all and the gateway alone are asked."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one:
        one.setblocking(False)
        one.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, socket.inet_aton(gateway.own))
        one.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_TTL, 2)
        one.bind((gateway.own, 0))
        loop = asyncio.get_running_loop()
        transport, searcher = await loop.create_datagram_endpoint(lambda: _Searcher(gateway), sock=one)
        try:
            while not searcher.found.done():
                for host in (SEARCH_GROUP, gateway.host):
                    for device in DEVICES:
                        transport.sendto(search(device), (host, SEARCH_PORT))
                await asyncio.wait([searcher.found], timeout=SEARCH_S)
            return searcher.found.result()
        finally:
            transport.close()
            searcher.found.cancel()


def search(device: str) -> bytes:
    """Return the question for a kind of device."""
    lines = (
        "M-SEARCH * HTTP/1.1",
        f"HOST: {SEARCH_GROUP}:{SEARCH_PORT}",
        'MAN: "ssdp:discover"',
        "MX: 1",
        f"ST: {device}",
    )
    return "\r\n".join((*lines, "", "")).encode()


def read_found(data: bytes, gateway: Gateway) -> str:
    """Read where the gateway describes itself, out of an answer to a search; empty: not there."""
    if len(data) > FOUND_BYTES_MAX or not data.startswith(b"HTTP/1.1 200"):
        return ""
    text = data.decode("ascii", "replace")
    headers = (line.partition(":") for line in text.split("\r\n")[1:])
    said = {name.strip().lower(): value.strip() for name, _, value in headers}
    if said.get("st") not in DEVICES:
        return ""
    url = said.get("location", "")
    return url if is_at(url, gateway) else ""


def is_at(url: str, gateway: Gateway) -> bool:
    """Say whether a URL leads to the gateway itself, by plain HTTP."""
    match = _URL.fullmatch(url) if len(url) <= URL_CHARS_MAX else None
    return match is not None and match[1] == gateway.host and 0 < int(match[2] or 80) < 65536


def find_service(body: bytes, location: str, gateway: Gateway) -> Service:
    """Find the best service in a router's description.

    Raises:
        MappingError: there is none, or not on the gateway.
        ValueError: this is no description.
    """
    top = read_xml(body)
    base = top.first("URLBase") or location
    urls = {one.first("serviceType"): one.first("controlURL") for one in top.all("service")}
    for kind in SERVICES:
        if kind in urls:
            url = urljoin(base, urls[kind])
            if not is_at(url, gateway):
                raise MappingError("it names another computer")
            return Service(kind, url)
    raise MappingError("the router offers no ports")


def read_answer(status: int, body: bytes) -> Element:
    """Read the answer to a command.

    Raises:
        UpnpError: the router says no.
        ValueError: this is no answer.
    """
    top = read_xml(body)
    if status == 200:
        return top
    code = top.first("errorCode")
    raise UpnpError(int(code) if code.isascii() and code.isdigit() and len(code) < 6 else 0)
