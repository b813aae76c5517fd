"""`task compare`: settings side by side, in a table and in a picture."""

import math
import sys
from pathlib import Path

import click
import msgspec
import numpy as np
import pytest
from matplotlib.colors import to_rgb
from matplotlib.image import imread

from p2ptrain.cli.charts import COLOURS
from p2ptrain.cli.variants import VARIANTS_MAX, Variant, combine
from p2ptrain.learn import study
from p2ptrain.learn.wire import Setup
from tests.daemon.helpers import Outcome, p2ptrain

SEVEN = ("sgd", "momentum", "nesterov", "adagrad", "rmsprop", "adam", "nadam")
SLOW = SEVEN[:3]
ADAPTIVE = SEVEN[4:]


def compare(task: str, *words: object) -> Outcome:
    return p2ptrain("task", "compare", task, "--threads", 1, *words)


def test_the_seven_optimizers_in_a_table_and_a_picture(tmp_path: Path) -> None:
    """With one small rate for all, those that adapt it are ahead; with a rate each, none is far behind."""
    json, png = tmp_path / "seven.json", tmp_path / "seven.png"
    words = ["--set", f"optimizer={','.join(SEVEN)}", "--set", "lr=1e-3,tuned", "--steps", 120]
    done = compare("digits", *words, "--json", json, "--plot", png)
    assert done.code == 0, done.err
    variants = msgspec.json.decode(json.read_bytes())["variants"]
    assert [(one["label"], one["panel"]) for one in variants] == [
        (name, panel) for panel in ("lr=1e-3", "lr=tuned") for name in SEVEN
    ]
    assert len({one["runs"][0]["curve"][0]["test_loss"] for one in variants}) == 1, "one start for all"
    same, tuned = (
        {one["label"]: one for one in variants if one["panel"] == panel} for panel in ("lr=1e-3", "lr=tuned")
    )
    assert {one["lr"] for one in same.values()} == {1e-3}
    assert [tuned[name]["lr"] for name in SEVEN] == [0.05, 0.1, 0.01, 0.01, 1e-3, 1e-3, 1e-3]
    best_slow = max(same[name]["test_accuracy"] for name in SLOW)
    assert min(same[name]["test_accuracy"] for name in ADAPTIVE) > best_slow + 0.05
    assert same["sgd"]["test_accuracy"] < 0.3
    assert tuned["sgd"]["test_accuracy"] > same["sgd"]["test_accuracy"] + 0.2
    for one in variants:
        assert f"{100 * one['test_accuracy']:.2f} %" in done.out
        assert one["runs"][0]["curve"][-1]["step"] == 120
    assert f"{png} shows it" in done.err
    assert_shows_lines(png, len(SEVEN))


def assert_shows_lines(png: Path, count: int) -> None:
    """A line and its name in the legend, twice or more, take hundreds of pixels."""
    pixels = imread(png)[:, :, :3]
    seen = [(np.abs(pixels - to_rgb(colour)).max(2) < 0.02).sum() for colour in COLOURS[:count]]
    assert min(seen) > 300
    assert (pixels == 1).all(2).mean() > 0.5


def test_seeds_are_starts_and_orders_and_the_table_says_how_far_they_differ(tmp_path: Path) -> None:
    json = tmp_path / "runs.json"
    done = compare("digits", "--set", "lr=0.1", "--steps", 40, "--seeds", 3, "--json", json)
    (variant,) = msgspec.json.decode(json.read_bytes())["variants"]
    starts = {run["curve"][0]["test_loss"] for run in variant["runs"]}
    assert len(starts) == 3
    assert sum(run["test_accuracy"] for run in variant["runs"]) / 3 == pytest.approx(variant["test_accuracy"])
    assert " ± " in done.out


def test_the_same_settings_are_trained_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    trained = []

    def counted(setup: Setup, epochs: int) -> study.Result:
        trained.append((setup.seed, setup.task_config))
        return train(setup, epochs)

    train = study.train
    monkeypatch.setattr(study, "train", counted)
    json = tmp_path / "runs.json"
    words = ["--set", "optimizer=adam,sgd", "--set", "lr=1e-3,tuned", "--steps", 5, "--seeds", 2]
    assert compare("digits", *words, "--json", json).code == 0
    assert len(trained) == 6, "a thousandth is what suits Adam"
    variants = msgspec.json.decode(json.read_bytes())["variants"]
    assert variants[0]["test_loss"] == variants[2]["test_loss"]
    assert [run["settings"] for run in variants[2]["runs"]] == [{"optimizer": "adam"}] * 2


def test_epochs_count_batches() -> None:
    done = study.train(Setup(task="digits", task_config={"batch_size": 100}, threads=1), epochs=3)
    assert (done.steps, done.samples) == (3 * 14, 3 * 14 * 100)
    assert [point.step for point in done.curve][::4] == [0, 14, 28, 42]
    assert done.train_loss < done.curve[0].test_loss
    again = study.train(Setup(task="digits", task_config={"batch_size": 100}, threads=1), epochs=3)
    assert (again.test_loss, again.curve[3]) == (done.test_loss, done.curve[3])


def test_a_task_without_accuracy_is_compared_by_its_loss(tmp_path: Path) -> None:
    png = tmp_path / "loss.svg"
    done = compare("toys:normed", "--steps", 5, "--plot", png)
    assert "loss " in done.err
    assert "—" in done.out
    assert png.read_text().startswith("<?xml")


def test_what_diverged_is_said_and_hides_nothing(tmp_path: Path) -> None:
    done = compare("digits", "--set", "lr=0.1,100,1e30", "--steps", 50, "--plot", tmp_path / "d.png")
    assert done.code == 0, done.err
    assert "—" in done.out
    pixels = imread(tmp_path / "d.png")[:, :, :3]
    losses = pixels[int(0.45 * len(pixels)) : int(0.75 * len(pixels))]
    falling = (np.abs(losses - to_rgb(COLOURS[0])).max(2) < 0.02).any(1).sum()
    assert falling > 20, "pixels from the highest to the lowest loss"


def test_combinations() -> None:
    assert combine(()) == ("settings", [Variant("as it is", "", {})])
    assert combine(("lr=0.5",)) == ("lr", [Variant("0.5", "", {"lr": 0.5})])
    name, variants = combine(("a=1", "optimizer=sgd, adam", "lr=tuned,1e-3"))
    assert name == "optimizer"
    assert variants == [
        Variant("sgd", "lr=tuned", {"a": 1, "optimizer": "sgd"}),
        Variant("adam", "lr=tuned", {"a": 1, "optimizer": "adam"}),
        Variant("sgd", "lr=1e-3", {"a": 1, "optimizer": "sgd", "lr": 1e-3}),
        Variant("adam", "lr=1e-3", {"a": 1, "optimizer": "adam", "lr": 1e-3}),
    ]


@pytest.mark.parametrize(
    ("pairs", "said"),
    [
        (("lr",), "not name=value"),
        (("=3",), "not name=value"),
        (("lr=1,2", "lr=3"), "twice"),
        (("lr=1,1",), "twice"),
        (("a=" + ",".join(map(str, range(VARIANTS_MAX + 1))),), "more than 100"),
    ],
)
def test_combinations_that_cannot_be(pairs: tuple[str, ...], said: str) -> None:
    with pytest.raises(click.BadParameter, match=said):
        combine(pairs)


@pytest.mark.parametrize(
    ("words", "said", "fix"),
    [
        (["--set", "optimizer=sgd,adm"], "no optimizer `adm`", "did you mean `adam`?"),
        (["--set", "lr=0.1,-1"], "`lr` is -1", "0 or more"),
        (["--plot", "seven.bmp"], "seven.bmp is no picture", ".png"),
        (["--plot", "nowhere/seven.png"], "nowhere is no folder", "another place"),
        (["--data", "nowhere"], "no folder nowhere", "--data"),
    ],
)
def test_what_cannot_work_is_said_before_anything_is_trained(
    words: list[str], said: str, fix: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delattr(study, "train")
    done = compare("digits", *words)
    assert done.code == 2
    assert said in done.err
    assert fix in done.err


def test_what_is_done_is_not_lost_by_an_interruption(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def interrupted(setup: Setup, epochs: int) -> study.Result:
        if setup.task_config["lr"] == 0.3:
            raise KeyboardInterrupt
        return train(setup, epochs)

    train = study.train
    monkeypatch.setattr(study, "train", interrupted)
    done = compare("digits", "--set", "lr=0.1,0.3,0.5", "--steps", 5, "--plot", tmp_path / "part.png")
    assert (done.code, (tmp_path / "part.png").exists()) == (0, True)
    assert "interrupted: 1 of 3" in done.err
    assert [line.split()[0] for line in done.out.splitlines()] == ["LR", "0.1"]
    assert compare("digits", "--set", "lr=0.3", "--steps", 5).code == 130


def test_without_matplotlib_there_is_a_sentence(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    done = compare("digits", "--plot", tmp_path / "seven.png")
    assert done.code == 2
    assert "pip install 'p2ptrain[report]'" in done.err


def test_check_names_the_rate_and_leaves_it_to_a_task_with_its_own_optimizer() -> None:
    assert study.check("digits", {"optimizer": "nesterov"}) == 0.01
    assert study.check("toys:normed", {}) is None
    assert math.isclose(study.check("digits", {}) or 0, 0.1)
