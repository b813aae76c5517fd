"""Weights arrive whole and right, or not at all, and never cost much more than their size."""

import asyncio
import os
import random
import ssl
from types import SimpleNamespace

import pytest

from p2ptrain.core import limits
from p2ptrain.core.blobid import blob_id, chunk_count, hash_blob
from p2ptrain.core.errors import (
    LocalProtocolError,
    Offence,
    P2PTrainError,
    RefusedError,
    RemoteProtocolError,
    UnreachableError,
)
from p2ptrain.core.types import BlobId, Ref
from p2ptrain.net.blobs import part as blob_part
from p2ptrain.net.blobs import plan as blob_plan
from p2ptrain.net.blobs import server as blob_server
from p2ptrain.net.blobs.fetch import fetch, fetch_from_any, forget

MIB = limits.MIB


class Store:
    """A node with blobs to give, and a reader with a folder to fill."""

    def __init__(self, swarm, tmp_path) -> None:
        self.swarm = swarm
        self.folder = tmp_path / "given"
        self.folder.mkdir()
        self.fetched = tmp_path / "fetched"
        self.fetched.mkdir()

    async def start(self) -> None:
        self.source = await self.swarm.node(blobs=self.folder)
        self.reader = await self.swarm.node()
        self.reader.transport.learn(self.source.peer, self.source.addresses)

    def put(self, size: int, seed: int = 1) -> tuple[BlobId, bytes]:
        data = random.Random(seed).randbytes(size)
        blob = hash_blob(data)
        (self.folder / blob).write_bytes(data)
        return blob, data

    async def fetch(self, blob: BlobId, size: int, timeout_s: float = 20.0) -> None:
        await fetch(self.reader.transport, self.source.peer, blob, size, self.fetched, timeout_s)

    @property
    def moved(self) -> int:
        return self.reader.transport.traffic.total.blobs_down


@pytest.fixture
async def store(swarm, tmp_path):
    store = Store(swarm, tmp_path)
    await store.start()
    return store


# -- the id ----------------------------------------------------------------------------------------


def test_the_id_is_fixed():
    """PROTOCOL: SHA-256("p2ptrain-blob-v1\\0" | size u64 | chunk u32 | SHA-256 of each chunk)."""
    assert hash_blob(b"a" * 3_000_000) == "2ec907da52f5623206881b455a2f9a1d75a95297f1a9e32554d5aff08bdb933b"
    assert hash_blob(memoryview(b"a" * 3_000_000)) == hash_blob(bytearray(b"a" * 3_000_000))
    assert hash_blob(b"") == blob_id(0, [])
    assert [chunk_count(size) for size in (0, 1, MIB, MIB + 1)] == [0, 1, 1, 2]


# -- the way through -------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [1, MIB, 3 * MIB + MIB // 2, 17 * MIB + 5])
async def test_round_trip(store, size):
    blob, data = store.put(size)
    await store.fetch(blob, size)
    assert (store.fetched / blob).read_bytes() == data
    assert [path.name for path in store.fetched.iterdir()] == [blob]
    assert size <= store.moved <= size * 1.001 + 64
    assert store.source.transport.traffic.of(store.reader.peer).blobs_up == store.moved
    moved = store.moved
    await store.fetch(blob, size)
    assert store.moved == moved


async def test_resume_after_cuts_at_random_points(store):
    size = 24 * MIB + 77
    blob, data = store.put(size)
    dice = random.Random(3)
    for _ in range(3):
        stop_at = store.moved + dice.randrange(2 * MIB, 6 * MIB)
        work = asyncio.create_task(store.fetch(blob, size))
        while store.moved < stop_at and not work.done():
            await asyncio.sleep(0)
        work.cancel()
        with pytest.raises(asyncio.CancelledError):
            await work
        assert not (store.fetched / blob).exists()
    await store.fetch(blob, size)
    assert (store.fetched / blob).read_bytes() == data
    assert store.moved <= 1.1 * size + blob_plan.RANGE_CHUNKS * MIB / 2


async def test_resume_after_the_source_died(store, attacks):
    size = 6 * MIB
    blob, data = store.put(size)
    async with attacks.Wire(store.source.transport.port) as wire:
        store.reader.transport.learn(store.source.peer, [wire.address])
        wire.cut_after = 3 * MIB
        with pytest.raises(UnreachableError, match="stopped giving weights"):
            await store.fetch(blob, size)
    store.reader.transport.learn(store.source.peer, store.source.addresses)
    await store.fetch(blob, size)
    assert (store.fetched / blob).read_bytes() == data
    assert store.moved <= 1.1 * size + MIB


async def test_a_damaged_part_is_mended(store):
    size = 3 * MIB
    blob, data = store.put(size)
    part = bytearray(data)
    part[MIB + 5] ^= 1
    (store.fetched / f"{blob}.part").write_bytes(part + b"too long")
    await store.fetch(blob, size)
    assert (store.fetched / blob).read_bytes() == data
    assert store.moved < 1.1 * MIB


async def test_forget(store):
    blob, _ = store.put(10)
    await store.fetch(blob, 10)
    (store.fetched / f"{blob}.part").touch()
    forget(store.fetched, blob)
    forget(store.fetched, blob)
    assert list(store.fetched.iterdir()) == []


# -- liars -----------------------------------------------------------------------------------------


@pytest.mark.attack
async def test_a_wrong_chunk_is_found(store):
    size = 3 * MIB
    blob, data = store.put(size)
    await store.fetch(blob, size)
    forget(store.fetched, blob)
    wrong = bytearray(data)
    wrong[2 * MIB + 9] ^= 1
    (store.folder / blob).write_bytes(wrong)
    with pytest.raises(RemoteProtocolError, match="chunk 2 does not match") as error:
        await store.fetch(blob, size)
    assert error.value.offence is Offence.WRONG_BYTES
    assert [path.name for path in store.fetched.iterdir()] == [f"{blob}.part"]
    assert (store.fetched / f"{blob}.part").read_bytes() == data[: 2 * MIB]


@pytest.mark.attack
async def test_a_wrong_list_is_found(store, monkeypatch):
    blob, _ = store.put(2 * MIB)
    monkeypatch.setattr(blob_server, "_digests", lambda _: bytes(64))
    with pytest.raises(RemoteProtocolError, match="do not lead to"):
        await store.fetch(blob, 2 * MIB)
    assert list(store.fetched.iterdir()) == []


@pytest.mark.attack
@pytest.mark.parametrize("claimed", [MIB, 2 * MIB + 1, 2 * MIB - 1, 16 * limits.GIB])
async def test_a_wrong_size_is_refused_before_anything_is_read(store, claimed):
    blob, _ = store.put(2 * MIB)
    with pytest.raises(RemoteProtocolError, match=r"another size|do not lead to"):
        await store.fetch(blob, claimed)
    assert store.moved <= 64
    assert list(store.fetched.iterdir()) == []


@pytest.mark.parametrize("claimed", [0, -1, limits.BLOB_BYTES_MAX + 1])
async def test_an_impossible_size_is_our_own_fault(store, claimed):
    blob, _ = store.put(5)
    with pytest.raises(LocalProtocolError):
        await store.fetch(blob, claimed)


@pytest.mark.attack
async def test_a_file_that_is_not_what_its_name_says_is_not_served(store):
    blob = BlobId(Ref("0" * 64))
    (store.folder / blob).write_bytes(b"something else")
    with pytest.raises(RefusedError, match="no longer has"):
        await store.fetch(blob, 14)


async def test_the_next_source_goes_on(store, tmp_path):
    """A dead one, one without it, a liar, and one that gives the rest."""
    size = 4 * MIB
    blob, data = store.put(size)
    lying = tmp_path / "lying"
    lying.mkdir()
    (lying / blob).write_bytes(data)
    liar = await store.swarm.node(blobs=lying)
    store.reader.transport.learn(liar.peer, liar.addresses)
    async with store.reader.transport.get(liar.peer, f"/v1/blob/{blob}/chunks") as answer:
        assert answer.status == 200
    (lying / blob).write_bytes(data[: 2 * MIB] + bytes(2 * MIB))
    dead, empty = await store.swarm.node(), await store.swarm.node(blobs=store.fetched)
    store.reader.transport.learn(empty.peer, empty.addresses)
    lies = []
    source = await fetch_from_any(
        store.reader.transport,
        [dead.peer, empty.peer, liar.peer, store.source.peer],
        blob,
        size,
        store.fetched,
        10.0,
        lambda peer, error: lies.append((peer, error.offence)),
    )
    assert source == store.source.peer
    assert lies == [(liar.peer, Offence.WRONG_BYTES)]
    assert (store.fetched / blob).read_bytes() == data
    assert store.reader.transport.traffic.of(source).blobs_down < 2.1 * MIB


async def test_nobody_has_it(store):
    with pytest.raises(UnreachableError, match=r"nobody gave the weights: .* no longer has these weights"):
        await fetch_from_any(
            store.reader.transport,
            [store.source.peer],
            BlobId(Ref("1" * 64)),
            5,
            store.fetched,
            5.0,
            lambda *_: pytest.fail("nobody lied"),
        )


# -- bounds ----------------------------------------------------------------------------------------


async def test_a_slow_source_is_given_up(store, monkeypatch):
    blob, _ = store.put(2 * MIB)

    async def stall(*_):
        await asyncio.sleep(10)

    monkeypatch.setattr(blob_server.BlobServer, "_stream", stall)
    with pytest.raises(UnreachableError, match="in time"):
        await store.fetch(blob, 2 * MIB, timeout_s=0.1)


async def test_a_reader_that_takes_nothing_is_given_up(store, monkeypatch, until):
    monkeypatch.setattr(blob_server, "STALLED_S", 0.1)
    size = 32 * MIB
    blob, _ = store.put(size)
    async with store.reader.transport.get(store.source.peer, f"/v1/blob/{blob}") as answer:
        assert answer.status == 200
        await asyncio.sleep(0.25)
        with pytest.raises(Exception, match=r"ayload|onnection"):
            await answer.content.readexactly(size)


async def test_transfers_are_limited(store, monkeypatch):
    monkeypatch.setattr(blob_server, "TRANSFERS_PER_PEER_MAX", 1)
    size = 16 * MIB
    blob, _ = store.put(size)
    async with store.reader.transport.get(store.source.peer, f"/v1/blob/{blob}") as answer:
        assert answer.status == 200
        with pytest.raises(RefusedError, match="is busy"):
            await store.fetch(blob, size)


@pytest.mark.attack
async def test_a_peer_that_is_turned_away_gets_no_more(swarm, tmp_path):
    banned = set()
    store = Store(swarm, tmp_path)
    size = 32 * MIB
    blob, _ = store.put(size)
    source = await swarm.node(blobs=store.folder, refused=banned.__contains__)
    reader = await swarm.node()
    reader.transport.learn(source.peer, source.addresses)
    work = asyncio.create_task(fetch(reader.transport, source.peer, blob, size, store.fetched, 10.0))
    while not reader.transport.traffic.total.blobs_down > MIB:
        await asyncio.sleep(0)
    banned.add(reader.peer)
    with pytest.raises(UnreachableError):
        await work


@pytest.mark.parametrize(
    "path",
    [
        "/v1/blob/",
        "/v1/blob/../secret",
        "/v1/blob/%2e%2e%2fsecret",
        "/v1/blob/..%5csecret",
        "/v1/blob/" + "A" * 64,
        "/v1/blob/" + "0" * 63,
        "/v1/blob/" + "0" * 65,
        "/v1/blob/" + "0" * 64 + ".part",
        "/v1/blob/" + "0" * 64 + "%00",
        "/v1/blob/" + "0" * 64 + "%0a",
        "/v1/blob/" + "0" * 64 + "/../../secret",
    ],
)
async def test_names_that_are_no_ids(store, attacks, path):
    (store.folder.parent / "secret").write_bytes(b"SECRET")
    (store.folder / ("0" * 64 + ".part")).write_bytes(b"SECRET")
    context = attacks.careless(ssl.PROTOCOL_TLS_CLIENT, store.reader.identity, store.reader.membership)
    request = f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode()
    answer = await attacks.knock(store.source.transport.port, context, store.source.peer, request)
    assert answer.startswith(b"HTTP/1.1 4")
    assert b"SECRET" not in answer


@pytest.mark.parametrize(
    ("asked", "status", "length"),
    [
        ("bytes=0-9", 206, 10),
        ("bytes=90-", 206, 10),
        ("bytes=-5", 206, 5),
        ("bytes=95-9999", 206, 5),
        ("bytes=100-", 416, None),
        ("bytes=9-3", 416, None),
        ("bytes=0-1,5-6", 416, None),
        ("lines=0-1", 416, None),
        ("bytes=0-" + "9" * 5000, 416, None),
    ],
)
async def test_ranges(store, asked, status, length):
    blob, data = store.put(100)
    get = store.reader.transport.get(store.source.peer, f"/v1/blob/{blob}", {"Range": asked})
    async with get as answer:
        assert answer.status == status
        if length:
            body = await answer.read()
            assert len(body) == length
            assert body in data


async def test_who_is_no_member_gets_nothing(store, other_swarm, attacks):
    blob, _ = store.put(1000)
    request = f"GET /v1/blob/{blob} HTTP/1.1\r\nHost: x\r\n\r\n".encode()
    stranger = other_swarm.certify(store.reader.identity)
    for membership in (None, stranger):
        context = attacks.careless(ssl.PROTOCOL_TLS_CLIENT, store.reader.identity, membership)
        assert await attacks.knock(store.source.transport.port, context, store.source.peer, request) == b""


async def test_a_disk_without_room_is_said_before_the_transfer(store, monkeypatch):
    blob, _ = store.put(2 * MIB)
    monkeypatch.setattr(blob_part.shutil, "disk_usage", lambda _: SimpleNamespace(free=MIB))
    with pytest.raises(P2PTrainError, match="No space left on device"):
        await store.fetch(blob, 2 * MIB)
    assert store.moved == 64


async def test_a_full_disk_is_said(store, monkeypatch):
    blob, _ = store.put(100)

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(P2PTrainError, match="No space left on device") as error:
        await store.fetch(blob, 100)
    assert error.value.hint == "make room on the disk"
