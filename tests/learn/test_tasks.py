"""The built-in tasks, their loaders, and how tasks are found."""

import gzip
import os
import struct
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

import p2ptrain
from p2ptrain.core.effects import Evaluate, Split, Train
from p2ptrain.core.errors import ConfigError, ManifestError
from p2ptrain.core.types import OWN
from p2ptrain.learn import task as tasks
from p2ptrain.learn.data.splits import load
from p2ptrain.tasks import digits, fashion
from p2ptrain.tasks.loaders.idx import FILES, read_idx, read_pictures

EXAMPLES = Path(__file__).parents[2] / "examples"


def test_known():
    assert {"digits", "fashion", "mnist"} <= set(tasks.known())
    assert {"data", "loaders", "models", "shared"}.isdisjoint(tasks.known())
    assert p2ptrain.Task is tasks.Task
    with pytest.raises(AttributeError, match="no attribute 'Tusk'"):
        _ = p2ptrain.Tusk


@pytest.mark.parametrize(
    ("reference", "message"),
    [
        ("fasion", "did you mean `fashion`"),
        ("qqqqq", "known are: .*digits, fashion, .*mnist"),
        ("no.such.module:task", "install the package"),
        ("toys:nothing", "install the package"),
        ("math:pi", "a float, not a task"),
        ("a b:c", "install the package"),
        ("", "known are"),
    ],
)
def test_tasks_that_are_not_here(reference, message):
    with pytest.raises(ManifestError, match=message):
        tasks.find(reference)


def test_installed_tasks_are_found_by_name(monkeypatch):
    entry = SimpleNamespace(name="their-net", load=lambda: digits.task)
    monkeypatch.setattr(tasks, "entry_points", lambda group: [entry] if group == "p2ptrain.tasks" else [])
    assert "their-net" in tasks.known()
    assert tasks.find("their-net") is digits.task


def test_settings_are_strict():
    assert fashion.task.configure({"width": 4}).width == 4
    with pytest.raises(ManifestError, match="did you mean `width`"):
        fashion.task.configure({"wdth": 4})
    with pytest.raises(ManifestError, match="Expected `int`"):
        fashion.task.configure({"width": "4"})


@pytest.mark.parametrize(("task", "train", "test"), [(fashion.task, 4000, 1000), (digits.task, 1437, 360)])
def test_the_data_that_is_shipped(task, train, test):
    for split, count in (("train", train), ("test", test)):
        inputs, labels = load(task, task.config(), split).tensors
        assert len(inputs) == len(labels) == count
        assert inputs.isfinite().all()
        if task is fashion.task:
            assert labels.bincount().tolist() == [count // 10] * 10


def test_fashion_has_the_size_that_it_says(engine):
    assert engine("fashion").ready().parameters == 20_746


def test_digits_are_learnt_in_a_second(engine):
    one = engine("digits", steps=400)
    assert one.perform(Train(400)).loss < 0.5
    assert one.perform(Evaluate("t", (OWN,), Split.TEST)).accuracies[0] > 0.85


def idx(data, *shape, magic=b"\0\0\x08"):
    return gzip.compress(magic + bytes([len(shape)]) + struct.pack(f">{len(shape)}I", *shape) + data)


def test_idx(tmp_path):
    file = tmp_path / "x.gz"
    file.write_bytes(idx(bytes(range(6)), 2, 3))
    assert torch.equal(read_idx(file), torch.arange(6, dtype=torch.uint8).view(2, 3))
    good = idx(bytes(6), 2, 3)
    for bad in (
        b"",
        b"plain text",
        good[:-9],
        good[:-1] + b"!",
        good[:12] + b"\xff\xff" + good[14:],
        idx(bytes(5), 2, 3),
        idx(bytes(7), 2, 3),
        idx(bytes(6), 2, 3, magic=b"\0\0\x0d"),
        idx(bytes(6), 2**31, 2**31),
        gzip.compress(b"\0\0\x08\x03\0"),
        gzip.compress(b""),
    ):
        file.write_bytes(bad)
        with pytest.raises(ConfigError):
            read_idx(file)
    with pytest.raises(ConfigError, match="missing"):
        read_idx(tmp_path / "nothing")


def test_images_and_labels_must_fit_together(tmp_path):
    images, labels = FILES["train"]
    (tmp_path / images).write_bytes(idx(bytes(8), 2, 2, 2))
    (tmp_path / labels).write_bytes(idx(bytes(3), 3))
    with pytest.raises(ConfigError, match="do not fit together"):
        read_pictures(tmp_path, "train")


def test_mnist_says_what_is_missing(engine, tmp_path, monkeypatch):
    monkeypatch.setenv("P2PTRAIN_OFFLINE", "1")
    monkeypatch.setenv("P2PTRAIN_DATA", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    for _ in range(2):
        with pytest.raises(
            ConfigError, match=r"(?s)MNIST is not here.*t10k-labels-idx1-ubyte.*P2PTRAIN_DATA"
        ):
            engine("mnist")
        (tmp_path / FILES["train"][0]).write_bytes(idx(bytes(784), 1, 28, 28))


def test_the_example_runs():
    done = subprocess.run(
        [sys.executable, EXAMPLES / "own_task.py"],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert "4,000 steps" in done.stdout
    assert "accuracy 9" in done.stdout
    assert len((EXAMPLES / "own_task.py").read_text().splitlines()) < 30
