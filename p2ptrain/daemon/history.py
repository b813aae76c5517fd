"""What a daemon measured, second by second, in one SQLite file: it outlives kills, and curves come from it.

Beside the points stands from whom the own weights descend. One thread writes. The file stays below a number
of points: when there are too many, every second one of the older half goes, so that the curve of a month is
as long as that of a day.
"""

import contextlib
import math
import sqlite3
import threading
from collections.abc import Callable
from pathlib import Path
from queue import SimpleQueue
from typing import Any, NamedTuple, Protocol

from msgspec import Struct

from p2ptrain.core import inputs
from p2ptrain.core.effects import Adopt, Combine, Effect, Note
from p2ptrain.core.errors import ConfigError
from p2ptrain.core.inputs import Input
from p2ptrain.core.types import OWN, Seconds
from p2ptrain.core.view import NodeView
from p2ptrain.daemon.descent import EVENTS, TURNS_MAX, Turn, turn_of

FILE = "history.sqlite"
DAMAGED = "history.damaged.sqlite"

POINTS_MAX = 20_000
"""1.7 MB (measured). Five hours of one point a second are kept whole. Guess."""

WAITING_MAX = 100
"""Points that wait for a slow disk; more are left out."""

BUSY_S = 5.0
"""Somebody reads: so long a write waits."""


class Point(Struct, frozen=True, kw_only=True):
    """One moment. None: not known.

    time: seconds since 1970, UTC. boot: number of the daemon's start; the bytes count from there.
    train_loss: mean since the point before. loss, accuracy: on held out data, as last told to peers.
    rounds: weights of others that were mixed in or taken over since the start.
    """

    time: float
    boot: int
    state: str
    step: int
    samples: int
    train_loss: float | None = None
    loss: float | None = None
    accuracy: float | None = None
    test_loss: float | None = None
    test_accuracy: float | None = None
    bytes_sent: int = 0
    bytes_received: int = 0
    peers: int = 0
    rounds: int = 0


_NAMES = Point.__struct_fields__
_TABLE = f"CREATE TABLE IF NOT EXISTS points (id INTEGER PRIMARY KEY, {', '.join(_NAMES)})"
_INSERT = f"INSERT INTO points ({', '.join(_NAMES)}) VALUES ({', '.join('?' * len(_NAMES))})"  # noqa: S608 - constants
_SELECT = f"SELECT {', '.join(_NAMES)} FROM points ORDER BY id"  # noqa: S608 - constants

_TURN_NAMES = Turn.__struct_fields__
_TURN_TABLE = f"CREATE TABLE IF NOT EXISTS turns (id INTEGER PRIMARY KEY, {', '.join(_TURN_NAMES)})"
_TURN_INSERT = f"INSERT INTO turns ({', '.join(_TURN_NAMES)}) VALUES ({', '.join('?' * len(_TURN_NAMES))})"  # noqa: S608 - constants
_TURN_SELECT = f"SELECT {', '.join(_TURN_NAMES)} FROM turns ORDER BY id"  # noqa: S608 - constants


class _End(NamedTuple):
    pass


class History:
    """Writes points into a folder's file.

    Args:
        say: takes what the owner should read, in the thread that writes.
    """

    def __init__(self, folder: Path, say: Callable[[str], None], points_max: int = POINTS_MAX) -> None:
        self._folder = folder
        self._say = say
        self._points_max = points_max
        self._waiting: SimpleQueue[Point | Turn | _End] = SimpleQueue()
        self._thread = threading.Thread(target=self._write, name="history", daemon=True)
        self._thread.start()

    def add(self, point: Point | Turn) -> None:
        """Keep a point or a turn, soon; never waits."""
        if self._waiting.qsize() < WAITING_MAX:
            self._waiting.put(point)

    def close(self) -> None:
        """Write what waits, and end."""
        self._waiting.put(_End())
        self._thread.join(2 * BUSY_S)

    def _write(self) -> None:
        """Write until the end; a file that cannot be used is set aside, and if that fails nothing is kept."""
        connection = None
        trouble = 0
        while not isinstance(point := self._waiting.get(), _End):
            if trouble > 1:
                continue
            try:
                connection = connection or _open(self._folder)
                self._insert(connection, point)
            except (sqlite3.Error, OSError) as error:
                trouble += 1
                if connection is not None:
                    connection.close()
                    connection = None
                self._set_aside(error)
        if connection is not None:
            connection.close()

    def _insert(self, connection: sqlite3.Connection, point: Point | Turn) -> None:
        with connection:
            if isinstance(point, Turn):
                connection.execute(_TURN_INSERT, [_plain(getattr(point, name)) for name in _TURN_NAMES])
                last = "(SELECT MAX(id) FROM turns)"
                connection.execute(f"DELETE FROM turns WHERE id <= {last} - ?", (TURNS_MAX,))  # noqa: S608 - constants
                return
            cursor = connection.execute(_INSERT, [_plain(getattr(point, name)) for name in _NAMES])
            if (cursor.lastrowid or 0) % 100 == 0:
                self._thin(connection)

    def _thin(self, connection: sqlite3.Connection) -> None:
        (count,) = connection.execute("SELECT COUNT(*) FROM points").fetchone()
        if count <= self._points_max:
            return
        (middle,) = connection.execute(
            "SELECT id FROM points ORDER BY id LIMIT 1 OFFSET ?", (count // 2,)
        ).fetchone()
        connection.execute(
            "DELETE FROM points WHERE id IN (SELECT id FROM (SELECT id, ROW_NUMBER() OVER (ORDER BY id)"
            " AS place FROM points WHERE id < ?) WHERE place % 2 = 0)",
            (middle,),
        )

    def _set_aside(self, error: Exception) -> None:
        path = self._folder / FILE
        with contextlib.suppress(OSError):
            for ending in ("-wal", "-shm"):
                path.with_name(FILE + ending).unlink(missing_ok=True)
            path.replace(self._folder / DAMAGED)
        self._say(
            f"the history cannot be written: {error}; a new one begins, the old one is kept as {DAMAGED}"
        )


class Recorder(Protocol):
    """Writes down what happened."""

    def record(self, at: Seconds, event: Input, effects: list[Effect]) -> None:
        """Take one input and its effects."""
        ...


class Watch:
    """Makes points of what a daemon sees. It stands between driver and journal, and passes everything on."""

    def __init__(self, boot: int, journal: Recorder) -> None:
        self._boot = boot
        self._journal = journal
        self._losses: list[tuple[float, int]] = []
        self._step = 0
        self._rounds = 0
        self._last: Point | None = None
        self._turns: list[Note] = []

    def record(self, at: Seconds, event: Input, effects: list[Effect]) -> None:
        """Take one input and its effects."""
        self._journal.record(at, event, effects)
        self._rounds += sum(map(_mixes, effects))
        self._turns += [one for one in effects if isinstance(one, Note) and one.event in EVENTS]
        match event:
            case inputs.TrainerReady(step=step):
                self._step = step
            case inputs.Trained(step=step, loss=loss):
                self._losses.append((loss, max(0, step - self._step)))
                self._step = step
            case _:
                pass

    def point(self, node: NodeView, bytes_sent: int, bytes_received: int, time: float) -> Point | None:
        """Return what is new since the last one; None: nothing."""
        point = Point(
            time=time,
            boot=self._boot,
            state=node.state,
            step=max(node.step, self._step),
            samples=node.samples,
            train_loss=self._train_loss(),
            loss=node.loss,
            accuracy=node.accuracy,
            test_loss=node.test_loss,
            test_accuracy=node.test_accuracy,
            bytes_sent=bytes_sent,
            bytes_received=bytes_received,
            peers=sum(peer.connected for peer in node.peers),
            rounds=self._rounds,
        )
        last, self._last = self._last, point
        return None if last is not None and _same(last, point) else point

    def turns(self, time: float) -> list[Turn]:
        """Return where the own weights went since the last time this was asked."""
        notes, self._turns = self._turns, []
        return [turn_of(note, time, self._boot, self._step) for note in notes]

    def _train_loss(self) -> float | None:
        steps = sum(steps for _, steps in self._losses)
        mean = sum(loss * steps for loss, steps in self._losses) / steps if steps else math.nan
        self._losses.clear()
        return mean


def read(folder: Path) -> list[Point]:
    """Return the points of a folder, the oldest first; a daemon may be writing.

    Raises:
        ConfigError: there are none, or the file is damaged.
    """
    return [Point(**dict(zip(_NAMES, row, strict=True))) for row in _rows(folder, _SELECT)]


def read_turns(folder: Path) -> list[Turn]:
    """Return the turns of a folder, the oldest first.

    Raises:
        ConfigError: there is no history, or the file is damaged.
    """
    return [Turn(**dict(zip(_TURN_NAMES, row, strict=True))) for row in _rows(folder, _TURN_SELECT)]


def _rows(folder: Path, select: str) -> list[tuple[Any, ...]]:
    path = folder / FILE
    if not path.exists():
        raise ConfigError("there is no history yet", "`p2ptrain start` begins one")
    try:
        with contextlib.closing(sqlite3.connect(path, timeout=BUSY_S)) as connection:
            return connection.execute(select).fetchall()
    except sqlite3.Error as error:
        if "no such table: turns" in str(error):
            return []  # an older daemon wrote it
        raise ConfigError(
            f"{path} cannot be read: {error}", "`p2ptrain start` sets it aside and begins another"
        ) from None


def _open(folder: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(folder / FILE, timeout=BUSY_S)
    try:
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=NORMAL")
        if connection.execute("PRAGMA quick_check(1)").fetchone() != ("ok",):
            raise sqlite3.DatabaseError("it is damaged")
        for table, select in ((_TABLE, _SELECT), (_TURN_TABLE, _TURN_SELECT)):
            connection.execute(table)
            connection.execute(select + " DESC LIMIT 1").fetchone()
    except sqlite3.Error:
        connection.close()
        raise
    return connection


def _mixes(effect: Effect) -> bool:
    """Say whether the own weights become others'; going back to own ones is none of that."""
    own = ("fresh", "back")
    return (isinstance(effect, Combine) and effect.out == OWN) or (
        isinstance(effect, Adopt) and effect.tag not in own
    )


def _plain(value: object) -> object:
    """NaN and infinity say nothing in a curve."""
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _same(one: Point, other: Point) -> bool:
    """Say whether nothing happened in between but time."""
    still = ("state", "step", "loss", "test_loss", "peers", "rounds")
    return all(getattr(one, name) == getattr(other, name) for name in still)
