"""Bytes that were sent once and must be readable for ever.

`python -m tests.golden.write` adds what is missing and never changes a file that is there.
"""

from pathlib import Path

from p2ptrain.core.codec import Codec
from p2ptrain.core.envelope import Sealer
from p2ptrain.core.messages import (
    Compare,
    Contact,
    Contacts,
    Graft,
    Have,
    Leave,
    Link,
    Message,
    News,
    Offer,
    Prune,
    Push,
    Report,
    Tags,
    Want,
)
from p2ptrain.core.types import BlobId, PeerId, Ref
from p2ptrain.sim.keys import SWARM, SimSigner
from p2ptrain.strategies import load, names
from p2ptrain.strategies.gossip import Answer, Busy, Swap
from p2ptrain.strategies.polytope import Chain, Met

FOLDER = Path(__file__).parent
AUTHOR = PeerId(bytes(range(32)))
BOOT = 3

BLOB = BlobId(Ref("0123456789abcdef" * 4))
REPORT = Report(1200, 38_400, 0.125, 0.96875, Offer(BLOB, 407_080, 0.0625, 1.25), True)
CONTACT = Contact(b"member", ("192.0.2.7:7070", "[2001:db8::7]:7070"), "Zoë's PC", "0.1.0")

STATEMENTS: dict[str, Message] = {
    "report": REPORT,
    "report-shortest": Report(0, 0, -1e30),
    "contact": CONTACT,
    "contact-bootstrap": Contact(b"member", ("192.0.2.7:7070",), trains=False),
}
"""What others pass on."""


def statement_bytes(name: str) -> bytes:
    """Read a statement that was written before."""
    return (FOLDER / f"{name}.bin").read_bytes()


def messages() -> dict[str, Message]:
    """Name one example a message, statements first: others carry them."""
    return {
        **STATEMENTS,
        "news": News((statement_bytes("report"), statement_bytes("report-shortest")), (True, False), True, 3),
        "news-shortest": News(()),
        "contacts": Contacts((statement_bytes("contact"),)),
        "contacts-aged": Contacts((statement_bytes("contact"),), (17,)),
        "leave": Leave("stopped by its owner"),
        "compare": Compare(bytes(range(16))),
        "tags": Tags(2, b"\x01", (bytes(range(8)),)),
        "want": Want(bytes(range(8))),
        "link": Link(True),
        "push": Push((statement_bytes("contact"),)),
        "have": Have(bytes(range(16))),
        "graft": Graft(bytes(range(16))),
        "prune": Prune(),
    }


STRATEGIES: dict[str, dict[str, Message]] = {
    "gossip": {
        "gossip-swap": Swap(17, BLOB, 407_080),
        "gossip-swap-turn": Swap(17, BLOB, 407_080, 12),
        "gossip-answer": Answer(17, BLOB, 407_080),
        "gossip-busy": Busy(17),
    },
    "polytope": {
        "polytope-chain": Chain(AUTHOR, 17, 3, 4, BLOB, 407_080, (Met(AUTHOR, 0.25), Met(bytes(32), 0.5))),
        "polytope-chain-shortest": Chain(AUTHOR, 17, 0, 1, BLOB, 407_080),
    },
    "restart": {},
}
"""The private messages of each strategy."""


def codec(strategy: str = "restart") -> Codec:
    """Know the messages of the core and of one strategy."""
    return Codec(load(strategy).messages)


def add(name: str, message: Message, known: Codec) -> None:
    """Write an envelope, unless it is there."""
    path = FOLDER / f"{name}.bin"
    if not path.exists():
        path.write_bytes(Sealer(SimSigner(AUTHOR), SWARM, known, BOOT).seal(message).raw)


def main() -> None:
    """Add what is missing."""
    for name, message in STATEMENTS.items():
        add(name, message, codec())
    for name, message in messages().items():
        add(name, message, codec())
    for strategy in names():
        for name, message in STRATEGIES[strategy].items():
            add(name, message, codec(strategy))


if __name__ == "__main__":
    main()
