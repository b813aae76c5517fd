"""What each member of a demo reaches alone: the same node, steps and data, in a world without others."""

from concurrent.futures import Future, ProcessPoolExecutor
from multiprocessing import get_context

from msgspec import Struct

from p2ptrain.core.manifest import Manifest, decode_manifest
from p2ptrain.core.types import PeerId

WORKERS = 2


class Alone(Struct, frozen=True):
    """A result on test data, and validation accuracy over steps."""

    loss: float
    accuracy: float | None
    curve: tuple[tuple[int, float], ...]


def start_alone(
    pool: ProcessPoolExecutor, manifest: Manifest, members: list[tuple[PeerId, int]]
) -> list[Future[Alone]]:
    """Begin to train each (peer, slot) alone, in processes of their own."""
    encoded = manifest.encode()
    return [pool.submit(train_alone, encoded, peer, slot) for peer, slot in members]


def make_pool() -> ProcessPoolExecutor:
    """Make the processes; they end with the pool."""
    return ProcessPoolExecutor(WORKERS, get_context("spawn"))


def train_alone(encoded: bytes, peer: PeerId, slot: int) -> Alone:
    """Train one peer alone."""
    from p2ptrain.sim.host import Host
    from p2ptrain.sim.scenario import live_alone, make_setup
    from p2ptrain.sim.torch_learner import TorchLearner, use_one_thread
    from p2ptrain.strategies import load

    use_one_thread()
    manifest = decode_manifest(encoded)
    curve: list[tuple[int, float]] = []

    def watch(host: Host, _: float) -> None:
        view = host.node.view(0.0)
        if view.accuracy is not None and (not curve or view.step > curve[-1][0]):
            curve.append((view.step, view.accuracy))

    setup = make_setup(manifest, load(manifest.strategy), peer, seed=0)
    learner = TorchLearner(manifest, slot)
    live_alone(setup, learner, manifest.steps, watch)
    return Alone(*learner.score(), tuple(curve))
