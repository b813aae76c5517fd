"""`p2ptrain demo`: what it shows, and that it leaves nothing, however it ends."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from xml.etree import ElementTree

import msgspec
import pytest

from p2ptrain.cli.demo import Result, Row, show
from tests.daemon.helpers import MARK, PACED, PATIENCE_S, end_all, processes, until

STEPS = 1300
"""6.5 s of `paced.py`: the first checkpoint, without which nobody is killed, comes after 5 s."""


class Demo:
    """A demo in a terminal of its own, with a folder for everything that it writes."""

    def __init__(self, folder: Path, *words: str) -> None:
        self.folder = folder
        self.temporary = folder / "temporary"
        self.temporary.mkdir()
        with (folder / "stdout").open("wb") as out, (folder / "stderr").open("wb") as err:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "p2ptrain", "demo", "--peers", "2", *words],
                cwd=folder,
                env={**os.environ, MARK: str(folder), "TMPDIR": str(self.temporary)},
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                start_new_session=True,
            )

    @property
    def said(self) -> str:
        return (self.folder / "stderr").read_text()

    @property
    def shown(self) -> str:
        return (self.folder / "stdout").read_text()

    def waits_for(self, words: str) -> None:
        until(lambda: words in self.said or self.process.poll() is not None, f"`{words}` in {self.said}")
        assert words in self.said

    @property
    def leftovers(self) -> list[object]:
        """Processes, and temporary files of ours: torch has a cache there."""
        return [*processes(self.folder), *self.temporary.glob("p2ptrain-*")]

    def end(self) -> None:
        self.process.kill()
        self.process.wait()
        end_all(self.folder)


@pytest.fixture
def demo(tmp_path: Path) -> Iterator[Callable[..., Demo]]:
    begun: list[Demo] = []

    def begin(*words: str) -> Demo:
        begun.append(Demo(tmp_path, *words))
        return begun[-1]

    yield begin
    for one in begun:
        one.end()


def test_one_is_killed_and_returns_and_everyone_is_compared_with_alone(
    demo: Callable[..., Demo], tmp_path: Path
) -> None:
    run = demo("--task", PACED, "--steps", str(STEPS), "--seed", "1", "--json", "demo.json")
    assert run.process.wait(2 * PATIENCE_S) == 0, run.said
    assert run.leftovers == []
    answer = msgspec.json.decode((tmp_path / "demo.json").read_bytes())
    assert set(answer) == {field.name for field in msgspec.structs.fields(Result)}
    assert all(set(row) == {field.name for field in msgspec.structs.fields(Row)} for row in answer["peers"])
    result = msgspec.convert(answer, Result)
    assert len(result.peers) == 2
    assert result.returned
    assert result.killed in {row.name for row in result.peers}
    assert 0 < result.resumed_from_step <= result.killed_at_step < STEPS
    for row in result.peers:
        assert row.swarm_accuracy is not None
        assert row.alone_accuracy is not None
        assert row.swarm_accuracy > 0.7
        assert row.samples == 16 * STEPS
        assert row.bytes_sent > 0
        assert row.bytes_received > 0
        assert row.name in run.shown
    assert f"{result.killed} was killed at step {result.killed_at_step}" in run.shown
    assert f"killed {result.killed} at step" in run.said
    picture = ElementTree.parse(tmp_path / "p2ptrain-demo.svg").getroot()
    assert picture.tag.endswith("svg")
    assert len([line for line in picture if line.tag.endswith("polyline")]) == 4


def test_a_demo_too_short_for_a_kill_does_not_claim_one() -> None:
    nobody = Result(
        "digits", "gossip", 50, [], 1.0, "", 0, returned=False, resumed_from_step=0, picture="p.svg"
    )
    assert "nobody was killed: the run was too short" in show(nobody)
    assert "came back" not in show(nobody)


INTERRUPTIONS = {
    "SIGTERM while they train": (signal.SIGTERM, "1000000", "%"),
    "Ctrl+C while they are compared": (signal.SIGINT, "100", "now each of them alone"),
}


@pytest.mark.parametrize("moment", INTERRUPTIONS)
def test_an_interrupted_demo_cleans_up(moment: str, demo: Callable[..., Demo]) -> None:
    number, steps, words = INTERRUPTIONS[moment]
    run = demo("--task", "digits", "--steps", steps)
    run.waits_for(words)
    if number == signal.SIGINT:
        os.killpg(run.process.pid, number)  # as a terminal does: everybody in the foreground gets it
    else:
        run.process.send_signal(number)
    assert run.process.wait(PATIENCE_S) == 130
    assert run.leftovers == []
    assert run.said.endswith("interrupted\n")
    assert "Traceback" not in run.said
