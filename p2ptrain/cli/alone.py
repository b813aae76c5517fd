"""What each member of a demo reaches alone: the same node, steps and data, in a world without others.

`python -m p2ptrain.cli.alone` trains one of them: it reads `Work` and writes `Alone`.
"""

import subprocess
import sys

import msgspec
from msgspec import Struct

from p2ptrain.core.errors import P2PTrainError
from p2ptrain.core.manifest import Manifest, decode_manifest
from p2ptrain.core.types import PeerId

AT_ONCE = 2


class Work(Struct, frozen=True):
    """Who is to be trained."""

    manifest: bytes
    peer: PeerId
    slot: int


class Alone(Struct, frozen=True):
    """A result on test data, and validation accuracy over steps."""

    loss: float
    accuracy: float | None
    curve: tuple[tuple[int, float], ...]


def train_all(manifest: Manifest, members: list[tuple[PeerId, int]]) -> list[Alone]:
    """Train each (peer, slot) alone, some at a time, in processes that end with this call.

    Raises:
        P2PTrainError: one of them failed.
    """
    work = [Work(manifest.encode(), peer, slot) for peer, slot in members]
    return [one for at in range(0, len(work), AT_ONCE) for one in _train_some(work[at : at + AT_ONCE])]


def _train_some(work: list[Work]) -> list[Alone]:
    running: list[subprocess.Popen[bytes]] = []
    try:
        for one in work:
            process = subprocess.Popen(
                [sys.executable, "-m", "p2ptrain.cli.alone"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                start_new_session=True,  # Ctrl-C is for the demo, which ends them
            )
            running.append(process)
            assert process.stdin is not None
            process.stdin.write(msgspec.msgpack.encode(one))
            process.stdin.close()
        return [_result(process) for process in running]
    finally:
        for process in running:
            with process:
                process.kill()


def _result(process: subprocess.Popen[bytes]) -> Alone:
    assert process.stdout is not None
    try:
        return msgspec.msgpack.decode(process.stdout.read(), type=Alone)
    except msgspec.DecodeError:
        raise P2PTrainError("training alone failed, so there is nothing to compare with") from None


def train(work: Work) -> Alone:
    """Train one peer alone."""
    from p2ptrain.sim.host import Host
    from p2ptrain.sim.scenario import live_alone, make_setup
    from p2ptrain.sim.torch_learner import TorchLearner, use_one_thread
    from p2ptrain.strategies import load

    use_one_thread()
    manifest = decode_manifest(work.manifest)
    curve: list[tuple[int, float]] = []

    def watch(host: Host, _: float) -> None:
        view = host.node.view(0.0)
        if view.accuracy is not None and (not curve or view.step > curve[-1][0]):
            curve.append((view.step, view.accuracy))

    setup = make_setup(manifest, load(manifest.strategy), work.peer, seed=0)
    learner = TorchLearner(manifest, work.slot)
    live_alone(setup, learner, manifest.steps, watch)
    return Alone(*learner.score(), tuple(curve))


def main() -> None:
    """Do one piece of work; without any, whoever asked is gone."""
    data = sys.stdin.buffer.read()
    if data:
        answer = train(msgspec.msgpack.decode(data, type=Work))
        sys.stdout.buffer.write(msgspec.msgpack.encode(answer))


if __name__ == "__main__":
    main()
