"""Files that only their owner may read: keys, issuers, memberships, invites."""

import contextlib
import os
import tempfile
from pathlib import Path

PRIVATE_BYTES_MAX = 1 << 24
"""An admission book of 10,000 members is about 1 MiB."""


def write_private(path: Path, data: bytes) -> None:
    """Write a file of mode 0600 at once: after a crash it holds the old bytes or the new, never a mixture."""
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    temporary = Path(name)
    try:
        with open(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    _sync_folder(path.parent)


def read_private(path: Path) -> bytes:
    """Read such a file; if others could read it, from now on they cannot.

    Raises:
        OSError: it is not there or cannot be read.
    """
    with path.open("rb") as file:
        if os.name == "posix" and os.fstat(file.fileno()).st_mode & 0o077:
            os.fchmod(file.fileno(), 0o600)
        return file.read(PRIVATE_BYTES_MAX)


def _sync_folder(folder: Path) -> None:
    """Make the new name last; systems that cannot open folders do it by themselves."""
    with contextlib.suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
