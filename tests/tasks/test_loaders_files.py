"""Where data sets are looked for, and what is said where they are not."""

import io
import os
import tarfile
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest

from p2ptrain.core.errors import ConfigError
from p2ptrain.tasks.loaders import files, unpack
from p2ptrain.tasks.loaders.known import IDX, SETS, Download, Known
from tests.tasks import small


def fill(folder: Path, names: tuple[str, ...] = IDX, content: bytes = b"x") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        (folder / name).write_bytes(content)
    return folder


@pytest.fixture
def unmarked(monkeypatch):
    """Let any files of the right names be MNIST."""
    monkeypatch.setitem(SETS, "mnist", replace(SETS["mnist"], mark="", system=()))


@pytest.mark.parametrize("inner", ["", "mnist", "MNIST/raw"])
@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_a_set_is_found_under_its_usual_names(tmp_path, monkeypatch, unmarked, inner, suffix):
    (tmp_path / "empty").mkdir()
    folder = fill(tmp_path / "data" / inner, tuple(name + suffix for name in IDX))
    monkeypatch.setenv(
        "P2PTRAIN_DATA", os.pathsep.join(["", str(tmp_path / "empty"), str(tmp_path / "data")])
    )
    assert files.find("mnist") == folder


def test_the_owners_folders_come_first_and_the_cache_last(tmp_path, monkeypatch, unmarked):
    kept = fill(files.cache() / "mnist")
    assert files.find("mnist") == kept
    system = fill(tmp_path / "system")
    monkeypatch.setitem(SETS, "mnist", replace(SETS["mnist"], system=(str(system),)))
    assert files.find("mnist") == system
    own = fill(tmp_path / "own")
    monkeypatch.setenv("P2PTRAIN_DATA", str(own))
    assert files.find("mnist") == own


def test_any_set_is_found_by_its_files(tmp_path, monkeypatch):
    monkeypatch.setenv("P2PTRAIN_DATA", str(tmp_path))
    folder = fill(tmp_path / "mine", ("a.csv",))
    assert files.find("mine", ["a.csv"]) == folder
    with pytest.raises(
        ConfigError, match=r"mine is not here: .*mine lacks b.csv\nput a.csv, b.csv into a folder"
    ):
        files.find("mine", ["a.csv", "b.csv"])


def test_another_set_with_the_same_names_of_files_is_left_out(tmp_path, monkeypatch):
    monkeypatch.setitem(SETS, "fashion_mnist", replace(SETS["fashion_mnist"], system=()))
    other = fill(tmp_path / "other", content=small.idx(bytes(3), 3))
    monkeypatch.setenv("P2PTRAIN_DATA", str(other))
    for name, title in (("mnist", "MNIST"), ("fashion_mnist", "Fashion-MNIST")):
        with pytest.raises(
            ConfigError, match=f"{title} is not here: the files in {other} are damaged, or of"
        ):
            files.find(name)


def test_what_is_missing_is_said_with_the_fix(tmp_path, monkeypatch):
    folder = fill(tmp_path / "mnist", IDX[:3])
    monkeypatch.setenv("P2PTRAIN_DATA", str(tmp_path))
    with pytest.raises(ConfigError) as error:
        files.find("mnist")
    assert f"{folder} lacks t10k-labels-idx1-ubyte" in error.value.message
    assert "nothing is downloaded, for P2PTRAIN_OFFLINE is set" in error.value.message
    assert "name it with --data or P2PTRAIN_DATA" in error.value.hint
    assert "https://ossci-datasets" in error.value.hint
    (folder / IDX[3]).mkdir()
    with pytest.raises(ConfigError, match=f"lacks {IDX[3]}"):
        files.find("mnist")


@pytest.mark.parametrize("name", ["no", "file"])
def test_a_folder_that_is_none_is_told(tmp_path, monkeypatch, name):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("P2PTRAIN_DATA", str(tmp_path / name))
    with pytest.raises(
        ConfigError, match=f"{tmp_path / name}, which P2PTRAIN_DATA or --data names, is not a"
    ):
        files.find("mnist")


def test_whose_terms_must_be_agreed_to_is_not_downloaded(monkeypatch):
    monkeypatch.delenv("P2PTRAIN_OFFLINE")
    with pytest.raises(
        ConfigError, match=r"put wnids.txt.*cs231n.*mind its terms: it may be used for research"
    ):
        files.find("tiny_imagenet")


def test_every_known_set_says_where_it_is_from():
    for name, known in SETS.items():
        assert known.title
        assert set(known.digests) <= {file for layout in known.layouts for file in layout}, name
        assert not known.mark or known.mark in known.digests
        for download in known.downloads:
            assert download.size
            assert len(download.digest) in (32, 64)
            assert all(url.startswith(("https://", "http://")) for url in download.urls)


def tar(folder: Path, *members: tuple[tarfile.TarInfo, bytes], name: str = "x.tar.gz") -> Path:
    with tarfile.open(folder / name, "w:gz") as out:
        for info, content in members:
            info.size = len(content)
            out.addfile(info, io.BytesIO(content))
    return folder / name


def info(name: str, kind: bytes = tarfile.REGTYPE, link: str = "") -> tarfile.TarInfo:
    made = tarfile.TarInfo(name)
    made.type, made.linkname = kind, link
    return made


def zipped(folder: Path, contents: dict[str, bytes], mode: int = 0o100644) -> Path:
    with zipfile.ZipFile(folder / "x.zip", "w", zipfile.ZIP_DEFLATED) as out:
        for name, content in contents.items():
            member = zipfile.ZipInfo(name)
            member.external_attr = mode << 16
            out.writestr(member, content)
    return folder / "x.zip"


def test_an_archive_among_the_owners_files_is_unpacked_into_the_cache(tmp_path, monkeypatch):
    archive = tar(
        tmp_path, (info("top", tarfile.DIRTYPE), b""), (info("top/a"), b"1"), (info("top/b/c"), b"2")
    )
    content = archive.read_bytes()
    download = Download(
        "x.tar.gz", ("http://localhost/x.tar.gz",), len(content), files.digest(content, "0" * 64)
    )
    monkeypatch.setitem(SETS, "toy", Known("Toy", (("a", "b/c"),), ("toy-files",), downloads=(download,)))
    monkeypatch.setenv("P2PTRAIN_DATA", str(tmp_path))
    folder = files.find("toy")
    assert folder == files.cache() / "toy-files"
    assert (folder / "b" / "c").read_bytes() == b"2"
    assert sorted(path.name for path in folder.parent.iterdir() if path.is_dir()) == ["toy-files"]
    assert files.find("toy") == folder
    (folder / "a").unlink()
    archive.write_bytes(content[:-9] + b"!" + content[-8:])
    with pytest.raises(ConfigError, match=r"x.tar.gz is damaged, or another archive"):
        files.find("toy")


@pytest.mark.parametrize(
    "member",
    [
        info("../a"),
        info("a/../../b"),
        info("/etc/x"),
        info("C:\\x"),
        info("a\\..\\b"),
        info("x:stream"),
        info("a", tarfile.SYMTYPE, "/etc/passwd"),
        info("a", tarfile.LNKTYPE, "b"),
        info("a", tarfile.FIFOTYPE),
        info("a", tarfile.CHRTYPE),
        info("a" * 2000),
    ],
    ids=lambda member: f"{member.name[:9]} {member.type!r}",
)
def test_no_archive_reaches_out_of_its_folder(tmp_path, member):
    folder = tmp_path / "in" / "set"
    archive = tar(tmp_path, (info("good"), b"1"), (member, b""))
    with pytest.raises(ConfigError, match=r"leads out of its folder|link or a device"):
        unpack.into(folder, archive)
    assert not folder.exists()
    assert list((tmp_path / "in").iterdir()) == []


def test_zips_are_unpacked_with_the_same_care(tmp_path):
    folder = unpack.into(tmp_path / "set", zipped(tmp_path, {"a/b": b"1", "c": b"2"}))
    assert {path.name for path in folder.rglob("*")} == {"a", "b", "c"}
    for name in ("../a", "/a", "a:b"):
        with pytest.raises(ConfigError, match="leads out of its folder"):
            unpack.into(folder, zipped(tmp_path, {name: b"1"}))
    with pytest.raises(ConfigError, match="link or a device"):
        unpack.into(folder, zipped(tmp_path, {"a": b"c"}, mode=0o120777))
    assert (folder / "c").read_bytes() == b"2"


def test_bombs_are_bounded(tmp_path, monkeypatch):
    monkeypatch.setattr(unpack, "BYTES_MAX", 1 << 20)
    for archive in (tar(tmp_path, (info("a"), bytes(2 << 20))), zipped(tmp_path, {"a": bytes(2 << 20)})):
        with pytest.raises(ConfigError, match="unpacks to more than 1048576 bytes"):
            unpack.into(tmp_path / "set", archive)
    monkeypatch.setattr(unpack, "ENTRIES_MAX", 3)
    for archive in (
        tar(tmp_path, *((info(f"{n}"), b"") for n in range(4))),
        zipped(tmp_path, dict.fromkeys("abcd", b"")),
    ):
        with pytest.raises(ConfigError, match="more than 3 files"):
            unpack.into(tmp_path / "set", archive)


@pytest.mark.parametrize("name", ["x.tar.gz", "x.zip"])
def test_damaged_archives_are_told_or_whole(tmp_path, name):
    held = {"a": bytes(range(256)) * 4, "b": b"1"}
    tar(tmp_path, *((info(path), content) for path, content in held.items()))
    zipped(tmp_path, held)
    archive = tmp_path / name
    sound = archive.read_bytes()
    damaged = [sound[:end] for end in range(0, len(sound), 11)]
    damaged += [sound[:at] + bytes([sound[at] ^ 0x55]) + sound[at + 1 :] for at in range(0, len(sound), 9)]
    refused = 0
    for content in damaged:
        archive.write_bytes(content)
        try:
            folder = unpack.into(tmp_path / "set", archive)
        except ConfigError as error:
            refused += error.message.startswith(f"{archive} cannot be unpacked: ") and bool(error.hint)
        else:
            assert sorted(path.read_bytes() for path in folder.iterdir()) == sorted(held.values())
    assert refused > len(damaged) / 2
