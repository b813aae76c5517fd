"""Names for peers: two words made from the key, so that people can tell them apart."""

from p2ptrain.core.types import PeerId

FIRST = """
amber azure birch brisk calm cedar clear coral crisp dawn dusk early ember fair fern fleet
frost gold grand green hazel honey iron ivory jade keen light lilac lunar maple mint misty
"""
SECOND = """
badger bear crane crow deer dove eagle egret falcon finch fox gull hare hawk heron ibex
jay kite koala lark lynx mole moose newt otter owl panda quail raven robin seal swan
"""


def nickname(peer: PeerId) -> str:
    """Return the same two words for the same key, everywhere."""
    first, second = FIRST.split(), SECOND.split()
    return f"{first[peer[0] % len(first)]}-{second[peer[1] % len(second)]}"
