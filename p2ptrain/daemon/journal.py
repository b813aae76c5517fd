"""The inputs of a run, so that it can be lived again: a bug report that replays.

A file of frames (u32 length, msgpack): first what the node was made of, then each input with its time
and a digest of the effects that followed.
"""

import hashlib
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import msgspec
from msgspec import Struct

from p2ptrain import strategies
from p2ptrain.core import inputs, limits
from p2ptrain.core.codec import Codec
from p2ptrain.core.effects import Effect, digest
from p2ptrain.core.envelope import Opener
from p2ptrain.core.errors import ConfigError
from p2ptrain.core.inputs import Input
from p2ptrain.core.manifest import Manifest, decode_manifest, read_settings
from p2ptrain.core.messages import Contact
from p2ptrain.core.node import Node, Setup
from p2ptrain.core.spread import SpreadConfig
from p2ptrain.core.types import BlobId, PeerId, Seconds, SwarmId

_LENGTH = struct.Struct(">I")
DIGEST_BYTES = 8


class Header(Struct, frozen=True):
    """What the node was made of."""

    swarm: SwarmId
    me: PeerId
    manifest: bytes
    seed: int
    contact: Contact


class _Received(Struct, frozen=True, tag=True):
    via: PeerId
    raw: bytes


class _Signed(Struct, frozen=True, tag=True):
    raw: bytes


class _Started(Struct, frozen=True, tag=True):
    contacts: tuple[bytes, ...]
    held: tuple[BlobId, ...]


_Plain = (
    inputs.PeerUp
    | inputs.PeerDown
    | inputs.Offended
    | inputs.Fetched
    | inputs.FetchFailed
    | inputs.TrainerReady
    | inputs.TrainerLost
    | inputs.Trained
    | inputs.Evaluated
    | inputs.Combined
    | inputs.Adopted
    | inputs.Published
    | inputs.Saved
    | inputs.Reduced
    | inputs.ReduceFailed
    | inputs.Staged
    | inputs.LearnFailed
    | inputs.TimerFired
    | inputs.Paused
    | inputs.Resumed
    | inputs.Leaving
)


class Entry(Struct, frozen=True, array_like=True):
    """One input, and a digest of what the node wanted then."""

    now: Seconds
    event: _Received | _Signed | _Started | _Plain
    effects: bytes


class Divergence(Struct, frozen=True):
    """Where a replay went another way."""

    index: int
    now: Seconds
    event: str


def setup_of(manifest: Manifest, me: PeerId, seed: int, contact: Contact | None) -> Setup:
    """Make the setup of a node from a manifest.

    Raises:
        ManifestError: strategy or a setting is not known here.
    """
    rules = strategies.load(manifest.strategy)
    return Setup(
        me=me,
        manifest=manifest,
        rules=rules,
        settings=strategies.settings(rules, manifest),
        seed=seed,
        contact=contact,
        spread=read_settings(SpreadConfig, manifest.spread_config, "the spreading of reports"),
    )


class Journal:
    """Writes a run down, up to `limits.JOURNAL_BYTES_MAX`."""

    def __init__(self, path: Path, header: Header) -> None:
        if path.exists():
            path.replace(path.with_name(path.name + ".1"))
        self._file: BinaryIO | None = path.open("wb")
        self._left = limits.JOURNAL_BYTES_MAX
        self._encoder = msgspec.msgpack.Encoder()
        self._write(header)

    def record(self, now: Seconds, event: Input, effects: list[Effect]) -> None:
        """Write one input down."""
        if self._file is None:
            return
        self._write(Entry(now, _pack(event), effects_digest(effects)))

    def close(self) -> None:
        """End the file."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def _write(self, value: Header | Entry) -> None:
        assert self._file is not None
        data = self._encoder.encode(value)
        self._left -= _LENGTH.size + len(data)
        if self._left < 0:
            self.close()
            return
        self._file.write(_LENGTH.pack(len(data)) + data)


def effects_digest(effects: list[Effect]) -> bytes:
    """Eight bytes that tell lists of effects apart."""
    return hashlib.blake2b(digest(effects), digest_size=DIGEST_BYTES).digest()


def replay(path: Path) -> tuple[int, list[Divergence]]:
    """Live a run again; return the number of inputs and where effects differed.

    Raises:
        ConfigError: the file is no journal.
    """
    frames = _frames(path)
    try:
        header = msgspec.msgpack.decode(next(frames), type=Header)
        manifest = decode_manifest(header.manifest)
        setup = setup_of(manifest, header.me, header.seed, header.contact)
        node = Node(setup)
        opener = Opener(_Believer(), header.swarm, Codec(setup.rules.messages))
        count, divergences = 0, []
        for frame in frames:
            entry = msgspec.msgpack.decode(frame, type=Entry)
            effects = node.handle(entry.now, _unpack(entry.event, opener))
            if effects_digest(effects) != entry.effects:
                divergences.append(Divergence(count, entry.now, type(entry.event).__name__.lstrip("_")))
            count += 1
    except (StopIteration, msgspec.DecodeError):
        raise ConfigError(f"{path} is no journal, or of another version") from None
    return count, divergences


def events(path: Path) -> Iterator[tuple[Seconds, Any]]:
    """Return the inputs of a run with their times, as they were written down.

    Raises:
        ConfigError: the file is no journal.
    """
    frames = _frames(path)
    next(frames, b"")
    try:
        for frame in frames:
            entry = msgspec.msgpack.decode(frame, type=Entry)
            yield entry.now, entry.event
    except msgspec.DecodeError:
        raise ConfigError(f"{path} is no journal, or of another version") from None


class _Believer:
    """Whatever is in a journal was checked when it came."""

    def verify(self, peer: PeerId, signature: bytes, data: bytes) -> bool:
        return True

    def vouch(self, peer: PeerId, certificate: bytes) -> bool:
        return True


def _pack(event: Input) -> Any:
    match event:
        case inputs.Received():
            return _Received(event.via, event.message.raw)
        case inputs.Signed():
            return _Signed(event.message.raw)
        case inputs.Started():
            return _Started(tuple(contact.raw for contact in event.contacts), event.held)
        case _:
            return event


def _unpack(event: Any, opener: Opener) -> Input:
    match event:
        case _Received():
            message = opener.receive(event.raw, event.via)
            assert message is not None
            return inputs.Received(event.via, message)
        case _Signed():
            return inputs.Signed(opener.open_statement(event.raw))
        case _Started():
            return inputs.Started(tuple(map(opener.open_statement, event.contacts)), event.held)
        case _:
            assert isinstance(event, Input)
            return event


def _frames(path: Path) -> Iterator[bytes]:
    try:
        with path.open("rb") as file:
            while len(head := file.read(_LENGTH.size)) == _LENGTH.size:
                size = _LENGTH.unpack(head)[0]
                data = file.read(min(size, limits.JOURNAL_BYTES_MAX))
                if len(data) < size:
                    return  # the last frame of a run that was killed
                yield data
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}") from None
