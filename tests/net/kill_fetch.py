"""Kill -9 of a process that fetches weights, at random points: the next one ends with the right file, and
little travels twice.

By hand, because it takes minutes: python -m tests.net.kill_fetch --kills 100 --seed 1; a sample runs with the
tests. Without a bound (`--mbit 0`) some MB more wait in the buffers of loopback than on any home line.
"""

import argparse
import asyncio
import statistics
import sys
import tempfile
from functools import partial
from pathlib import Path
from random import Random

from p2ptrain.core import limits
from p2ptrain.core.blobid import hash_blob
from p2ptrain.core.types import BlobId, PeerId, Ref
from p2ptrain.net.addresses import is_dialable
from p2ptrain.net.blobs.fetch import fetch
from p2ptrain.net.channel.bandwidth import Bandwidth
from p2ptrain.net.transport import Transport
from p2ptrain.net.trust.authority import Root, decode_issuer
from p2ptrain.net.trust.certificates import Membership, Role, wall_clock
from p2ptrain.net.trust.identity import Identity

FETCH_S = 120.0
LOOK_S = 0.001
TIMES_MAX = 1.1


class Deaf:
    """Wants to hear nothing of a transport."""

    def __getattr__(self, _: str) -> object:
        return lambda *_: None


def transport(identity: Identity, membership: Membership, **options: object) -> Transport:
    return Transport(identity, membership, Deaf(), allow=partial(is_dialable, loopback=True), **options)  # type: ignore[arg-type]


async def reader(issuer: Path, source: str, address: str, blob: str, size: int, folder: Path) -> None:
    """Be the process that is killed."""
    identity = Identity.create()
    membership = decode_issuer(issuer.read_bytes()).certify(identity.peer, Role.MEMBER, 0, wall_clock())
    node = transport(identity, membership)
    await node.start("127.0.0.1")
    peer = PeerId(bytes.fromhex(source))
    node.learn(peer, [address])
    await fetch(node, peer, BlobId(Ref(blob)), size, folder, FETCH_S)
    await node.close()


class Giver:
    """One source of weights, and readers of it that can be killed."""

    def __init__(self, folder: Path, mbit: float) -> None:
        self._folder = folder
        self._issuer = folder / "issuer"
        issuer = Root.create(wall_clock()).appoint(wall_clock())
        self._issuer.write_bytes(issuer.encode())
        self._given, self._taken = folder / "given", folder / "taken"
        self._given.mkdir()
        self._taken.mkdir()
        self._me = Identity.create()
        membership = issuer.certify(self._me.peer, Role.MEMBER, 0, wall_clock())
        self.node = transport(self._me, membership, blobs=self._given, bandwidth=Bandwidth(up_mbit=mbit))

    @property
    def sent(self) -> int:
        return self.node.traffic.total.blobs_up

    async def kill_once(self, data: bytes, share: float) -> float:
        """Kill a reader when that share was sent, have another one finish; return bytes sent for each byte.

        Raises:
            AssertionError: the file is not right.
        """
        blob, before = hash_blob(data), self.sent
        (self._given / blob).write_bytes(data)
        first = await self._read(blob, len(data))
        while self.sent - before < share * len(data) and first.returncode is None:
            await asyncio.sleep(LOOK_S)
        if first.returncode is None:
            first.kill()
        await first.wait()
        second = await self._read(blob, len(data))
        assert await second.wait() == 0
        assert (self._taken / blob).read_bytes() == data
        assert [path.name for path in self._taken.iterdir()] == [blob]
        (self._given / blob).unlink()
        (self._taken / blob).unlink()
        return (self.sent - before) / len(data)

    async def _read(self, blob: str, size: int) -> asyncio.subprocess.Process:
        where = self._me.peer.hex(), f"127.0.0.1:{self.node.port}"
        return await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "tests.net.kill_fetch", "--read"),
            *(str(self._issuer), *where, blob, str(size), str(self._taken)),
        )


async def kill_many(folder: Path, kills: int, seed: int, size: int, mbit: float) -> list[float]:
    """Kill as often; return bytes sent for each byte, of each blob."""
    dice = Random(seed)
    giver = Giver(folder, mbit)
    await giver.node.start("127.0.0.1")
    try:
        return [await giver.kill_once(dice.randbytes(size), dice.random()) for _ in range(kills)]
    finally:
        await giver.node.close()


def main() -> int:
    """Read the options, kill, and show."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--mib", type=int, default=32)
    parser.add_argument("--mbit", type=float, default=100.0)
    parser.add_argument("--read", nargs=6)
    asked = parser.parse_args()
    if asked.read:
        issuer, source, address, blob, size, into = asked.read
        asyncio.run(reader(Path(issuer), source, address, blob, int(size), Path(into)))
        return 0
    print(f"seed {asked.seed}")  # noqa: T201
    with tempfile.TemporaryDirectory() as folder:
        size = asked.mib * limits.MIB + 77
        times = asyncio.run(kill_many(Path(folder), asked.kills, asked.seed, size, asked.mbit))
    print(  # noqa: T201
        f"{asked.kills} kills: every file right; bytes sent for each byte:"
        f" {statistics.mean(times):.3f} on average, {max(times):.3f} at worst"
    )
    return int(max(times) > TIMES_MAX)


if __name__ == "__main__":
    sys.exit(main())
