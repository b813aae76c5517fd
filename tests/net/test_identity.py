"""The key file survives a round trip, and says plainly when it did not."""

import os
import stat

import pytest

from p2ptrain.core.errors import ConfigError
from p2ptrain.net.trust.identity import Identity, verify
from p2ptrain.net.trust.private_files import write_private


def test_round_trip(tmp_path):
    identity = Identity.create()
    identity.save(tmp_path / "identity.pem")
    again = Identity.load(tmp_path / "identity.pem")
    assert again.peer == identity.peer
    assert verify(identity.peer, again.sign(b"data"), b"data")
    assert list(tmp_path.iterdir()) == [tmp_path / "identity.pem"]


@pytest.mark.skipif(os.name != "posix", reason="modes are POSIX")
def test_the_file_is_the_owners_alone_and_stays_so(tmp_path):
    path = tmp_path / "identity.pem"
    Identity.create().save(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    path.chmod(0o644)
    Identity.load(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_damaged_file_is_named(tmp_path):
    path = tmp_path / "identity.pem"
    Identity.create().save(path)
    whole = path.read_bytes()
    for data in (b"", b"\xff" * 50, whole[:60], whole.replace(b"PRIVATE", b"PUBLIC")):
        path.write_bytes(data)
        with pytest.raises(ConfigError, match="is damaged") as error:
            Identity.load(path)
        assert "join again" in error.value.hint


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(ConfigError, match="No such file"):
        Identity.load(tmp_path / "nothing")


def test_a_failed_write_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "file"
    write_private(path, b"old")

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        write_private(path, b"new")
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_verify_takes_any_garbage():
    identity = Identity.create()
    signature = identity.sign(b"data")
    assert verify(identity.peer, signature, b"data")
    assert not verify(identity.peer, signature, b"Data")
    assert not verify(identity.peer, signature[:-1], b"data")
    assert not verify(identity.peer, b"", b"data")
    assert not verify(b"short", signature, b"data")
    assert not verify(b"\xff" * 32, signature, b"data")
