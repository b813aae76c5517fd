"""Every real data set is read: counts, balance of classes, checksums, shapes."""

import zipfile
from collections import Counter

import pytest
import torch

from p2ptrain.core.errors import ConfigError
from p2ptrain.tasks.loaders import census, cifar, files, idx, text, textures, tiny_imagenet
from tests.tasks.conftest import FASHION

MNIST = {
    "train": [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949],
    "test": [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009],
}
GREY = {"train": 71, "test": 5, "unlabelled": 1}
"""JPEGs without colours among the 20 classes of Tiny-ImageNet."""


def test_mnist(shared, monkeypatch):
    monkeypatch.setenv("P2PTRAIN_DATA", str(shared("mnist").parent))
    for split, balance in MNIST.items():
        images, labels = idx.read_pictures(files.find("mnist"), split, "mnist")
        assert images.shape == (sum(balance), 28, 28)
        assert images.dtype == torch.uint8
        assert labels.bincount().tolist() == balance
    assert len({image.tobytes() for image in images.numpy()}) == 10_000


def test_fashion_mnist_of_debian():
    if not FASHION.is_dir():
        pytest.skip("apt-get install dataset-fashion-mnist")
    folder = files.find("fashion_mnist")
    assert folder == FASHION
    for split, count in (("train", 60_000), ("test", 10_000)):
        images, labels = idx.read_pictures(folder, split, "fashion_mnist")
        assert images.shape == (count, 28, 28)
        assert labels.bincount().tolist() == [count // 10] * 10


def test_mnist_is_not_taken_for_fashion_mnist(shared, monkeypatch):
    mnist = shared("mnist")
    with pytest.raises(ConfigError, match=r"not of Fashion-MNIST.*\n.*apt-get install dataset-fashion-mnist"):
        idx.read_pictures(mnist, "test", "fashion_mnist")
    monkeypatch.setenv("P2PTRAIN_DATA", str(mnist))
    if FASHION.is_dir():
        assert files.find("fashion_mnist") == FASHION
    else:
        with pytest.raises(ConfigError, match="are damaged, or of another set"):
            files.find("fashion_mnist")


def test_cifar10_in_both_versions(cifar10, monkeypatch):
    monkeypatch.setenv("P2PTRAIN_DATA", str(cifar10))
    binary, python = cifar10 / "cifar-10-batches-bin", cifar10 / "cifar-10-batches-py"
    assert cifar.find("cifar10") == binary
    for split, count in (("train", 50_000), ("test", 10_000)):
        images, labels = cifar.read(binary, split)
        assert images.shape == (count, 3, 32, 32)
        assert images.dtype == torch.uint8
        assert labels.bincount().tolist() == [count // 10] * 10
        of_python = cifar.read(python, split)
        assert torch.equal(of_python.images, images)
        assert torch.equal(of_python.labels, labels)
    per_batch = [part.bincount() for part in cifar.read(binary, "train").labels.split(10_000)]
    assert (torch.stack(per_batch).min(), torch.stack(per_batch).max()) == (937, 1042)
    assert cifar.class_names(binary) == cifar.class_names(python)
    assert cifar.class_names(python)[3] == "cat"


def test_a_flipped_byte_of_cifar10_is_noticed(cifar10, tmp_path):
    for file in (cifar10 / "cifar-10-batches-bin").iterdir():
        (tmp_path / file.name).symlink_to(file)
    damaged = tmp_path / "test_batch.bin"
    content = bytearray(damaged.read_bytes())
    damaged.unlink()
    content[len(content) // 2] ^= 1
    damaged.write_bytes(content)
    with pytest.raises(ConfigError, match=rf"{damaged} is damaged, or not of CIFAR-10: its SHA-256 is"):
        cifar.read(tmp_path, "test")
    assert len(cifar.read(tmp_path, "test", official=False).labels) == 10_000


def test_tiny_imagenet_in_a_zip_and_in_a_folder(shared, tmp_path, capsys):
    packed = shared("tiny-imagenet") / "tiny-imagenet-20of200.zip"
    (tmp_path / tiny_imagenet.ZIP).symlink_to(packed)
    with zipfile.ZipFile(packed) as content:
        content.extractall(tmp_path, [name for name in content.namelist() if "/train/" not in name])
    for split, each in (("train", 500), ("test", 50), ("unlabelled", 0)):
        images, labels = tiny_imagenet.read(tmp_path, split)
        assert images.dtype == torch.uint8
        assert images.shape == ((20 * each) or 100, 3, 64, 64)
        assert labels.unique(return_counts=True)[1].tolist() == ([each] * 20 if each else [100])
        grey = (images == images[:, :1]).flatten(1).all(1)
        assert GREY[split] <= grey.sum() <= GREY[split] + 2
        capsys.readouterr()
        again = tiny_imagenet.read(tmp_path, split)
        assert "decoding" not in capsys.readouterr().err
        assert torch.equal(again.images, images)
        if split != "train":
            unpacked = tiny_imagenet.read(tmp_path / "tiny-imagenet-200", split)
            assert torch.equal(unpacked.images, images)
            assert torch.equal(unpacked.labels, labels)


def test_shakespeare(shared):
    splits = [text.read(shared("text"), split, "shakespeare") for split in ("train", "test")]
    assert [len(split.tokens) for split in splits] == [1_003_855, 111_539]
    assert len(splits[0].vocabulary) == 65
    whole = "".join(split.vocabulary.decode(split.tokens) for split in splits)
    assert whole == (shared("text") / "tinyshakespeare.txt").read_text()
    assert whole.count("\n") == 40_000


def test_census(shared):
    folder = shared("tabular")
    tables = {split: census.read(folder, split) for split in ("train", "test")}
    assert [len(table.labels) for table in tables.values()] == [32_561, 16_281]
    assert [int(table.labels.sum()) for table in tables.values()] == [7_841, 3_846]
    train, test = tables.values()
    assert train.values.shape[1] == test.values.shape[1] == len(train.columns) == 108
    assert list(train.groups) == list(census.FEATURES)
    missing = Counter(name.split("=")[0] for name in train.columns if name.endswith("=?"))
    assert list(missing) == ["workclass", "occupation", "native-country"]
    unknown = [int(test.values[:, test.columns.index(f"{name}=?")].sum()) for name in missing]
    assert unknown == [963, 966, 274]
    for feature, listed in census.FEATURES.items():
        block = train.values[:, train.groups[feature]]
        if listed:
            assert torch.equal(block.sum(1), torch.ones(len(block)))
        else:
            assert block.mean().abs() < 1e-4
            assert (block.std() - 1).abs() < 1e-3
    sex = train.values[:, train.columns.index("sex=Male")]
    assert (int(sex[0]), int(sex[4])) == (1, 0)


def test_textures(shared, monkeypatch):
    monkeypatch.setenv("P2PTRAIN_DATA", str(shared("textures").parent))
    folder = textures.find()
    names = textures.class_names(folder)
    assert len(names) == 10
    assert names == sorted(names)
    cut = textures.Cut(overlap=0.5)
    splits = {split: textures.read(folder, split, cut) for split in ("train", "test")}
    assert [len(split.photographs) for split in splits.values()] == [30, 10]
    for split in splits.values():
        assert len(split) == len(split.labels)
        patch, label = split[len(split) - 1]
        assert patch.shape == (3, 256, 256)
        assert label == 9
    assert {one.file for one in splits["train"].photographs}.isdisjoint(
        one.file for one in splits["test"].photographs
    )
