"""The daily commands: start, stop, pause, resume, status, logs."""

import subprocess
import sys
import time
from typing import TYPE_CHECKING

import click

from p2ptrain.cli.main import home_option
from p2ptrain.cli.output import (
    Exit,
    human_bytes,
    human_seconds,
    json_option,
    number,
    percent,
    say,
    write_json,
)
from p2ptrain.cli.quantities import NATURAL
from p2ptrain.core.errors import ControlError, P2PTrainError

if TYPE_CHECKING:
    from p2ptrain.control.api import Status
    from p2ptrain.control.client import Client
    from p2ptrain.daemon.home import Home

DETACH_S = 20.0
STOP_S = 60.0
LOOK_EVERY_S = 0.1


@click.command(epilog="\b\nExamples:\n  p2ptrain start\n  p2ptrain start -d --task digits")
@click.argument("swarm", required=False)
@click.option("-d", "--detach", is_flag=True, help="Go on in the background.")
@click.option("--paused", is_flag=True, help="Begin without training.")
@click.option("--task", metavar="TASK", help="Task of the swarm that is made if there is none yet.")
@home_option
@click.pass_obj
def start(home: str | None, swarm: str | None, detach: bool, paused: bool, task: str | None) -> None:
    """Train in SWARM, or in the one joined last. Without any, make a personal one and train alone."""
    from p2ptrain.control.client import Client
    from p2ptrain.daemon.home import find_home

    place = find_home(home)
    place.prepare()
    try:
        running = Client(place.control).status()
        say(f"already running (pid {running.pid}, {running.node.state}); nothing to do")
        return
    except ControlError:
        pass
    if detach:
        words = ["start", *([swarm] if swarm else []), *(["--paused"] if paused else [])]
        detach_as(place, [*words, *(["--task", task] if task else [])])
        return
    from p2ptrain.cli.foreground import run_here

    run_here(place, swarm, paused=paused, task=task)


def detach_as(home: "Home", words: list[str]) -> None:
    """Start a command in a session of its own, and wait until its daemon answers."""
    from p2ptrain.control.client import Client

    command = [sys.executable, "-m", "p2ptrain", "--home", str(home.path), *words]
    output = home.path / "start.log"
    with output.open("wb") as log:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
        )
    ends = time.monotonic() + DETACH_S
    while time.monotonic() < ends:
        if process.poll() is not None:
            sys.stderr.write(output.read_text(errors="replace"))
            raise click.exceptions.Exit(process.returncode)
        try:
            pid = Client(home.control).status().pid
        except ControlError:
            time.sleep(LOOK_EVERY_S)
            continue
        if pid == process.pid:
            say(f"started, pid {pid} — `p2ptrain status` to look, `p2ptrain stop` to stop")
            return
        time.sleep(LOOK_EVERY_S)
    raise P2PTrainError("the daemon did not answer in time", f"look into {output}")


@click.command(epilog="\b\nExample:\n  p2ptrain stop")
@click.option("--now", is_flag=True, help="Do not wait for a checkpoint.")
@home_option
@click.pass_obj
def stop(home: str | None, now: bool) -> None:
    """Save, tell the peers, and end the daemon."""
    client = _client(home)
    pid = client.endpoint.pid
    client.stop(now=now)
    ends = time.monotonic() + STOP_S
    while _is_alive(pid):
        if time.monotonic() > ends:
            raise P2PTrainError(f"the daemon (pid {pid}) did not end in time", "`p2ptrain logs` says why")
        time.sleep(LOOK_EVERY_S)
    say("stopped")


@click.command(epilog="\b\nExample:\n  p2ptrain pause")
@home_option
@click.pass_obj
def pause(home: str | None) -> None:
    """Stop the work until `p2ptrain resume`; peers still get what they ask for."""
    say(_client(home).pause("paused by its owner").message)


@click.command(epilog="\b\nExample:\n  p2ptrain resume")
@home_option
@click.pass_obj
def resume(home: str | None) -> None:
    """Go on with the work."""
    say(_client(home).resume().message)


@click.command(epilog="\b\nExamples:\n  p2ptrain status\n  p2ptrain status --json | jq .node.state")
@json_option
@home_option
@click.pass_obj
def status(home: str | None, json_file: str | None) -> None:
    """Show what the daemon is doing, and why."""
    answer = _client(home).status()
    if json_file is not None:
        write_json(answer, json_file)
    else:
        click.echo(show_status(answer))
    if answer.node.state == "recovering":
        raise click.exceptions.Exit(Exit.UNHEALTHY)


def show_status(status: "Status") -> str:
    """Write a status for people."""
    node, swarm = status.node, status.swarm
    of = f" of {node.steps}" if node.steps else ""
    connected = sum(peer.connected for peer in node.peers)
    until = f" ({node.until})" if node.until else ""
    up = f"up {human_seconds(status.uptime_s)}"
    if node.state == "serving":
        admits = "admits, " if swarm.issuer else ""
        work = [
            f"● {node.state:<10}{swarm.name}",
            f"  why         {admits}{node.reason}",
            f"  this PC     {status.name}   {up}",
        ]
    else:
        work = [
            f"● {node.state:<10}{swarm.name}   step {node.step}{of}   loss {number(node.loss)}   "
            f"accuracy {percent(node.accuracy)}",
            f"  why         {node.reason}{until}",
            f"  now         {node.activity or 'nothing yet'}",
            f"  this PC     {status.name}   {node.samples} samples   {node.parameters} parameters   {up}",
            f"  saved       step {node.saved_step}",
        ]
    lines = [
        *work,
        f"  network     {connected} of {len(node.peers)} peers connected   "
        f"↑ {human_bytes(status.bytes_sent)}  ↓ {human_bytes(status.bytes_received)}",
        f"  LAN         {status.lan or 'unknown'}",
        f"  internet    {status.outside or 'unknown'}",
    ]
    if node.test_accuracy is not None or node.test_loss is not None:
        lines.append(
            f"  result      loss {number(node.test_loss)}, {percent(node.test_accuracy)} on test data"
        )
    return "\n".join(lines)


@click.command(epilog="\b\nExamples:\n  p2ptrain logs -n 50\n  p2ptrain logs -f")
@click.option("-f", "--follow", is_flag=True, help="Go on as it grows.")
@click.option("-n", "count", type=NATURAL, default=200, show_default=True, help="Lines from the end.")
@home_option
@click.pass_obj
def logs(home: str | None, follow: bool, count: int) -> None:
    """Show what the daemon said."""
    from p2ptrain.daemon.home import find_home

    path = find_home(home).log
    if not path.exists():
        raise P2PTrainError(f"there is no log at {path} yet", "`p2ptrain start` begins one")
    with path.open(errors="replace") as file:
        lines = file.readlines()
        for line in lines[max(0, len(lines) - count) :]:
            click.echo(line.rstrip("\n"))
        while follow:
            line = file.readline()
            if line:
                click.echo(line.rstrip("\n"))
            else:
                time.sleep(LOOK_EVERY_S)


def _client(home: str | None) -> "Client":
    from p2ptrain.control.client import Client
    from p2ptrain.daemon.home import find_home

    return Client(find_home(home).control)


def _is_alive(pid: int) -> bool:
    import psutil

    try:
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False
