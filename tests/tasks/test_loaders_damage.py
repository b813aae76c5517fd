"""Whatever is wrong with a file: one sentence that names it, and what to do. Never another error."""

import re
import zlib
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from p2ptrain.core.errors import ConfigError
from p2ptrain.tasks.loaders import census, cifar, files, idx, plain_pickle, text, textures, tiny_imagenet
from p2ptrain.tasks.loaders.decoding import decode
from tests.tasks import small

PIXELS = bytes(range(256)) * 24


def write(folder: Path, contents: dict[str, bytes]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in contents.items():
        (folder / name).write_bytes(content)
    return folder


def make_idx(folder: Path) -> Path:
    return write(
        folder,
        {
            "train-images-idx3-ubyte.gz": small.packed(small.idx(bytes(range(24)), 6, 2, 2)),
            "train-labels-idx1-ubyte": small.idx(bytes(range(6)), 6),
        },
    )


def make_binary(folder: Path) -> Path:
    batch = b"\x03" + PIXELS[:3072] + b"\x09" + PIXELS[3072:] + b"\x00" + PIXELS[:3072]
    names = [*(f"data_batch_{number}.bin" for number in range(1, 6)), "test_batch.bin"]
    return write(
        folder, {**dict.fromkeys(names, batch), "batches.meta.txt": b"a\nb\nc\nd\ne\nf\ng\nh\ni\nj\n"}
    )


def make_python(folder: Path) -> Path:
    return write(
        folder,
        {
            "train": small.cifar_pickle([7, 99], PIXELS, ("fine_labels", "coarse_labels")),
            "test": small.cifar_pickle([0, 5], PIXELS, ("fine_labels", "coarse_labels")),
        },
    )


def make_text(folder: Path) -> Path:
    return write(folder, {"input.txt": "Äpfel und Birnen, und so weiter.\n".encode() * 3})


def make_textures(folder: Path) -> Path:
    for name in ("brick", "grass"):
        write(folder / name, {"1.png": small.picture(40, 24), "2.png": small.picture(24, 24, "L")})
    return folder


Reader = Callable[[Path], Any]
KINDS: dict[str, tuple[Callable[[Path], Path], Reader, str]] = {
    "idx, packed": (make_idx, lambda f: idx.read_pictures(f, "train"), "train-images-idx3-ubyte.gz"),
    "idx, plain": (make_idx, lambda f: idx.read_pictures(f, "train"), "train-labels-idx1-ubyte"),
    "cifar, binary": (make_binary, lambda f: cifar.read(f, "test", official=False), "test_batch.bin"),
    "cifar, python": (make_python, lambda f: cifar.read(f, "train", official=False), "train"),
    "class names": (make_binary, cifar.class_names, "batches.meta.txt"),
    "text": (make_text, lambda f: text.read(f, "train"), "input.txt"),
    "census": (small.census, lambda f: census.read(f, "test", official=False), "adult.test"),
    "wnids": (small.tiny_imagenet, lambda f: tiny_imagenet.read(f, "test"), "wnids.txt"),
    "annotations": (small.tiny_imagenet, lambda f: tiny_imagenet.read(f, "test"), "val/val_annotations.txt"),
    "jpeg": (small.tiny_imagenet, lambda f: tiny_imagenet.read(f, "test"), "val/images/val_1.JPEG"),
    "texture": (make_textures, lambda f: textures.read(f, "train", textures.Cut(24))[0], "brick/1.png"),
}


@pytest.fixture(params=KINDS)
def kind(request, tmp_path):
    make, read, name = KINDS[request.param]
    folder = make(tmp_path / "set")
    return request.param, folder, read, folder / name


def says(error: pytest.ExceptionInfo[ConfigError], file: Path) -> None:
    """Demand one sentence that names the file, and a hint."""
    assert file.name in error.value.message
    assert "\n" not in error.value.message
    assert error.value.hint


def test_the_sound_file_is_read(kind):
    _, folder, read, _ = kind
    assert read(folder) is not None


@pytest.mark.parametrize("damage", ["empty", "half", "missing", "a folder", "noise", "a loop"])
def test_damage_is_told_in_a_sentence(kind, damage):
    name, folder, read, file = kind
    content = file.read_bytes()
    file.unlink()
    if damage == "a folder":
        file.mkdir()
    elif damage == "a loop":
        file.symlink_to(file)
    elif damage != "missing":
        file.write_bytes(
            {"empty": b"", "half": content[: len(content) // 2], "noise": b"\xff\x00\x80" * 99}[damage]
        )
    if damage == "half" and name == "text":
        pytest.skip("half a text is a text")
    if name == "texture" and damage == "missing":
        pytest.skip("then the class has another photograph")
    with pytest.raises(ConfigError) as error:
        read(folder)
    if damage not in ("missing", "a loop") or name not in ("text", "jpeg"):
        says(error, file)
    if damage == "a folder" and "cifar" not in name:
        assert f"{file.name} is a folder, not a file" in error.value.message


@pytest.mark.parametrize("name", KINDS)
def test_chance_damage_never_ends_in_another_error(name, tmp_path_factory):
    make, read, file_name = KINDS[name]
    folder = make(tmp_path_factory.mktemp("set"))
    file = folder / file_name
    sound = file.read_bytes()
    place = st.integers(0, len(sound) - 1)
    changes = st.lists(
        st.tuples(place, st.sampled_from("xid"), st.binary(min_size=1, max_size=4)), max_size=4
    )

    for end in {*range(min(len(sound), 24)), *range(0, len(sound), max(1, len(sound) // 24)), len(sound) - 1}:
        file.write_bytes(sound[:end])
        with suppress(ConfigError):
            read(folder)

    @settings(max_examples=40, database=None, derandomize=True)
    @given(changes, st.none() | place)
    def damage(changes: list[tuple[int, str, bytes]], end: int | None) -> None:
        content = bytearray(sound)
        for at, what, noise in changes:
            if what == "d":
                del content[at : at + len(noise)]
            else:
                content[at : at + (len(noise) if what == "x" else 0)] = noise
        file.write_bytes(content[:end])
        with suppress(ConfigError):
            read(folder)

    damage()


@given(
    st.binary(max_size=200)
    | st.lists(
        st.sampled_from(
            [
                b"(",
                b"}",
                b"]",
                b"N",
                b"K\x01",
                b"q\x01",
                b"h\x01",
                b"\x85",
                b"\x86",
                b"\x87",
                b"t",
                b"a",
                b"e",
                b"s",
                b"u",
                b"R",
                b"b",
                b"U\x02u1",
                b"cnumpy\ndtype\n",
                b"cnumpy\nndarray\n",
                b"\x89",
                b"cnumpy.core.multiarray\n_reconstruct\n",
                b".",
            ]
        )
    ).map(b"".join)
)
@settings(max_examples=200, database=None, derandomize=True)
def test_no_pickle_raises_anything_else(content):
    with suppress(ValueError):
        plain_pickle.loads(b"\x80\x02" + content)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"cos\nsystem\n(U\x04trueoR.", "asks for 'os system'"),
        (b"c__builtin__\neval\n(U\x011tR.", "asks for '__builtin__ eval'"),
        (b"cnumpy\nload\n(U\x01xtR.", "asks for 'numpy load'"),
        (b"cnumpy\ndtype\n(U\x01OK\x00K\x01tR.", "calls what no pickle"),
        (b"cnumpy\nndarray\n(K\x01tR.", "calls what no pickle"),
        (b"(ios\nsystem\n.", "instruction b'i'"),
        (b"\x80\x04\x95.", "not written by Python 2"),
        (b"}q\x01(U\x01ah\x01u.", "something else than plain"),
        (b"]q\x01h\x01a.", "not a pickle of a dict"),
        (b"}U\x01a}s.", "something else than plain"),
        (b"U\x01a.", "not a pickle of a dict"),
        (b"T\xff\xff\xff\xff", "negative length"),
        (b"T\xff\xff\xff\x7f", "ends too early"),
        (b"(" * (1 << 20) + b"((.", "too deep"),
    ],
)
def test_a_pickle_that_wants_more_is_refused(content, message):
    with pytest.raises(ValueError, match=message):
        plain_pickle.loads(content)


def test_arrays_in_pickles_are_bytes_of_the_stated_shape():
    good = small.cifar_pickle([1, 2], PIXELS)
    assert plain_pickle.loads(good)[b"data"].shape == (2, 3072)
    kind = good[good.index(b"cnumpy\ndtype") : good.index(b"\x89T")]
    for old, new in (
        (kind, b"N"),
        (b"U\x02u1", b"U\x02f8"),
        (b"tb\x89", b"tb\x88"),
        (b"M\x00\x0c\x86", b"M\x01\x0c\x86"),
    ):
        with pytest.raises(ValueError, match=r"array|calls|pickle"):
            plain_pickle.loads(good.replace(old, new, 1))


def test_numbers_that_do_not_fit(tmp_path):
    folder = make_idx(tmp_path / "idx")
    write(folder, {"train-labels-idx1-ubyte": small.idx(bytes(5), 5)})
    with pytest.raises(ConfigError, match="do not fit together"):
        idx.read_pictures(folder, "train")
    write(folder, {"train-labels-idx1-ubyte": small.idx(b"", 2**31, 2**31)})
    with pytest.raises(ConfigError, match=f"states {2**62} bytes and holds 0"):
        idx.read_pictures(folder, "train")
    folder = make_binary(tmp_path / "binary")
    write(folder, {"test_batch.bin": b"\x0a" + bytes(3072)})
    with pytest.raises(ConfigError, match="classes that are not among the 10"):
        cifar.read(folder, "test", official=False)
    folder = make_python(tmp_path / "python")
    write(folder, {"test": small.cifar_pickle([1], PIXELS, ("fine_labels",))})
    with pytest.raises(ConfigError, match="pickle of plain arrays"):
        cifar.read(folder, "test", official=False)


def test_python_version_holds_fine_and_coarse_labels(tmp_path):
    folder = make_python(tmp_path / "set")
    assert cifar.read(folder, "train", official=False).labels.tolist() == [7, 99]
    write(folder, {"test": small.cifar_pickle([3, 4], PIXELS, ("coarse_labels",))})
    assert cifar.read(folder, "test", coarse=True, official=False).labels.tolist() == [3, 4]
    with pytest.raises(ConfigError, match="no labels"):
        cifar.read(folder, "test", official=False)


def test_binary_version_of_cifar100_holds_coarse_and_fine_labels(tmp_path):
    record = b"\x05\x63" + PIXELS[:3072]
    folder = write(tmp_path / "set", {"train.bin": record * 2, "test.bin": record})
    images, labels = cifar.read(folder, "train", official=False)
    assert labels.tolist() == [99, 99]
    assert images[1].flatten().tolist() == list(PIXELS[:3072])
    assert cifar.read(folder, "test", coarse=True, official=False).labels.tolist() == [5]
    with pytest.raises(ConfigError, match=r"train.bin is damaged, or not of CIFAR-100: its MD5"):
        cifar.read(folder, "train")


def test_a_file_larger_than_any_is_not_read_whole(tmp_path):
    bomb = write(tmp_path, {"x.gz": small.packed(bytes(3 << 20))}) / "x.gz"
    with pytest.raises(
        ConfigError, match=re.escape(f"{bomb} cannot be read: it holds more than 1048576 bytes")
    ):
        files.read(bomb, most=1 << 20)


def test_who_may_not_read_is_told(tmp_path, monkeypatch):
    folder = make_text(tmp_path / "set")

    def refuse(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(ConfigError, match=r"input.txt may not be read\ngive yourself the right"):
        text.read(folder, "train")


def test_bombs_among_pictures_are_not_unpacked():
    sound = small.picture(8, 8)
    head = sound.index(b"IHDR")
    for side in (9_000, 50_000):
        stated = b"IHDR" + side.to_bytes(4, "big") * 2 + sound[head + 12 : head + 17]
        bomb = sound[:head] + stated + zlib.crc32(stated).to_bytes(4, "big") + sound[head + 21 :]
        with pytest.raises(ValueError, match=r"too many|decompression bomb"):
            decode(bomb)
    with pytest.raises(ValueError, match="neither a JPEG nor a PNG"):
        decode(b"GIF89a" + bytes(100))
