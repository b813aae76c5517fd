"""The name of weights follows from their bytes, and can be checked chunk by chunk."""

import pytest

from p2ptrain.core.blobid import blob_id, chunk_count, chunk_digest, hash_blob
from p2ptrain.core.limits import BLOB_CHUNK_BYTES
from p2ptrain.core.types import is_blob

SIZES = [1, BLOB_CHUNK_BYTES - 1, BLOB_CHUNK_BYTES, BLOB_CHUNK_BYTES + 1]


@pytest.mark.parametrize("size", SIZES)
def test_the_name_is_made_of_the_chunks_as_they_arrive(size: int) -> None:
    data = bytes(number % 251 for number in range(1000)) * (size // 1000 + 1)
    data = data[:size]
    chunks = [data[at : at + BLOB_CHUNK_BYTES] for at in range(0, size, BLOB_CHUNK_BYTES)]
    assert len(chunks) == chunk_count(size)
    assert hash_blob(data) == hash_blob(memoryview(data)) == blob_id(size, map(chunk_digest, chunks))
    assert is_blob(hash_blob(data))


def test_size_and_every_chunk_make_another_name() -> None:
    one, other = chunk_digest(b"1"), chunk_digest(b"2")
    names = [blob_id(2, [one, other]), blob_id(2, [other, one]), blob_id(3, [one, other]), blob_id(2, [one])]
    assert len(dict.fromkeys(names)) == len(names)


def test_the_name_of_given_bytes_never_changes() -> None:
    assert hash_blob(b"p2ptrain") == "297d6e03fff07ffaa7ba59f00e32c73fa39de71ec13059d517fe8e58a75bd82d"
