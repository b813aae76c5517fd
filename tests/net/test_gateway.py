"""The gateway is read from what three systems print."""

import pytest

from p2ptrain.net.addresses import is_public
from p2ptrain.net.router import gateway
from p2ptrain.net.router.gateway import find_gateway, read_linux, read_linux6, read_macos, read_windows

LINUX = """Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT
wlan0\t00000000\t0102A8C0\t0003\t0\t0\t600\t00000000\t0\t0\t0
eth0\t00000000\t0101A8C0\t0003\t0\t0\t100\t00000000\t0\t0\t0
tun0\t00000000\t00000000\t0001\t0\t0\t50\t00000000\t0\t0\t0
eth0\t0001A8C0\t00000000\t0001\t0\t0\t100\t00FFFFFF\t0\t0\t0
tun1\t00000000\t0100080A\t0003\t0\t0\t0\t00000080\t0\t0\t0
"""
MACOS = """   route to: default
destination: default
       mask: default
    gateway: 192.168.178.1
  interface: en0
      flags: <UP,GATEWAY,DONE,STATIC,PRCLONING,GLOBAL>
"""
WINDOWS = """===========================================================================
Schnittstellenliste
 12...00 15 5d 00 00 01 ......Hyper-V
===========================================================================
IPv4-Routentabelle
===========================================================================
Aktive Routen:
     Netzwerkziel    Netzwerkmaske          Gateway    Schnittstelle Metrik
          0.0.0.0          0.0.0.0      192.168.2.1    192.168.2.20     45
          0.0.0.0          0.0.0.0      192.168.1.1    192.168.1.20     25
          0.0.0.0          0.0.0.0   Auf Verbindung        10.8.0.2      5
          0.0.0.0          0.0.0.0          On-link        10.8.0.2      5
===========================================================================
Ständige Routen:
  Netzwerkadresse          Netzmaske  Gatewayadresse  Metrik
          0.0.0.0          0.0.0.0      192.168.9.1  Standard
"""


NONE, ROUTER6 = 32 * "0", "fe800000000000000000000000000001"
LINUX6 = f"""{NONE} 00 {NONE} 00 {ROUTER6} 00000400 00000001 00000000 00000003 eth0
{NONE} 00 {NONE} 00 {ROUTER6} 00000064 00000001 00000000 00000003 wlan0
{NONE} 00 {NONE} 00 {NONE} ffffffff 00000001 00000000 00200200 lo
{NONE} 01 {NONE} 00 {ROUTER6} 00000001 00000001 00000000 00000003 tun0
fe800000000000000000000000000000 40 {NONE} 00 {NONE} 00000100 00000001 00000000 00000001 eth0
"""
WINDOWS6 = """===========================================================================
IPv6-Routentabelle
===========================================================================
Aktive Routen:
 If Metrik Netzwerkziel             Gateway
 12    281 ::/0                     fe80::1
 14     25 ::/0
                                    fe80::dead:beef:1234:5678
  1    331 ::1/128                  Auf Verbindung
===========================================================================
"""


def test_the_best_default_route_counts_and_tunnels_do_not():
    assert read_linux(LINUX) == "192.168.1.1"
    assert read_macos(MACOS) == "192.168.178.1"
    assert read_windows(WINDOWS) == "192.168.1.1"
    assert read_linux6(LINUX6) == "fe80::1%wlan0"
    assert read_linux6(LINUX6.replace(ROUTER6, "20010db8" + 23 * "0" + "1")) == "2001:db8::1"
    assert read_macos(MACOS.replace("192.168.178.1", "fe80::1%en0"), 6) == "fe80::1%en0"
    assert read_windows(WINDOWS6, 6) == "fe80::dead:beef:1234:5678%14"


@pytest.mark.parametrize(
    ("read", "text"),
    [
        (read_linux, ""),
        (read_linux, LINUX.splitlines()[0]),
        (read_macos, ""),
        (read_macos, "route: writing to routing socket: not in table\n"),
        (read_macos, MACOS.replace("192.168.178.1", "link#12")),
        (read_macos, MACOS.replace("192.168.178.1", "fe80::1%en0")),
        (read_windows, ""),
        (read_windows, WINDOWS.replace("192.168.", "300.168.")),
        (read_windows, WINDOWS6),
        (read_linux6, ""),
    ],
)
def test_no_gateway_is_no_gateway(read, text):
    assert read(text) == ""


@pytest.mark.parametrize("table", ["head\neth0 00000000", "head\neth0 x x x x x x x"])
def test_a_table_of_another_form_is_not_guessed_at(table, monkeypatch):
    for version, read in ((4, read_linux), (6, read_linux6)):
        with pytest.raises(ValueError):
            read(table)
        monkeypatch.setattr(gateway, "_ask_system", lambda _, read=read: read(table))
        assert find_gateway(version) is None


def test_public_is_what_the_whole_internet_knows():
    public = ["5.5.5.5", "2a00:1450::1"]
    other = [
        "10.0.0.1",
        "192.168.1.1",
        "100.64.0.1",
        "127.0.0.1",
        "169.254.1.1",
        "224.0.0.1",
        "0.0.0.0",
        "fe80::1",
    ]
    assert [host for host in public + other if is_public(host)] == public
