"""What the loaders make of sound files: patches, windows, columns, noise."""

import hashlib
import math
import zipfile

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from p2ptrain.core.errors import ConfigError
from p2ptrain.tasks.loaders import census, decoded, download, files, synthetic, text, textures, tiny_imagenet
from p2ptrain.tasks.loaders.decoding import decode
from p2ptrain.tasks.loaders.textures import Cut, Patches, Photograph
from tests.tasks import small


def test_the_patches_of_the_source_are_counted_right(tmp_path):
    assert Cut().count(2272, 1074) == 6912
    exact = Cut(overlap=0.9039, overlap_down=0.84)
    assert exact.count(2272, 1074) == 6972
    many = Patches([Photograph(tmp_path / f"{n}.png", n % 5, 2272, 1074) for n in range(654)], exact)
    assert len(many) == 654 * 6972 == 4_559_688
    assert len(many.labels) == len(many)
    with pytest.raises(IndexError):
        many[len(many)]
    with pytest.raises(ConfigError, match=r"653.png is missing"):
        many[len(many) - 1]


@given(st.integers(1, 60), st.integers(1, 20), st.floats(0, 0.95))
def test_places_reach_from_edge_to_edge_and_overlap_enough(extra, size, overlap):
    places = Cut(size, overlap).across(size + extra)
    assert (places[0], places[-1]) == (0, extra)
    gaps = np.diff(places)
    assert (gaps >= 0).all()
    assert gaps.max(initial=0) <= math.ceil(size * (1 - overlap)) + 1e-6


@pytest.fixture
def photographs(tmp_path):
    for name in ("grass", "brick"):
        (tmp_path / name).mkdir()
        for number in range(3):
            content = small.picture(30, 20, seed=number + len(name))
            (tmp_path / name / f"{number}.{'PNG' if number else 'png'}").write_bytes(content)
    (tmp_path / "brick" / "notes.txt").write_text("no picture")
    (tmp_path / "empty").mkdir()
    return tmp_path


def test_every_patch_is_cut_where_its_number_says(photographs):
    cut = Cut(8, overlap=0.5, turns=4, contrast=False)
    patches = textures.read(photographs, "train", cut)
    assert textures.class_names(photographs) == ["brick", "grass"]
    assert [one.file.name for one in patches.photographs] == ["0.png", "1.PNG"] * 2
    across, down = cut.across(30), cut.down(20)
    assert len(patches) == 4 * 4 * len(across) * len(down)
    index = 0
    for one in patches.photographs:
        whole = decode(one.file.read_bytes())
        for top in down:
            for left in across:
                for turn in range(4):
                    patch, label = patches[index]
                    wanted = np.rot90(whole[top : top + 8, left : left + 8], turn).transpose(2, 0, 1)
                    assert np.array_equal(patch.numpy(), wanted)
                    assert label == one.label == patches.labels[index]
                    index += 1
    assert index == len(patches)
    images, labels = patches.take(torch.tensor([0, index - 1, 5]))
    assert images.shape == (3, 3, 8, 8)
    assert torch.equal(images[1], patches[index - 1][0])
    assert labels.tolist() == [0, 1, 0]


def test_no_photograph_is_in_both_splits(photographs):
    splits = [textures.read(photographs, split, Cut(8)) for split in ("train", "test")]
    train, test = ({one.file for one in split.photographs} for split in splits)
    assert (len(train), len(test), len(train & test)) == (4, 2, 0)


def test_contrast_is_made_equal_and_flat_patches_stay_flat():
    dull = np.random.default_rng(0).integers(100, 110, (3, 32, 32), np.uint8)
    even = textures._equalised(dull)
    assert abs(even.mean() - textures.MIDDLE) < 1
    assert abs(even.std() - textures.DEVIATION) < 2
    assert np.unique(textures._equalised(np.full((1, 4, 4), 250, np.uint8))).tolist() == [128]


def test_turns_and_colours(photographs):
    one_turn = textures.read(photographs, "train", Cut(8, 0.5, turns=1, channels=1))
    assert one_turn[0][0].shape == (1, 8, 8)
    assert 4 * len(one_turn) == len(textures.read(photographs, "train", Cut(8, 0.5)))
    for wrong in (Cut(turns=3), Cut(overlap=1.0), Cut(channels=2), Cut(size=0), Cut(overlap_down=-0.1)):
        with pytest.raises(ConfigError, match="cannot be cut"):
            textures.read(photographs, "train", wrong)


def test_what_is_wrong_with_photographs_is_said(photographs, monkeypatch, tmp_path_factory):
    with pytest.raises(ConfigError, match=r"0.png has 30 x 20 pixels, too few for a patch of 24"):
        textures.read(photographs, "train", Cut(24))
    with pytest.raises(ConfigError, match="holds no two folders with photographs"):
        textures.read(photographs / "brick", "train", Cut(8))
    with pytest.raises(ConfigError, match="no photographs of textures are here"):
        textures.find()
    monkeypatch.setenv("P2PTRAIN_DATA", str(photographs))
    assert textures.find() == photographs


def test_few_decoded_photographs_are_held_and_the_others_kept_on_disk(photographs, monkeypatch):
    each = 30 * 20 * 3
    monkeypatch.setattr(textures, "HELD_BYTES_MAX", 2 * each)
    plain = textures.read(photographs, "train", Cut(8, 0.5))
    wanted = [plain[index][0] for index in range(0, len(plain), 50)]
    calls = []
    monkeypatch.setattr(textures, "decode", lambda *given: calls.append(given) or decode(*given))
    patches = textures.read(photographs, "train", Cut(8, 0.5))
    for _ in range(2):
        found = [patches[index][0] for index in range(0, len(patches), 50)]
        assert all(map(torch.equal, found, wanted))
        assert len(patches._held) <= 2
        assert patches._held_bytes == sum(pixels.nbytes for pixels in patches._held.values()) <= 2 * each
    assert calls == [], "they were kept on disk by the first"
    kept = sorted((files.cache() / "textures-decoded").iterdir())
    assert len(kept) == 4
    kept[0].write_bytes(b"damaged")
    again = textures.read(photographs, "train", Cut(8, 0.5))
    assert all(
        torch.equal(again[index][0], one) for index, one in zip(range(0, len(again), 50), wanted, strict=True)
    )
    assert len(calls) == 1
    monkeypatch.setattr(decoded, "room", lambda *_: False)
    for one in kept:
        one.unlink()
    assert torch.equal(textures.read(photographs, "train", Cut(8, 0.5))[0][0], wanted[0])
    assert not kept[0].exists()


def test_tiny_imagenet_in_order_and_grey_in_colours(tmp_path):
    folder = small.tiny_imagenet(tmp_path / "set")
    images, labels = tiny_imagenet.read(folder, "train")
    assert labels.tolist() == [0, 0, 0, 1, 1, 1]
    for place, number in enumerate((0, 2, 10)):
        file = folder / "train" / small.WNIDS[1] / "images" / f"{small.WNIDS[1]}_{number}.JPEG"
        assert np.array_equal(images[3 + place].numpy(), decode(file.read_bytes()).transpose(2, 0, 1))
    assert torch.equal(images[1, 0], images[1, 1])
    assert not torch.equal(images[0, 0], images[0, 1])
    assert tiny_imagenet.read(folder, "test").labels.tolist() == [1, 0]
    assert tiny_imagenet.read(folder, "unlabelled").labels.tolist() == [-1]
    with zipfile.ZipFile(tmp_path / tiny_imagenet.ZIP, "w") as packed:
        for file in folder.rglob("*"):
            packed.write(file, file.relative_to(tmp_path / "set"))
    assert torch.equal(tiny_imagenet.read(tmp_path, "train").images, images)


def test_tiny_imagenet_is_decoded_again_when_it_changed(tmp_path):
    folder = small.tiny_imagenet(tmp_path / "set")
    before = tiny_imagenet.read(folder, "test").images.clone()
    (kept,) = files.cache().glob("tiny_imagenet-test-*.npy")
    (folder / "val" / "images" / "val_0.JPEG").write_bytes(small.picture(64, 64, "RGB", "JPEG", 77))
    after = tiny_imagenet.read(folder, "test").images.clone()
    assert not torch.equal(after[0], before[0])
    assert torch.equal(after[1], before[1])
    assert not kept.exists()
    (kept,) = files.cache().glob("tiny_imagenet-test-*.npy")
    kept.write_bytes(kept.read_bytes()[:-5])
    assert torch.equal(tiny_imagenet.read(folder, "test").images, after)
    np.save(kept, np.zeros((1, 3, 64, 64), np.uint8))
    assert torch.equal(tiny_imagenet.read(folder, "test").images, after)


@pytest.mark.parametrize("wrong", ["wnids", "size", "twice", "unnamed", "class", "no pictures", "no room"])
def test_what_is_wrong_with_tiny_imagenet_is_said(tmp_path, monkeypatch, wrong):
    folder = small.tiny_imagenet(tmp_path / "set")
    notes = folder / "val" / "val_annotations.txt"
    split, message = (
        "test",
        {
            "wnids": "wnids.txt of Tiny-ImageNet is damaged",
            "size": "val_1.JPEG of Tiny-ImageNet cannot be read: it has 32 x 64 pixels",
            "twice": "does not name each picture once",
            "unnamed": "does not name each picture once",
            "class": "line 2 of val_annotations.txt names 'val_1.JPEG' and 'n99999999'",
            "no pictures": "train/n01629819/images of Tiny-ImageNet holds no pictures",
            "no room": "MB left, and",
        }[wrong],
    )
    if wrong == "wnids":
        (folder / "wnids.txt").write_text("n01443537\nn01443537\n")
    elif wrong == "size":
        (folder / "val" / "images" / "val_1.JPEG").write_bytes(small.picture(32, 64, "RGB", "JPEG"))
    elif wrong == "twice":
        notes.write_text(notes.read_text().replace("val_1", "val_0"))
    elif wrong == "unnamed":
        notes.write_text(notes.read_text().splitlines()[0])
    elif wrong == "class":
        notes.write_text(notes.read_text().replace(small.WNIDS[0], "n99999999"))
    elif wrong == "no room":
        monkeypatch.setattr(download, "SPARE_BYTES", 1 << 60)
    else:
        split = "train"
        for file in (folder / "train" / small.WNIDS[1] / "images").iterdir():
            file.unlink()
    with pytest.raises(ConfigError, match=message):
        tiny_imagenet.read(folder, split)
    assert not list(files.cache().glob("tiny_imagenet-*.npy*"))


def test_a_damaged_zip_of_tiny_imagenet_is_said(tmp_path):
    (tmp_path / tiny_imagenet.ZIP).write_bytes(b"PK\x03\x04 no zip")
    with pytest.raises(ConfigError, match=r"tiny-imagenet-200.zip cannot be read: it is not a whole zip"):
        tiny_imagenet.read(tmp_path, "train")
    with pytest.raises(ConfigError, match=r"nowhere/wnids.txt is missing"):
        tiny_imagenet.read(tmp_path / "nowhere", "train")
    with zipfile.ZipFile(tmp_path / tiny_imagenet.ZIP, "w") as packed:
        packed.writestr("tiny-imagenet-200/wnids.txt", "\n".join(small.WNIDS))
    with pytest.raises(ConfigError, match=r"tiny-imagenet-200.zip lacks train/n01443537/images"):
        tiny_imagenet.read(tmp_path, "train")


NOISE = "b5bc38d89d5c0d1e"
"""Equal on every computer and in every version."""


def test_noise_is_the_same_everywhere_and_costs_nothing():
    noise = synthetic.Noise(synthetic.IMAGENET["train"], 224, 1000)
    assert len(noise) == 1_281_167
    picture, label = noise[1_281_166]
    assert (picture.shape, picture.dtype, label) == ((3, 224, 224), torch.uint8, 166)
    images, labels = noise.take(torch.tensor([5, 1_281_166, 6]))
    assert torch.equal(images[1], picture)
    assert not torch.equal(images[0], images[2])
    assert labels.tolist() == noise.labels[[5, 1_281_166, 6]].tolist() == [5, 166, 6]
    with pytest.raises(IndexError):
        noise[len(noise)]
    assert synthetic.Noise(3, 256)[2][0].shape == (3, 256, 256)
    assert (
        hashlib.sha256(synthetic.Noise(2000, 20, 7, 3)[1999][0].numpy().tobytes()).hexdigest()[:16] == NOISE
    )


def test_text_becomes_numbers_and_back(tmp_path):
    (tmp_path / "x.txt").write_text("ab cb" * 20)
    train, test = (text.read(tmp_path / "x.txt", split) for split in ("train", "test"))
    assert train.vocabulary.characters == test.vocabulary.characters == " abc"
    assert train.vocabulary.decode(train.tokens) + test.vocabulary.decode(test.tokens) == "ab cb" * 20
    assert len(test.tokens) == 10
    assert train.vocabulary.decode(train.vocabulary.encode("cab!")) == "cab"
    inputs, targets = text.windows(train.tokens, 8)
    assert inputs.shape == targets.shape == (11, 8)
    assert torch.equal(inputs[:, 1:], targets[:, :-1])
    assert torch.equal(inputs.flatten(), train.tokens[:88])
    assert text.windows(train.tokens, 8, 1)[0].shape == (82, 8)
    with pytest.raises(ConfigError, match="10 characters are too few for examples of 10"):
        text.windows(test.tokens, 10)


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"aaaa", "1 different characters"), (b"\xff\xfe", "no text in UTF-8: byte 0"), (b"", "it is empty")],
)
def test_what_is_no_text_is_said(tmp_path, content, message):
    (tmp_path / "x.txt").write_bytes(content)
    with pytest.raises(ConfigError, match=f"x.txt .*{message}"):
        text.read(tmp_path / "x.txt", "train")


def test_census_rows_keep_their_groups(tmp_path):
    folder = small.census(tmp_path)
    table = census.read(folder, "train", official=False)
    assert table.labels.tolist() == [0, 1]
    assert table.values[:, table.groups["age"]].flatten().tolist() == [-1, 1]
    said = [
        {name for name, value in zip(table.columns, row, strict=True) if value == 1} for row in table.values
    ]
    assert {"workclass=State-gov", "sex=Male", "native-country=United-States"} <= said[0]
    assert {"workclass=?", "occupation=?", "native-country=?", "sex=Female"} <= said[1]
    test = census.read(folder, "test", official=False)
    assert torch.equal(test.values, table.values)
    (folder / "adult.test").write_text((folder / "adult.test").read_text().replace("39,", "61,"))
    shifted = census.read(folder, "test", official=False)
    assert shifted.values[:, shifted.groups["age"]].flatten().tolist() == [3, 1], "as the train data have it"
    part = table.only("sex", "age")
    assert part.columns == ("sex=Female", "sex=Male", "age")
    assert part.groups == {"sex": slice(0, 2), "age": slice(2, 3)}
    assert part.values.tolist() == [[0, 1, -1], [1, 0, 1]]
    halves = [table.only(*names) for names in (list(table.groups)[:7], list(table.groups)[7:])]
    assert torch.equal(torch.cat([half.values for half in halves], 1), table.values)
    with pytest.raises(ConfigError, match="no feature 'income'"):
        table.only("income")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("Bachelors", "Batchelor", "line 2 does not fit .*Batchelor"),
        ("77516", "nan", "line 2 does not fit .fnlwgt is nan"),
        ("39,", "-39,", "age is -39"),
        ("39,", "", "14 fields in place of 15"),
        ("<=50K.", "50K", "line 2 does not fit"),
    ],
)
def test_a_row_that_does_not_fit_is_named(tmp_path, old, new, message):
    folder = small.census(tmp_path)
    file = folder / "adult.test"
    file.write_text(file.read_text().replace(old, new, 1))
    with pytest.raises(ConfigError, match=f"adult.test cannot be read: .*{message}"):
        census.read(folder, "test", official=False)
    with pytest.raises(ConfigError, match=r"adult.data is damaged, or not of Adult"):
        census.read(folder, "test")
