"""What a swarm trains and how: the same for every member, signed by the swarm's root."""

from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta, Struct

from p2ptrain.core import limits
from p2ptrain.core.errors import ManifestError
from p2ptrain.core.messages import Natural, Number

DOMAIN = b"p2ptrain-manifest-v1\0"
Word = Annotated[str, Meta(min_length=1, max_length=100)]
Settings = dict[str, bool | int | float | str | None]
Formation = Literal["static", "dynamic", "stochastic", "hybrid"]
KEEP = 0.5
CLASSES = 2
"""Both of ALGORITHMS 2.5."""


class Manifest(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The signed description of what a swarm trains.

    task: name of a built-in or installed task, or `package.module:attribute`; code never travels.
    task_config, strategy_config, spread_config: differences from the defaults of the task, of the strategy
        and of how reports travel.
    seed: of the common start, of the split of the data and of everything else that must be equal.
    parts: the training data is cut into that many equal disjoint parts, one a member; 1: all for everyone.
    pool: so many examples are kept out of all training, for everyone to decide on; 0: each holds some out.
    skew: 0: parts are alike; else classes are divided by Dirichlet(skew), the smaller the more unevenly.
    balance: None: parts are alike; else this share of each is like the whole, and the rest from few classes.
    classes: that rest is from so many, or more if the parts together would leave a class out otherwise.
    uneven: 0: parts are equal; else their sizes are log-normal with this deviation.
    formation: what a part is made of in each round. `static`: the same for ever; `dynamic`: all data are
        divided anew; `stochastic`: every member draws on its own; `hybrid`: it keeps some and draws the rest.
    keep: the share that `hybrid` keeps.
    disjoint: whether `stochastic` and `hybrid` parts have nothing in common in a round, as the others.
    steps: optimiser steps that each member contributes; 0: until stopped.
    target_loss: the swarm stops when someone reaches it.
    codec: number format of weights on the wire.
    """

    name: Annotated[str, Meta(min_length=1, max_length=limits.NAME_CHARS_MAX)]
    task: Word
    task_version: Word = "1"
    task_config: Settings = {}
    strategy: Word = "gossip"
    strategy_config: Settings = {}
    spread_config: Settings = {}
    seed: Natural = 0
    parts: Annotated[int, Meta(ge=1, le=limits.PEERS_MAX)] = 1
    pool: Natural = 0
    skew: Annotated[float, Meta(ge=0, le=1e6)] = 0.0
    balance: Annotated[float, Meta(ge=0, le=1)] | None = None
    classes: Annotated[int, Meta(ge=1, le=1000)] = CLASSES
    uneven: Annotated[float, Meta(ge=0, le=10)] = 0.0
    formation: Formation = "static"
    keep: Annotated[float, Meta(ge=0, le=0.99)] = KEEP
    disjoint: bool = False
    steps: Natural = 0
    target_loss: Number | None = None
    codec: Annotated[str, Meta(pattern=r"^(f32|bf16|int8)\Z")] = "f32"

    def encode(self) -> bytes:
        """Return the bytes that the root signs."""
        return msgspec.msgpack.encode(self)

    def check(self) -> None:
        """Demand that the settings go together.

        Raises:
            ManifestError: two of them contradict each other.
        """
        if sum((self.skew > 0, self.balance is not None, self.uneven > 0)) > 1:
            raise ManifestError(
                "parts can differ by `skew`, by `balance` or by `uneven`, not by several of these",
                "choose one",
            )
        if self.classes != CLASSES and self.balance is None:
            raise ManifestError(
                "`classes` says nothing without `balance`", "set `balance`, 0 for these classes only"
            )
        if self.parts == 1 and (self.formation != "static" or self.balance is not None or self.uneven):
            raise ManifestError(
                "there is one part with all of the data, which cannot differ or change",
                "set `parts` to the number of members that you expect",
            )
        if self.keep != KEEP and self.formation != "hybrid":
            raise ManifestError(
                f"{self.formation} parts keep nothing by choice", "leave out `keep`, or choose `hybrid`"
            )


def decode_manifest(data: bytes) -> Manifest:
    """Read a manifest.

    Raises:
        ManifestError: it is of another version, or damaged, or makes no sense.
    """
    try:
        manifest = msgspec.msgpack.decode(data, type=Manifest)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ManifestError(
            f"the swarm's manifest cannot be read: {error}", "another version of p2ptrain made it; update"
        ) from None
    manifest.check()
    return manifest


def read_settings(type_: Any, settings: Settings, where: str) -> Any:
    """Build a strict settings Struct or dataclass from a manifest's differences.

    Raises:
        ManifestError: an unknown name or a value of the wrong type; names the nearest known one.
    """
    import difflib

    known = [field.name for field in msgspec.inspect.type_info(type_).fields]  # type: ignore[attr-defined]
    for name in settings:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            meant = f"did you mean `{near[0]}`?" if near else f"known are: {', '.join(known) or 'none'}"
            raise ManifestError(f"{where} has no setting `{name}`", meant)
    try:
        return msgspec.convert(settings, type_)
    except msgspec.ValidationError as error:
        raise ManifestError(f"a setting of {where} is wrong: {error}") from None
