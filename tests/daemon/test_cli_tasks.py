"""Tasks on the command line: found, shown, begun, checked, trained alone."""

import os
import signal
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from safetensors.torch import load_file

from p2ptrain.cli.here import warn_if_missing
from p2ptrain.cli.task_new import names
from p2ptrain.learn import task as tasks
from tests.daemon.helpers import Home, p2ptrain, until
from tests.daemon.test_cli_imports import loaded


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder to work in; what is imported from it is forgotten."""
    monkeypatch.chdir(tmp_path)
    path, modules = list(sys.path), set(sys.modules)
    yield tmp_path
    sys.path[:] = path
    for name in set(sys.modules) - modules:
        if str(getattr(sys.modules[name], "__file__", "")).startswith(str(tmp_path)):
            del sys.modules[name]


@pytest.fixture
def mine(here: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A task of one's own, as `task new` begins it, and its folder to work in."""
    assert p2ptrain("task", "new", "my-net").code == 0
    monkeypatch.chdir(here / "my-net")
    return here / "my-net"


# -- list and show ---------------------------------------------------------------------------------


def test_the_list_has_all_tasks_with_a_sentence_and_imports_none() -> None:
    entries = p2ptrain("task", "list", "--json").json["tasks"]
    assert [entry["name"] for entry in entries] == tasks.known()
    assert all(entry["title"] and entry["needs"] for entry in entries)
    assert {entry["needs"] for entry in entries if entry["name"] in ("digits", "fashion")} == {"shipped"}
    shown = p2ptrain("task", "list").out
    assert all(f"{entry['title']}  " in shown for entry in entries)
    assert "torch" not in loaded("task list", "task list --json", "task --help", "task run --help")


def test_data_that_is_here_is_said_to_be(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def needs() -> str:
        entries = p2ptrain("task", "list", "--json").json["tasks"]
        return str(next(entry["needs"] for entry in entries if entry["name"] == "mnist"))

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.delenv("P2PTRAIN_DATA", raising=False)
    assert needs() == "download, 11.6 MB"
    for name in ("train-images-idx3", "train-labels-idx1", "t10k-images-idx3", "t10k-labels-idx1"):
        (tmp_path / f"{name}-ubyte.gz").touch()
    monkeypatch.setenv("P2PTRAIN_DATA", str(tmp_path))
    assert needs() == "here"
    monkeypatch.setenv("P2PTRAIN_DATA", str(tmp_path / "nowhere"))
    assert needs() == "download, 11.6 MB"


def test_show_tells_settings_with_types_defaults_and_meanings() -> None:
    facts = p2ptrain("task", "show", "fashion", "--json").json
    settings = {one["name"]: one for one in facts["settings"]}
    assert settings["batch_size"] == {
        "name": "batch_size",
        "type": "int",
        "default": 32,
        "meaning": "examples of one step of the optimizer.",
    }
    assert all(one["meaning"] for one in facts["settings"])
    assert facts["parameters"] == 20746
    assert facts["package"]["name"] == "p2ptrain"
    shown = p2ptrain("task", "show", "fashion").out
    assert "--set batch_size=32  (int)" in shown
    assert "--set augment=false  (bool)" in shown


def test_a_task_that_is_not_there_is_met_with_the_nearest() -> None:
    said = p2ptrain("task", "show", "fashon")
    assert said.code == 2
    assert "did you mean `fashion`?" in said.err


# -- an own one ------------------------------------------------------------------------------------


def test_a_new_task_is_short_sound_and_works_where_it_lies(mine: Path) -> None:
    assert len((mine / "my_net.py").read_text().splitlines()) < 30
    checked = p2ptrain("task", "check", "my_net:task", "--set", "width=16", "--json").json
    assert [one for one in checked["findings"] if one["state"] != "ok"] == []
    assert checked["figures"]["package"] == "my_net"
    facts = p2ptrain("task", "show", "my_net:task", "--json").json
    assert facts["title"]
    assert {one["name"] for one in facts["settings"]} == {"width", "lr", "batch_size"}


def test_a_new_task_declares_itself_to_other_programs(mine: Path) -> None:
    project = tomllib.loads((mine / "pyproject.toml").read_text())["project"]
    assert project["entry-points"]["p2ptrain.tasks"] == {"my-net": "my_net:task"}
    assert project["name"] == "my-net"


def test_an_installed_task_is_in_the_list(mine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What pip leaves of an installation."""
    info = mine / "my_net-0.1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: my-net\nVersion: 0.1.0\nSummary: Spirals\n")
    (info / "entry_points.txt").write_text("[p2ptrain.tasks]\nmy-net = my_net:task\n")
    (info / "top_level.txt").write_text("my_net\n")
    monkeypatch.syspath_prepend(mine)
    entries = {entry["name"]: entry for entry in p2ptrain("task", "list", "--json").json["tasks"]}
    assert entries["my-net"] == {
        "name": "my-net",
        "title": "Spirals",
        "source": "my-net 0.1.0",
        "needs": "its own",
    }
    facts = p2ptrain("task", "show", "my-net", "--json").json
    assert (facts["package"]["name"], facts["package"]["version"]) == ("my_net", "0.1.0")


def test_nothing_is_overwritten(here: Path) -> None:
    (here / "full").mkdir()
    (here / "full" / "thesis.txt").write_text("mine")
    (here / "file").write_text("mine")
    for name in ("full", "file"):
        said = p2ptrain("task", "new", name)
        assert said.code == 2
        assert "exists already" in said.err
    assert sorted(path.name for path in here.rglob("*")) == ["file", "full", "thesis.txt"]


@pytest.mark.parametrize(
    ("folder", "made"),
    [("my-net", ("my-net", "my_net")), ("My Net!", ("my-net", "my_net")), ("net2", ("net2", "net2"))],
)
def test_a_folder_gives_its_name_to_project_and_module(folder: str, made: tuple[str, str]) -> None:
    assert names(folder) == made


@pytest.mark.parametrize("folder", ["2nets", "class", "…", "-"])
def test_a_folder_whose_name_no_module_can_have(folder: str, here: Path) -> None:
    said = p2ptrain("task", "new", here / folder)
    assert said.code == 2
    assert "cannot be the name of a module" in said.err
    assert list(here.iterdir()) == []


def test_a_broken_task_ends_with_a_sentence_and_code_1(mine: Path) -> None:
    source = (mine / "my_net.py").read_text()
    (mine / "worse.py").write_text(source.replace("nn.Linear(cfg.width, 2)", "nn.Linear(9, 2)"))
    said = p2ptrain("task", "check", "worse:task")
    assert said.code == 1
    lines = " ".join(said.out.split())
    assert "the layer `2` (Linear) cannot take a batch of the shapes 32x2 and 32" in lines
    assert lines.endswith("broken: loss")
    ran = p2ptrain("task", "run", "worse:task", "--steps", "1")
    assert ran.code == 2
    assert "mat1 and mat2" in ran.err
    assert "task check" in ran.err


def test_an_own_task_is_trained_by_the_daemon_from_its_folder(mine: Path, home: Home) -> None:
    assert home.call("swarm", "create", "--task", "my_net:task", "--name", "test").code == 0
    home.trains()
    home.until(lambda status: status.node.step > 0, "it does not train")
    assert home.terminate() == 0


def test_start_says_that_the_module_of_a_task_is_not_there(
    mine: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    warn_if_missing("my_net:task")
    warn_if_missing("digits")
    assert capsys.readouterr().err == ""
    sys.path.remove(str(mine))
    monkeypatch.chdir(mine.parent)
    warn_if_missing("my_net:task")
    said = capsys.readouterr().err
    assert f"the module `my_net` of the task `my_net:task` is neither installed nor in {mine.parent}" in said
    assert "fix: " in said


# -- run -------------------------------------------------------------------------------------------


def test_a_run_of_so_many_steps_gives_weights_a_card_and_figures(here: Path) -> None:
    words = ["--steps", "120", "--set", "optimizer=adam", "--seed", "3", "--device", "cpu"]
    said = p2ptrain("task", "run", "digits", *words, "--save", "a.safetensors", "--json", "ran.json")
    assert said.code == 0
    ran = msgspec.json.decode((here / "ran.json").read_bytes())
    card = msgspec.json.decode((here / "a.json").read_bytes())
    assert (ran["steps"], ran["samples"], ran["interrupted"]) == (120, 120 * 32, False)
    assert ran["settings"] == {"optimizer": "adam"}
    assert ran["test"]["accuracy"] > 0.5
    assert ran["samples_per_s"] > 0
    assert len(load_file("a.safetensors")) == 4
    again = p2ptrain("task", "run", "digits", *words, "--json").json
    assert again["test"]["loss"] == ran["test"]["loss"]
    measured = p2ptrain("evaluate", "--task", "digits", "--weights", "a.safetensors", "--json").json
    assert measured["loss"] == pytest.approx(ran["test"]["loss"], rel=1e-6)
    assert (card["steps"], card["samples"], card["settings"]) == (120, 120 * 32, {"optimizer": "adam"})


def test_a_run_of_so_long_ends_by_itself_and_shows_the_result(here: Path) -> None:
    said = p2ptrain("task", "run", "digits", "--for", "0.3s", "--device", "cpu")
    assert said.code == 0
    assert said.out.startswith("digits: ")
    assert "accuracy" in said.out.splitlines()[2]


def test_training_that_diverges_is_a_sentence() -> None:
    said = p2ptrain("task", "run", "digits", "--set", "lr=1e20", "--steps", "300", "--device", "cpu")
    assert said.code == 1
    assert "training diverged" in said.err
    assert "lower the learning rate" in said.err


def test_ctrl_c_ends_a_run_with_the_result_so_far(here: Path) -> None:
    process = subprocess.Popen(
        [
            sys.executable,
            "-m",
            "p2ptrain",
            "task",
            "run",
            "digits",
            "--for",
            "1h",
            "--json",
            "--device",
            "cpu",
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    with process:
        assert process.stderr is not None
        until(lambda: b"Ctrl-C" in process.stderr.readline(), "it does not begin")  # type: ignore[union-attr]
        process.send_signal(signal.SIGINT)
        out, _ = process.communicate(timeout=60)
    ran = msgspec.json.decode(out)
    assert process.returncode == 0
    assert ran["interrupted"]
    assert ran["test"]["examples"] == 360


def test_a_folder_of_data_that_is_not_there_is_named() -> None:
    said = p2ptrain("task", "run", "mnist", "--data", "/nowhere/at/all")
    assert said.code == 2
    assert "there is no folder /nowhere/at/all" in said.err
