"""One member on a local network, as a process: tells what happens as lines of JSON, ends with its input.

Run as: python lan_member.py PEER PORT [taken]
"""

import asyncio
import contextlib
import json
import socket
import sys
from collections.abc import Sequence

from p2ptrain.core.types import PeerId, SwarmId
from p2ptrain.net.addresses import Address
from p2ptrain.net.lan.search import Lan

LOOK_EVERY_S = 0.1


def tell(**what: object) -> None:
    sys.stdout.write(json.dumps(what) + "\n")
    sys.stdout.flush()


def found(peer: PeerId, addresses: Sequence[Address]) -> None:
    tell(found=peer[0], addresses=[str(address) for address in addresses])


async def main(peer: int, port: int) -> None:
    lan = Lan(
        SwarmId(bytes(32)),
        PeerId(bytes([peer]) * 32),
        port,
        found,
        lambda state: tell(state=state),
        look_every_s=LOOK_EVERY_S,
    )
    running = asyncio.create_task(lan.run())
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
    running.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await running
    tell(ended=True)


if __name__ == "__main__":
    taken = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    if "taken" in sys.argv:
        taken.bind(("", 5353))
    with taken:
        asyncio.run(main(int(sys.argv[1]), int(sys.argv[2])))
