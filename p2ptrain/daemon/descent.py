"""From whom the own weights descend, as strategies note it: what `p2ptrain history` shows below the curve."""

from msgspec import Struct

from p2ptrain.core.effects import Note

EVENTS = ("restarted", "adopted", "caught_up", "result")

TURNS_MAX = 5_000
"""Older ones are forgotten (guess)."""


class Turn(Struct, frozen=True, kw_only=True):
    """The own weights began anew, or became others'.

    event: one of `EVENTS`; how: more of that, may be empty.
    parents: peers that they descend from, in short, with commas; may be empty.
    """

    time: float
    boot: int
    step: int
    event: str
    how: str = ""
    parents: str = ""
    loss: float | None = None


def turn_of(note: Note, time: float, boot: int, step: int) -> Turn:
    """Make a turn of a note; `step` where the note says none."""
    fields = note.fields
    named = fields.get("from", ())
    parents = [named] if isinstance(named, str) else list(named)
    if fields.get("with_own"):
        parents.insert(0, "own")
    return Turn(
        time=time,
        boot=boot,
        step=fields.get("step", step),
        event=note.event,
        how=str(fields.get("how", "")),
        parents=", ".join(parents),
        loss=fields.get("loss"),
    )
