"""Options that say how the training data are divided among peers."""

from collections.abc import Callable
from typing import Any, TypeVar

import click

from p2ptrain.cli.quantities import NATURAL, POSITIVE, SHARE
from p2ptrain.core.manifest import CLASSES, KEEP

_F = TypeVar("_F", bound=Callable[..., Any])

FORMATIONS = ["static", "dynamic", "stochastic", "hybrid"]
NAMES = ("pool", "skew", "balance", "classes", "uneven", "formation", "keep", "disjoint")

_OPTIONS = (
    click.option("--pool", type=NATURAL, default=0, help="Examples that nobody trains on, to decide on."),
    click.option("--skew", type=float, default=0.0, help="Divide classes by Dirichlet(SKEW); 0: evenly."),
    click.option(
        "--balance", type=SHARE, help="Share of each part that has all classes.  [default: all of it]"
    ),
    click.option(
        "--classes", type=POSITIVE, default=CLASSES, help="With --balance: classes of the rest.  [default: 2]"
    ),
    click.option("--uneven", type=float, default=0.0, help="Parts of log-normal size; 0: equal ones."),
    click.option(
        "--formation",
        type=click.Choice(FORMATIONS),
        default="static",
        show_default=True,
        help="Whether parts stay, are divided anew each round, drawn anew, or in part.",
    ),
    click.option("--keep", type=SHARE, default=KEEP, help="Share that hybrid parts keep.  [default: 50%]"),
    click.option("--disjoint", is_flag=True, help="Parts that are drawn have nothing in common."),
)


def division_options(command: _F) -> _F:
    """Add the options; `division` reads them."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def division(options: dict[str, Any]) -> dict[str, Any]:
    """Return the fields of a manifest that these options fill."""
    return {name: options[name] for name in NAMES}
