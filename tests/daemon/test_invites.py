"""`invite`, `invite list`, `invite revoke`: what is shown, and a code that every camera can read."""

import re

import pytest
import segno

from p2ptrain.cli.qr import BLACK_ON_WHITE, BORDER, PLAIN, draw_qr, width
from p2ptrain.net.members.invite import decode_invite
from tests.daemon.conftest import MakeHome
from tests.daemon.helpers import Home


@pytest.fixture
def founder(home: Home) -> Home:
    home.found(task="digits")
    return home


def test_making_one_needs_no_word_and_no_name(founder: Home) -> None:
    texts = [
        founder.call(*words).out.strip() for words in (["invite"], ["invite", "test"], ["invite", "make"])
    ]
    assert len({decode_invite(text).key for text in texts}) == 3
    made = founder.call("invite", "--expires", "2h", "--uses", "3", "--json").json
    assert {"invite", "expires", "uses", "addresses", "id"} == set(made)
    assert decode_invite(made["invite"]).id == made["id"]


def test_a_list_shows_what_is_left_of_each_and_no_secret(founder: Home) -> None:
    assert founder.call("invite", "list", "--json").json == {"invites": []}
    assert "`p2ptrain invite` makes one" in founder.call("invite", "list").err
    first = founder.call("invite", "--uses", "3", "--json").json
    gone = founder.call("invite", "--expires", "0s", "--json").json
    listed = founder.call("invite", "list", "--json").json["invites"]
    assert [(one["id"], one["state"], one["left"]) for one in listed] == [
        (gone["id"], "expired", 0),
        (first["id"], "open", 3),
    ]
    assert listed[1]["expires"] == first["expires"]
    assert founder.call("invite", "list", "test").out.splitlines()[0].split() == [
        "ID", "STATE", "USED", "LEFT", "EXPIRES",
    ]  # fmt: skip
    seed = decode_invite(first["invite"]).seed
    assert seed not in (founder.folder.path / "invites").read_bytes()


def test_an_invite_is_withdrawn_by_its_id_or_its_text(founder: Home) -> None:
    one, other = (founder.call("invite", "--json").json for _ in range(2))
    assert founder.call("invite", "revoke", one["id"][:6]).code == 0
    assert founder.call("invite", "revoke", other["invite"]).code == 0
    states = {made["state"] for made in founder.call("invite", "list", "--json").json["invites"]}
    assert states == {"revoked"}


def test_what_cannot_be_withdrawn_is_explained(founder: Home, homes: MakeHome) -> None:
    founder.call("invite")
    said = founder.call("invite", "revoke", "zzzzzzz1")
    assert (said.code, "`p2ptrain invite list` shows them" in said.err) == (2, True)
    other = homes("other")
    other.found(task="digits")
    said = founder.call("invite", "revoke", other.invite())
    assert (said.code, "of another swarm" in said.err) == (2, True)
    path = founder.folder.path / "invites"
    path.write_bytes(b"\xc1")
    said = founder.call("invite", "list")
    assert (said.code, f"{path} is damaged" in said.err) == (2, True)


def test_the_code_is_black_on_white_whatever_the_terminal(founder: Home) -> None:
    text, *drawn = founder.call("invite", "--qr").out.splitlines()
    code = segno.make(text.upper(), error="l", micro=False)
    assert code.mode == "alphanumeric"
    assert decode_invite(text.upper()).key == decode_invite(text).key
    assert all(line.startswith(BLACK_ON_WHITE) and line.endswith(PLAIN) for line in drawn)
    assert "\n".join(drawn) == draw_qr(text.upper())


@pytest.mark.parametrize("text", ["P2PT1AAAA", "P2PT1" + "A" * 263, "p2pt1" + "b" * 1400])
def test_every_module_is_drawn(text: str) -> None:
    drawn = draw_qr(text)
    modules = []
    for line in re.sub(r"\x1b\[[0-9;]*m", "", drawn).splitlines():
        modules.append(["█▀".count(half) for half in line])
        modules.append(["█▄".count(half) for half in line])
    rows = [list(row) for row in segno.make(text, error="l", micro=False).matrix_iter(border=BORDER)]
    assert modules[: len(rows)] == rows
    assert not any(map(any, modules[len(rows) :]))
    assert width(drawn) == len(rows[0])
