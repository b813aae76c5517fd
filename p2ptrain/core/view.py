"""What the outside may see of a node: frozen, without secrets, cleaned of peers' tricks."""

from msgspec import Struct

from p2ptrain.core.conduct import Conduct
from p2ptrain.core.ledger import Ledger
from p2ptrain.core.membership import Membership
from p2ptrain.core.text import clean
from p2ptrain.core.types import PeerId, Seconds, peer_text, short


class PeerView(Struct, frozen=True):
    """One member, as this node knows it. `age_s`: since its last report came."""

    peer: str
    short: str
    name: str
    connected: bool
    trouble: str
    step: int | None = None
    samples: int | None = None
    loss: float | None = None
    accuracy: float | None = None
    best_loss: float | None = None
    finished: bool = False
    age_s: float | None = None
    strikes: int = 0
    trains: bool = True


class NodeView(Struct, frozen=True):
    """This node. `state` is one word, `reason` a sentence, `until` when that ends or empty."""

    state: str
    reason: str
    until: str
    activity: str
    step: int
    samples: int
    steps: int
    loss: float | None
    accuracy: float | None
    best_loss: float | None
    test_loss: float | None
    test_accuracy: float | None
    saved_step: int
    parameters: int
    peers: tuple[PeerView, ...]


def view_peer(
    peer: PeerId, membership: Membership, ledger: Ledger, conduct: Conduct, now: Seconds
) -> PeerView:
    """Gather what is known of one member."""
    contact = membership.contact(peer)
    entry = ledger.of(peer)
    record = conduct.of(peer)
    base = PeerView(
        peer=peer_text(peer),
        short=short(peer),
        name=clean(contact.name) if contact else "",
        connected=membership.connected(peer),
        trouble=clean(membership.trouble(peer) or (record.last if record.strikes else ""), 200),
        strikes=record.strikes,
        trains=membership.trains(peer),
    )
    if entry is None:
        return base
    report = entry.report.message
    return PeerView(
        peer=base.peer,
        short=base.short,
        name=base.name,
        connected=base.connected,
        trouble=base.trouble,
        step=report.step,
        samples=report.samples,
        loss=report.loss,
        accuracy=report.accuracy,
        best_loss=report.offer.loss if report.offer else None,
        finished=report.finished,
        age_s=max(0.0, now - entry.seen),
        strikes=record.strikes,
        trains=base.trains,
    )
