"""What a person's own loop and the daemon that it starts say first. Free of torch.

The loop sends `Request`; the daemon answers `Begun` or `wire.Crashed`. From then on they speak as a daemon
and its trainer do, see `wire.py`.
"""

import hashlib
from typing import BinaryIO

import msgspec
from msgspec import Struct

from p2ptrain.core.errors import ManifestError, P2PTrainError
from p2ptrain.core.manifest import Settings
from p2ptrain.learn import wire

TASK = "attached:"
"""Begins the name of a task that is no task: every member brings it in a loop of its own."""

LAYOUT_CHARS_MAX = 8192
"""Of a longer layout only the hash travels: a manifest is small."""

START_SEED = "seed"


class Request(Struct, frozen=True, tag=True, kw_only=True, forbid_unknown_fields=True):
    """What the owner asked for.

    swarm: name or beginning of the id of a swarm; one of that name is made if there is none.
    invite: of a swarm to join, may be empty.
    home: folder of the node; empty: the usual one.
    task_config: of the manifest, see `describe`.
    founding: other fields of the manifest, as they are given by the owner.
    """

    swarm: str
    invite: str
    home: str
    task_config: Settings
    founding: dict[str, str | int | float | Settings | None]


class Begun(Struct, frozen=True, tag=True, kw_only=True):
    """This node is a member, and its daemon waits for a trainer.

    swarm: its id, in hex digits.
    control: the file by which the daemon is spoken to.
    home: of this node.
    """

    setup: wire.Setup
    swarm: str
    control: str
    home: str


_begun: msgspec.msgpack.Decoder[Begun | wire.Crashed] = msgspec.msgpack.Decoder(Begun | wire.Crashed)
_request = msgspec.msgpack.Decoder(Request)


def read_request(stream: BinaryIO) -> Request | None:
    """Wait for the owner's wish; None: whoever had it is gone."""
    body = wire.read_body(stream)
    return None if body is None else _request.decode(body)


def read_begun(stream: BinaryIO) -> Begun:
    """Wait for the daemon's first word.

    Raises:
        P2PTrainError: it cannot do what was asked for, and says why.
    """
    body = wire.read_body(stream)
    if body is None:
        raise P2PTrainError("the daemon ended before it began", "its last words are above")
    first = _begun.decode(body)
    if isinstance(first, wire.Crashed):
        raise P2PTrainError(first.reason, first.hint)
    return first


def describe(layout: list[str], start: str) -> Settings:
    """Return what members compare: the net's tensors, in order, and the first weights.

    Args:
        layout: a name and a shape each.
        start: `START_SEED`, or a hash of the weights that everybody brings.
    """
    text = "; ".join(layout)
    digest = hashlib.sha256(text.encode()).hexdigest()[:32]
    shown = text if len(text) <= LAYOUT_CHARS_MAX else ""
    return {"tensors": len(layout), "layout": shown, "digest": digest, "start": start}


def check_same(swarm: Settings, here: Settings) -> None:
    """Demand that the net here is the swarm's.

    Raises:
        ManifestError: names the first tensor that differs.
    """
    if swarm.get("digest") != here["digest"]:
        raise ManifestError(f"this net is not the swarm's: {_difference(swarm, here)}", "build the same net")
    if swarm.get("start") == here["start"]:
        return
    if START_SEED in (swarm.get("start"), here["start"]):
        usual = "mine" if here["start"] == START_SEED else "seed"
        raise ManifestError(
            "the members of this swarm begin with other weights", f'give `start="{usual}"` as they do'
        )
    raise ManifestError(
        "this net has other weights than the members of this swarm began with",
        "load the same file as they do",
    )


def _difference(swarm: Settings, here: Settings) -> str:
    theirs, ours = str(swarm.get("layout", "")).split("; "), str(here["layout"]).split("; ")
    if not theirs[0] or not ours[0]:
        return f"it has {here['tensors']} tensors, and the swarm's {swarm.get('tensors')} or others"
    for their, our in zip(theirs, ours, strict=False):
        if their != our:
            return f"it has {our}, and the swarm's {their}"
    return f"it has {len(ours)} tensors, and the swarm's {len(theirs)}"
