"""What `bench train` counts: everything between `resume` and the end of `pause`, and a loop beside it."""

from pathlib import Path

import pytest

from p2ptrain.cli.fleet import Member
from p2ptrain.cli.pace import BATCHES, NETS, TASK, Window, Workload, _pace, _windows
from p2ptrain.cli.plain import Built, Loop, Stretch, Work
from p2ptrain.cli.quantities import parse_settings
from p2ptrain.core import inputs
from p2ptrain.core.errors import P2PTrainError
from p2ptrain.core.messages import Contact
from p2ptrain.daemon.journal import Header, Journal, events
from p2ptrain.daemon.swarms import Swarms
from tests.daemon.helpers import Home

Told = list[tuple[float, inputs.Input]]

TOLD: Told = [
    (1.0, inputs.TrainerReady(0, 0, 8, 64)),
    (2.0, inputs.Trained(50, 500, 0.1, 0.9)),
    (3.0, inputs.Paused("a loop")),
    (3.1, inputs.Trained(60, 600, 0.1, 0.4)),
    (10.0, inputs.Resumed()),
    (12.0, inputs.Trained(110, 1100, 0.1, 1.5)),
    (12.1, inputs.Evaluated("own", (0.1,), (0.1,), (0.5,), (0.0,), 100, 0.25)),
    (15.0, inputs.Paused("a loop")),
    (15.5, inputs.Trained(130, 1300, 0.1, 2.0)),
    (15.6, inputs.Evaluated("own", (0.1,), (0.1,), (0.5,), (0.0,), 100, 9.0)),
    (20.0, inputs.Resumed()),
    (24.0, inputs.Paused("a loop")),
    (24.1, inputs.Trained(140, 1400, 0.1, 4.0)),
]


def member(home: Home, told: Told) -> Member:
    """A member that lived through this."""
    home.found(task="digits")
    folder = Swarms(home.home / "swarms").find(None)
    contact = Contact(b"member", (), "bench", "1")
    header = Header(folder.swarm, folder.membership().member.peer, folder.record().manifest, 1, contact)
    journal = Journal(folder.journal, header)
    for now, event in told:
        journal.record(now, event, [])
    journal.close()
    assert [now for now, _ in events(folder.journal)] == [now for now, _ in told]
    one = Member.__new__(Member)
    one.home = home.home
    return one


def test_all_between_resuming_and_the_last_answer_counts(home: Home) -> None:
    first, second = _windows(member(home, TOLD))
    assert (first.samples, first.steps, first.seconds) == (700, 70, 5.5)
    assert (first.training, first.measuring) == (3.5, 0.25)
    assert (second.samples, second.steps, second.seconds) == (100, 10, pytest.approx(4.1))


def test_a_trainer_that_was_lost_spoils_the_figure(home: Home) -> None:
    with pytest.raises(P2PTrainError, match="out of memory"):
        _windows(member(home, [*TOLD, (25.0, inputs.TrainerLost("out of memory", 1.0))]))


def test_the_ratio_is_the_median_of_turns_and_both_members_count() -> None:
    window = Window(0.0, samples=90, steps=9, seconds=1.0, training=0.9, measuring=0.05)
    slow = Window(0.0, samples=50, steps=5, seconds=1.0, training=0.5, measuring=0.4)
    loops = [Stretch(100, 1.0, 1.0), Stretch(50, 0.5, 0.5)]
    built = Built("cpu", "NCHW", 8, 10.0, 1000.0, 0.1)
    workload = Workload(
        name="any", settings=(), steps=10, device="cpu", precision="f32", seconds=1.0, rounds=3
    )
    turns = [(window, window), (slow, window), (window, window)]
    pace = _pace(workload, 1, [built, built], [loops] * 3, turns, [(0.1, 1.9)] * 3, [4, 10, 11])
    assert (pace.samples_per_s, pace.plain_samples_per_s) == (180.0, 200.0)
    assert pace.over_plain_loop == pytest.approx(0.9)
    assert pace.ratios == pytest.approx([0.9, 0.7, 0.9])
    assert pace.cpu_over_plain_loop == pytest.approx((500 / 6) / (450 / 4.5))
    assert (pace.peak_flops, pace.utilisation) == (2000.0, 0.9)
    assert pace.rounds_trained == pytest.approx(5.0)
    assert pace.daemon_cpu == pytest.approx(0.05)
    with pytest.raises(P2PTrainError, match="every turn"):
        _pace(workload, 1, [built, built], [loops] * 2, turns, [(0.1, 1.9)] * 3, [4, 10, 11])


def test_the_loop_trains_the_same_net_on_batches_of_its_part(tmp_path: Path) -> None:
    settings = (*NETS["cnn"], f"batch_size={BATCHES[False]}", "examples=600")
    config = parse_settings(settings)
    work = Work(
        task=TASK,
        task_config=config,
        device="cpu",
        precision="f32",
        threads=1,
        niceness=0,
        part=1,
        parts=2,
    )
    loop = Loop(work)
    before = [parameter.clone() for parameter in loop.net.parameters()]
    assert loop.choose_layout()[1] in ("NCHW", "NHWC")
    assert loop.run(0.0).samples == 128
    assert all((a != b).any() for a, b in zip(before, loop.net.parameters(), strict=True))
    order = [next(loop._batches) for _ in range(4)]
    assert all(len(places) == 128 and places.max() < 300 for places in order)
    assert loop.flops() > 1e6
