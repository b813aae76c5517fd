"""A node that the others turned away says so, in words."""

import aiohttp
import pytest

from p2ptrain.core.types import PeerId
from p2ptrain.daemon.rejections import REMEMBERED_MAX, REVOKED, Rejections
from p2ptrain.net.reach.dialling import explain

ONE, TWO = PeerId(bytes(32)), PeerId(b"x" * 32)


def test_an_ordinary_end_is_no_rejection() -> None:
    rejections = Rejections()
    for reason in ("no answer", "the connection was lost", "the peer closed the connection: left"):
        rejections.parted(ONE, reason)
    assert rejections.words == ""


@pytest.mark.parametrize("error", [aiohttp.ServerDisconnectedError(), 403], ids=["in TLS", "in HTTP"])
def test_refused_handshakes_are_counted_by_member(error: aiohttp.ClientError | int) -> None:
    """The words are those of whoever dials."""
    if isinstance(error, int):
        error = aiohttp.WSServerHandshakeError(None, (), status=error)  # type: ignore[arg-type]
    rejections = Rejections()
    for _ in range(3):
        rejections.parted(ONE, explain(error))
    assert rejections.words.startswith("alone: a member turned this computer away; perhaps it was revoked")
    rejections.parted(TWO, explain(error))
    assert rejections.words.startswith("alone: 2 members turned this computer away")


def test_who_is_told_that_it_was_revoked_says_who_says_so() -> None:
    rejections = Rejections()
    rejections.parted(ONE, f"the peer closed the connection: {REVOKED}")
    rejections.parted(ONE, "the peer turned this computer away")
    assert rejections.words == f"alone: a member says that {REVOKED}; ask whoever runs the swarm"
    rejections.welcomed()
    assert rejections.words == ""


def test_few_are_remembered() -> None:
    rejections = Rejections()
    for number in range(10 * REMEMBERED_MAX):
        rejections.parted(PeerId(number.to_bytes(32)), "the peer turned this computer away")
    assert f" {REMEMBERED_MAX} members" in rejections.words
