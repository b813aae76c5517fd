"""The name of a blob: a hash over the hashes of its chunks, so that a wrong chunk is found as it arrives."""

import hashlib
import struct
from collections.abc import Iterable

from p2ptrain.core import limits
from p2ptrain.core.types import BlobId, Ref

BLOB_DOMAIN = b"p2ptrain-blob-v1\0"
DIGEST_BYTES = hashlib.sha256().digest_size


def chunk_count(size_bytes: int) -> int:
    """Return how many chunks a blob of that size has; the last one may be shorter."""
    return -(-size_bytes // limits.BLOB_CHUNK_BYTES)


def chunk_digest(chunk: bytes | bytearray | memoryview) -> bytes:
    """Return the SHA-256 of one chunk, 32 bytes."""
    return hashlib.sha256(chunk).digest()


def blob_id(size_bytes: int, chunk_digests: Iterable[bytes]) -> BlobId:
    """Return the id of a blob of that size with those chunks."""
    digest = hashlib.sha256(BLOB_DOMAIN)
    digest.update(struct.pack(">QI", size_bytes, limits.BLOB_CHUNK_BYTES))
    for chunk in chunk_digests:
        digest.update(chunk)
    return BlobId(Ref(digest.hexdigest()))


def hash_blob(data: bytes | bytearray | memoryview) -> BlobId:
    """Return the id of a whole blob; a memoryview must be contiguous."""
    octets = memoryview(data).cast("B")
    step = limits.BLOB_CHUNK_BYTES
    return blob_id(len(octets), (chunk_digest(octets[at : at + step]) for at in range(0, len(octets), step)))
