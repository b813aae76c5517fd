"""What comes out of a swarm: measured, shown, and written for people who have never heard of p2ptrain."""

import hashlib
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
import torch
from safetensors.torch import load_file, save_file

from p2ptrain.cli.foreground import own_identity
from p2ptrain.core.manifest import Manifest
from p2ptrain.daemon.home import find_home
from p2ptrain.daemon.swarms import Swarms
from p2ptrain.learn.task import find
from tests.daemon.conftest import homes_in
from tests.daemon.helpers import Home, p2ptrain

STEPS = 300


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Home]:
    """A home whose swarm has finished, and whose daemon has ended."""
    with homes_in(tmp_path_factory.mktemp("results")) as make:
        home = make()
        (home.home / "config.toml").write_text("[training]\nthreads = 1\ndevice = 'cpu'\n")
        home.found("--steps", str(STEPS), task="digits")
        home.start()
        home.until(lambda status: home.finished, "it does not finish")
        home.result = home.now().node  # type: ignore[attr-defined]
        assert home.call("export", "-o", home.home / "running.safetensors").code == 0
        assert home.terminate() == 0
        yield home


def test_an_export_says_what_it_is(trained: Home, tmp_path: Path) -> None:
    out = tmp_path / "model.safetensors"
    said = trained.call("export", "-o", out)
    assert said.code == 0
    node = trained.result  # type: ignore[attr-defined]
    card = msgspec.json.decode((tmp_path / "model.json").read_bytes())
    assert card["sha256"] == hashlib.sha256(out.read_bytes()).hexdigest()
    assert (card["task"], card["task_version"], card["settings"]) == ("digits", "1", {})
    assert (card["swarm"], card["strategy"], card["members"]) == ("test", "gossip", 1)
    assert (card["steps"], card["samples"], card["parameters"]) == (STEPS, 32 * STEPS, node.parameters)
    assert card["accuracy"] == pytest.approx(node.test_accuracy)
    assert card["loss"] == pytest.approx(node.test_loss, rel=1e-5)
    assert card["examples"] == 360
    assert card["data_licence"]
    assert card["p2ptrain"]
    assert card["date"]
    running = trained.home / "running.safetensors"
    assert all(torch.equal(a, load_file(out)[name]) for name, a in load_file(running).items())


def test_an_export_is_read_by_three_plain_lines(trained: Home, tmp_path: Path) -> None:
    """As in the README."""
    out = tmp_path / "model.safetensors"
    assert trained.call("export", "-o", out).code == 0
    task = find("digits")
    net = task.model(task.configure({}))
    net.load_state_dict(load_file(out))
    images, labels = task.data(task.configure({}), "test")[:]
    with torch.no_grad():
        right = net.eval()(images.float() / 16).argmax(1) == labels
    card = msgspec.json.decode((tmp_path / "model.json").read_bytes())
    assert float(right.float().mean()) == pytest.approx(card["accuracy"])


def test_evaluate_measures_what_a_swarm_trained(trained: Home, tmp_path: Path) -> None:
    node = trained.result  # type: ignore[attr-defined]
    answer = trained.call("evaluate", "--device", "cpu", "--json").json
    assert set(answer) >= {"loss", "error", "accuracy", "examples", "parameters", "seconds"}
    assert answer["loss"] == pytest.approx(node.test_loss, rel=1e-5)
    assert answer["accuracy"] == pytest.approx(node.test_accuracy)
    assert (answer["examples"], answer["parameters"]) == (360, node.parameters)
    held_out = trained.call("evaluate", "test", "--split", "validation", "--json").json
    assert held_out["examples"] == round(0.15 * 1437)
    assert held_out["loss"] == pytest.approx(node.loss, rel=1e-4)
    file = trained.home / "running.safetensors"
    assert trained.call("evaluate", "--weights", file, "--json").json["loss"] == answer["loss"]
    assert "accuracy" in trained.call("evaluate").out


def test_try_shows_what_the_net_says_of_a_picture(trained: Home, tmp_path: Path) -> None:
    from PIL import Image

    Image.new("L", (20, 20), 200).save(tmp_path / "a.png")
    for words in (("test", tmp_path / "a.png"), (tmp_path / "a.png",)):
        said = trained.call("try", *words)
        assert said.code == 0
        assert "%" in said.out
    nothing = trained.call("try")
    assert nothing.code == 2
    assert "no picture to look at" in nothing.err


def test_a_swarm_that_has_not_trained_has_nothing_to_give(home: Home) -> None:
    home.found(task="digits")
    for command in ("export", "evaluate", "try"):
        said = home.call(command)
        assert said.code == 1
        assert "nothing was trained and saved yet" in said.err


def test_a_net_that_only_a_loop_has_is_not_looked_for_elsewhere(home: Home) -> None:
    place = find_home(str(home.home))
    manifest = Manifest(name="mine", task="attached:mine")
    Swarms(place.swarms).create(manifest, own_identity(place), 0)
    said = home.call("export")
    assert said.code == 2
    assert "`mine` is trained by a loop of your own" in said.err


def test_an_export_without_data_says_so_on_the_card(
    trained: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from p2ptrain.core.errors import ConfigError
    from p2ptrain.learn.result import Result

    def absent(*_: object) -> None:
        raise ConfigError("the data is not here")

    monkeypatch.setattr(Result, "measure", absent)
    assert trained.call("export", "-o", tmp_path / "a.safetensors").code == 0
    card = msgspec.json.decode((tmp_path / "a.json").read_bytes())
    assert (card["accuracy"], card["unmeasured"]) == (None, "the data is not here")


def test_an_export_into_nowhere_is_a_sentence(trained: Home, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    said = trained.call("export", "-o", tmp_path / "file" / "a.safetensors")
    assert said.code == 2
    assert "cannot be written" in said.err


def test_a_damaged_checkpoint_leaves_the_one_before(trained: Home, tmp_path: Path) -> None:
    folder = trained.folder.checkpoint
    files = {path: path.read_bytes() for path in folder.iterdir()}
    try:
        latest = folder / "checkpoint.safetensors"
        latest.write_bytes(latest.read_bytes()[:-10])
        said = trained.call("export", "-o", tmp_path / "a.safetensors")
        assert said.code == (0 if (folder / "checkpoint.previous.safetensors").exists() else 1)
        assert latest.exists()
    finally:
        for path, content in files.items():
            path.write_bytes(content)


def test_weights_of_a_file_on_a_task(tmp_path: Path) -> None:
    net = find("digits").model(find("digits").configure({}))
    save_file(
        {f"module.{name}": value for name, value in net.state_dict().items()}, tmp_path / "a.safetensors"
    )
    words = ["evaluate", "--task", "digits", "--weights", tmp_path / "a.safetensors"]
    assert p2ptrain(*words, "--json").json["examples"] == 360
    wrong = p2ptrain(*words, "--set", "width=8")
    assert wrong.code == 1
    assert "of another size" in wrong.err
    both = p2ptrain("evaluate", "friends", "--task", "digits")
    assert both.code == 2
    assert "name one of them" in both.err
    assert "before any training" in p2ptrain("evaluate", "--task", "digits").err
