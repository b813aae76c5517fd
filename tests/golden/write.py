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
from p2ptrain.strategies.allreduce import words
from p2ptrain.strategies.federated.rounds import Known, Task, Update
from p2ptrain.strategies.gossip import Answer, Busy, Give, Swap, Took
from p2ptrain.strategies.layerwise.messages import Assign, Here, Lead, Result
from p2ptrain.strategies.parameter_server.messages import Grad, Params, Piece, Servers, Silent
from p2ptrain.strategies.pipeline.foreman import Ready, Round
from p2ptrain.strategies.pipeline.lineup import Line, Place
from p2ptrain.strategies.pipeline.post import Elsewhere
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
    "allreduce": {
        "allreduce-ready": words.Ready(
            2, 17, 3, words.Outcome.FAILED, AUTHOR, words.Shown(BLOB, 407_080), (bytes(32),)
        ),
        "allreduce-ready-shortest": words.Ready(0, 1, 0),
        "allreduce-ring": words.Ring(
            2, 3, "0f" * 16, (words.Place(AUTHOR, 17, words.Shown(BLOB, 407_080)), words.Place(bytes(32), 1))
        ),
        "allreduce-call": words.Call(2),
    },
    "federated": {
        "federated-task": Task(2, 17, BLOB, 407_080, True, False, 99, 12.5, BLOB, 407_080),
        "federated-task-shortest": Task(2, 17, BLOB, 407_080),
        "federated-update": Update(2, 17, 99, 850, BLOB, 407_080, 50, 1600, 0.25, 0.5),
        "federated-update-shortest": Update(2, 17, 0, 850),
        "federated-known": Known(2, 17, BLOB, 407_080, AUTHOR),
        "federated-known-shortest": Known(0, 0),
    },
    "gossip": {
        "gossip-swap": Swap(17, BLOB, 407_080),
        "gossip-swap-turn": Swap(17, BLOB, 407_080, 12),
        "gossip-answer": Answer(17, BLOB, 407_080),
        "gossip-busy": Busy(17),
        "gossip-swap-age": Swap(17, BLOB, 407_080, 12, 600),
        "gossip-answer-age": Answer(17, BLOB, 407_080, 600),
        "gossip-give": Give(17, BLOB, 407_080, 0.5, 12, 600),
        "gossip-took": Took(17, 0.25),
    },
    "layerwise": {
        "layerwise-lead": Lead(2),
        "layerwise-here": Here(2, 17, 850, Offer(BLOB, 407_080, 0.25)),
        "layerwise-here-shortest": Here(0, 0, 0),
        "layerwise-assign": Assign(2, 17, BLOB, 407_080, 0.25, 2, 4, 16),
        "layerwise-result": Result(2, 17, BLOB, 2, 4, BLOB, 203_540, 0.25, 16, 1.5, 834),
    },
    "pipeline": {
        "pipeline-round": Round(
            2, 17, BLOB, 407_080, (Line(50, (Place(AUTHOR, 0, 2), Place(PeerId(bytes(32)), 2, 5))),)
        ),
        "pipeline-round-shortest": Round(2, 17, BLOB, 407_080),
        "pipeline-ready": Ready(2, 17, 850, BLOB, 407_080, 50, 0.09, BLOB, 203_540, 0.25),
        "pipeline-ready-shortest": Ready(0),
        "pipeline-elsewhere": Elsewhere(3, AUTHOR),
    },
    "parameter_server": {
        "parameter-server-servers": Servers(2, AUTHOR, 17, (AUTHOR, bytes(32), AUTHOR, AUTHOR)),
        "parameter-server-grad": Grad(2, 17, 3, 12, 11, Piece(BLOB, 101_770), Piece(BLOB, 101_771), 1600),
        "parameter-server-grad-shortest": Grad(2, 17, 0, 12, 0),
        "parameter-server-params": Params(2, 17, 3, 12, 11, Piece(BLOB, 101_770)),
        "parameter-server-silent": Silent(2, 17, (0, 3)),
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
