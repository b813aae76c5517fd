"""Who broke which rule, and for how long that peer is not listened to. Every ban ends."""

from msgspec import Struct

from p2ptrain.core import limits
from p2ptrain.core.effects import Effect, Hangup, Note
from p2ptrain.core.errors import Offence
from p2ptrain.core.types import PeerId, Seconds, short

DISTRUST_S = 120.0
"""First time of not believing a peer's reports; doubles with each offence (ALGORITHMS 1.3)."""

REFUSE_S = 30.0
"""First time of refusing a connection; doubles with each offence (guess)."""

DOUBLINGS_MAX = 7
"""The longest ban is 128 times the first: about four hours."""

CLOSES: dict[Offence, bool] = {
    Offence.MALFORMED: True,
    Offence.OVERSIZED: True,
    Offence.FORGED: True,
    Offence.FOREIGN: True,
    Offence.OUT_OF_RANGE: True,
    Offence.FLOODING: True,
    Offence.WRONG_BYTES: True,
    Offence.REPLAYED: False,
    Offence.BAD_WEIGHTS: False,
    Offence.FALSE_CLAIM: False,
}
"""Whether the connection ends too. A doubled frame or an honest mistake in measuring does not end it."""

DISTRUSTS = (Offence.BAD_WEIGHTS, Offence.FALSE_CLAIM, Offence.WRONG_BYTES)
"""Offences after which a peer's reports are not believed for a while."""


class Record(Struct, frozen=True):
    """One peer's offences so far."""

    strikes: int = 0
    distrusted_until: Seconds = 0.0
    refused_until: Seconds = 0.0
    last: str = ""


class Conduct:
    """Strikes and bans by peer."""

    __slots__ = ("_records",)

    def __init__(self) -> None:
        self._records: dict[PeerId, Record] = {}

    def charge(self, peer: PeerId, offence: Offence, detail: str, now: Seconds) -> list[Effect]:
        """Write an offence down and return its consequences."""
        old = self._records.pop(peer, Record())
        factor = 2.0 ** min(old.strikes, DOUBLINGS_MAX)
        closes = CLOSES[offence]
        distrust_s = DISTRUST_S * factor if offence in DISTRUSTS else 0.0
        refuse_s = REFUSE_S * factor if closes else 0.0
        self._records[peer] = Record(
            strikes=old.strikes + (closes or offence in DISTRUSTS),
            distrusted_until=max(old.distrusted_until, now + distrust_s),
            refused_until=max(old.refused_until, now + refuse_s),
            last=str(offence),
        )
        if len(self._records) > limits.PEERS_MAX:
            del self._records[next(iter(self._records))]
        note = Note(
            "peer_charged",
            {"peer": short(peer), "offence": str(offence), "detail": detail[:200], "refused_s": refuse_s},
        )
        return [note, Hangup(peer, str(offence), refuse_s)] if closes else [note]

    @property
    def is_clean(self) -> bool:
        """Whether nobody has anything on record."""
        return not self._records

    def believes(self, peer: PeerId, now: Seconds) -> bool:
        """Say whether the peer's reports count."""
        record = self._records.get(peer)
        return record is None or now >= max(record.distrusted_until, record.refused_until)

    def admits(self, peer: PeerId, now: Seconds) -> bool:
        """Say whether a connection with the peer is wanted."""
        record = self._records.get(peer)
        return record is None or now >= record.refused_until

    def of(self, peer: PeerId) -> Record:
        """What one peer has on its record."""
        return self._records.get(peer, Record())
