"""The mean of what several peers have, by a ring: everyone reads from the one before and offers to the next.

The numbers are cut into as many chunks as there are peers. A chunk goes once around while everyone adds its
own to it, and once more while everyone keeps the sum: 2 (n - 1) / n of the numbers leave each peer, which is
the least there can be (Patarasuk and Yuan 2009; ALGORITHMS 2.4, DP-RING). It moves in pieces: while one is
added, the one before is on the line. Every sum is made in one order and then handed on, so all peers end
with the same bits.

In front of the numbers go heads: how many each peer has, and how much they weigh. At a failure the one who
saw it says to the next who was silent, so that it goes around and nobody waits for a second time-out.
"""

import asyncio
import math
import struct
from collections.abc import Callable
from contextlib import suppress
from hashlib import sha256
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from p2ptrain.core.errors import P2PTrainError, RemoteProtocolError
from p2ptrain.core.shares import bounded
from p2ptrain.core.types import PeerId, Ranges, Seconds, peer_from_text, peer_text, short
from p2ptrain.net.flows.flows import Flows
from p2ptrain.net.flows.frames import PIECE_BYTES, AbortedError, SilentError
from p2ptrain.net.flows.reader import Reader
from p2ptrain.net.flows.writer import Writer

PIECE_NUMBERS = PIECE_BYTES // 4

GRACE_S: Seconds = 1.0
"""Who loses its reader waits so long for the reason, which comes around the ring (guess)."""

STALLS = 3
"""A peer that lives but gives no whole piece in so many times the silence that is borne holds everyone up."""

HEAD = struct.Struct(">Qd16s")
SILENT = "silent "
"""Goes before the id of who gave nothing, in the last word of a flow."""

UNABLE = "unable: "
"""Goes before the reason of who has nothing to give itself."""

Numbers = NDArray[np.float32]


class Place(NamedTuple):
    """This node's place in a ring, and what all of it must agree about.

    rank: of this node in the group.
    """

    group: tuple[PeerId, ...]
    rank: int
    name: str
    silence_s: Seconds
    ranges: Ranges = ()

    @property
    def before(self) -> PeerId:
        """Who is read from."""
        return self.group[self.rank - 1]

    @property
    def after(self) -> PeerId:
        """Who reads."""
        return self.group[(self.rank + 1) % len(self.group)]

    @property
    def digest(self) -> bytes:
        """Differs where peers do not mean the same."""
        return sha256(b"".join(self.group) + repr(self.ranges).encode()).digest()[:16]


class RingError(P2PTrainError):
    """There is no mean. silent: who gave nothing, as far as is known."""

    def __init__(self, message: str, silent: PeerId | None = None) -> None:
        super().__init__(message)
        self.silent = silent


async def average(flows: Flows, place: Place, numbers: Numbers, weight: float) -> None:
    """Put sum(weight * numbers) / sum(weight) over the group into `numbers`.

    Args:
        flows: of this node.
        place: in the ring; two peers at least.
        numbers: shape (count,), this node's, finite; a good mean or nothing usable afterwards.
        weight: of this node, 0 or more; somebody's is more than 0. See `bounded`.

    Raises:
        RingError: somebody failed, or has other numbers, or they are not finite.
    """
    try:
        writer = flows.offer(f"ring-{place.name}", place.after, place.silence_s)
    except P2PTrainError as error:
        raise RingError(error.message) from None
    ring = _Ring(place, numbers, weight, writer)
    try:
        async with flows.read(place.before, f"ring-{place.name}", place.silence_s) as reader:
            await ring.run(reader)
    except RingError as error:
        writer.abort(f"{SILENT}{peer_text(error.silent)}" if error.silent else error.message)
        raise
    except asyncio.CancelledError:
        writer.abort("it stops")
        raise


def refuse(flows: Flows, place: Place, reason: str) -> None:
    """Let the others know that this node has nothing to give: else they wait for it."""
    with suppress(P2PTrainError):
        flows.offer(f"ring-{place.name}", place.after, place.silence_s).abort(f"{UNABLE}{reason}")


class _Ring:
    """One run."""

    def __init__(self, place: Place, numbers: Numbers, weight: float, writer: Writer) -> None:
        self._place = place
        self._numbers = numbers
        self._weight = weight
        self._writer = writer
        count, size = len(place.group), len(numbers)
        bounds = [size * at // count for at in range(count + 1)]
        self._chunks = list(pairwise(bounds))
        self._heads: list[bytes] = []
        self._received = 0
        self._more = asyncio.Condition()

    async def run(self, reader: Reader) -> None:
        """Receive and send until both are done, or one fails."""
        receiving = asyncio.create_task(self._receive(reader))
        sending = asyncio.create_task(self._send())
        losing = asyncio.create_task(self._writer.lost())
        tasks = (receiving, sending, losing)
        try:
            while not (receiving.done() and (sending.done() or losing.done())):
                left = [task for task in tasks if not task.done()]
                await asyncio.wait(left, return_when=asyncio.FIRST_COMPLETED)
                if receiving.done():
                    self._check(receiving)  # who cannot hand on what is whole hurts only those after it
                elif losing.done() or (sending.done() and sending.exception()):
                    await asyncio.wait((receiving,), timeout=GRACE_S)
                    if not receiving.done():
                        raise RingError(f"{short(self._place.after)} is gone", self._place.after)
            self._check(receiving)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    def _check(self, receiving: "asyncio.Task[None]") -> None:
        """Say who it was."""
        before = self._place.before
        try:
            receiving.result()
        except SilentError as error:
            raise RingError(error.message, before) from None
        except AbortedError as error:
            silent = self._named(error.message)
            reason = f"{short(silent)} gives nothing, says {short(before)}" if silent else error.message
            raise RingError(reason, silent) from None
        except RemoteProtocolError as error:
            raise RingError(f"{short(before)} broke the rules: {error.detail}", before) from None
        except TimeoutError:
            raise RingError("somebody holds the ring up") from None
        except RingError:
            raise
        except P2PTrainError as error:
            raise RingError(error.message, before) from None

    def _named(self, words: str) -> PeerId | None:
        """Read who is said to give nothing: a claim, of somebody else in this ring."""
        if words.startswith(UNABLE):
            return self._place.before
        try:
            peer = peer_from_text(words.removeprefix(SILENT))
        except ValueError:
            return None
        return peer if peer in self._place.group and peer != self._place.group[self._place.rank] else None

    # -- what comes --------------------------------------------------------------------------------

    async def _receive(self, reader: Reader) -> None:
        count, rank = len(self._place.group), self._place.rank
        await reader.open()
        for _ in range(count - 1):
            async with asyncio.timeout(STALLS * self._place.silence_s):
                await self._keep_head(await reader.read(HEAD.size))
        await self._scale()
        for turn in range(2 * (count - 1)):
            begin, end = self._chunks[(rank - 1 - turn) % count]
            for at in range(begin, end, PIECE_NUMBERS):
                piece = np.empty(min(PIECE_NUMBERS, end - at), np.float32)
                async with asyncio.timeout(STALLS * self._place.silence_s):
                    await reader.read_into(piece.data.cast("B"))
                await self._take(at, piece, turn - (count - 2))
        async with asyncio.timeout(STALLS * self._place.silence_s):
            await reader.expect_end()

    async def _keep_head(self, head: bytes) -> None:
        async with self._more:
            self._heads.append(head)
            self._more.notify_all()

    async def _scale(self) -> None:
        """Everyone is known: give the own numbers their share."""
        weights = [0.0] * len(self._place.group)
        weights[self._place.rank] = self._weight
        for turn, head in enumerate(self._heads):
            size, weight, digest = HEAD.unpack(head)
            at = (self._place.rank - 1 - turn) % len(weights)
            if size != len(self._numbers) or digest != self._place.digest:
                raise RingError(f"{short(self._place.group[at])} has other numbers, or another ring")
            if not 0 <= weight < math.inf:
                raise RingError(f"{short(self._place.group[at])} says that it weighs {weight}")
            weights[at] = weight
        weights = bounded(weights)
        mine, total = weights[self._place.rank], math.fsum(weights)
        if not 0 < total < math.inf:
            raise RingError("all weigh nothing")
        if mine == 0:
            self._numbers[:] = 0
        else:
            self._numbers *= np.float32(mine / total)
        async with self._more:
            self._received = 1
            self._more.notify_all()

    async def _take(self, at: int, piece: Numbers, left: int) -> None:
        """Add a piece to the own numbers, or from the last turn of the sums on (`left` >= 0) keep it."""
        place = self._numbers[at : at + len(piece)]
        if left <= 0:
            place += piece
        else:
            place[:] = piece
        if left >= 0 and not np.isfinite(place).all():
            raise RingError("the mean is not finite")
        async with self._more:
            self._received += len(piece)
            self._more.notify_all()

    # -- what goes ---------------------------------------------------------------------------------

    async def _send(self) -> None:
        count, rank, writer = len(self._place.group), self._place.rank, self._writer
        await writer.write(HEAD.pack(len(self._numbers), self._weight, self._place.digest))
        for turn in range(count - 2):
            await self._until(lambda turn=turn: len(self._heads) > turn)  # type: ignore[misc]
            await writer.write(self._heads[turn])
        begin, end = self._chunks[rank]
        sent = begin - end + 1  # the own chunk waits for the share only
        for turn in range(2 * (count - 1)):
            begin, end = self._chunks[(rank - turn) % count]
            for at in range(begin, end, PIECE_NUMBERS):
                to = min(at + PIECE_NUMBERS, end)
                sent += to - at
                await self._until(lambda sent=sent: self._received >= max(1, sent))  # type: ignore[misc]
                await writer.write(self._numbers[at:to].data)
        await writer.end()

    async def _until(self, condition: Callable[[], bool]) -> None:
        async with self._more:
            await self._more.wait_for(condition)
