"""Partial blobs: what was kept survives the process, and what nobody goes on with is cleared away."""

import os
import random
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import pytest

from p2ptrain.core import limits
from p2ptrain.core.blobid import chunk_digest
from p2ptrain.core.errors import RemoteProtocolError
from p2ptrain.core.types import BlobId, Ref
from p2ptrain.net.blobs import part as blob_part
from p2ptrain.net.blobs.part import PART_AGE_MAX_S, PARTS_MAX, Partial, clear_parts, part_path, reserved

MIB = limits.MIB
NOW = datetime(2030, 1, 2, tzinfo=UTC)
BLOB = BlobId(Ref("a" * 64))
DATA = random.Random(5).randbytes(5 * MIB + 321)
CHUNKS = [DATA[at : at + MIB] for at in range(0, len(DATA), MIB)]
DIGESTS = [chunk_digest(chunk) for chunk in CHUNKS]

WRITER = """
import random, sys, time
from pathlib import Path
from p2ptrain.core.blobid import chunk_digest
from p2ptrain.net.blobs.part import Partial
data = random.Random(5).randbytes((5 << 20) + 321)
chunks = [data[at : at + (1 << 20)] for at in range(0, len(data), 1 << 20)]
partial = Partial(Path(sys.argv[1]), "a" * 64, len(data), [chunk_digest(chunk) for chunk in chunks])
for index in (4, 1, 5):
    partial.write(index, chunks[index])
print("kept", flush=True)
time.sleep(60)
"""


def partial_in(folder):
    return Partial(folder, BLOB, len(DATA), DIGESTS)


def test_a_killed_process_loses_nothing_that_it_kept(tmp_path):
    """The short last chunk too."""
    writer = subprocess.Popen([sys.executable, "-c", WRITER, str(tmp_path)], stdout=subprocess.PIPE)
    with writer:
        assert writer.stdout
        assert writer.stdout.readline().split() == [b"kept"]
        writer.kill()
    partial = partial_in(tmp_path)
    assert partial.missing == [0, 2, 3]
    for index in partial.missing:
        partial.write(index, CHUNKS[index])
    partial.finish()
    assert (tmp_path / BLOB).read_bytes() == DATA
    assert not part_path(tmp_path, BLOB).exists()


def test_several_threads_write_at_once(tmp_path):
    partial = partial_in(tmp_path)
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(partial.write, range(6), CHUNKS))
    partial.finish()
    assert (tmp_path / BLOB).read_bytes() == DATA


def test_a_late_write_after_the_end_harms_no_other_file(tmp_path):
    """A thread may still be hashing when its fetch is over."""
    partial = partial_in(tmp_path)
    partial.close()
    with pytest.raises(ValueError, match="closed"):
        partial.write(0, CHUNKS[0])


def test_a_wrong_chunk_is_not_written(tmp_path):
    partial = partial_in(tmp_path)
    with pytest.raises(RemoteProtocolError, match="chunk 1 does not match"):
        partial.write(1, CHUNKS[2])
    partial.close()
    assert part_path(tmp_path, BLOB).stat().st_size == 0


# -- clearing --------------------------------------------------------------------------------------


def leave(folder, number, age_s, size=10):
    """Leave a partial blob behind, of some age."""
    blob = BlobId(Ref(f"{number:064x}"))
    path = part_path(folder, blob)
    with path.open("wb") as file:
        file.truncate(size)
    at = (NOW - timedelta(seconds=age_s)).timestamp()
    os.utime(path, (at, at))
    return blob


def left(folder):
    return sorted(int(path.stem, 16) for path in folder.glob("*.part"))


def test_old_ones_go(tmp_path):
    leave(tmp_path, 1, PART_AGE_MAX_S - 10)
    leave(tmp_path, 2, PART_AGE_MAX_S + 10)
    (tmp_path / ("b" * 64)).touch()
    clear_parts(tmp_path, NOW)
    assert left(tmp_path) == [1]
    assert (tmp_path / ("b" * 64)).exists()


def test_the_latest_few_stay(tmp_path):
    for number in range(20):
        leave(tmp_path, number, 60 * number)
    clear_parts(tmp_path, NOW)
    assert left(tmp_path) == list(range(PARTS_MAX))


def test_their_bytes_are_bounded(tmp_path, monkeypatch):
    monkeypatch.setattr(blob_part, "PARTS_BYTES_MAX", 1000)
    for number, size in enumerate((600, 600, 300, 300)):
        leave(tmp_path, number, 60 * number, size)
    clear_parts(tmp_path, NOW)
    assert left(tmp_path) == [0, 2]


def test_what_is_being_written_stays(tmp_path, monkeypatch):
    monkeypatch.setattr(blob_part, "PARTS_MAX", 0)
    busy = leave(tmp_path, 1, 10 * PART_AGE_MAX_S)
    leave(tmp_path, 2, 0)
    with reserved(tmp_path, busy):
        clear_parts(tmp_path, NOW)
        assert left(tmp_path) == [1]
    clear_parts(tmp_path, NOW)
    assert left(tmp_path) == []


def test_a_folder_without_any(tmp_path):
    clear_parts(tmp_path / "nowhere", NOW)
    clear_parts(tmp_path)
