"""Ways to a peer that cannot be dialled: a relay at which it waits passes on that it is wanted."""

import asyncio
import secrets
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from typing import Literal

import msgspec

from p2ptrain.core import limits
from p2ptrain.core.errors import RemoteProtocolError, UnreachableError
from p2ptrain.core.types import PeerId, Seconds, peer_text, short
from p2ptrain.net.addresses import AddressFilter
from p2ptrain.net.channel.preamble import TOKEN_BYTES, TOKEN_S, Arrivals, Kind
from p2ptrain.net.reach.ask import Asker, ask
from p2ptrain.net.reach.race import race
from p2ptrain.net.relay.calls import (
    CALL_BYTES_MAX,
    PUNCH,
    RELAY,
    RELAY_PATH,
    REVERSE,
    Ask,
    Told,
    decode,
    usable,
)
from p2ptrain.net.relay.legs import Legs, far_end
from p2ptrain.net.relay.meeting import Observed, Punch, meet
from p2ptrain.net.ways import NoWayError, Opened, Path, WayError

CALL_S: Seconds = 5.0
"""For a relay to answer, with the call that it passes on."""

STAGGER_S: Seconds = 1.0
"""The head start of one relay on the next: a call counts at the relay and at who is called (guess)."""

RELAYS_MAX = 2

_ANSWERS = {
    403: "it does not come",
    404: "it waits for no calls there",
    429: "the relay wants to be asked less often",
    503: "the relay has enough to do",
    504: "it does not answer the relay",
}


class Caller:
    """Calls peers at their relays.

    Args:
        asker: reaches the relays.
        relays_of: says at which relays a peer waits.
    """

    def __init__(self, asker: Asker, relays_of: Callable[[PeerId], Sequence[PeerId]]) -> None:
        self._asker = asker
        self._relays_of = relays_of
        self._asked: Counter[PeerId] = Counter()

    async def call(self, peer: PeerId, wanted: Ask) -> tuple[PeerId, Told]:
        """Call a peer.

        Returns:
            The relay that passed it on, and what the peer said: it comes.

        Raises:
            WayError: it does not.
        """
        # Whoever is asked as a relay just now must be reached directly: calls for calls would never end.
        relays = [] if self._asked[peer] else self._relays_of(peer)[:RELAYS_MAX]
        if not relays:
            raise NoWayError("it waits at no relay that is known")
        errors: list[OSError] = []
        calls = [partial(self._call, relay, peer, wanted) for relay in relays]
        answer = await race(calls, STAGGER_S, errors.append, lambda _: None)
        if answer is None:
            raise errors[0]
        return answer

    async def _call(self, relay: PeerId, peer: PeerId, wanted: Ask) -> tuple[PeerId, Told]:
        self._asked[relay] += 1
        path, data = f"{RELAY_PATH}/{peer_text(peer)}", msgspec.msgpack.encode(wanted)
        try:
            async with asyncio.timeout(CALL_S):
                answer = await ask(self._asker, "POST", relay, path, data=data, bytes_max=CALL_BYTES_MAX)
            if answer.status != 200:
                word = _ANSWERS.get(answer.status, "the relay does not pass calls on")
                raise WayError(f"called at {short(relay)}: {word}")
            return relay, decode(answer.body, Told)
        except TimeoutError:
            raise WayError(f"its relay {short(relay)} does not answer") from None
        except UnreachableError as error:
            raise WayError(f"its relay {short(relay)}: {error.message}") from None
        except RemoteProtocolError:
            raise WayError(f"its relay {short(relay)} answers nonsense") from None
        finally:
            self._asked[relay] -= 1
            if not self._asked[relay]:
                del self._asked[relay]


class ReverseWay:
    """Asks the peer to dial this node, and does TLS as client on what comes.

    Args:
        caller: calls it.
        arrivals: where it comes in.
        own: says where this node can be dialled; none: nowhere.
    """

    name: Literal["reverse"] = "reverse"

    def __init__(self, caller: Caller, arrivals: Arrivals, own: Callable[[], Sequence[str]]) -> None:
        self._caller = caller
        self._arrivals = arrivals
        self._own = own

    async def open(self, peer: PeerId) -> Opened:
        """See `Way`."""
        own = tuple(self._own())[: limits.ADDRESSES_MAX]
        if not own:
            raise NoWayError("this computer cannot be dialled either")
        arrival = self._arrivals.expect(Kind.REVERSE)
        try:
            await self._caller.call(peer, Ask(REVERSE, arrival.token, own))
            async with asyncio.timeout(TOKEN_S):
                connection = await arrival.wait()
        except TimeoutError:
            raise WayError("it was called, and did not get through to this computer") from None
        finally:
            arrival.close()
        return Opened(connection, Path("reverse", far_end(connection)))


class PunchWay:
    """Dials the peer while the peer dials this node.

    Args:
        caller: arranges it.
        arrivals: where its connection may come in instead.
        allow: says which addresses may be dialled.
        punch: see `meeting`.
        observed: see `meeting`.
    """

    name: Literal["punched"] = "punched"

    def __init__(
        self, caller: Caller, arrivals: Arrivals, allow: AddressFilter, punch: Punch, observed: Observed
    ) -> None:
        self._caller = caller
        self._arrivals = arrivals
        self._allow = allow
        self._punch = punch
        self._observed = observed

    async def open(self, peer: PeerId) -> Opened:
        """See `Way`."""
        here = tuple(map(str, await self._observed()))[: limits.ADDRESSES_MAX]
        if not here:
            raise NoWayError("how others see this computer is not known, or changes")
        arrival = self._arrivals.expect(Kind.PUNCH)
        try:
            _, told = await self._caller.call(peer, Ask(PUNCH, arrival.token, here))
            targets = usable(told.addresses, self._allow)
            if not targets:
                raise WayError("the addresses that it named may not be dialled")
            connection = await meet(arrival, self._punch, targets)
        finally:
            arrival.close()
        return Opened(connection, Path("punched", far_end(connection)))


class RelayWay:
    """Meets the peer at a relay, which passes on everything from then on.

    Args:
        caller: arranges it.
        legs: opens this node's end.
    """

    name: Literal["relay"] = "relay"

    def __init__(self, caller: Caller, legs: Legs) -> None:
        self._caller = caller
        self._legs = legs

    async def open(self, peer: PeerId) -> Opened:
        """See `Way`."""
        token = secrets.token_bytes(TOKEN_BYTES)
        relay, _ = await self._caller.call(peer, Ask(RELAY, token))
        connection = await self._legs.open(relay, token)
        return Opened(connection, Path("relay", far_end(connection), relay))
