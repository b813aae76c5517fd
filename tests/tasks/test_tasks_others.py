"""The built-in tasks on the real data: each loads, and a net of it takes a step."""

import os
from pathlib import Path

import pytest
import torch
from torch.nn.functional import cross_entropy

from p2ptrain.core.effects import Evaluate, Split, Train
from p2ptrain.core.errors import ConfigError
from p2ptrain.core.types import OWN
from p2ptrain.learn.engine import Engine
from p2ptrain.learn.task import find
from p2ptrain.learn.weights.blobs import MemoryBlobs
from p2ptrain.learn.wire import Setup
from p2ptrain.tasks import census, imagenet_synthetic, shakespeare, textures
from p2ptrain.tasks.models.gpt import Gpt

SHARED = Path(__file__).parents[3] / "shared" / "data"
needs_data = pytest.mark.skipif(not SHARED.is_dir(), reason="the data of the project is not here")


@pytest.fixture(autouse=True)
def folders(tmp_path, monkeypatch):
    """Let the sets be found."""
    (tmp_path / "tiny").mkdir()
    (tmp_path / "tiny" / "tiny-imagenet-200.zip").symlink_to(
        SHARED / "tiny-imagenet/tiny-imagenet-20of200.zip"
    )
    named = [SHARED, SHARED / "textures/dtd/images", tmp_path / "tiny"]
    monkeypatch.setenv("P2PTRAIN_DATA", os.pathsep.join(map(str, named)))


SETS = {
    "mnist": (10_000, (1, 28, 28)),
    "tiny_imagenet": (1_000, (3, 64, 64)),
    "textures": (8_700, (3, 64, 64)),
    "census": (16_281, (census.COLUMNS,)),
    "shakespeare": (1_742, (64,)),
}


@needs_data
@pytest.mark.parametrize("name", SETS)
def test_a_set_is_found_and_a_net_takes_a_step_on_it(name):
    task = find(name)
    cfg = task.config()
    examples = task.data(cfg, "test")
    count, shape = SETS[name]
    assert len(examples) == count
    batch = [
        torch.stack([torch.as_tensor(part) for part in column])
        for column in zip(*map(examples.__getitem__, (0, count // 2, count - 1)), strict=True)
    ]
    numbers = task.prepared(cfg, tuple(batch), True)
    assert numbers[0].shape == (3, *shape)
    net = task.model(cfg)
    losses, metrics = task.loss(net, numbers)
    assert losses.shape == metrics["accuracy"].shape == (3,)
    losses.mean().backward()
    assert all(one.grad is not None and one.grad.isfinite().all() for one in net.parameters())


@pytest.mark.parametrize("name", ["census", "shakespeare"])
def test_labels_of_others_are_smoothed_in_training_too(name):
    task = find(name)
    classes = {"census": 2, "shakespeare": len(shakespeare.CHARACTERS)}[name]
    shape = {"census": (), "shakespeare": (64,)}[name]
    inputs = torch.randn(4, census.COLUMNS) if name == "census" else torch.zeros(4, 64, dtype=torch.int64)
    labels = torch.randint(classes, (4, *shape))
    cfg = task.configure({"label_smoothing": 0.1})
    net = task.model(cfg).eval()
    plain, measured = task.loss(net, task.prepare(cfg, (inputs, labels), False))
    smooth, metrics = task.loss(net, task.prepare(cfg, (inputs, labels), True))
    scores = net(inputs).reshape(-1, classes)
    expected = cross_entropy(scores, labels.flatten(), label_smoothing=0.1, reduction="none")
    assert torch.allclose(smooth, expected.view(4, -1).mean(1), atol=1e-5)
    assert torch.equal(measured["accuracy"], metrics["accuracy"])
    assert not torch.allclose(plain, smooth)


@needs_data
def test_shakespeare_is_learnt_and_gone_on_with():
    small = {"context": 32, "width": 32, "layers": 1, "heads": 2, "lr": 1e-2}
    engine = Engine(Setup(task="shakespeare", task_config=small, steps=150), MemoryBlobs())
    trained = engine.perform(Train(150))
    seen = engine.perform(Evaluate("t", (OWN,), Split.TEST, 200))
    assert trained.loss < 3.0  # 4.2 at the beginning
    assert seen.losses[0] < 2.7
    assert seen.accuracies[0] > 0.2


def test_a_text_is_gone_on_with_in_shakespeares_characters():
    cfg = shakespeare.task.configure({"context": 16, "width": 16, "layers": 1, "heads": 1})
    net = shakespeare.task.model(cfg)
    assert isinstance(net, Gpt)
    written = shakespeare.task.sample(net, cfg, "To be, or €")
    assert written.startswith("To be, or ")
    assert len(written) == 10 + shakespeare.WRITTEN
    assert set(written) <= set(shakespeare.CHARACTERS)
    assert len(shakespeare.task.sample(net, cfg, "")) == 1 + shakespeare.WRITTEN
    assert net.training


@needs_data
def test_a_photograph_of_a_texture_is_judged_by_its_patches():
    cfg = textures.Config(classes=10)
    torch.manual_seed(0)
    photograph = next((SHARED / "textures/dtd/images/banded").iterdir())
    lines = textures.sample(textures.task.model(cfg), cfg, str(photograph)).splitlines()
    assert [line.split("%")[0].strip().replace(".", "").isdigit() for line in lines] == [True] * 3
    assert {line.split()[-1] for line in lines} <= set(textures.names(cfg))
    with pytest.raises(ConfigError, match="smaller than a patch of 600"):
        textures.sample(textures.task.model(cfg), textures.Config(classes=10, size=600), str(photograph))
    with pytest.raises(ConfigError, match="10 classes of textures here, more than 9"):
        textures.data(textures.Config(classes=9), "train")


def test_synthetic_pictures_are_the_same_on_every_computer_and_have_any_size():
    cfg = imagenet_synthetic.Config(size=256, examples=16, classes=7)
    for split, count in (("train", 16), ("test", 2)):
        images, labels = imagenet_synthetic.data(cfg, split).tensors
        assert images.shape == (count, 3, 256, 256)
        assert torch.equal(images, imagenet_synthetic.data(cfg, split).tensors[0])
        assert labels.max() < 7
    assert abs(float(images.float().mean()) - 127.5) < 1
    whole = imagenet_synthetic.data(imagenet_synthetic.Config(examples=0), "train")
    assert len(whole) == 1_281_167
    assert whole[1_281_166][0].shape == (3, 224, 224)
