"""A member that is also an issuer, alone in a process, so that what an attack costs it can be measured.

Run as: python -m tests.net.hardened asyncio|uvloop FOLDER; the folder holds `identity.pem` and `issuer`.
Each line of input asks something, and gets one line of JSON.
"""

import asyncio
import gc
import importlib
import json
import re
import sys
from functools import partial
from pathlib import Path

import psutil

from p2ptrain.core import limits
from p2ptrain.core.blobid import hash_blob
from p2ptrain.core.errors import Offence, P2PTrainError
from p2ptrain.core.types import BlobId, PeerId, Ref
from p2ptrain.net.addresses import is_dialable
from p2ptrain.net.blobs import server as blob_server
from p2ptrain.net.blobs.fetch import fetch
from p2ptrain.net.channel import gate, handshakes, listener
from p2ptrain.net.members import join
from p2ptrain.net.members.admission import Admission, AdmissionBook
from p2ptrain.net.members.join import Reception
from p2ptrain.net.members.spreading import Spreading
from p2ptrain.net.members.state import StateKeeper
from p2ptrain.net.reach import ask
from p2ptrain.net.transport import Transport
from p2ptrain.net.trust.authority import decode_issuer
from p2ptrain.net.trust.certificates import Role, wall_clock
from p2ptrain.net.trust.identity import Identity

BLOB_BYTES = 16 * limits.MIB

FETCH_S = 5.0

SHORTER = (
    (handshakes, "SLOW_S"),
    (listener, "HANDSHAKE_S"),
    (listener, "STRANGER_S"),
    (gate, "IDLE_S"),
    (gate, "ANSWER_S"),
    (ask, "BODY_S"),
    (join, "REQUEST_S"),
    (blob_server, "STALLED_S"),
)
PATIENCE_S = 1.0
"""In place of 5 to 30 s."""


class Victim:
    """A node that gives every frame back, and tells what it costs."""

    def __init__(self, folder: Path) -> None:
        self.identity = Identity.load(folder / "identity.pem")
        issuer = decode_issuer((folder / "issuer").read_bytes())
        membership = issuer.certify(self.identity.peer, Role.ISSUER, 0, wall_clock())
        self.folder = folder
        blob = bytes(BLOB_BYTES)
        self.blob = hash_blob(blob)
        (folder / self.blob).write_bytes(blob)
        admission = Admission(issuer, AdmissionBook(), lambda _: None, lambda _: False)
        reception = Reception(admission, self.identity.peer, b"manifest", bytes(64), lambda: [])
        keeper = StateKeeper(issuer.root_key, b"", lambda _: None)
        spreading = Spreading(keeper, self.offended)
        self.offences: list[str] = []
        self.ups = 0
        self.base = self.first_base = 0
        self.transport = spreading.line = Transport(
            self.identity,
            membership,
            self,
            blobs=self.folder,
            reception=reception,
            routes=spreading.routes(),
            allow=partial(is_dialable, loopback=True),
        )

    # -- events ------------------------------------------------------------------------------------

    def peer_up(self, peer: PeerId) -> None:
        self.ups += 1

    def peer_down(self, peer: PeerId, reason: str) -> None:
        pass

    def received(self, peer: PeerId, frame: bytes) -> None:
        self.transport.send(peer, frame)

    def offended(self, peer: PeerId, offence: Offence, detail: str) -> None:
        self.offences.append(offence.name)

    # -- questions ---------------------------------------------------------------------------------

    async def count_from_here(self) -> dict[str, object]:
        """What was needed until now does not count."""
        gc.collect()
        Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
        self.base = psutil.Process().memory_info().rss
        self.first_base = self.first_base or self.base
        return {}

    async def costs(self) -> dict[str, object]:
        """Return the peak of memory above the base line, and how many connections stand."""
        found = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
        assert found
        standing = [one for one in psutil.Process().net_connections("tcp") if one.status != "LISTEN"]
        offences, self.offences = self.offences, []
        return {
            "rise": int(found[1]) * 1024 - self.base,
            "rise_of_all": int(found[1]) * 1024 - self.first_base,
            "connections": len(standing),
            "offences": offences,
        }

    async def dial(self, peer: str, address: str) -> dict[str, object]:
        """Connect to somebody."""
        return {"up": await self.transport.dial(PeerId(bytes.fromhex(peer)), [address])}

    async def fetch(self, peer: str, address: str) -> dict[str, object]:
        """Ask somebody for weights, and for the state."""
        source = PeerId(bytes.fromhex(peer))
        self.transport.learn(source, [address])
        said = []
        for work in (
            fetch(self.transport, source, BlobId(Ref("0" * 64)), 2**21, self.folder, FETCH_S),
            ask.ask(self.transport, "GET", source, "/v1/state", bytes_max=2**16),
        ):
            try:
                said.append(repr(await work))
            except P2PTrainError as error:
                said.append(f"{type(error).__name__}: {error.message}")
        return {"said": said}


def tell(**what: object) -> None:
    sys.stdout.write(json.dumps(what) + "\n")
    sys.stdout.flush()


async def main() -> None:
    for module, name in SHORTER:
        assert getattr(module, name) >= PATIENCE_S
        setattr(module, name, PATIENCE_S)
    loop = asyncio.get_running_loop()
    victim = Victim(Path(sys.argv[2]))
    await victim.transport.start("127.0.0.1")
    tell(port=victim.transport.port, blob=victim.blob)
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        question = json.loads(line)
        tell(**await getattr(victim, question.pop("do"))(**question))
    await victim.transport.close()


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=importlib.import_module(sys.argv[1]).new_event_loop) as runner:
        runner.run(main())
