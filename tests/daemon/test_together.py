"""Real daemons train one network together: what they reach, show of each other, and write down."""

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from p2ptrain.control.api import Status
from p2ptrain.core import inputs, limits
from p2ptrain.daemon import journal
from p2ptrain.daemon.journal import Header, Journal
from tests.daemon.conftest import MakeHome, homes_in
from tests.daemon.helpers import Home, end_in_order, p2ptrain

STEPS = 3000
CHANCE = 0.1


class Run:
    """What was seen at the end of a run of two daemons and a third that came late."""

    def __init__(self, homes: list[Home]) -> None:
        self.homes = homes
        self.statuses: list[Status] = [home.now() for home in homes]
        self.shown = [home.call("status").out for home in homes]
        self.peers = [home.call("peers").out for home in homes]
        self.peers_json: list[Any] = [home.call("peers", "--json").json for home in homes]

    @property
    def journal(self) -> Path:
        return self.homes[0].folder.journal


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Run]:
    """Two train, a third joins late by the same invite, all finish."""
    with homes_in(tmp_path_factory.mktemp("together")) as make:
        first, second, late = make("first"), make("second"), make("late")
        first.found("--steps", str(STEPS), "--parts", "3", task="digits")
        first.start()
        invite = first.invite()
        assert second.join(invite).code == 0
        second.start()
        first.until(lambda status: status.node.step, "it does not begin")
        assert late.join(invite).code == 0
        late.start()
        homes = [first, second, late]
        for home in homes:
            home.until(lambda status: status.node.test_loss is not None, "it does not finish")
        for home in homes:
            home.until(
                lambda status: all(peer.finished for peer in status.node.peers), "who finished is news"
            )
        seen = Run(homes)
        end_in_order(homes)
        yield seen


# -- what they reach -------------------------------------------------------------------------------


def test_all_finish_with_a_result(run: Run) -> None:
    for status in run.statuses:
        assert status.node.state == "finished"
        assert status.node.step == status.node.saved_step == STEPS
        assert status.node.test_accuracy is not None
        assert status.node.test_accuracy > 5 * CHANCE


def test_they_exchanged_weights(run: Run) -> None:
    assert sum(status.notes.get("averaged", 0) > 0 for status in run.statuses) >= 2
    assert not any(status.notes.get("peer_charged") for status in run.statuses)


def test_status_shows_the_result_in_words(run: Run) -> None:
    for status, shown in zip(run.statuses, run.shown, strict=True):
        assert shown.startswith("● finished")
        assert f"step {STEPS} of {STEPS}" in shown
        assert f"{100 * (status.node.test_accuracy or 0):.2f} % on test data" in shown
        assert "2 of 2 peers connected" in shown


# -- what they show of each other ------------------------------------------------------------------


def test_everyone_knows_the_others_by_name(run: Run) -> None:
    names = {status.peer: status.name for status in run.statuses}
    assert len(set(names.values())) == 3
    for status in run.statuses:
        others = {peer.peer: peer.name for peer in status.node.peers}
        assert others == {peer: name for peer, name in names.items() if peer != status.peer}
        assert all(peer.connected and not peer.trouble for peer in status.node.peers)


def test_everyone_shows_paths_and_bytes(run: Run) -> None:
    for status, shown, answer in zip(run.statuses, run.peers, run.peers_json, strict=True):
        assert {entry["peer"] for entry in answer["traffic"]} == {peer.peer for peer in status.node.peers}
        assert {peer["peer"] for peer in answer["peers"]} == {peer.peer for peer in status.node.peers}
        for entry in answer["traffic"]:
            assert entry["path"].startswith("direct 127.0.0.1 port ")
            assert entry["path"] in shown
            assert entry["bytes_sent"] > 0
            assert entry["bytes_received"] > 0
        for peer in status.node.peers:
            assert peer.short in shown
            assert peer.name in shown
        assert sum(entry.bytes_sent for entry in status.traffic) <= status.bytes_sent


def test_slots_are_given_in_the_order_of_joining(run: Run) -> None:
    assert [status.swarm.slot for status in run.statuses] == [0, 1, 2]
    assert [status.swarm.issuer for status in run.statuses] == [True, False, False]


# -- the journal -----------------------------------------------------------------------------------


def test_a_replay_of_every_daemon_decides_the_same(run: Run) -> None:
    for home in run.homes:
        said = p2ptrain("replay", home.folder.journal)
        assert (said.code, said.err) == (0, "")
        assert said.out.endswith("inputs, every effect the same\n")
        file = home.home / "replay.json"
        assert p2ptrain("replay", home.folder.journal, "--json", file).out == ""
        answer = msgspec.json.decode(file.read_bytes())
        assert answer["divergences"] == []
        assert answer["inputs"] > 50


def frames(data: bytes) -> list[bytes]:
    found = []
    while data:
        size = struct.unpack_from(">I", data)[0]
        found.append(data[4 : 4 + size])
        data = data[4 + size :]
    return found


def whole(pieces: list[bytes]) -> bytes:
    return b"".join(struct.pack(">I", len(piece)) + piece for piece in pieces)


def test_one_changed_input_is_a_divergence(run: Run, tmp_path: Path) -> None:
    """A bug report that was tampered with, or a node that changed since."""
    pieces = frames(run.journal.read_bytes())
    at = next(n for n, piece in enumerate(pieces) if b"TrainerReady" in piece)
    now, event, effects = msgspec.msgpack.decode(pieces[at])
    pieces[at] = msgspec.msgpack.encode([now, {**event, "step": event["step"] + 1}, effects])
    (tmp_path / "journal").write_bytes(whole(pieces))
    said = p2ptrain("replay", tmp_path / "journal")
    assert said.code == 1
    assert f"the first is number {at - 1}, TrainerReady at " in said.out
    answer = p2ptrain("replay", tmp_path / "journal", "--json")
    assert answer.code == 1
    assert answer.json["divergences"][0]["index"] == at - 1


def test_a_frame_that_a_kill_cut_off_is_no_error(run: Run, tmp_path: Path) -> None:
    data = run.journal.read_bytes()
    for cut in (1, 3, 5, 40):
        (tmp_path / "journal").write_bytes(data[:-cut])
        said = p2ptrain("replay", tmp_path / "journal")
        assert said.code == 0
        assert "every effect the same" in said.out


def test_a_frame_twice_is_a_sentence(run: Run, tmp_path: Path) -> None:
    """No node ever takes the same message twice, so no journal holds one."""
    pieces = frames(run.journal.read_bytes())
    received = next(piece for piece in pieces if b"_Received" in piece)
    (tmp_path / "journal").write_bytes(whole([*pieces, received]))
    said = p2ptrain("replay", tmp_path / "journal")
    assert said.code in (1, 2)
    assert said.err


GARBAGE = [
    b"",
    b"\x00",
    b"garbage" * 100,
    b"\xff" * 50,
    whole([b"garbage"]),
    whole([b"\x81\xa1a\x01"]),
    bytes(64),
]


@pytest.mark.parametrize("data", GARBAGE)
def test_garbage_is_no_journal(data: bytes, tmp_path: Path) -> None:
    (tmp_path / "journal").write_bytes(data)
    said = p2ptrain("replay", tmp_path / "journal")
    assert said.code == 2
    assert f"{tmp_path / 'journal'} is no journal, or of another version" in said.err


def test_garbage_after_a_good_beginning_is_a_sentence_too(run: Run, tmp_path: Path) -> None:
    pieces = frames(run.journal.read_bytes())
    for bad in (b"garbage", b"\x93\x01\x02\x03", b"", pieces[0]):
        (tmp_path / "journal").write_bytes(whole([*pieces[:20], bad, *pieces[20:]]))
        said = p2ptrain("replay", tmp_path / "journal")
        assert said.code == 2
        assert "is no journal" in said.err


def test_a_journal_ends_quietly_when_it_is_full(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    header = msgspec.msgpack.decode(frames(run.journal.read_bytes())[0], type=Header)
    monkeypatch.setattr(limits, "JOURNAL_BYTES_MAX", 8000)
    book = Journal(tmp_path / "journal", header)
    for number in range(1000):
        book.record(float(number), inputs.TimerFired("tick"), [])
    book.close()
    assert 7000 < (tmp_path / "journal").stat().st_size <= 8000
    count, _ = journal.replay(tmp_path / "journal")
    assert 50 < count < 1000


def test_the_journal_of_the_run_before_is_kept(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "journal"
    path.write_bytes(before := run.journal.read_bytes())
    Journal(path, msgspec.msgpack.decode(frames(before)[0], type=Header)).close()
    assert path.with_name("journal.1").read_bytes() == before
    assert len(frames(path.read_bytes())) == 1


# -- another strategy ------------------------------------------------------------------------------


def test_a_loss_reached_anywhere_stops_everyone(homes: MakeHome) -> None:
    first, second = homes("first"), homes("second")
    first.found("--strategy", "restart", "--target-loss", "0.5", "--parts", "2", task="digits")
    first.start()
    assert second.join(first.invite()).code == 0
    second.start()
    for home in (first, second):
        done = home.until(lambda status: status.node.test_loss is not None, "it does not stop")
        assert done.node.state == "finished"
        assert done.node.best_loss is not None
        assert done.node.best_loss <= 0.5
        assert "target reached" in done.node.reason
        assert home.call("pause").err == "there is nothing to pause: finished\n"
        assert home.now().node.state == "finished"
