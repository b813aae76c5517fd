"""Built-in nets: the published numbers of parameters, a step at the size of CIFAR, and what is refused."""

import sys

import pytest
import torch
from torch.nn.functional import cross_entropy

from p2ptrain.core.errors import ConfigError, ManifestError
from p2ptrain.core.limits import BLOB_BYTES_MAX
from p2ptrain.learn.weights.packing import blob_bytes, header
from p2ptrain.learn.weights.vector import Vector
from p2ptrain.tasks import models
from p2ptrain.tasks.models.gpt import gpt, write
from tests.tasks.sizes import CIFAR, imagenet, step

COUNTS = {
    "resnet20": (269_722, 334_072),
    "cnn3": (113_738, 2_142_248),
    "mlp": (197_322, 9_698_856),
    "vgg16": (14_728_266, 138_357_544),
    "vgg19": (20_040_522, 143_667_240),
    "resnet50": (23_520_842, 25_557_032),
    "resnet152": (58_156_618, 60_192_808),
    "inceptionv4": (41_158_186, 42_679_816),
    "mobilenetv3": (4_213_562, 5_481_752),
}
"""Parameters with ten classes at 32 pixels, and with 1000 at 224, or 299 for Inception, as published."""

ZOO = ("vgg16", "vgg19", "resnet50", "resnet152", "inceptionv4", "mobilenetv3")


@pytest.fixture(autouse=True)
def zoo(request):
    name = request.node.callspec.params.get("name") if hasattr(request.node, "callspec") else None
    if name in ZOO:
        pytest.importorskip("pytorchcv", reason="the extra `zoo` is not installed")


@pytest.mark.parametrize("name", COUNTS)
def test_a_model_has_the_published_number_of_parameters_and_fits_into_a_blob(name):
    for (size, classes), expected in zip((CIFAR, imagenet(name)), COUNTS[name], strict=True):
        with torch.device("meta"):
            net = models.build(name, in_channels=3, size=size, classes=classes)
            spec = Vector(net).spec
        assert spec.trainable == sum(one.numel() for one in net.parameters()) == expected
        assert len(header(spec, "f32")) < 128 * 1024
        assert blob_bytes(spec, "f32") < BLOB_BYTES_MAX / 16


@pytest.mark.parametrize("name", COUNTS)
def test_a_model_takes_a_step_on_pictures_of_cifar(name):
    seen = step(name, *CIFAR)
    assert seen.trainable == COUNTS[name][0]
    assert 1 < seen.loss < 8
    assert seen.gradient > 0


@pytest.mark.parametrize("name", ["cnn2", "cnn3", "mlp", "resnet20"])
@pytest.mark.parametrize(("channels", "size"), [(1, 8), (1, 28), (3, 33), (3, 65)])
def test_small_models_take_pictures_of_any_size(name, channels, size):
    net = models.build(name, in_channels=channels, size=size, classes=7)
    assert net(torch.randn(2, channels, size, size)).shape == (2, 7)


@pytest.mark.parametrize(("name", "side"), [("resnet50", 4), ("inceptionv4", 3), ("mobilenetv3", 4)])
def test_small_pictures_are_halved_less_often(name, side):
    with torch.device("meta"):
        net = models.build(name, in_channels=3, size=32, classes=10)
        seen = []
        net.features.final_pool.register_forward_hook(lambda _, inputs, out: seen.append(inputs[0].shape))
        net(torch.empty(1, 3, 32, 32))
    assert seen[0][2:] == (side, side)


@pytest.mark.parametrize("name", ["mobilenetv3", "resnet50"])
def test_large_models_take_pictures_of_other_sizes(name):
    net = models.build(name, in_channels=1, size=96, classes=7).eval()
    with torch.no_grad():
        assert net(torch.randn(1, 1, 96, 96)).shape == (1, 7)


@pytest.mark.parametrize("name", ["cnn2", "cnn3", "mlp", "resnet20", "vgg16", "inceptionv4", "mobilenetv3"])
def test_pictures_that_are_too_small_are_refused_and_others_taken(name):
    least = models.PIXELS_MIN.get(name, 1)
    with torch.device("meta"):
        for size in (least, 74, 75) if name == "inceptionv4" else (least,):
            net = models.build(name, in_channels=1, size=size, classes=2).eval()
            assert net(torch.empty(1, 1, size, size)).shape == (1, 2)
        if least > 1:
            with pytest.raises(ManifestError, match=f"takes pictures of {least} pixels a side or more"):
                models.build(name, in_channels=1, size=least - 1, classes=2)


def test_what_is_not_there_is_said():
    with pytest.raises(ManifestError, match="did you mean `resnet20`"):
        models.build("resnet21", in_channels=3, size=32, classes=10)
    with pytest.raises(ManifestError, match="has no setting `heads`\nknown are: width, dropout"):
        models.build("cnn3", in_channels=3, size=32, classes=10, heads=2)
    with pytest.raises(ManifestError, match="3 heads cannot share a width of 128"):
        models.build("gpt", in_channels=1, size=32, classes=10, heads=3)


def test_without_the_extra_there_is_a_sentence(monkeypatch):
    monkeypatch.setitem(sys.modules, "pytorchcv.models.vgg", None)
    with pytest.raises(ConfigError, match=r"extra `zoo`.*\npip install 'p2ptrain\[zoo\]'"):
        models.build("vgg16", in_channels=3, size=32, classes=10)


def test_the_gpt_looks_back_only_and_has_one_table_of_tokens():
    torch.manual_seed(0)
    net = gpt(size=8, classes=11, width=16, layers=2, heads=2)
    net.eval()
    tokens = torch.randint(11, (1, 8))
    later = tokens.clone()
    later[0, 5] = (later[0, 5] + 1) % 11
    scores, others = net(tokens), net(later)
    assert torch.equal(scores[0, :5], others[0, :5])
    assert not torch.equal(scores[0, 5], others[0, 5])
    vector = Vector(net)
    assert [entry.name for entry in vector.spec.entries].count("tokens.weight") == 1
    assert "scores.weight" not in [entry.name for entry in vector.spec.entries]


def test_the_gpt_learns_and_writes_what_it_learnt():
    torch.manual_seed(0)
    net = gpt(size=12, classes=5, width=16, layers=1, heads=2)
    song = torch.tensor([0, 1, 2, 3, 4] * 5)
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-2)
    for _ in range(150):
        begin = int(torch.randint(12, ()))
        part = song[None, begin : begin + 13]
        loss = cross_entropy(net(part[:, :-1]).flatten(0, 1), part[:, 1:].flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    net.eval()
    assert write(net, [0, 1, 2], 20, temperature=0.01) == song.tolist()[3:23]
