"""A part in a line of peers: what comes from a neighbour must be of use, or the line is over and says why."""

import time

import msgspec
import pytest
import torch

from p2ptrain.core.effects import Halt, Stage
from p2ptrain.core.errors import WeightsError
from p2ptrain.core.inputs import LearnFailed, Staged
from p2ptrain.core.manifest import Manifest
from p2ptrain.learn.engine import Engine
from p2ptrain.learn.process.strand import HEAD, Strand
from p2ptrain.learn.training import frames
from p2ptrain.learn.training.frames import Backward, Forward
from p2ptrain.learn.training.stage import Part
from p2ptrain.learn.weights import codecs
from p2ptrain.learn.weights.blobs import MemoryBlobs
from p2ptrain.learn.wire import Came, Cut, Side
from p2ptrain.sim.torch_learner import pump, setup_of
from tests.helpers import peer


def engine(number: int = 0, **config: object) -> Engine:
    manifest = Manifest(name="t", task="digits", steps=9, task_config={"dropout": 0.0, **config})
    return Engine(setup_of(manifest, number), MemoryBlobs())


def stage(at: int, steps: int = 3, name: str = "0" * 32) -> Stage:
    """The n-th part of a line of two; the net of digits has two layers."""
    before, after = (None, peer(2)) if at == 0 else (peer(1), None)
    return Stage("s", name, (at, at + 1), before, after, steps, 4, "f32", 5.0, 5.0)


def part(at: int, steps: int = 3, **config: object) -> Part:
    one = engine(at, **config)
    assert one.begin(stage(at, steps)) is None
    assert one.part is not None
    return one.part


def first_frame(head: Part) -> Forward:
    assert head.work()
    side, data = head.outbox.popleft()
    frame = frames.decode(data)
    assert side is Side.AFTER
    assert isinstance(frame, Forward)
    return frame


def test_two_parts_take_all_steps_and_agree_on_the_loss() -> None:
    parts = [part(0), part(1)]
    for _ in range(3):
        assert pump(parts) > 0
    first, last = (one.answer for one in parts)
    assert first is not None
    assert last is not None
    assert (first.taken, first.reason, first.step) == (last.taken, last.reason, last.step) == (3, "", 3)
    assert first.loss == pytest.approx(last.loss, rel=1e-12)


def changed(frame: Forward | Backward, **changes: object) -> bytes:
    return frames.encode(msgspec.structs.replace(frame, **changes))


BAD_FORWARD = {
    "no frame": lambda frame: b"\x00rubbish",
    "out of turn": lambda frame: changed(frame, index=1),
    "of another step": lambda frame: changed(frame, step=1),
    "too many": lambda frame: changed(frame, count=5),
    "of another shape": lambda frame: changed(frame, shape=(*frame.shape[:-1], frame.shape[-1] + 1)),
    "of more dimensions": lambda frame: changed(frame, shape=(1, *frame.shape)),
    "too short": lambda frame: changed(frame, numbers=frame.numbers[:-4]),
    "not finite": lambda frame: changed(frame, numbers=b"\x00\x00\xc0\x7f" * (len(frame.numbers) // 4)),
    "without a batch": lambda frame: changed(frame, batch=b"\xc1"),
    "with an empty batch": lambda frame: changed(frame, batch=b"\x90"),
    "a gradient": lambda frame: frames.encode(Backward(0, 0, 0.0, frame.shape, frame.numbers)),
}


@pytest.mark.attack
@pytest.mark.parametrize("spoil", BAD_FORWARD.values(), ids=BAD_FORWARD)
def test_activations_that_are_of_no_use_end_the_line(spoil) -> None:
    frame, last = first_frame(part(0)), part(1)
    before = last._trainer.vector.flat.clone()
    last.receive(Side.BEFORE, spoil(frame))
    last.work()
    assert last.answer is not None
    assert last.answer.silent == peer(1)
    assert last.answer.taken == 0
    assert torch.equal(last._trainer.vector.flat, before)


@pytest.mark.attack
def test_labels_that_do_not_exist_are_refused() -> None:
    """A CUDA device would be lost with all that it holds."""
    frame, last = first_frame(part(0)), part(1)
    packed = msgspec.msgpack.decode(frame.batch)
    packed[1][2] = (10_000).to_bytes(8, "little") * packed[1][1][0]
    last.receive(Side.BEFORE, changed(frame, batch=msgspec.msgpack.encode(packed)))
    last.work()
    assert last.answer is not None
    assert "out of range" in last.answer.reason


@pytest.mark.attack
@pytest.mark.parametrize(
    "spoil",
    [
        lambda frame: changed(frame, index=3),
        lambda frame: changed(frame, shape=frame.shape[::-1]),
        lambda frame: changed(frame, numbers=b"\x00\x00\xc0\x7f" * (len(frame.numbers) // 4)),
    ],
)
def test_gradients_that_are_of_no_use_end_the_line(spoil) -> None:
    head, last = part(0), part(1)
    last.receive(Side.BEFORE, frames.encode(first_frame(head)))
    last.work()
    back = frames.decode(last.outbox.popleft()[1])
    head.receive(Side.AFTER, spoil(back))
    head.work()
    assert head.answer is not None
    assert head.answer.silent == peer(2)


@pytest.mark.attack
def test_a_neighbour_that_sends_and_sends_is_stopped() -> None:
    last = part(1)
    for _ in range(20):
        last.receive(Side.BEFORE, b"x")
    assert last.answer is not None
    assert last.answer.silent == peer(1)


def test_own_numbers_that_are_not_finite_are_nobody_elses_fault() -> None:
    head = part(0)
    head._trainer.vector.flat.fill_(torch.nan)
    head.work()
    assert head.answer is not None
    assert head.answer.silent is None
    assert "not finite" in head.answer.reason
    assert not head.outbox


def test_its_owner_ends_it_between_micro_batches() -> None:
    one = engine()
    one.begin(stage(0))
    assert one.part is not None
    one.part.work()
    answer = one.begin(Halt())
    assert isinstance(answer, Staged)
    assert (answer.taken, answer.reason) == (0, "stopped by its owner")
    assert one.part is None


@pytest.mark.parametrize("layers", [(0, 2), (1, 1), (-1, 1), (0, 3)])
def test_layers_that_do_not_fit_are_refused(layers: tuple[int, int]) -> None:
    one = Stage("s", "0" * 32, layers, None, peer(2), 3, 4, "f32", 5.0, 5.0)
    assert isinstance(engine().begin(one), LearnFailed)


def test_a_batch_smaller_than_its_pieces_is_cut_into_fewer() -> None:
    parts = [part(0, batch_size=3), part(1, batch_size=3)]
    pump(parts)
    assert [one.taken for one in parts] == [1, 1]


# -- bytes -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [1, 7, 100_000])
def test_frames_go_through_the_pipe_in_any_pieces(size: int) -> None:
    head, last = Strand(part(0)), Strand(part(1))
    until = time.monotonic() + 20
    while (head.part.answer is None or last.part.answer is None) and time.monotonic() < until:
        for one, other, side in ((head, last, Side.BEFORE), (last, head, Side.AFTER)):
            one.part.work()
            for said in one.give():
                if not isinstance(said, Staged):
                    for at in range(0, len(said.data), size):
                        other.take(Came("s", side, said.data[at : at + size]))
    assert head.part.taken == last.part.taken == 3


@pytest.mark.attack
def test_a_frame_that_says_it_is_huge_ends_the_line() -> None:
    last = Strand(part(1))
    last.take(Came("s", Side.BEFORE, HEAD.pack(2**31)))
    assert last.part.answer is not None
    assert last.part.answer.silent == peer(1)


def test_a_cut_ends_the_line_and_says_whose_fault_it_was() -> None:
    for is_at_fault, silent in ((True, peer(1)), (False, None)):
        last = Strand(part(1))
        last.take(Cut("another", Side.BEFORE, "gone", True))
        assert last.part.answer is None
        last.take(Cut("s", Side.BEFORE, "gone", is_at_fault))
        assert last.part.answer is not None
        assert last.part.answer.silent == silent


@pytest.mark.parametrize("codec", ["f32", "bf16", "int8"])
def test_numbers_come_back(codec: str) -> None:
    numbers = torch.randn(5, 7)
    found = codecs.find(codec)
    back = frames.read(frames.write(numbers, found), (5, 7), found, torch.device("cpu"))
    assert torch.allclose(back, numbers, atol=0.05)
    with pytest.raises(WeightsError, match="not finite"):
        frames.write(numbers * torch.inf, found)
