"""The history of a daemon: bounded, readable while it is written, and never in the way."""

import os
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from p2ptrain.cli.history import show_turns
from p2ptrain.core import inputs
from p2ptrain.core.effects import Adopt, Combine, Note
from p2ptrain.core.errors import ConfigError
from p2ptrain.core.types import OWN, Ref, Slot
from p2ptrain.daemon import history
from p2ptrain.daemon.descent import Turn
from p2ptrain.daemon.history import DAMAGED, FILE, History, Point, Watch, read, read_turns
from tests.daemon.helpers import Home, until


def point(step: int, **more: object) -> Point:
    return Point(time=1000.0 + step, boot=1, state="training", step=step, samples=32 * step, **more)


def write(folder: Path, *points: Point | Turn, points_max: int = history.POINTS_MAX) -> list[str]:
    said: list[str] = []
    writer = History(folder, said.append, points_max)
    for one in points:
        until(lambda: writer._waiting.qsize() < history.WAITING_MAX, "it does not write")
        writer.add(one)
    writer.close()
    return said


def test_points_come_back_as_they_were_also_from_several_runs(tmp_path: Path) -> None:
    first, second = point(1, loss=0.5, accuracy=0.25, peers=3), point(2, train_loss=0.125, bytes_sent=7)
    assert write(tmp_path, first) == write(tmp_path, second) == []
    assert read(tmp_path) == [first, second]


def test_what_is_not_a_number_is_not_known(tmp_path: Path) -> None:
    write(tmp_path, point(1, loss=float("nan"), train_loss=float("inf")))
    (kept,) = read(tmp_path)
    assert (kept.loss, kept.train_loss) == (None, None)


def test_a_long_history_is_thinned_in_its_older_half(tmp_path: Path) -> None:
    write(tmp_path, *map(point, range(1000)), points_max=300)
    steps = [one.step for one in read(tmp_path)]
    assert len(steps) <= 400
    assert steps == sorted(set(steps))
    assert steps[0] == 0
    assert steps[-100:] == list(range(900, 1000))


@pytest.mark.parametrize("damage", [b"", b"SQLite format 3\0" + b"\xff" * 5000, b"no database at all" * 100])
def test_a_damaged_file_is_set_aside(tmp_path: Path, damage: bytes) -> None:
    write(tmp_path, *map(point, range(50)))
    (tmp_path / FILE).write_bytes(damage)
    said = write(tmp_path, point(1), point(2))
    assert read(tmp_path)[-1] == point(2)
    if damage:
        assert (tmp_path / DAMAGED).read_bytes() == damage
        assert len(said) == 1
        assert DAMAGED in said[0]


def test_pages_that_were_overwritten_are_noticed(tmp_path: Path) -> None:
    write(tmp_path, *map(point, range(500)))
    content = bytearray((tmp_path / FILE).read_bytes())
    content[8192:20000] = os.urandom(20000 - 8192)
    (tmp_path / FILE).write_bytes(content)
    assert write(tmp_path, point(1), point(2))
    assert read(tmp_path) == [point(2)]


def test_a_table_of_another_version_is_set_aside(tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / FILE) as other:
        other.execute("CREATE TABLE points (id INTEGER PRIMARY KEY, time)")
    other.close()
    with pytest.raises(ConfigError, match="cannot be read"):
        read(tmp_path)
    assert write(tmp_path, point(1), point(2))
    assert read(tmp_path) == [point(2)]


def test_a_folder_that_cannot_be_written_stops_nothing(tmp_path: Path) -> None:
    (tmp_path / FILE).mkdir()
    (tmp_path / DAMAGED).mkdir()
    (tmp_path / DAMAGED / "full").touch()
    assert len(write(tmp_path, *map(point, range(10)))) == 2


def test_there_is_no_history_before_the_first_start(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no history"):
        read(tmp_path)


KILLED = """
import sys, itertools
from pathlib import Path
from p2ptrain.daemon.history import History, Point
history = History(Path(sys.argv[1]), print)
for step in itertools.count():
    history.add(Point(time=float(step), boot=1, state="training", step=step, samples=0))
    if step % 50 == 0:
        print(step, flush=True)
"""


def test_a_kill_at_any_moment_leaves_a_history(tmp_path: Path) -> None:
    for _ in range(3):
        process = subprocess.Popen(
            [sys.executable, "-c", KILLED, str(tmp_path)], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        )
        assert process.stdout is not None
        until(lambda: (tmp_path / FILE).exists() and count(tmp_path) > 20, "it does not write")
        process.send_signal(signal.SIGKILL)
        process.stdout.close()
        process.wait()
        before = len(read(tmp_path))
        assert write(tmp_path, point(7)) == []
        assert len(read(tmp_path)) == before + 1
        (tmp_path / FILE).unlink()
        for leftover in tmp_path.glob(f"{FILE}-*"):
            leftover.unlink()


def count(folder: Path) -> int:
    try:
        return len(read(folder))
    except ConfigError:
        return 0


class Journal:
    def __init__(self) -> None:
        self.count = 0

    def record(self, at: float, event: object, effects: object) -> None:
        self.count += 1


def test_the_loss_of_training_is_the_mean_since_the_last_point(home: Home) -> None:
    watch, journal = Watch(1, Journal()), Journal()
    watch._journal = journal
    watch.record(0.0, inputs.TrainerReady(10, 320, 8, 64), [])
    watch.record(1.0, inputs.Trained(20, 640, 1.0, 1.0), [])
    watch.record(2.0, inputs.Trained(50, 1600, 0.2, 1.0), [])
    assert watch._train_loss() == pytest.approx((10 * 1.0 + 30 * 0.2) / 40)
    assert watch._train_loss() != watch._train_loss()  # NaN: nothing new
    assert journal.count == 3


def test_what_comes_from_others_counts_as_a_round() -> None:
    watch, slot = Watch(1, Journal()), Slot(Ref("a"))
    wishes = [
        Combine("mixed", OWN, ((1.0, OWN),)),
        Combine("try", slot, ((1.0, OWN),)),
        Adopt("adopt", slot),
        Adopt("fresh", slot),
        Adopt("back", slot),
    ]
    watch.record(0.0, inputs.Resumed(), list(wishes))
    assert watch._rounds == 2


def test_what_strategies_note_of_descent_is_kept(tmp_path: Path) -> None:
    watch = Watch(3, Journal())
    notes = [
        Note("restarted", {"step": 7, "loss": 0.5, "how": "fresh"}),
        Note("averaged", {"from": "abcd"}),
        Note("adopted", {"step": 9, "loss": 0.25, "from": "abcd"}),
        Note("result", {"from": ("abcd", "efgh"), "with_own": True, "loss": float("nan")}),
    ]
    watch.record(0.0, inputs.Trained(20, 640, 1.0, 1.0), list(notes))
    turns = watch.turns(100.0)
    assert watch.turns(101.0) == []
    write(tmp_path, point(1), *turns)
    first, second, last = read_turns(tmp_path)
    assert (first.step, first.how, first.parents) == (7, "fresh", "")
    assert second == Turn(time=100.0, boot=3, step=9, event="adopted", parents="abcd", loss=0.25)
    assert (last.step, last.parents, last.loss) == (20, "own, abcd, efgh", None)
    shown = show_turns([first, second, last])
    assert "adopted" in shown
    assert "own, abcd, efgh" in shown


def test_only_so_many_turns_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(history, "TURNS_MAX", 5)
    turns = [Turn(time=float(step), boot=1, step=step, event="adopted") for step in range(20)]
    write(tmp_path, *turns)
    assert read_turns(tmp_path) == turns[-5:]


def test_a_history_from_before_turns_were_kept_has_none(tmp_path: Path) -> None:
    write(tmp_path, point(1))
    with sqlite3.connect(tmp_path / FILE) as older:
        older.execute("DROP TABLE turns")
    older.close()
    assert read_turns(tmp_path) == []
    assert write(tmp_path, point(2)) == []
    assert len(read(tmp_path)) == 2


def test_a_daemon_writes_its_history_and_a_command_shows_it(home: Home) -> None:
    assert home.call("swarm", "create", "--task", "paced:task", "--name", "test").code == 0
    assert home.call("history").code == 2
    home.trains()
    home.until(lambda status: count(home.folder.path) >= 3, "nothing is written")
    answer = home.call("history", "--json").json
    steps = [one["step"] for one in answer["points"]]
    assert steps == sorted(steps)
    assert steps[-1] > 0
    assert home.call("history", "--csv").out.splitlines()[0].startswith("time,boot,state,step")
    assert "STEP" in home.call("history").out
    assert home.terminate() == 0
    kept = len(home.call("history", "--json").json["points"])
    assert kept >= len(steps)
    home.trains()
    home.until(lambda status: count(home.folder.path) > kept, "the second run writes nothing")
    points = home.call("history", "--json").json["points"]
    assert len({one["boot"] for one in points}) == 2
