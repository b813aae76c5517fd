"""Files that a disk or an owner damaged: a sentence that names the file, never a traceback."""

import contextlib
from collections.abc import Callable

import pytest

from p2ptrain.core.errors import P2PTrainError
from tests.daemon.helpers import Home

pytestmark = pytest.mark.filterwarnings("ignore::cryptography.utils.CryptographyDeprecationWarning")

KEPT = ("swarm.msgpack", "membership", "root", "issuer", "admissions", "contacts.msgpack")

DAMAGE: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda data: b"",
    "cut": lambda data: data[: len(data) // 2],
    "garbage": lambda data: b"garbage \xff\xfe\x00" * 9,
    "zeros": lambda data: bytes(len(data)),
    "other type": lambda data: b"\x93\x01\x02\x03",
}


@pytest.fixture
def member(home: Home) -> Home:
    """A home with a swarm, and every file that one may have."""
    home.found(task="digits")
    home.folder.save_contacts({})
    return home


@pytest.mark.parametrize("damage", DAMAGE)
@pytest.mark.parametrize("name", KEPT)
def test_a_damaged_file_of_a_swarm_is_named(name: str, damage: str, member: Home) -> None:
    path = member.folder.path / name
    path.write_bytes(DAMAGE[damage](path.read_bytes()))
    said = member.call("invite" if name == "root" else "start")
    assert said.code == 2
    assert str(path) in said.err
    assert "damaged" in said.err
    assert "fix: " in said.err


def test_a_missing_membership_is_named(member: Home) -> None:
    path = member.folder.path / "membership"
    path.unlink()
    said = member.call("start")
    assert said.code == 2
    assert f"{path} cannot be read: No such file" in said.err
    assert "fix: join the swarm again" in said.err


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_identity_is_named(damage: str, member: Home) -> None:
    path = member.home / "identity.pem"
    path.write_bytes(DAMAGE[damage](path.read_bytes()))
    for command in ("start", "invite"):
        said = member.call(command)
        assert said.code == 2
        assert f"the identity file {path} is damaged" in said.err


@pytest.mark.parametrize("name", ["swarm.msgpack", "membership", "admissions", "issuer", "root"])
def test_no_single_damaged_byte_is_more_than_a_sentence(name: str, member: Home) -> None:
    folder = member.folder
    path = folder.path / name
    good = path.read_bytes()
    for at in range(len(good)):
        path.write_bytes(good[:at] + bytes([good[at] ^ 0x81]) + good[at + 1 :])
        with contextlib.suppress(P2PTrainError):
            folder.manifest()
            folder.membership()
            folder.root()
            folder.admission(lambda _: False)


def test_a_damaged_swarm_can_still_be_left(member: Home) -> None:
    path = member.folder.path
    for name in ("membership", "root", "swarm.msgpack"):
        (path / name).write_bytes(b"")
    said = member.call("swarm", "leave", path.name, "--yes")
    assert said.code == 0, said.err
    assert not path.exists()


def test_a_damaged_swarm_does_not_hide_the_others(member: Home) -> None:
    broken = member.folder.path / "swarm.msgpack"
    broken.write_bytes(b"")
    assert member.call("swarm", "create", "--task", "digits", "--name", "second").code == 0
    listed = member.call("swarm", "list")
    assert "second" in listed.out
    assert f"{broken} is damaged" in listed.err
    assert member.call("invite", "second").code == 0
    assert f"{broken} is damaged" in member.call("invite").err
