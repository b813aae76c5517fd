"""Names of peers and weights, for machines and for people."""

import pytest

from p2ptrain.core.types import OWN, PeerId, Ref, is_blob, peer_from_text, peer_text, short
from tests.helpers import blob, peer


def test_a_peer_id_survives_being_written_down() -> None:
    for who in (peer(0), peer(2**256 - 1), PeerId(bytes(range(32)))):
        assert peer_from_text(peer_text(who)) == who
        assert peer_text(who).startswith(short(who))
        assert len(peer_text(who)) == 52


@pytest.mark.parametrize("text", ["", "a" * 51, "a" * 53, "1" * 52, "ä" * 52, "a" * 51 + "\n"])
def test_anything_else_is_no_peer_id(text: str) -> None:
    with pytest.raises(ValueError):
        peer_from_text(text)


def test_a_blob_is_told_from_a_slot() -> None:
    assert is_blob(blob(7))
    assert not is_blob(OWN)
    assert not is_blob(Ref("mix"))
