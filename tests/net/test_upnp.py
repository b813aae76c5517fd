"""UPnP against routers that are right, and against such as nobody would buy."""

import asyncio
import gzip
import re

import pytest
from aiohttp import web

from p2ptrain.net.addresses import Address
from p2ptrain.net.router import upnp
from p2ptrain.net.router.gateway import Gateway
from p2ptrain.net.router.mapping import Grant, MappingError
from p2ptrain.net.router.small_xml import XML_BYTES_MAX
from p2ptrain.net.router.upnp import DEVICES, SERVICES, Service, Upnp, find_service, is_at, read_found

HERE = Gateway("127.0.0.1", "127.0.0.1")
ROUTER = Gateway("192.168.1.1", "192.168.1.2")
LOCATION = "http://192.168.1.1:5000/root.xml"


def description(kind: str = SERVICES[1], url: str = "/control", base: str = "", more: str = "") -> bytes:
    return f"""<?xml version="1.0"?><root xmlns="urn:schemas-upnp-org:device-1-0">{base}<device>
        <deviceType>{DEVICES[0]}</deviceType><serviceList>{more}<service>
        <serviceType>{kind}</serviceType><controlURL>{url}</controlURL>
        </service></serviceList></device></root>""".encode()


def found(location: str, device: str = DEVICES[0]) -> bytes:
    lines = "HTTP/1.1 200 OK", "CACHE-CONTROL: max-age=120", f"ST: {device}", f"Location: {location}"
    return "\r\n".join((*lines, "", "")).encode()


class Router:
    """A router on loopback that does as it is told.

    taken: ports that others have. permanent: it knows no leases. answers: for a path, instead of its own.
    finders: where answers to a search come from. opened: (port outside, lease) that were asked for.
    """

    def __init__(self) -> None:
        self.taken: set[int] = set()
        self.permanent = False
        self.answers: dict[str, web.Response] = {}
        self.finders = ["127.0.0.1"]
        self.opened: list[tuple[int, int]] = []
        self.asked: list[str] = []
        self.searches = 0
        self.host = "5.5.5.5"
        self.location = ""

    async def answer(self, request: web.Request) -> web.Response:
        body = await request.text()
        self.asked.append(f"{request.method} {request.path}")
        if request.path in self.answers:
            return self.answers[request.path]
        if request.method == "GET":
            return web.Response(body=description())
        action = request.headers["SOAPAction"].partition("#")[2].strip('"')
        said = dict(re.findall(r"<(New\w+)>([^<]*)</", body))
        inside = ""
        if action == "GetExternalIPAddress":
            inside = f"<NewExternalIPAddress>{self.host}</NewExternalIPAddress>"
        elif action == "AddPortMapping":
            assert said["NewInternalClient"] == "127.0.0.1"
            assert (said["NewProtocol"], said["NewInternalPort"]) == ("TCP", "4001")
            port, lease_s = int(said["NewExternalPort"]), int(said["NewLeaseDuration"])
            self.opened.append((port, lease_s))
            if self.permanent and lease_s:
                return self.no(725)
            if port in self.taken:
                return self.no(718)
        return web.Response(
            body=f'<s:Envelope xmlns:s="x"><s:Body><u>{inside}</u></s:Body></s:Envelope>'.encode()
        )

    @staticmethod
    def no(code: int) -> web.Response:
        return web.Response(status=500, body=f"<a><errorCode>{code}</errorCode></a>".encode())


class _Finder(asyncio.DatagramProtocol):
    def __init__(self, router: Router) -> None:
        self._router = router

    def datagram_received(self, data: bytes, addr) -> None:
        self._router.searches += 1
        for finder in self._router.voices:
            finder.sendto(found(self._router.location), addr)


@pytest.fixture
async def router(monkeypatch):
    one, loop = Router(), asyncio.get_running_loop()
    app = web.Application()
    app.router.add_route("*", "/{any:.*}", one.answer)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    one.location = f"http://127.0.0.1:{runner.addresses[0][1]}/root.xml"
    ear, _ = await loop.create_datagram_endpoint(lambda: _Finder(one), local_addr=("127.0.0.1", 0))
    liar, _ = await loop.create_datagram_endpoint(asyncio.DatagramProtocol, local_addr=("127.0.0.2", 0))
    one.voices, one.liar = [ear], liar
    monkeypatch.setattr(upnp, "SEARCH_PORT", ear.get_extra_info("sockname")[1])
    monkeypatch.setattr(upnp, "PATIENCE_S", 0.5)
    yield one
    ear.close()
    liar.close()
    await runner.cleanup()


async def test_a_port_is_found_opened_and_closed(router):
    asking = Upnp(HERE)
    await asking.probe()
    assert await asking.open(4001, 5001) == Grant(Address("5.5.5.5", 5001), 7200)
    await asking.close(4001, 5001)
    assert router.opened == [(5001, 7200)]
    assert router.asked == ["GET /root.xml", *["POST /control"] * 3]


async def test_a_taken_port_leads_to_another(router):
    router.taken = {5001}
    asking = Upnp(HERE)
    await asking.probe()
    grant = await asking.open(4001, 5001)
    assert [port for port, _ in router.opened] == [5001, grant.address.port]
    router.taken = set(range(65536))
    with pytest.raises(MappingError, match="the ports are taken"):
        await asking.open(4001, 5001)
    assert len(router.opened) == 2 + upnp.PORT_TRIES


async def test_a_router_that_knows_no_leases_is_asked_for_ever(router):
    router.permanent = True
    asking = Upnp(HERE)
    await asking.probe()
    assert await asking.open(4001, 5001) == Grant(Address("5.5.5.5", 5001), 7200)
    assert router.opened == [(5001, 7200), (5001, 0)]


@pytest.mark.parametrize("host", ["", "nonsense", "5.5.5.5:80"])
async def test_a_router_without_address_is_said(router, host):
    router.host = host
    asking = Upnp(HERE)
    await asking.probe()
    with pytest.raises(MappingError, match="no connection to the internet"):
        await asking.open(4001, 5001)


@pytest.mark.attack
@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (web.Response(status=302, headers={"Location": "/other.xml"}), "status 302"),
        (web.Response(body=b"x" * (XML_BYTES_MAX + 1)), "it says too much"),
        (web.Response(body=b"no xml"), "no good answer"),
        (web.Response(body=b'<!DOCTYPE a [<!ENTITY b "c">]><a>&b;</a>'), "document type"),
        (web.Response(body=gzip.compress(description()), headers={"Content-Encoding": "gzip"}), "no XML"),
        (web.Response(body=description(url="http://127.0.0.2:80/x")), "another computer"),
        (web.Response(body=description(kind="urn:other")), "offers no ports"),
        (web.Response(status=404), "status 404"),
    ],
)
async def test_a_hostile_description_is_refused(router, answer, said):
    router.answers["/root.xml"] = answer
    with pytest.raises(MappingError, match=said):
        await Upnp(HERE).probe()
    assert router.asked == ["GET /root.xml"]


@pytest.mark.attack
@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (web.Response(status=307, headers={"Location": "/other"}), "status 307"),
        (web.Response(body=b"x" * (XML_BYTES_MAX + 1)), "it says too much"),
        (web.Response(status=500, body=b"<a/>"), "error 0"),
        (web.Response(status=500, body=b"<errorCode>" + b"9" * 5000 + b"</errorCode>"), "error 0"),
        (web.Response(status=500, body=b"<errorCode>606</errorCode>"), "error 606"),
    ],
)
async def test_a_hostile_answer_to_a_command_is_refused(router, answer, said):
    router.answers["/control"] = answer
    asking = Upnp(HERE)
    await asking.probe()
    with pytest.raises(MappingError, match=said):
        await asking.open(4001, 5001)
    assert router.asked == ["GET /root.xml", "POST /control"]


@pytest.mark.attack
async def test_only_the_gateway_is_heard(router):
    router.voices = [router.liar]
    with pytest.raises(MappingError, match="no answer"):
        await Upnp(HERE).probe()
    assert router.searches
    assert router.asked == []


@pytest.mark.attack
async def test_who_never_ends_an_answer_is_left(router):
    ended = asyncio.Event()

    async def drip(_, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
        while not writer.is_closing():
            writer.write(b" ")
            await asyncio.sleep(0.01)
        writer.close()
        ended.set()

    async with await asyncio.start_server(drip, "127.0.0.1", 0) as server:
        router.location = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
        with pytest.raises(MappingError, match="no answer"):
            await Upnp(HERE).probe()
        await ended.wait()


def test_the_newest_service_is_taken():
    newer = f"<service><serviceType>{SERVICES[0]}</serviceType><controlURL>new</controlURL></service>"
    assert find_service(description(more=newer), LOCATION, ROUTER) == Service(
        SERVICES[0], "http://192.168.1.1:5000/new"
    )


@pytest.mark.parametrize(
    ("url", "base", "expected"),
    [
        ("/ctl/IPConn", "", "http://192.168.1.1:5000/ctl/IPConn"),
        ("ctl?a=1", "<URLBase>http://192.168.1.1:80/x/</URLBase>", "http://192.168.1.1:80/x/ctl?a=1"),
        ("http://192.168.1.1/ctl", "", "http://192.168.1.1/ctl"),
    ],
)
def test_where_commands_go(url, base, expected):
    assert find_service(description(url=url, base=base), LOCATION, ROUTER).url == expected


@pytest.mark.attack
@pytest.mark.parametrize(
    ("url", "base"),
    [
        ("//192.168.1.9/x", ""),
        ("x", "<URLBase>http://192.168.1.9/</URLBase>"),
        ("https://192.168.1.1/x", ""),
        ("file:///etc/passwd", ""),
        ("x", "<URLBase>javascript:</URLBase>"),
    ],
)
def test_commands_go_nowhere_else(url, base):
    with pytest.raises(MappingError, match="another computer"):
        find_service(description(url=url, base=base), LOCATION, ROUTER)


@pytest.mark.attack
@pytest.mark.parametrize(
    "url",
    [
        "http://192.168.1.1:80@10.0.0.1/",
        "http://192.168.1.1@10.0.0.1/",
        "http://192.168.1.1\\@10.0.0.1/",
        "http://192.168.1.1.example/",
        "http://192.168.1.10/",
        "http://192.168.1.1?@10.0.0.1/",
        "http://192.168.1.1#@10.0.0.1/",
        "http://192.168.1.1:0/",
        "http://192.168.1.1:65536/",
        "http://192.168.1.1:/",
        "http://192.168.1.1/ x",
        "http://192.168.1.1/\nx",
        "http://192.168.1.1/" + "x" * 600,
        "http://192.168.1.1/\u00e9",
        "ftp://192.168.1.1/",
        "http://[::1]/",
        "http://router/",
        "",
    ],
)
def test_only_plain_urls_on_the_gateway_are_asked(url):
    assert not is_at(url, ROUTER)
    assert read_found(found(url), ROUTER) == ""


@pytest.mark.attack
@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"NOTIFY * HTTP/1.1\r\n\r\n",
        found(LOCATION, device="ssdp:all"),
        found(LOCATION).replace(b"200", b"404"),
        found(LOCATION) + b"x" * 3000,
        b"HTTP/1.1 200 OK\r\n" + b"\xff" * 100,
    ],
)
def test_other_answers_to_a_search_are_not_heard(data):
    assert read_found(data, ROUTER) == ""
    assert read_found(found(LOCATION), ROUTER) == LOCATION
