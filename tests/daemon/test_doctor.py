"""`p2ptrain doctor`: every check meets the failure that it is for, made real where that can be done."""

import os
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator
from datetime import timedelta
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import msgspec
import pytest

from p2ptrain.cli.doctor import GLYPHS, show
from p2ptrain.control.api import Finding
from p2ptrain.core.limits import GIB, MIB
from p2ptrain.core.manifest import Manifest
from p2ptrain.daemon.config import Network
from p2ptrain.daemon.doctor import computer, examination, files, graphics, lines, membership, probing
from p2ptrain.daemon.doctor.examination import hide
from p2ptrain.daemon.doctor.graphics import Cards
from p2ptrain.daemon.doctor.probing import Probing
from p2ptrain.daemon.swarms import SwarmFolder
from p2ptrain.learn.process.equipment import Equipment, Gpu, Stage, Wanted
from p2ptrain.net.lan.interfaces import Interface
from p2ptrain.net.trust.certificates import wall_clock
from p2ptrain.net.trust.identity import Identity
from tests.daemon.helpers import Home
from tests.daemon.test_cli_imports import loaded

needs_root = pytest.mark.skipif(
    sys.platform != "linux" or os.geteuid() != 0, reason="mounts a full disk: needs Linux and root"
)
CPU = "CPU, 2 threads"
WITHOUT = Equipment(Stage.DATA, "2.13.0+cpu", chosen=CPU)
CUDA = Equipment(Stage.DATA, "2.13.0", cuda="12.8", chosen=CPU)


@pytest.fixture(autouse=True)
def patiently(monkeypatch: pytest.MonkeyPatch) -> None:
    """Importing torch takes its time while other tests run."""
    monkeypatch.setattr(probing, "PATIENCE_S", 60.0)


@pytest.fixture
def without_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    """For what has nothing to do with torch: say at once what it would."""
    said = msgspec.json.encode(WITHOUT).decode()
    monkeypatch.setattr(
        examination, "Probing", partial(Probing, command=(sys.executable, "-c", f"print({said!r})"))
    )


def of(findings: tuple[Finding, ...], name: str) -> Finding:
    return next(one for one in findings if one.name == name)


def is_bad(finding: Finding, state: str, seen: str, repair: str = "") -> None:
    """A finding says what it saw, and never without what to do."""
    assert finding.state == state
    assert seen in finding.seen
    assert finding.repair
    assert repair in finding.repair


# -- the computer ----------------------------------------------------------------------------------


def test_an_old_python_is_a_failure() -> None:
    is_bad(computer.versions((3, 11, 4)), "failure", "hole in its TLS", "3.11.5")
    assert computer.versions((3, 11, 5)).state == "ok"
    assert "torch 2." in computer.versions().seen


def test_little_memory_is_a_warning() -> None:
    is_bad(computer.memory(GIB - 1), "warning", "1.1 GB", "end other programs")
    assert computer.memory(GIB).state == "ok"


def test_little_room_on_the_disk_is_told(tmp_path: Path) -> None:
    def with_free(count: int) -> Finding:
        return computer.disk(tmp_path / "not" / "yet", lambda _: SimpleNamespace(free=count))

    is_bad(with_free(199 * MIB), "failure", "0.2 GB", "make room")
    is_bad(with_free(GIB), "warning", "1.1 GB", "make room")
    assert with_free(3 * GIB).state == "ok"
    assert computer.disk(tmp_path).state in ("ok", "warning")


@pytest.fixture
def full_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk with no byte left."""
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", tmp_path], check=True)
    (tmp_path / "filler").write_bytes(bytes(64 * 1024))
    yield tmp_path
    subprocess.run(["umount", tmp_path], check=True)


@needs_root
def test_a_full_disk_is_a_failure(full_disk: Path) -> None:
    is_bad(computer.disk(full_disk), "failure", "nothing can be written", "make room")


def test_a_home_that_is_no_folder_is_a_failure(tmp_path: Path) -> None:
    (tmp_path / "home").write_text("")
    is_bad(computer.disk(tmp_path / "home"), "failure", "nothing can be written")


# -- the GPU ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("cards", "found", "state", "seen", "repair"),
    [
        (Cards(), WITHOUT, "ok", "none found", ""),
        (
            Cards(nvidia=True, driver="550.54", cuda="12.4"),
            WITHOUT,
            "failure",
            "for CPUs only",
            "--torch-backend auto",
        ),
        (Cards(nvidia=True), CUDA, "failure", "without its driver", "install NVIDIA's driver"),
        (
            Cards(nvidia=True, driver="470.9", cuda="11.4"),
            CUDA,
            "failure",
            "knows CUDA 11.4",
            "update the driver",
        ),
        (Cards(nvidia=True, driver="550.54", cuda="12.4"), CUDA, "failure", "cannot be used", "nvidia-smi"),
        (Cards(amd=True), WITHOUT, "warning", "without ROCm", "--torch-backend auto"),
        (Cards(amd=True), msgspec.structs.replace(WITHOUT, hip="6.4"), "ok", "none found", ""),
    ],
)
def test_a_card_that_torch_does_not_use_is_told_with_the_command(
    cards: Cards, found: Equipment, state: str, seen: str, repair: str
) -> None:
    finding = graphics.gpu(cards, found)
    assert (finding.state, seen in finding.seen, repair in finding.repair) == (state, True, True)


def test_a_card_at_work_a_full_one_and_a_broken_one() -> None:
    def using(gpu: Gpu, wanted: str = "auto") -> Finding:
        found = msgspec.structs.replace(CUDA, gpus=(gpu,), chosen="RTX 3060, 12 GiB")
        return graphics.gpu(Cards(True, False, "550.54", "12.4"), found, wanted)

    assert "11.0 GiB free" in using(Gpu("RTX 3060", 12 * GIB, 11 * GIB)).seen
    is_bad(using(Gpu("RTX 3060", 12 * GIB, GIB - 1)), "warning", "1.0 GiB free", "other programs")
    too_new = Gpu("RTX 9090", trouble="no kernel image is available for execution on the device")
    is_bad(using(too_new), "failure", "no kernel image", "--torch-backend auto")
    assert using(too_new, "cpu").state == "ok"
    missing = msgspec.structs.replace(CUDA, chosen="", trouble="the device `cuda:1` is not here")
    is_bad(graphics.gpu(Cards(), missing, "cuda:1"), "failure", "cuda:1", "[training]")


def test_the_command_is_that_of_the_installation() -> None:
    assert "uv tool install" in graphics.reinstall(f"{os.sep}x{os.sep}uv{os.sep}tools{os.sep}p2ptrain")
    assert "uv pip install --python /y/python " in graphics.reinstall("/y", "/y/python")


@pytest.mark.parametrize(
    ("text", "read"),
    [
        ("| NVIDIA-SMI 550.54.15   Driver Version: 550.54.15   CUDA Version: 12.4 |", ("550.54.15", "12.4")),
        ("| NVIDIA-SMI 590.1   Driver Version: 590.1   CUDA UMD Version: 13.1 |", ("590.1", "13.1")),
        ("NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver.", ("", "")),
    ],
)
def test_what_the_driver_prints_is_read(text: str, read: tuple[str, str]) -> None:
    assert graphics.read_driver(text) == read


@pytest.mark.skipif(os.name != "posix", reason="a script as nvidia-smi")
def test_the_system_is_asked_for_cards_and_a_driver_that_hangs_is_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setattr(graphics, "NVIDIA_SMI_S", 0.3)
    program, card = tmp_path / "nvidia-smi", tmp_path / "pci" / "0000:01:00.0"
    card.mkdir(parents=True)
    (card / "class").write_text("0x030000\n")
    (card / "vendor").write_text("0x10de\n")
    for script, driver in (("echo 'Driver Version: 1.2 CUDA Version: 3.4'", "1.2"), ("exec sleep 60", "")):
        program.write_text(f"#!/bin/sh\n{script}\n")
        program.chmod(0o755)
        found = graphics.find_cards(tmp_path / "pci", tmp_path / "kfd")
        assert (found.nvidia, found.amd, found.driver) == (True, False, driver)
    (card / "class").write_text("0x020000\n")
    (tmp_path / "kfd").touch()
    assert graphics.find_cards(tmp_path / "pci", tmp_path / "kfd") == Cards(amd=True)


# -- torch, the task and its data, in a process of their own ---------------------------------------


def probe(task: str = "", **environment: str) -> Equipment:
    with pytest.MonkeyPatch.context() as patch:
        for name, value in environment.items():
            patch.setenv(name, value)
        return Probing(Wanted("cpu", task)).finish()


def test_torch_a_task_and_its_data_are_looked_at() -> None:
    found = probe("digits")
    assert (found.stage, found.chosen.startswith("CPU"), found.examples) == (Stage.DATA, True, 1437)
    manifest = Manifest(name="x", task="digits")
    assert membership.task(manifest, found).state == membership.data(manifest, found).state == "ok"
    newer = membership.task(Manifest(name="x", task="digits", task_version="2"), found)
    is_bad(newer, "failure", "version 1, the swarm trains version 2", "install the version")


def test_a_torch_that_cannot_be_imported_is_a_failure(tmp_path: Path) -> None:
    (tmp_path / "torch.py").write_text("raise ImportError('libcudart.so.12: cannot open shared object file')")
    found = probe("digits", PYTHONPATH=str(tmp_path))
    is_bad(graphics.gpu(Cards(), found), "failure", "libcudart.so.12", "reinstall")
    assert membership.task(Manifest(name="x", task="digits"), found).state == "skipped"


def test_a_task_that_is_not_here_and_one_without_data_are_failures(tmp_path: Path) -> None:
    manifest = Manifest(name="x", task="x")
    is_bad(membership.task(manifest, probe("nowhere:task")), "failure", "cannot be loaded", "install")
    without = probe("mnist", P2PTRAIN_DATA=str(tmp_path))
    is_bad(membership.data(manifest, without), "failure", "MNIST is not here", "P2PTRAIN_DATA")
    (tmp_path / "broken.py").write_text(
        "import p2ptrain.tasks.digits as d, dataclasses\n"
        "task = dataclasses.replace(d.task, data=lambda cfg, split: 1 / 0)\n"
    )
    broken = probe("broken:task", PYTHONPATH=str(tmp_path))
    is_bad(membership.data(manifest, broken), "failure", "ZeroDivisionError")


def test_who_hangs_is_given_up_and_what_was_found_before_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probing, "PATIENCE_S", 1.0)
    line = msgspec.json.encode(Equipment(Stage.TASK, "2.13.0", chosen=CPU, task_version="1")).decode()
    hanging = f"import time; print({line!r}, flush=True); time.sleep(60)"
    found = Probing(Wanted(), (sys.executable, "-c", hanging)).finish()
    manifest = Manifest(name="x", task="x")
    assert membership.task(manifest, found).state == "ok"
    assert membership.data(manifest, found).state == "skipped"
    silent = Probing(Wanted(), (sys.executable, "-c", "import time; time.sleep(60)")).finish()
    assert graphics.gpu(Cards(), silent).state == "skipped"


# -- the owner's files -----------------------------------------------------------------------------


@pytest.mark.skipif(os.name != "posix", reason="file modes")
def test_a_key_that_others_could_read_is_told_and_closed(tmp_path: Path) -> None:
    path = tmp_path / "identity.pem"
    assert files.identity(path)[0].state == "skipped"
    Identity.create().save(path)
    assert files.identity(path)[0].state == "ok"
    path.chmod(0o644)
    is_bad(files.identity(path)[0], "warning", "mode 644", "delete")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert files.identity(path)[0].state == "ok"


def test_a_damaged_or_unreadable_key_is_a_failure(tmp_path: Path) -> None:
    (tmp_path / "identity.pem").write_text("-----BEGIN PRIVATE KEY-----\nnonsense")
    is_bad(files.identity(tmp_path / "identity.pem")[0], "failure", "is damaged", "backup")
    (tmp_path / "folder").mkdir()
    is_bad(files.identity(tmp_path / "folder")[0], "failure", "cannot be read")


@pytest.mark.parametrize(
    ("text", "seen", "repair"),
    [
        ("name = ", "not valid TOML", "correct"),
        ("[network]\nprot = 1", "prot", "did you mean `network.port`?"),
        ("[network]\nport = 80", "below 1024", "correct"),
    ],
)
def test_wrong_settings_are_a_failure_and_count_as_none(
    text: str, seen: str, repair: str, tmp_path: Path
) -> None:
    path = tmp_path / "config.toml"
    assert files.settings(path)[0].seen == "defaults"
    path.write_text(text)
    finding, config = files.settings(path)
    is_bad(finding, "failure", seen, repair)
    assert config.network == Network()


# -- membership ------------------------------------------------------------------------------------


@pytest.fixture
def folder(home: Home) -> SwarmFolder:
    home.found()
    return home.folder


def test_a_certificate_is_judged_by_this_computers_clock(folder: SwarmFolder) -> None:
    def after(days: float) -> Finding:
        return membership.certificate(folder, None, lambda: wall_clock() + timedelta(days=days))

    assert after(0).state == "ok"
    is_bad(after(28), "warning", "ends in", "let p2ptrain run")
    is_bad(after(40), "failure", "expired 10 days ago", "join again")
    is_bad(after(-9), "failure", "begins 8 days from now", "set the clock")


def test_who_was_revoked_or_brings_anothers_certificate_is_told(folder: SwarmFolder) -> None:
    here = folder.membership().member.peer
    assert membership.certificate(folder, here).state == "ok"
    other = membership.certificate(folder, Identity.create().peer)
    is_bad(other, "failure", "of another identity", "join again")
    folder.decide(lambda state: state.revoke(here))
    is_bad(membership.certificate(folder, here), "failure", "was revoked", "ask whoever")


@pytest.mark.usefixtures("without_torch")
def test_a_damaged_swarm_is_a_failure_and_none_is_not(home: Home) -> None:
    found = examination.examine(examination.Home(home.home))
    assert of(found, "swarm").state == "skipped"
    home.found()
    (home.folder.path / "membership").write_bytes(b"nonsense")
    is_bad(of(examination.examine(examination.Home(home.home)), "swarm"), "failure", "membership", " ")


# -- lines -----------------------------------------------------------------------------------------


def test_a_port_in_use_and_an_address_of_somebody_else_are_failures() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        number = taken.getsockname()[1]
        here = Network(listen="127.0.0.1", port=number)
        is_bad(lines.port(here, 0, None), "failure", "in use by another program", "[network]")
        assert lines.port(here, 0, number).state == "ok"
    assert lines.port(here, 0, None).state == "ok"
    assert lines.port(Network(), 0, None).state == "ok"
    is_bad(lines.port(here, 0, number), "failure", "does not answer there", "firewall")
    elsewhere = Network(listen="203.0.113.77")
    is_bad(lines.port(elsewhere, 5000, None), "failure", "nothing can listen on 203.0.113.77", "`listen`")


def test_a_computer_without_a_way_out_is_told() -> None:
    ways = {socket.AF_INET: "192.168.1.5", socket.AF_INET6: "fd00::5"}
    assert lines.internet(lambda family: ways[family]).seen == (
        "IPv4 as 192.168.1.5, IPv6 only in this network, as fd00::5"
    )
    is_bad(lines.internet(lambda _: ""), "warning", "no way out", "connect it")


def test_a_vpn_that_takes_everything_is_told_and_one_beside_it_is_not() -> None:
    here = (Interface("eth0", ("192.168.1.5",), ("192.168.1.0/24",)),)
    found = (
        lines.Line("docker0", ("172.17.0.1",)),
        lines.Line("eth0", ("192.168.1.5",)),
        lines.Line("wg0", ("10.8.0.2",)),
    )
    through = lines.networks(Network(), here, found, out="10.8.0.2")
    is_bad(through, "warning", "everything leaves through the VPN wg0", "split tunnel")
    beside = lines.networks(Network(), here, found, out="192.168.1.5")
    assert (beside.state, beside.seen) == (
        "ok",
        "eth0 192.168.1.5; not searched, for containers: docker0; VPN beside it: wg0",
    )
    assert lines.networks(Network(), (), (), out="").seen == "no local network"


def test_an_address_of_the_providers_own_network_is_seen_and_that_of_a_vpn_is_not() -> None:
    assert lines.carrier([lines.Line("wwan0", ("fe80::1", "100.70.1.2"))]) == "100.70.1.2"
    assert lines.carrier([lines.Line("tailscale0", ("100.70.1.2",)), lines.Line("eth0", ("10.0.0.2",))]) == ""


# -- the command -----------------------------------------------------------------------------------


def test_without_a_daemon_everything_local_is_looked_at(home: Home) -> None:
    home.found("--name", "test", task="digits")
    done = home.call("doctor")
    assert done.code == 0, done.out
    lines_ = done.out.splitlines()
    assert all(line[0] in {*GLYPHS.values(), " "} for line in lines_[:-1])
    assert max(map(len, lines_)) <= 80 or "/" in max(lines_, key=len)
    assert "daemon    not running" in done.out
    assert "data      1,437 examples" in done.out
    assert lines_[-1].startswith("nothing is broken: ")
    assert "looking at torch" in done.err


@pytest.mark.usefixtures("without_torch")
def test_a_failure_is_an_exit_code_and_the_repair_is_below(home: Home) -> None:
    (home.home / "config.toml").write_text("[network]\nprot = 1")
    done = home.call("doctor")
    assert done.code == 1
    text = done.out.splitlines()
    at = next(number for number, line in enumerate(text) if line.startswith("✖ failure  config"))
    assert any("fix: did you mean `network.port`?" in line for line in text[at : at + 5])
    assert text[-1].startswith("something is broken: ")


@pytest.mark.usefixtures("without_torch")
def test_a_daemon_that_was_killed_is_told(home: Home) -> None:
    home.found()
    endpoint = {"pid": 1, "port": 1, "token": "x", "version": "0", "started_at": "", "started_by": ""}
    home.control.write_bytes(msgspec.json.encode(endpoint))
    done = home.call("doctor", "--json")
    assert done.code == 1
    daemon = next(one for one in done.json["findings"] if one["name"] == "daemon")
    assert (daemon["state"], "start" in daemon["repair"]) == ("failure", True)


def test_the_command_line_itself_never_imports_torch(home: Home) -> None:
    assert "torch" not in loaded(f"--home {home.home} doctor")


@pytest.mark.parametrize("width", [80, 120])
def test_lines_fit_the_terminal_and_commands_stay_whole(width: int) -> None:
    command = "`uv pip install --python /usr/bin/python3 --torch-backend auto torch`"
    finding = Finding("gpu", "failure", "an NVIDIA card, but this torch is for CPUs only", command)
    text = show(finding, width)
    assert all(len(line) <= width for line in text)
    assert text[0].startswith("✖ failure  gpu")
    joined = " ".join(" ".join(text).split())
    assert command in joined


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("at 81.2.69.160:4001, 8.8.8.8.", "at 81.2.x.x:4001, 8.8.x.x."),
        ("at [2a00:1450:4001::5]:4001.", "at [2a00:1450:x]:4001."),
        ("192.168.1.5, fd00::2 and 127.0.0.1", "192.168.1.5, fd00::2 and 127.0.0.1"),
        ("Python 3.11.7, 12:30:45, driver 550.54.15", "Python 3.11.7, 12:30:45, driver 550.54.15"),
    ],
)
def test_public_addresses_are_shortened_for_others(text: str, shown: str) -> None:
    assert hide(text) == shown


@pytest.mark.usefixtures("without_torch")
def test_what_is_written_for_others_holds_no_secret(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(home.home.parent))
    home.found()
    (home.home / "identity.pem").chmod(0o644)
    written = home.call("doctor", "--json")
    assert os.name != "posix" or "mode 644" in written.out
    assert written.json["schema"] == 1
    assert str(home.home.parent) not in written.out
    assert "~/" in written.out
    pem = (home.home / "identity.pem").read_text().splitlines()[1]
    assert pem not in written.out
    assert "PRIVATE" not in written.out
