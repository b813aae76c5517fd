"""The swarms that this node belongs to, as files.

swarms/<first 16 digits of the id>/
swarm.msgpack     manifest, its signature, port, counts of starts
membership        this node's certificates
contacts.msgpack  other members as they introduced themselves
root, issuer      keys, on the computer that made the swarm
invites           what was invited by, on the same computer
state             what the root decided since, see `net/members/state.py`
admissions        whom this node admitted
claim             the invite that lets this node issue, until the founder has seen it
visible           there if strangers on the local network may ask to join
blobs/            weights that peers may fetch
checkpoint/       where training goes on
journal           inputs of the last run, for `p2ptrain replay`
history.sqlite    what was measured since the swarm was joined, see `history.py`
"""

import shutil
import socket
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TypeVar

import msgspec
from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from filelock import FileLock
from msgspec import Struct

from p2ptrain.core.errors import ConfigError, InviteError, P2PTrainError, RemoteProtocolError
from p2ptrain.core.manifest import Manifest, decode_manifest
from p2ptrain.core.text import clean
from p2ptrain.core.types import PeerId, SwarmId
from p2ptrain.net.members.admission import Admission, AdmissionBook, decode_book
from p2ptrain.net.members.invite import Invite, decode_invite
from p2ptrain.net.members.join import Welcome
from p2ptrain.net.members.state import SwarmState, is_newer, read_state, sign_state
from p2ptrain.net.trust.authority import Issuer, Root, decode_issuer, decode_root
from p2ptrain.net.trust.certificates import Clock, Membership, Role, decode_membership, wall_clock
from p2ptrain.net.trust.identity import Identity
from p2ptrain.net.trust.private_files import read_private, write_private

T = TypeVar("T")


class Record(Struct, frozen=True, forbid_unknown_fields=True):
    """What is kept of a swarm besides keys.

    boots: number of the last start. It only grows, also after joining again: peers believe what is newer.
    seed: of this node's randomness that lasts, as its first weights.
    """

    manifest: bytes
    manifest_signature: bytes
    port: int
    joined_at: str
    boots: int = 0
    seed: int = 0


class SwarmFolder:
    """One swarm's files."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.blobs = path / "blobs"
        self.checkpoint = path / "checkpoint"
        self.journal = path / "journal"

    # -- reading -----------------------------------------------------------------------------------

    def record(self) -> Record:
        """Read what is kept of the swarm."""
        return _decode(self.path / "swarm.msgpack", Record)

    def manifest(self) -> Manifest:
        """Read the swarm's manifest; its name is somebody's words, made harmless."""
        manifest = decode_manifest(self.record().manifest)
        return msgspec.structs.replace(manifest, name=clean(manifest.name))

    def membership(self) -> Membership:
        """Read this node's certificates."""
        return _load(self.path / "membership", decode_membership)

    @property
    def title(self) -> str:
        """Its name and the beginning of its id, for people; a damaged one has no name."""
        try:
            name = self.manifest().name
        except P2PTrainError:
            name = "damaged"
        return f"{name} ({self.path.name[:8]})"

    def is_called(self, name: str) -> bool:
        """Say whether that is its name, its id, or the beginning of its id."""
        id_ = self.path.name
        return bool(name) and (self.title == f"{name} ({id_[:8]})" or id_.startswith(name[: len(id_)]))

    @property
    def swarm(self) -> SwarmId:
        """The swarm's id."""
        return self.membership().swarm

    def contacts(self) -> list[bytes]:
        """Read the other members' signed contacts."""
        path = self.path / "contacts.msgpack"
        return list(_decode(path, dict[bytes, bytes]).values()) if path.exists() else []

    def root(self) -> Root | None:
        """Read the root key, if this computer made the swarm."""
        path = self.path / "root"
        return _load(path, decode_root) if path.exists() else None

    def need_root(self, hint: str) -> Root:
        """Read the root key.

        Raises:
            ConfigError: another computer made the swarm; `hint` is what to do then.
        """
        root = self.root()
        if root is None:
            raise ConfigError(f"this computer did not make `{self.manifest().name}`", hint)
        return root

    def issuer(self) -> Issuer | None:
        """Read the issuer's key, if this node admits members."""
        path = self.path / "issuer"
        return _load(path, decode_issuer) if path.exists() else None

    def admission(
        self,
        refused: Callable[[PeerId], bool] = lambda _: False,
        withdrawn: Callable[[bytes], bool] = lambda _: False,
        taken: Callable[[], Iterable[int]] = lambda: (),
        issuer: Issuer | None = None,
        saved: Callable[[AdmissionBook], None] = lambda _: None,
    ) -> Admission | None:
        """Build the admission of new members, see there; None: no issuer is given, nor in a file here.

        `saved` is told of every change of the book, after it is on disk.
        """
        issuer = issuer or self.issuer()
        if issuer is None:
            return None
        path = self.path / "admissions"
        book = _load(path, decode_book) if path.exists() else AdmissionBook()

        def save(changed: AdmissionBook) -> None:
            write_private(path, changed.encode())
            saved(changed)

        return Admission(issuer, book, save, refused, withdrawn=withdrawn, taken=taken)

    def state(self) -> bytes:
        """Read the swarm's signed state; empty: its root has said nothing yet."""
        path = self.path / "state"
        raw = _read(path) if path.exists() else b""
        try:
            read_state(self.membership().root_key, raw)
        except RemoteProtocolError as error:
            raise ConfigError(
                f"{path} is damaged: {error.detail}", "delete it: the other members send it again"
            ) from None
        return raw

    def claim(self) -> Invite | None:
        """Read the invite by which this node may issue, until the founder has seen it."""
        path = self.path / "claim"
        try:
            return decode_invite(_read(path).decode()) if path.exists() else None
        except (InviteError, UnicodeDecodeError):
            return None

    # -- writing -----------------------------------------------------------------------------------

    @property
    def visible(self) -> bool:
        """Whether strangers on the local network are shown the swarm."""
        return (self.path / "visible").exists()

    def show(self, on: bool) -> None:
        """Decide that; the daemon looks every few seconds."""
        if on:
            (self.path / "visible").touch()
        else:
            (self.path / "visible").unlink(missing_ok=True)

    def save_claim(self, invite: Invite | None) -> None:
        """Keep it: a secret. None: it has been seen."""
        if invite is None:
            (self.path / "claim").unlink(missing_ok=True)
        else:
            write_private(self.path / "claim", invite.encode().encode())

    def save_record(self, record: Record) -> None:
        """Keep a changed record."""
        write_private(self.path / "swarm.msgpack", msgspec.msgpack.encode(record))

    def save_membership(self, membership: Membership) -> None:
        """Keep renewed certificates."""
        write_private(self.path / "membership", membership.encode())

    def save_issuer(self, issuer: Issuer) -> None:
        """Keep the issuer's key: a secret."""
        write_private(self.path / "issuer", issuer.encode())

    def save_state(self, raw: bytes) -> None:
        """Keep a signed state, unless a newer one came to the disk in the meantime."""
        key = self.membership().root_key
        with FileLock(self.path / "state.lock"):
            if is_newer(key, raw, self.state()):
                write_private(self.path / "state", raw)

    def decide(self, change: Callable[[SwarmState], SwarmState], clock: Clock = wall_clock) -> SwarmState:
        """Sign a new state of the swarm; a change that changes nothing makes none.

        Raises:
            ConfigError: this computer does not hold the root key, or there is no room.
        """
        root = self.need_root("do this on the computer that did")
        before = read_state(root.public_key, self.state())
        after = change(before)
        if after != before:
            self.save_state(sign_state(root, after, before, clock()))
        return after

    def save_contacts(self, contacts: dict[PeerId, bytes]) -> None:
        """Keep the other members' contacts."""
        write_private(self.path / "contacts.msgpack", msgspec.msgpack.encode(contacts))

    def count_boot(self, clock: Clock = wall_clock) -> Record:
        """Give this start its number, before anything is signed with it."""
        record = self.record()
        boots = max(record.boots + 1, round(1000 * clock().timestamp()))
        record = msgspec.structs.replace(record, boots=boots)
        self.save_record(record)
        return record

    def delete(self) -> None:
        """Forget the swarm: keys, weights and all."""
        shutil.rmtree(self.path)


class Swarms:
    """All swarms of a home."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def all(self) -> list[SwarmFolder]:
        """The swarms, damaged or not, by id."""
        return [SwarmFolder(path.parent) for path in sorted(self._folder.glob("*/swarm.msgpack"))]

    def find(self, name: str | None) -> SwarmFolder:
        """Return the swarm of that name or beginning of id; without a name the one joined last.

        Raises:
            ConfigError: there is none, or more than one; or, without a name, one is damaged.
        """
        swarms = self.all()
        if not swarms:
            raise ConfigError("this computer is in no swarm", "`p2ptrain start` makes one, or join by invite")
        if name is None:
            return max(swarms, key=lambda swarm: swarm.record().joined_at)
        found = [swarm for swarm in swarms if swarm.is_called(name)]
        if len(found) == 1:
            return found[0]
        known = ", ".join(swarm.title for swarm in swarms)
        problem = "more than one swarm is called" if found else "there is no swarm called"
        raise ConfigError(f"{problem} `{name}`", f"known are: {known}")

    def create(
        self, manifest: Manifest, identity: Identity, seed: int, clock: Clock = wall_clock
    ) -> SwarmFolder:
        """Found a swarm: root, issuer and the first membership."""
        now = clock()
        root = Root.create(now)
        issuer = root.appoint(now)
        encoded = manifest.encode()
        folder = self._make(root.swarm)
        write_private(folder.path / "root", root.encode())
        folder.save_issuer(issuer)
        admission = folder.admission()
        assert admission is not None
        folder.save_membership(admission.enroll(identity.peer, Role.ISSUER))
        port = free_port()
        folder.save_record(Record(encoded, root.sign_manifest(encoded), port, now.isoformat(), seed=seed))
        return folder

    def add(self, welcome: Welcome, seed: int, clock: Clock = wall_clock) -> SwarmFolder:
        """Keep what an issuer gave; what is damaged is made anew."""
        folder = self._make(welcome.membership.swarm)
        folder.save_membership(welcome.membership)
        try:
            folder.record()
        except ConfigError:
            signed = welcome.manifest, welcome.manifest_signature
            folder.save_record(Record(*signed, free_port(), clock().isoformat(), seed=seed))
        return folder

    def _make(self, swarm: SwarmId) -> SwarmFolder:
        folder = SwarmFolder(self._folder / swarm.hex()[:16])
        for path in (folder.path, folder.blobs, folder.checkpoint):
            path.mkdir(mode=0o700, parents=True, exist_ok=True)
        return folder


def free_port() -> int:
    """Ask the system for a TCP port that nobody uses now."""
    with socket.socket() as probe:
        probe.bind(("", 0))
        port: int = probe.getsockname()[1]
        return port


def oldest_first(folder: Path) -> Sequence[Path]:
    """The whole blobs of a folder, by age."""
    blobs = [path for path in folder.iterdir() if len(path.name) == 64]
    return sorted(blobs, key=lambda path: path.stat().st_mtime)


def _read(path: Path) -> bytes:
    try:
        return read_private(path)
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}", "join the swarm again") from None


def _decode(path: Path, type_: type[T]) -> T:
    try:
        return msgspec.msgpack.decode(_read(path), type=type_)
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise ConfigError(f"{path} is damaged", "restore it from a backup, or join the swarm again") from None


def _load(path: Path, decode: Callable[[bytes], T]) -> T:
    """Read a file of keys or certificates, and name it if it is damaged."""
    data = _read(path)
    try:
        return decode(data)
    except ConfigError as error:
        raise ConfigError(f"{path} is damaged: {error.message}", error.hint) from None
    except (x509.InvalidVersion, UnsupportedAlgorithm) as error:
        raise ConfigError(f"{path} is damaged: {error}", "restore it from a backup") from None
