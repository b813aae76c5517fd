"""Weights after kill -9 and among liars: right, hardly anything twice, and liars are not asked again."""

import random
import sys

import pytest

from p2ptrain.core import limits
from p2ptrain.core.types import BlobId, PeerId, Ref
from p2ptrain.net.blobs.liars import LIARS_MAX, Liars
from tests.net.kill_fetch import TIMES_MAX, kill_many

BLOB = BlobId(Ref("0" * 64))


@pytest.mark.skipif(sys.platform == "win32", reason="kill -9")
async def test_a_reader_killed_at_random_points(tmp_path):
    """A sample of `python -m tests.net.kill_fetch`, over a line of 100 Mbit/s."""
    times = await kill_many(tmp_path, kills=2, seed=7, size=24 * limits.MIB + 5, mbit=100.0)
    assert max(times) <= TIMES_MAX


def peer(number: int) -> PeerId:
    return PeerId(number.to_bytes(32))


@pytest.mark.attack
def test_liars_are_left_out_for_their_blob_only():
    liars = Liars()
    liars.add(BLOB, peer(1))
    assert liars.without(BLOB, [peer(2), peer(1), peer(3)]) == (peer(2), peer(3))
    assert liars.without(BlobId(Ref("1" * 64)), [peer(1)]) == (peer(1),)


@pytest.mark.attack
def test_what_is_remembered_of_liars_is_bounded():
    liars, dice = Liars(), random.Random(1)
    for number in range(10 * limits.REPORTS_MAX):
        liars.add(BlobId(Ref(dice.randbytes(32).hex())), peer(number))
        liars.add(BLOB, peer(number))
    assert len(liars._liars) == limits.REPORTS_MAX
    kept = [number for number in range(10 * limits.REPORTS_MAX) if not liars.without(BLOB, [peer(number)])]
    assert kept == [*range(10 * limits.REPORTS_MAX)][-LIARS_MAX:]
